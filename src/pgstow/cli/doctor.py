"""``pgstow doctor``"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from pgstow.app.doctor import diagnose
from pgstow.app.findings import DoctorReport, Level
from pgstow.app.opening import open_for_check
from pgstow.cli.command import Invocation
from pgstow.cli.findings_view import finding_document, findings_table
from pgstow.cli.formats import plural
from pgstow.cli.output import Outcome

__all__ = ["doctor_command"]


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
            "findings": [finding_document(finding, invocation.output) for finding in report.findings],
        },
        view=list(_view(report, invocation)),
    )


def _view(report: DoctorReport, invocation: Invocation) -> Iterator[RenderableType]:
    yield findings_table(report.findings, invocation.output)
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
