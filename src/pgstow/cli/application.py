"""The command line as a whole: which commands there are, and what happens when one cannot be understood."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from keyword import iskeyword
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperCommand, TyperGroup

from pgstow import __version__
from pgstow.cli.argv import Arguments
from pgstow.cli.command import as_command
from pgstow.cli.output import Output
from pgstow.core.errors import PgstowError, UsageError

if TYPE_CHECKING:
    from typer._click.core import Context, Parameter

__all__ = ["COMMANDS", "build", "run"]

EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partly done, 10 no repository, 11 repository locked, "
    "12 wrong password, 130 interrupted."
)

# Each is a module of this package with a function of its name: "init" is init_command in pgstow.cli.init, and
# "repo prune" is repo_prune_command in pgstow.cli.repo_prune. "import", a word of Python's, is in import_.
# `pgstow --help` shows them in this order, in these panels.
_PANELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Backups": (
            "init",
            "doctor",
            "backup",
            "import",
            "list",
            "show",
            "restore",
            "export",
            "demo",
        ),
        "Proof": (
            "drill",
            "drills list",
            "drills show",
            "verify",
            "audit list",
            "audit verify",
            "audit export",
            "audit anchor",
            "audit enroll",
            "audit revoke",
            "audit admin-key",
            "evidence report",
            "evidence verify",
            "evidence attest",
        ),
        "By the settings file": (
            "run",
            "serve",
            "config check",
            "config show",
            "config schema",
            "service install",
            "service show",
            "service uninstall",
        ),
        "Watching": (
            "status",
            "checklist",
            "metrics",
            "alerts list",
            "alerts check",
            "alerts ack",
            "alerts silence",
            "alerts test",
        ),
        "What is kept, and the repository": (
            "hold",
            "release",
            "retire",
            "retention plan",
            "retention apply",
            "repo stats",
            "repo check",
            "repo prune",
            "repo copy",
            "repo rekey",
            "repo repair",
            "repo unlock",
            "keys list",
            "keys test",
            "keys add",
            "keys remove",
            "keys passwd",
        ),
    }
)
COMMANDS = tuple(name for names in _PANELS.values() for name in names)

_GROUPS: Mapping[str, str] = MappingProxyType(
    {
        "drills": "What restore drills have found: list them, show one.",
        "repo": "Look after a repository: check, prune, copy, repair.",
        "keys": "The passwords that open a repository.",
        "config": "The settings file pgstow.yaml: check it, show what it says.",
        "service": "Run by systemd: write, show and remove its units.",
        "retention": "Which backups are kept, and removing the others.",
        "alerts": "What is wrong, and who is told.",
        "evidence": "Judge the controls over a period, with what shows it; check such a bundle elsewhere; attest.",
        "audit": "Who did what with a repository: list it, check it, write it out.",
    }
)

# Commands, by their first word, that take no --repo: they need no repository, or those of the settings.
_WITHOUT_REPOSITORY = frozenset(
    {"alerts", "checklist", "config", "demo", "evidence", "metrics", "run", "serve", "service"}
)
_NONE_OF_THE_GROUP = frozenset({"audit admin-key"})  # nor do these, though others of their group do
_WITHOUT_SETTINGS = frozenset(
    {"demo", "config schema", "evidence verify", "service uninstall", "audit admin-key"}
)  # these take no --config

# What an interruption leaves behind, told after "interrupted by SIGINT".
_LEFT_BEHIND: Mapping[str, str] = MappingProxyType(
    {
        "backup": "nothing was published",
        "restore": "the target may hold a part of the backup",
        "export": "what was written so far is not a whole archive",
        "drill": "no drill had begun",
        "import": "nothing was published",
        "demo": "nothing was left running",
        "run": "the run is written down as interrupted; nothing was published by it",
        "repo prune": "every backup is whole, and the next prune goes on from here",
        "keys add": "pgstow keys list shows whether the new password was added",
        "keys passwd": "both passwords may open the repository now; pgstow keys list shows its keys",
        "repo copy": "what was copied so far is kept, and the same command goes on from there",
        "repo rekey": "what was copied so far is kept, and the same command goes on from there; the old repository is needed",
        "alerts check": "what could not be told is told by the next one",
        "evidence report": "the bundle is whole, or not there",
        "evidence attest": "pgstow audit list --action 'evidence attest' shows where it was stored",
        "repo repair": "nothing that can be read was lost; run it again to finish",
        "service install": "every unit is whole, the old or the new one; run it again to finish",
        "service uninstall": "run it again to finish",
        "retention apply": "some of what expired may be gone already, and the next run goes on from here",
        "hold": "pgstow list shows whether the backup is held",
        "release": "pgstow list shows whether the backup is still held",
        "audit export": "no file was written",
        "audit enroll": "pgstow audit verify shows whether the host is enrolled",
        "audit revoke": "pgstow audit verify shows whether the key is revoked",
        "retire": "pgstow retention plan shows whether it is retired",
    }
)


class _Command(TyperCommand):
    """A command whose help says of an option or argument what pgstow says of it, and not which type of Python's it is."""

    def get_params(self, ctx: Context) -> list[Parameter]:
        return _without_types(super().get_params(ctx))


