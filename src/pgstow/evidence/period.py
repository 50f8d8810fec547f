"""The span of time that a report is about."""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pgstow.core.errors import UsageError

__all__ = ["Period", "parse_period"]

_FORMS = re.compile(
    r"(?P<year>[0-9]{4})(?:-(?:Q(?P<quarter>[1-4])|H(?P<half>[12])|(?P<month>0[1-9]|1[0-2])))?", re.IGNORECASE
)
_DAYS = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})\.\.([0-9]{4}-[0-9]{2}-[0-9]{2})")
_LONGEST = timedelta(days=366)
_HINT = "write 2026, 2026-H2, 2026-Q4, 2026-11 or 2026-11-01..2026-11-30 (days in UTC, the last one included)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From ``begin`` on, before ``end``; both at midnight UTC."""

    name: str
    begin: datetime
    end: datetime


def parse_period(text: str) -> Period:
    """Return the year, half, quarter, month or days that ``text`` names; UsageError if it names none, or over a year."""
    period = _parse(text.strip())
    if period is None:
        raise UsageError(f"{text!r} is not a period", hint=_HINT)
    if not period.begin < period.end:
        raise UsageError(f"{text!r} ends before it begins", hint=_HINT)
    if period.end - period.begin > _LONGEST:
        raise UsageError(f"{text!r} is longer than a year", hint="make a report for each year")
    return period


def _parse(text: str) -> Period | None:
    try:
        if days := _DAYS.fullmatch(text):
            begin, last = (datetime.fromisoformat(each).replace(tzinfo=UTC) for each in days.groups())
            return Period(name=text, begin=begin, end=last + timedelta(days=1))
        found = _FORMS.fullmatch(text)
        if found is None:
            return None
        first, months = 1, 12
        if found["quarter"]:
            first, months = 3 * int(found["quarter"]) - 2, 3
        elif found["half"]:
            first, months = 6 * int(found["half"]) - 5, 6
        elif found["month"]:
            first, months = int(found["month"]), 1
        begin = datetime(int(found["year"]), first, 1, tzinfo=UTC)
        last_month = first + months - 1
        last_day = monthrange(begin.year, last_month)[1]
        end = datetime(begin.year, last_month, last_day, tzinfo=UTC) + timedelta(days=1)
    except (ValueError, OverflowError):
        return None
    return Period(name=text.upper(), begin=begin, end=end)
