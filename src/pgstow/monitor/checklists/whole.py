"""The three checklists."""

from __future__ import annotations

from pgstow.monitor.checklists.daily import daily_items
from pgstow.monitor.checklists.items import Checklist, ChecklistFacts, Period
from pgstow.monitor.checklists.monthly import monthly_items
from pgstow.monitor.checklists.weekly import weekly_items

__all__ = ["checklist"]

_ITEMS = {Period.DAILY: daily_items, Period.WEEKLY: weekly_items, Period.MONTHLY: monthly_items}


def checklist(period: Period, facts: ChecklistFacts) -> Checklist:
    """Return one checklist, judged."""
    return Checklist(period=period, now=facts.now, items=tuple(_ITEMS[period](facts)))
