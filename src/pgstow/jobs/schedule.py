"""When a plan runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

__all__ = ["Schedule", "due_times", "last_due", "newest_due", "next_due", "start_time"]

_FIRST_LOOK = timedelta(hours=1)
_RUN_UP = timedelta(hours=4)  # in an hour that comes twice, what is due depends on what was before it
_LONGEST = timedelta(days=366 * 8 + 2)  # between two 29ths of February


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A cron expression in a time zone.

    ``cron`` has five fields as cron(8) of Debian reads them, daylight saving included. Every host adds the same delay
    of up to ``jitter_s`` to one due time. A run that was missed is caught up, once, until ``catch_up_s`` after it was due.
    """

    cron: str
    time_zone: str = "UTC"
    jitter_s: float = 0.0
    catch_up_s: float = 6 * 3600.0

    def __str__(self) -> str:
        return f"{self.cron} ({self.time_zone})"


def due_times(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Yield the due times later than ``after``, in order, in UTC. Where one starts to look changes none of them.

    A run in an hour that daylight saving leaves out is due when that hour would have begun; one in an hour that comes
    twice is due once; expressions for every hour or minute are due at every one that passes (cron(8) of Debian).
    """
    begin = (after - _RUN_UP).astimezone(ZoneInfo(schedule.time_zone))
    for local in CronSim(schedule.cron, begin):
        due = local.astimezone(UTC)
        if due > after:
            yield due


def next_due(schedule: Schedule, after: datetime) -> datetime | None:
    """Return the first due time later than ``after``; None for an expression that names no day there is."""
    return next(due_times(schedule, after), None)


def newest_due(schedule: Schedule, after: datetime, until: datetime) -> datetime | None:
    """Return the last due time later than ``after`` and not later than ``until``."""
    span = _FIRST_LOOK
    while True:  # look back further and further: a long pause of a frequent plan is not walked through
        begin = max(after, until - span)
        newest = None
        for moment in due_times(schedule, begin):
            if moment > until:
                break
            newest = moment
        if newest is not None or begin <= after or span > _LONGEST:
            return newest
        span *= 8


def last_due(schedule: Schedule, moment: datetime) -> datetime | None:
    """Return the last due time not later than ``moment``; None for an expression that names no day there is."""
    return newest_due(schedule, moment - 2 * _LONGEST, moment)


def start_time(schedule: Schedule, key: str, due: datetime) -> datetime:
    """Return when a due run starts: the same on every host, spread over the jitter by what runs (``key``) and when."""
    if schedule.jitter_s <= 0:
        return due
    mixed = hashlib.sha256(f"{key} {due.timestamp():.0f}".encode()).digest()
    share = int.from_bytes(mixed[:8], "big") / 2**64
    return due + timedelta(seconds=share * schedule.jitter_s)
