"""Which run is due: a pure function of a schedule, what was settled before, and the time.

A plan's history is one moment per database, *settled until*: every due time up to it has been handed out, coalesced into
a later one, or recorded as missed. Handing out a due time moves it there, by compare-and-swap in the state database, so
that of many hosts one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pgstow.jobs.schedule import Schedule, due_times, newest_due, start_time

__all__ = ["MOST_COUNTED", "ClockWentBack", "Due", "Missed", "decide", "is_in_window"]

# Settled further ahead than this: the clock was wrong when that was done, not set back by an hour or a day now.
_MOST_AHEAD = timedelta(hours=26)
_ON_TIME = timedelta(minutes=2)  # a plan that is never caught up still has time to start
MOST_COUNTED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Run now, once, for ``due``; ``coalesced`` earlier due times are done with by it (at most 1000 are counted)."""

    due: datetime
    coalesced: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """``due``, and ``coalesced`` due times before it, were not run and will not be: their window has passed."""

    due: datetime
    coalesced: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockWentBack:
    """What was settled lies far ahead: settle from ``now`` on again. Due times that were handed out stay so."""

    now: datetime


def decide(
    schedule: Schedule, key: str, *, settled_until: datetime, now: datetime
) -> Due | Missed | ClockWentBack | None:
    """Return what is to be done for one plan and database (``key``) at ``now``; None: nothing.

    While the clock is behind ``settled_until`` nothing is due, so that a clock that was set back runs nothing again.
    """
    if settled_until > now + _MOST_AHEAD:
        return ClockWentBack(now=now)
    newest = _newest_started(schedule, key, settled_until, now)
    if newest is None:
        return None
    coalesced = _count(schedule, settled_until, newest)
    if is_in_window(schedule, newest, now):
        return Due(due=newest, coalesced=coalesced)
    return Missed(due=newest, coalesced=coalesced)


def is_in_window(schedule: Schedule, due: datetime, now: datetime) -> bool:
    """Whether a run that was due then may still begin."""
    window_s = max(schedule.catch_up_s, schedule.jitter_s)
    return now <= due + timedelta(seconds=window_s) + _ON_TIME


def _newest_started(schedule: Schedule, key: str, after: datetime, now: datetime) -> datetime | None:
    """Return the newest due time whose jitter has passed too."""
    until = now
    while (newest := newest_due(schedule, after, until)) is not None:
        if start_time(schedule, key, newest) <= now:
            return newest
        until = newest - timedelta(microseconds=1)
    return None


def _count(schedule: Schedule, after: datetime, before: datetime) -> int:
    count = 0
    for moment in due_times(schedule, after):
        if moment >= before or count >= MOST_COUNTED:
            break
        count += 1
    return count
