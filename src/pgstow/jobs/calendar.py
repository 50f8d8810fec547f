"""The due times of a schedule around a moment. What is done about them is decided elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from pgstow.jobs.schedule import Schedule

__all__ = ["due_at_or_before", "next_due"]

# In an hour that comes twice, what is due depends on what was before it.
_RUN_UP = timedelta(hours=4)
_LONGEST = timedelta(days=366 * 9)  # a 29th of February may be eight years away


def next_due(schedule: Schedule, after: datetime) -> datetime | None:
    """Return the first due time later than ``after``, without jitter; None if there will be none."""
    return next(_later_than(schedule, after), None)


def due_at_or_before(schedule: Schedule, moment: datetime) -> datetime | None:
    """Return the last due time that is not later than ``moment``, without jitter; None if there was none."""
    span = timedelta(hours=2)
    while (
        span < _LONGEST * 8
    ):  # further and further back, so that frequent ones are not walked through for years
        found = None
        for due in _later_than(schedule, moment - span):
            if due > moment:
                break
            found = due
        if found is not None:
            return found
        span *= 8
    return None


def _later_than(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    begin = (after - _RUN_UP).astimezone(ZoneInfo(schedule.time_zone))
    for local in CronSim(schedule.cron, begin):
        due = local.astimezone(UTC)
        if due > after:
            yield due
