"""``pgstow doctor``"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from pgstow.app.doctor import diagnose
from pgstow.app.findings import DoctorReport, Finding, Level
from pgstow.app.opening import open_for_check
from pgstow.cli.command import Invocation
from pgstow.cli.formats import plural, safe
from pgstow.cli.output import Outcome

__all__ = ["doctor_command"]

_MARKS = {
    Level.OK: Text("ok", style="green"),
    Level.WARNING: Text("warning", style="yellow"),
    Level.PROBLEM: Text("problem", style="bold red"),
    Level.UNKNOWN: Text("unknown", style="magenta"),
}


def doctor_command(
    invocation: Invocation,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="URL", help="postgresql://..., key=value pairs, or service=NAME. Or PGSTOW_SOURCE."
        ),
    ] = None,
) -> Outcome:
    """Say whether a backup of a database would work, and what it would miss.

    Changes nothing; a tiny object is written to the repository and removed again. Exits with 0 when a backup would work and with 1 when it would not.
    """
    conninfo = invocation.connection(source, variable="PGSTOW_SOURCE", what="database")
    note = invocation.output.note
    password = invocation.optional_password() if invocation.location else None
    repository = (
        open_for_check(invocation.location, password, invocation.environ, on_retry=note)
        if invocation.location
        else None
    )
    report = diagnose(conninfo, tools=invocation.tools(), repository=repository)
    return Outcome(
        status="done" if report.would_work else "failed",
        document={
            "source": report.source,
            "would_work": report.would_work,
            "counts": {level.value: report.count(level) for level in Level},
            "findings": [_document(finding, invocation) for finding in report.findings],
        },
        view=list(_view(report, invocation)),
    )


def _document(finding: Finding, invocation: Invocation) -> dict[str, object]:
    scrub = invocation.output.scrub
    return {
        "code": finding.code,
        "level": finding.level.value,
        "text": scrub(finding.text),
        "remedy": scrub(finding.remedy) if finding.remedy else None,
        "names": list(finding.names),
    }


def _view(report: DoctorReport, invocation: Invocation) -> Iterator[RenderableType]:
    scrub = invocation.output.scrub
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for level in (
        Level.OK,
        Level.UNKNOWN,
        Level.WARNING,
        Level.PROBLEM,
    ):  # what matters most stands last, next to the verdict
        for finding in report.findings:
            if finding.level is level:
                text = Text(safe(scrub(finding.text)))
                if finding.remedy and level is not Level.OK:
                    text.append(f"\n{safe(scrub(finding.remedy))}", style="dim")
                table.add_row(_MARKS[level], text)
    yield table
    yield Text()
    tail = [
        plural(report.count(Level.WARNING), "warning"),
        f"{report.count(Level.UNKNOWN)} unknown",
    ]
    if report.would_work:
        yield Text.assemble(("a backup would work", "bold green"), f" ({', '.join(tail)})")
    else:
        problems = plural(report.count(Level.PROBLEM), "problem")
        yield Text.assemble(("a backup would not work", "bold red"), f" ({', '.join([problems, *tail])})")
