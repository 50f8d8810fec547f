"""``pgstow init --wizard URL``: a first settings file."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from pgstow.cli.command import Invocation
from pgstow.cli.formats import plural, safe
from pgstow.cli.output import Outcome
from pgstow.config.finding import FILE_NAME

__all__ = ["OutputOption", "WizardOption", "wizard_outcome"]

_PANEL = "First settings file"
_LOCATION = "/var/backups/pgstow"

WizardOption = Annotated[
    str | None,
    typer.Option(
        "--wizard",
        metavar="URL",
        help="Make no repository, but write a settings file for this database: it is looked at and not changed.",
        rich_help_panel=_PANEL,
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        help=f"Where the settings file is written to, {FILE_NAME} unless said otherwise. No file is overwritten.",
        rich_help_panel=_PANEL,
    ),
]


def wizard_outcome(invocation: Invocation, url: str, output: Path | None) -> Outcome:
    """Write the settings file and return what to say about it."""
    # Imported here because pydantic and the reader of YAML take a third of a second that init alone does not need.
    from pgstow.app.wizard import write_first_file  # noqa: PLC0415
    from pgstow.config.first_file import URL_VARIABLE  # noqa: PLC0415

    conninfo = invocation.connection(url, variable="PGSTOW_SOURCE", what="database")
    location = invocation.location or _LOCATION
    if "://" not in location and not location.startswith("~"):
        location = os.path.abspath(location)  # noqa: PTH100  links stay as they were written
    report = write_first_file(conninfo, location=location, output=output or Path(FILE_NAME))
    file = shlex.quote(str(report.file))
    repository = "local" if "://" not in location or location.startswith("file:") else "offsite"
    password = shlex.quote(str(report.file.parent / "repository-password"))
    steps = [
        f"read {file} through: critical tables and times are guesses",
        f"export {URL_VARIABLE}='postgresql://USER:PASSWORD@HOST:PORT/DATABASE'  # the URL given here",
        f"(umask 077; head -c 32 /dev/urandom | base64 > {password})  # and keep a copy elsewhere",
        f"pgstow config check --resolve {file}",
        f"pgstow init --repo {repository} --config {file}",
    ]

    def view() -> Iterator[RenderableType]:
        yield Text.assemble(
            ("wrote ", "green"), (safe(str(report.file)), "bold"), f" for {safe(report.database)}: "
        )
        yield Text(
            f"  looked at {plural(report.tables, 'table')}{' of a Supabase project' if report.is_supabase else ''}"
        )
        yield Text(f"  critical, a guess: {safe(', '.join(report.critical)) or 'none'}")
        yield Text(f"  must contain: {safe(', '.join(report.must_contain)) or 'nothing in particular'}")
        yield Text("next", style="bold")
        for step in steps:
            yield Text(f"  {safe(step)}")

    return Outcome(
        document={
            "wizard": {
                "file": str(report.file),
                "database": report.database,
                "location": report.location,
                "supabase": report.is_supabase,
                "looked_at": report.tables,
                "critical": list(report.critical),
                "must_contain": list(report.must_contain),
                "variables": [URL_VARIABLE],
                "next_commands": steps,
            }
        },
        view=list(view()),
    )
