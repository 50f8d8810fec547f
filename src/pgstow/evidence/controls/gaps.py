"""Whether something happened often enough throughout a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

__all__ = ["Gap", "Shown", "gaps", "losses"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A stretch of time without it."""

    begin: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        return (self.end - self.begin).total_seconds()


def gaps(
    moments: Iterable[datetime], begin: datetime, until: datetime, *, known_from: datetime | None = None
) -> list[Gap]:
    """Return the stretches between moments that reach into ``begin`` to ``until``, in order.

    The last moment before ``begin`` opens the first one; without any, ``known_from`` does, from which on there would be one
    if it had happened, or else ``begin``. ``until`` closes the last one. Empty for a time that has no length.
    """
    if not begin < until:
        return []
    ordered = sorted({each for each in moments if each <= until})
    before = [each for each in ordered if each <= begin]
    inside = [each for each in ordered if begin < each < until]
    first = before[-1] if before else min(begin, known_from or begin)
    edges = [first, *inside, until]
    return [Gap(begin=earlier, end=later) for earlier, later in itertools.pairwise(edges)]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Shown:
    """A backup: the moment that it shows, and since when it is there."""

    moment: datetime
    there: datetime


def losses(
    backups: Iterable[Shown], begin: datetime, until: datetime, *, known_from: datetime | None = None
) -> list[Gap]:
    """Return what a loss would have undone at worst before each backup was there, and at the end: from ``begin`` to ``until``.

    Until a backup is there only the one before it helps: a loss while it is made goes back to the moment which that one shows.
    """
    if not begin < until:
        return []
    ordered = sorted(backups, key=lambda each: (each.there, each.moment))
    before = [each.moment for each in ordered if each.there <= begin]
    newest = max(before, default=min(begin, known_from or begin))
    found = []
    for each in ordered:
        if begin < each.there < until:
            found.append(Gap(begin=newest, end=each.there))
            newest = max(newest, each.moment)
    return [*found, Gap(begin=newest, end=until)]
