"""Weeks, months and years, and which backup stands for each: the first that there is.

Days are compared, never seconds: a day has 23 hours when clocks go forward, and is a day. Which backup is the first of a
period does not depend on today, so that it is the same on every day; a later run is later and cannot take its place.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from zoneinfo import ZoneInfo

from pgstow.retention.facts import BackupFacts
from pgstow.retention.policy import LADDER

__all__ = ["Period", "period_of", "promotions"]

_NOUNS = {"weekly": "week", "monthly": "month", "annual": "year"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A week, month or year. ``kind`` is the kind of backup that is made once in each."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{_NOUNS[self.kind]} {self.name}"


@functools.lru_cache(maxsize=20_000)
def period_of(kind: str, day: date) -> Period:
    """Return the period of ``weekly``, ``monthly`` or ``annual`` that a day lies in. Weeks begin on Monday."""
    if kind == "weekly":
        year, week, _ = day.isocalendar()
        return Period(kind=kind, name=f"{year}-W{week:02d}")
    return Period(kind=kind, name=f"{day:%Y-%m}" if kind == "monthly" else f"{day:%Y}")


def promotions(backups: Iterable[BackupFacts], zone: ZoneInfo) -> dict[str, list[Period]]:
    """Return the periods that each backup of one database stands for, by id; the shortest period first.

    A backup can stand for the periods of all kinds above its own on the ladder. The first of a period stands for it; where a
    repair had to leave something out of that one, so does the first undamaged one. Partial backups stand for the period among
    themselves: where something is left out on purpose there may be no others, and they never take the place of a whole one.
    """
    candidates: defaultdict[tuple[Period, bool], list[BackupFacts]] = defaultdict(list)
    for backup in sorted(backups, key=lambda each: each.order):
        if backup.kind in LADDER:
            day = backup.day(zone)
            for kind in LADDER[LADDER.index(backup.kind) + 1 :]:
                candidates[period_of(kind, day), backup.is_partial].append(backup)
    found: defaultdict[str, list[Period]] = defaultdict(list)
    for kind in LADDER[1:]:
        for (period, _), members in candidates.items():
            if period.kind == kind:
                for backup in _representatives(members):
                    found[backup.id].append(period)
    return dict(found)


def _representatives(members: list[BackupFacts]) -> list[BackupFacts]:
    """Return the first, and if that one is damaged the first undamaged one as well."""
    undamaged = next((backup for backup in members if not backup.is_damaged), members[0])
    return [members[0]] if undamaged is members[0] else [members[0], undamaged]
