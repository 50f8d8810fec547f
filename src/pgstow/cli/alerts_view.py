"""Alerts, silences and deliveries as the commands show them: as documents, and as lines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from pgstow.app.alerts import Delivery
from pgstow.app.observation import History, opened_history
from pgstow.cli.command import Invocation
from pgstow.cli.formats import safe, time_text
from pgstow.cli.output import Output
from pgstow.config.settings import Settings
from pgstow.monitor.findings import Severity, id_of
from pgstow.state.alerts import Alert, Silence

__all__ = [
    "alert_document",
    "alert_documents",
    "alerts_table",
    "delivery_document",
    "delivery_lines",
    "history_of",
    "silence_document",
]

_MARKS = {
    Severity.WARNING.value: Text("warning", style="yellow"),
    Severity.CRITICAL.value: Text("critical", style="bold red"),
}


@contextlib.contextmanager
def history_of(invocation: Invocation, settings: Settings) -> Iterator[History]:
    """Give the state database of the settings for a block."""
    with opened_history(settings, invocation.environ) as history:
        yield history


def alert_document(alert: Alert, output: Output) -> dict[str, Any]:
    """Return an alert as it appears in JSON documents."""
    return {
        "id": id_of(alert.fingerprint),
        "fingerprint": alert.fingerprint,
        "rule": alert.rule,
        "subject": alert.subject,
        "severity": alert.severity,
        "message": output.scrub(alert.message),
        "hint": output.scrub(alert.hint),
        "since": _time(alert.since),
        "opened": _time(alert.opened),
        "closed": _time(alert.closed),
        "acknowledged": _time(alert.acknowledged),
        "acknowledged_by": alert.acknowledged_by,
        "silenced": alert.is_silenced,
        "inhibited": alert.is_inhibited,
        "told": sorted(alert.told),
    }


def alert_documents(
    alerts: Sequence[Alert], refused: Mapping[str, Sequence[str]], output: Output
) -> list[dict[str, Any]]:
    """Return alerts as they appear in JSON documents, with the channels that did not take the last message about each."""
    return [
        {**alert_document(alert, output), "refused_by": sorted(refused.get(alert.fingerprint, ()))}
        for alert in alerts
    ]


def silence_document(silence: Silence) -> dict[str, Any]:
    """Return a silence as it appears in JSON documents."""
    return {
        "pattern": silence.pattern,
        "until": _time(silence.until),
        "by": silence.by,
        "reason": silence.reason,
    }


def delivery_document(delivery: Delivery, output: Output) -> dict[str, Any]:
    """Return what became of a message as it appears in JSON documents."""
    return {
        "channel": delivery.channel,
        "title": delivery.title,
        "message": None if delivery.error is None else output.scrub(delivery.error),
        "delivered": delivery.error is None,
    }


def delivery_lines(deliveries: Sequence[Delivery], output: Output) -> Iterator[RenderableType]:
    """Yield a line for each message that was sent, or was not."""
    for delivery in deliveries:
        if delivery.error is None:
            yield Text.assemble(("sent ", "green"), f"to {safe(delivery.channel)}: {safe(delivery.title)}")
        else:
            why = safe(output.scrub(delivery.error))
            yield Text.assemble(
                ("not sent ", "bold red"), f"to {safe(delivery.channel)}: {safe(delivery.title)}: {why}"
            )


def alerts_table(alerts: Sequence[Alert], refused: Mapping[str, Sequence[str]], output: Output) -> Table:
    """Return alerts for people, the worst last, where a terminal leaves the eye."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for alert in sorted(alerts, key=lambda each: (Severity(each.severity).rank, each.fingerprint)):
        text = Text(safe(output.scrub(alert.message)))
        text.append(f"\n{'; '.join(_remarks(alert, refused.get(alert.fingerprint, ())))}", style="dim")
        text.append(f"\n{safe(output.scrub(alert.hint))}", style="dim")
        table.add_row(id_of(alert.fingerprint), _MARKS.get(alert.severity, Text(alert.severity)), text)
    return table


def _remarks(alert: Alert, refused: Sequence[str]) -> Iterator[str]:
    yield safe(alert.fingerprint)
    if alert.closed is not None:
        yield f"over since {time_text(alert.closed)}"
    elif alert.opened is not None:
        yield f"open since {time_text(alert.opened)}"
    else:
        yield "seen, but not for long enough to be an alert"
    if alert.acknowledged is not None:
        yield f"acknowledged by {safe(alert.acknowledged_by or 'somebody')}"
    if alert.is_silenced:
        yield "silenced"
    if alert.is_inhibited:
        yield "a consequence of another alert"
    if alert.told:
        yield f"{'to be told' if refused else 'told'}: {safe(', '.join(sorted(alert.told)))}"
    if refused:
        yield f"not taken by {safe(', '.join(sorted(refused)))}"


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
