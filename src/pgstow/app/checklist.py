"""The use case: look at everything a checklist asks for, and judge it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from pgstow.app.observation import History, observe, opened_history
from pgstow.app.status import refuse_unknown_databases
from pgstow.config.settings import Settings
from pgstow.core.errors import StateError
from pgstow.monitor.checklists import Canary, Checklist, ChecklistFacts, Period, checklist
from pgstow.monitor.verdict import judge

__all__ = ["run_checklist"]


def run_checklist(
    period: Period,
    settings: Settings,
    environ: Mapping[str, str],
    *,
    now: datetime,
    databases: Sequence[str],
    note: Callable[[str], None],
    conceal: Callable[[str], None],
) -> Checklist:
    """Return a checklist of the databases of the settings; those named, or all."""
    refuse_unknown_databases(settings, databases)
    with opened_history(settings, environ) as history:
        facts = observe(
            settings,
            environ,
            history,
            now=now,
            databases=databases,
            with_contents=period is not Period.WEEKLY,
            with_upkeep=period is not Period.DAILY,
            note=note,
            conceal=conceal,
        )
        canary = _canary(history)
    return checklist(
        period,
        ChecklistFacts(
            verdict=judge(facts),
            contacts=tuple(contact.name for contact in settings.alerts.contacts),
            promotes=settings.retention.promotes,
            canary=canary,
        ),
    )


def _canary(history: History) -> Canary | None:
    try:
        if history.alerts is None:
            return None
        return Canary(acknowledged=history.alerts.last_acknowledged())
    except StateError:
        return None