class _Group(TyperGroup):
    """The same for a group of commands."""

    def get_params(self, ctx: Context) -> list[Parameter]:
        return _without_types(super().get_params(ctx))


def _without_types(parameters: list[Parameter]) -> list[Parameter]:
    for parameter in parameters:
        if parameter.metavar is not None or getattr(parameter, "is_flag", False):
            vars(parameter)["display_type"] = lambda _context: ""  # it would be <bool>, <str>, <list[str]>
    return parameters


def run(arguments: Arguments) -> int:
    """Run one command and return the exit status."""
    name = _named(arguments.texts)
    commands = () if list(arguments.texts) == ["--version"] else (name,) if name else COMMANDS
    try:
        code = build(commands, had_secrets=arguments.had_secrets)(
            args=list(arguments.texts), prog_name="pgstow", standalone_mode=False
        )
    except typer.TyperException as exc:
        return _misunderstood(arguments.texts, exc)
    except typer.Abort:
        return 130
    except OSError as exc:  # of help and version: the frame of commands deals with its own
        return _unwritten(exc)
    return code if isinstance(code, int) else 0


def _named(texts: Sequence[str]) -> str:
    """Return the command that the arguments begin with, or "" if they begin with none."""
    return next((name for words in (1, 2) if (name := " ".join(texts[:words])) in COMMANDS), "")


def build(commands: Sequence[str] = COMMANDS, *, had_secrets: bool = False) -> typer.Typer:
    """Return the typer application with these commands. Only their modules are loaded, which is felt in scripts."""
    app = typer.Typer(
        name="pgstow",
        cls=_Group,
        help="PostgreSQL backups that are proven by restore.",
        epilog=EXIT_CODES,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_top)
    groups = {
        group: _add_group(app, group)
        for group in dict.fromkeys(name.split()[0] for name in commands)
        if group in _GROUPS
    }
    for name in commands:
        module = name.replace(" ", "_").replace("-", "_")
        file = f"{module}_" if iskeyword(module) else module
        command = as_command(
            getattr(import_module(f"pgstow.cli.{file}"), f"{module}_command"),
            name=name,
            uses_repository=name.split()[0] not in _WITHOUT_REPOSITORY and name not in _NONE_OF_THE_GROUP,
            uses_settings=name not in _WITHOUT_SETTINGS,
            when_interrupted=_LEFT_BEHIND.get(name),
            had_secrets=had_secrets,
        )
        *group, own = name.split()
        if group:
            groups[group[0]].command(own, cls=_Command, epilog=EXIT_CODES)(command)
        else:
            app.command(own, cls=_Command, epilog=EXIT_CODES, rich_help_panel=_panel(name))(command)
    return app


def _add_group(app: typer.Typer, name: str) -> typer.Typer:
    group = typer.Typer(cls=_Group, help=_GROUPS[name], epilog=EXIT_CODES, rich_markup_mode="markdown")
    group.callback(invoke_without_command=True)(_help_alone)
    app.add_typer(group, name=name, rich_help_panel=_panel(name))
    return group


def _panel(word: str) -> str:
    """Return the panel of a command or group."""
    return next(panel for panel, names in _PANELS.items() if any(name.split()[0] == word for name in names))


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"pgstow {__version__}")
        raise typer.Exit


def _help_alone(context: typer.Context) -> None:
    """Show what there is where no command was named, and say by the exit status that nothing was done."""
    if context.invoked_subcommand is None:
        with contextlib.redirect_stdout(sys.stderr):  # typer draws help itself, on stdout
            context.get_help()
        raise typer.Exit(UsageError.exit_code)


def _top(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001  its callback does the work
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    _help_alone(context)


def _unwritten(exc: OSError) -> int:
    """Tell that help or version could not be written."""
    output = Output(command="")
    output.error(PgstowError(f"standard output cannot be written to: {exc.strerror}"))
    output.flush()
    return PgstowError.exit_code


def _misunderstood(texts: Sequence[str], exc: typer.TyperException) -> int:
    """Tell that the arguments make no sense, in the form the user seems to want."""
    command = _named(texts) or next((text for text in texts if text in COMMANDS or text in _GROUPS), "")
    options = texts[: texts.index("--")] if "--" in texts else texts
    output = Output(command=command, as_json="--json" in options, debug=os.environ.get("PGSTOW_DEBUG") == "1")
    message = (
        " ".join(exc.format_message().split()).rstrip(".").replace(": Value error, ", ": ")
    )  # added on the way
    help_of = f"pgstow {command} --help" if command else "pgstow --help"
    output.error(UsageError(message[:1].lower() + message[1:], hint=f"{help_of} shows what there is"))
    output.flush()
    return UsageError.exit_code
