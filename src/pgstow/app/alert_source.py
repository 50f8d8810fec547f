"""What status, metrics and checklists are told of alerts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from pgstow.monitor.facts import AlertFacts
from pgstow.monitor.subjects import database_of
from pgstow.state.alerts import AlertBook
from pgstow.state.database import StateDatabase

__all__ = ["StateAlerts"]

_LATELY = timedelta(hours=26)  # even who evaluates once a day has done so
_CLOCKS_APART = timedelta(hours=1)  # further ahead a clock was wrong, and nothing is known


class StateAlerts:
    """The alerts of a state database, for ``History.alerts``."""

    def __init__(self, state: StateDatabase, *, channels: Sequence[str]) -> None:
        self._book = AlertBook(state)
        self._channels = channels

    def open_alerts(self, now: datetime) -> tuple[AlertFacts, ...] | None:
        """Return the alerts that are open; None where nobody looked lately, so that none says nothing."""
        evaluated = self._book.last_evaluation()
        if evaluated is None or not -_CLOCKS_APART <= now - evaluated <= _LATELY:
            return None
        return tuple(
            AlertFacts(
                fingerprint=alert.fingerprint,
                rule=alert.rule,
                severity=alert.severity,
                subject=alert.subject,
                message=alert.message,
                since=alert.since or alert.first_seen,
                database=database_of(alert.rule, alert.subject),
                is_acknowledged=alert.acknowledged is not None,
            )
            for alert in self._book.alerts()
            if alert.is_open
        )

    def last_acknowledged(self) -> datetime | None:
        """Return since when a test message of every channel has been acknowledged; None if one never was."""
        acknowledged = {
            each.channel: each.acknowledged for each in self._book.canaries() if each.acknowledged
        }
        moments = [acknowledged.get(channel) for channel in self._channels]
        known = [moment for moment in moments if moment is not None]
        return min(known) if known and len(known) == len(moments) else None
