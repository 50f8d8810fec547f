"""``pgstow alerts check``"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from pgstow.app.alerts import CheckReport, check_alerts
from pgstow.cli.alerts_view import (
    alert_documents,
    alerts_table,
    delivery_document,
    delivery_lines,
    history_of,
)
from pgstow.cli.command import Invocation
from pgstow.cli.formats import plural
from pgstow.cli.output import Outcome, Output

__all__ = ["alerts_check_command"]


def alerts_check_command(invocation: Invocation) -> Outcome:
    """Evaluate the rules now, and tell whoever is to be told: for cron, where pgstow serve does not run.

    Exits with 0 when everybody was told, whether anything is wrong or not; with 3 when a channel does not deliver
    or there is no channel to tell of an open alert; with 1 when it could not be evaluated. pgstow status --check is the
    command whose exit code says whether all is well.
    """
    settings = invocation.settings()
    with history_of(invocation, settings) as history, invocation.output.progress() as progress:
        report = check_alerts(settings, invocation.environ, history, note=progress.note)
    assert report is not None
    return Outcome(
        status="done" if report.is_told else "partial",
        document={
            "outdated": report.is_outdated,
            "alerts": alert_documents(report.open_alerts, report.refused, invocation.output),
            "undecided": sorted(report.evaluation.undecided),
            "deliveries": [delivery_document(each, invocation.output) for each in report.deliveries],
        },
        view=list(_view(report, invocation.output)),
    )


def _view(report: CheckReport, output: Output) -> Iterator[RenderableType]:
    if report.open_alerts:
        yield alerts_table(report.open_alerts, report.refused, output)
    yield from delivery_lines(report.deliveries, output)
    if report.untold:
        yield Text("nobody is told: there are no channels in the settings", style="bold red")
    if report.is_outdated:
        yield Text("another host evaluated later facts meanwhile: theirs count", style="dim")
    pending = f", {plural(report.pending, 'finding')} to be seen once more" if report.pending else ""
    yield Text(plural(len(report.open_alerts), "open alert") + pending, style="dim")
