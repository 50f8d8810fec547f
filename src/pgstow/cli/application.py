"""The command line as a whole: which commands there are, and what happens when one cannot be understood."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Annotated

import typer

from pgstow import __version__
from pgstow.cli.argv import Arguments
from pgstow.cli.command import as_command
from pgstow.cli.output import Output
from pgstow.core.errors import UsageError

__all__ = ["COMMANDS", "build", "run"]

EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partly done, 10 no repository, 11 repository locked, "
    "12 wrong password, 130 interrupted."
)

# Each is a module of this package with a function of its name: "init" is init_command in pgstow.cli.init.
COMMANDS = ("init", "backup", "list", "show", "restore", "verify", "export", "doctor", "demo")

# What an interruption leaves behind, told after "interrupted by SIGINT".
_LEFT_BEHIND: Mapping[str, str] = MappingProxyType(
    {
        "backup": "nothing was published",
        "restore": "the target may hold a part of the backup",
        "export": "what was written so far is not a whole archive",
        "demo": "nothing was left running",
    }
)


def run(arguments: Arguments) -> int:
    """Run one command and return the exit status."""
    commands = tuple(text for text in arguments.texts[:1] if text in COMMANDS) or COMMANDS
    try:
        code = build(commands, had_secrets=arguments.had_secrets)(
            args=list(arguments.texts), prog_name="pgstow", standalone_mode=False
        )
    except typer.TyperException as exc:
        return _misunderstood(arguments.texts, exc)
    except typer.Abort:
        return 130
    return code if isinstance(code, int) else 0


def build(commands: Sequence[str] = COMMANDS, *, had_secrets: bool = False) -> typer.Typer:
    """Return the typer application with these commands. Only their modules are loaded, which is felt in scripts."""
    app = typer.Typer(
        name="pgstow",
        help="PostgreSQL backups that are proven by restore.",
        epilog=EXIT_CODES,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_top)
    for name in commands:
        command = as_command(
            getattr(import_module(f"pgstow.cli.{name}"), f"{name}_command"),
            name=name,
            uses_repository=name != "demo",
            when_interrupted=_LEFT_BEHIND.get(name),
            had_secrets=had_secrets,
        )
        app.command(name, epilog=EXIT_CODES)(command)
    return app


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"pgstow {__version__}")
        raise typer.Exit


def _top(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001  its callback does the work
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        with contextlib.redirect_stdout(sys.stderr):  # typer draws help itself, on stdout
            context.get_help()
        raise typer.Exit(UsageError.exit_code)


def _misunderstood(texts: Sequence[str], exc: typer.TyperException) -> int:
    """Tell that the arguments make no sense, in the form the user seems to want."""
    command = next((text for text in texts if text in COMMANDS), "")
    options = texts[: texts.index("--")] if "--" in texts else texts
    output = Output(command=command, as_json="--json" in options, debug=os.environ.get("PGSTOW_DEBUG") == "1")
    message = exc.format_message().rstrip(".")
    help_of = f"pgstow {command} --help" if command else "pgstow --help"
    output.error(UsageError(message[:1].lower() + message[1:], hint=f"{help_of} shows what there is"))
    output.flush()
    return UsageError.exit_code
