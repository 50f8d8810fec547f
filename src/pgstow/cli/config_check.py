"""``pgstow config check``"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from pgstow.cli.command import Invocation
from pgstow.cli.formats import plural, safe
from pgstow.cli.output import Outcome, Output
from pgstow.config.connections import connection_of, drill_server_of
from pgstow.config.finding import require_settings_file
from pgstow.config.reading import Reading, try_settings
from pgstow.config.references import Reference
from pgstow.config.settings import Settings
from pgstow.core.errors import Interrupted, PgstowError, UsageError
from pgstow.monitor.channels import AppriseChannel

__all__ = ["config_check_command"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resolved:
    """One reference that was looked up; ``message`` says why it cannot be had."""

    reference: Reference
    message: str | None

    def document(self) -> dict[str, Any]:
        return {
            "where": self.reference.where,
            "reference": str(self.reference),
            "found": self.message is None,
            "message": self.message,
        }


def config_check_command(
    invocation: Invocation,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The settings file; as --config.")
    ] = None,
    resolve: Annotated[
        bool,
        typer.Option(
            "--resolve", help="Look up every reference to a secret too: variables, files, commands."
        ),
    ] = False,
) -> Outcome:
    """Say what is wrong with the settings file: every error with its line and column.

    Exits with 0 when it is right, and with 1 when it is not or, with --resolve, a secret cannot be had.
    """
    if file is not None and invocation.config_file is not None:
        raise UsageError("FILE and --config cannot both be given")
    path = require_settings_file(file or invocation.config_file, invocation.environ)
    reading = try_settings(path)
    settings = reading.settings
    resolved = [*_resolved(settings, invocation)] if resolve and settings is not None else []
    unsafe = [
        f"{each.where}: {text}"
        for each in (settings.references() if settings else ())
        if (text := each.warning())
    ]
    is_valid = settings is not None and all(each.message is None for each in resolved)
    return Outcome(
        status="done" if is_valid else "failed",
        document={
            "file": str(path),
            "valid": is_valid,
            "errors": [problem.document() for problem in reading.errors],
            "warnings": [problem.document() for problem in reading.warnings],
            "unsafe": unsafe,
            "resolved": [each.document() for each in resolved] if resolve else None,
        },
        view=list(_view(path, reading, resolved, unsafe)),
    )


def _resolved(settings: Settings, invocation: Invocation) -> Iterator[_Resolved]:
    """Look up every reference that is not plain text; connection strings and addresses of channels must also be such."""
    for reference in settings.references():
        if not reference.is_plain:
            message = _trouble(reference, invocation)
            yield _Resolved(reference=reference, message=message)
    for database in settings.databases.values():
        if not database.url.is_plain and _trouble(database.url, invocation) is None:
            try:
                connection_of(database, invocation.environ)
            except UsageError as exc:
                yield _Resolved(reference=database.url, message=invocation.output.scrub(str(exc)))
    for plan in settings.plans.values():
        server = plan.drill.server
        if server is not None and not server.is_plain and _trouble(server, invocation) is None:
            try:
                drill_server_of(plan.drill, invocation.environ)
            except UsageError as exc:
                yield _Resolved(reference=server, message=invocation.output.scrub(str(exc)))
    for channel in settings.channels.values():
        if _trouble(channel.url, invocation) is None:
            problem = AppriseChannel(channel.name, channel.url.resolve(invocation.environ)).problem()
            if problem is not None:
                message = invocation.output.scrub(f"channels.{channel.name}: {problem}")
                yield _Resolved(reference=channel.url, message=message)


def _trouble(reference: Reference, invocation: Invocation) -> str | None:
    """Return why a reference cannot be resolved; None when it can, its secret concealed from all output."""
    output: Output = invocation.output
    try:
        secret = reference.resolve(invocation.environ)
    except Interrupted:
        raise
    except PgstowError as exc:
        return output.scrub(str(exc))
    output.conceal(secret.reveal())
    return None


def _view(
    path: Path, reading: Reading, resolved: Sequence[_Resolved], unsafe: Sequence[str]
) -> Iterator[RenderableType]:
    for problem in reading.errors:
        yield Text(safe(problem.text(path)))
    for problem in reading.warnings:
        yield Text.assemble(("warning: ", "yellow"), safe(problem.text(path)))
    for line in unsafe:
        yield Text.assemble(("warning: ", "yellow"), safe(line))
    missing = [each for each in resolved if each.message is not None]
    for each in missing:
        yield Text.assemble(("cannot be had: ", "bold red"), safe(each.message or ""))
    settings = reading.settings
    if settings is None:
        yield Text.assemble((plural(len(reading.errors), "error"), "bold red"), f" in {safe(str(path))}")
        return
    holds = ", ".join(
        (
            plural(len(settings.databases), "database"),
            plural(len(settings.repositories), "repository", "repositories"),
            plural(len(settings.plans), "plan"),
        )
    )
    verdict = (
        ("ok", "bold green")
        if not missing
        else ("the file is right, but not all it refers to is there", "bold red")
    )
    found = f"; {plural(len(resolved) - len(missing), 'secret')} found" if resolved else ""
    yield Text.assemble(verdict, f": {safe(str(path))}: {holds}{found}")
