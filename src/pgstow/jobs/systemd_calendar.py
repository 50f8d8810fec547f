"""Schedules in the words of systemd.

cron and systemd agree on almost every schedule. Where they do not (what a clock change skips or repeats, days that only
cron can name) nothing is returned but the reason, and the caller asks pgstow itself every few minutes instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from pgstow.jobs.schedule import Schedule

__all__ = ["CalendarEvents", "calendar_events"]

_DAY_NAMES = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_EVERY_DAY = frozenset(range(1, 32))
_EVERY_MONTH = frozenset(range(1, 13))
_WHOLE_WEEK = frozenset(range(7))
_FORESIGHT_YEARS = 10  # of clock changes; time zones are redefined more often than that


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarEvents:
    """``lines`` for OnCalendar=: the timer elapses when any of them does. Empty where ``why_not`` says why."""

    lines: tuple[str, ...] = ()
    why_not: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Days:
    """Days of the month: those of a set, or counted from its end (``~01`` is the last, ``~07/1`` the last seven)."""

    numbers: frozenset[int] = _EVERY_DAY
    from_end: str | None = None

    def __and__(self, other: _Days) -> _Days | None:
        """Return the days that are in both; None where systemd has no words for them."""
        if self.from_end is None and other.from_end is None:
            return _Days(numbers=self.numbers & other.numbers)
        if self.from_end is None:
            return other if self.numbers == _EVERY_DAY else None
        if other.from_end is None:
            return self if other.numbers == _EVERY_DAY else None
        # The last day of the month is one of its last seven.
        return self if self.from_end == "~01" else other

    def text(self) -> str:
        if self.from_end is not None:
            return self.from_end
        return "-" + _numbers(self.numbers, _EVERY_DAY)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dates:
    """Days that fall on certain weekdays."""

    weekdays: frozenset[int] = _WHOLE_WEEK
    days: _Days = _Days()

    @property
    def is_every_day(self) -> bool:
        return self.weekdays == _WHOLE_WEEK and self.days == _Days()


def calendar_events(
    schedule: Schedule, *, now: datetime, has_zone: Callable[[str], bool] = lambda _zone: True
) -> CalendarEvents:
    """Return the lines for OnCalendar= that elapse exactly when ``schedule`` is due, as far as can be foreseen at ``now``.

    ``has_zone`` says whether systemd's machine knows a time zone.
    """
    if schedule.jitter_s:
        return CalendarEvents(why_not="its delay is the same on every host, which systemd cannot do")
    if not has_zone(schedule.time_zone):
        return CalendarEvents(why_not=f"this machine's time zones lack {schedule.time_zone}")
    cron = CronSim(schedule.cron, now)
    dates = _dates(cron)
    if dates is None:
        return CalendarEvents(why_not="systemd has no words for its days")
    if _meets_a_clock_change(cron, ZoneInfo(schedule.time_zone), now):
        return CalendarEvents(
            why_not=f"some of its times are skipped or repeated when clocks change in {schedule.time_zone}"
        )
    months = _numbers(frozenset(cron.months), _EVERY_MONTH)
    time = f"{_numbers(frozenset(cron.hours), frozenset(range(24)))}:{_numbers(frozenset(cron.minutes), frozenset(range(60)))}:00"
    return CalendarEvents(
        lines=tuple(
            f"{_weekdays(one)}*-{months}{one.days.text()} {time} {schedule.time_zone}" for one in dates
        )
    )


def _dates(cron: CronSim) -> list[_Dates] | None:
    """Return the days, any of which will do; None where systemd has no words for them."""
    if CronSim.LAST_WEEKDAY in cron.days:
        return None
    by_day, by_weekday = list(_by_day(cron)), list(_by_weekday(cron))
    if not cron.day_and:  # cron's rule: either field will do unless one of them begins with a star
        either = [*by_day, *by_weekday]
        return [_Dates()] if any(one.is_every_day for one in either) else either
    both = []
    for one in by_day:
        for other in by_weekday:
            days = one.days & other.days
            if days is None:
                return None
            if days.numbers:
                both.append(_Dates(weekdays=other.weekdays, days=days))
    return both or None


def _by_day(cron: CronSim) -> Iterator[_Dates]:
    numbers = frozenset(day for day in cron.days if day > 0)
    if numbers:
        yield _Dates(days=_Days(numbers=numbers))
    if CronSim.LAST in cron.days:
        yield _Dates(days=_Days(from_end="~01"))


def _by_weekday(cron: CronSim) -> Iterator[_Dates]:
    plain = frozenset(day % 7 for day in cron.weekdays if isinstance(day, int))
    if plain:
        yield _Dates(weekdays=plain)
    for pair in sorted(day for day in cron.weekdays if not isinstance(day, int)):
        weekday, nth = pair
        first = 7 * (nth - 1) + 1
        days = (
            _Days(from_end="~07/1")
            if nth == CronSim.LAST
            else _Days(numbers=_EVERY_DAY & frozenset(range(first, first + 7)))
        )
        yield _Dates(weekdays=frozenset({weekday % 7}), days=days)


def _numbers(chosen: frozenset[int], everything: frozenset[int]) -> str:
    return "*" if chosen == everything else ",".join(f"{number:02}" for number in sorted(chosen))


def _weekdays(dates: _Dates) -> str:
    if dates.weekdays == _WHOLE_WEEK:
        return ""
    return ",".join(_DAY_NAMES[day] for day in sorted(dates.weekdays)) + " "


def _meets_a_clock_change(cron: CronSim, zone: ZoneInfo, now: datetime) -> bool:
    """Whether a time of day that ``cron`` names is skipped or repeated by a clock change, on whatever day."""
    return any(
        moment.hour in cron.hours and moment.minute in cron.minutes
        for start, end in _odd_hours(zone, now)
        for moment in _minutes(start, end)
    )


def _odd_hours(zone: ZoneInfo, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Return the stretches of local time that clock changes skip or repeat, as naive times."""
    day = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    for _ in range(_FORESIGHT_YEARS * 366):
        following = day + timedelta(days=1)
        if _offset(zone, day) != _offset(zone, following):
            change = _change_between(zone, day, following).replace(tzinfo=None)
            old, new = change + _offset(zone, day), change + _offset(zone, following)
            yield min(old, new), max(old, new)
        day = following


def _change_between(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """Return the first moment of the new offset, to the minute."""
    offset = _offset(zone, before)
    while after - before > timedelta(minutes=1):
        middle = before + (after - before) // 2
        middle = middle.replace(second=0, microsecond=0)
        before, after = (middle, after) if _offset(zone, middle) == offset else (before, middle)
    return after


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _minutes(start: datetime, end: datetime) -> Sequence[datetime]:
    return [start + timedelta(minutes=number) for number in range((end - start) // timedelta(minutes=1))]
