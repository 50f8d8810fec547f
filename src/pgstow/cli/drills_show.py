"""``pgstow drills show``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from pgstow.app.drill_records import publish_kept_drills
from pgstow.catalog.drills import find_drill, read_drills
from pgstow.cli.command import Invocation
from pgstow.cli.drill_view import ReportFormat, drill_document, drill_lines, rendered, write_report
from pgstow.cli.formats import safe
from pgstow.cli.output import Outcome
from pgstow.core.errors import RepositoryDamaged, UsageError
from pgstow.state.folder import state_folder

__all__ = ["drills_show_command"]


def drills_show_command(
    invocation: Invocation,
    drill: Annotated[str, typer.Argument(metavar="DRILL", help="Id or the beginning of one, or latest.")],
    report_format: Annotated[
        ReportFormat | None,
        typer.Option("--format", "-F", help="The whole report, instead of a few lines."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write the report there; an earlier one is replaced."
        ),
    ] = None,
) -> Outcome:
    """Show what a restore drill found, or write its report."""
    form = report_format or _format_of(output)
    if form is not None and output is None and invocation.output.as_json:
        raise UsageError(
            "--json and --format both want standard output", hint="write the report to a file with --output"
        )
    damaged: list[RepositoryDamaged] = []
    with invocation.output.progress() as progress:
        repository = invocation.repository(progress, is_cached=True, without_config=True)
        waiting = publish_kept_drills(repository, state_folder(invocation.environ), progress.note)
        drills = read_drills(repository, damaged=damaged)
    for exc in damaged:
        invocation.output.warn(exc.message)
    ids = {one.id for one in drills}
    drills = sorted(
        [*drills, *(one for one in waiting if one.id not in ids)], key=lambda one: (one.started, one.id)
    )
    record = find_drill(drills, drill)
    document = {"drill": drill_document(record), "output": str(output) if output is not None else None}
    if form is None:
        return Outcome(document=document, view=list(drill_lines(record)))
    if output is None:
        invocation.output.stdout.write(rendered(record, form))
        return Outcome(document=document, is_silent=True)
    write_report(record, output, form)
    return Outcome(document=document, view=[Text.assemble(("wrote ", "green"), safe(str(output)))])


def _format_of(output: Path | None) -> ReportFormat | None:
    """Return the format that the file's name asks for, Markdown if it asks for none; None without a file."""
    if output is None:
        return None
    suffix = output.suffix.lower().removeprefix(".")
    return ReportFormat(suffix) if suffix in list(ReportFormat) else ReportFormat.MARKDOWN
