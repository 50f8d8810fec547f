"""A year of backups under the default policy, in words: what is kept on its last day. Read them; they are short.

``UPDATE_GOLDEN=1`` writes them anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from pgstow.retention import RetentionPolicy
from support.retention import calendar

GOLDEN = Path(__file__).parent / "golden_retention"
LAST = date(2026, 12, 31)


def _is_missed(moment: datetime) -> bool:
    """The first five days of March, all of August, and every Monday in autumn."""
    is_monday = moment.weekday() == 0 and moment.month in (9, 10, 11)
    return (moment.month == 3 and moment.day < 6) or moment.month == 8 or is_monday


@pytest.mark.parametrize(
    ("name", "zone", "hour", "is_missed"),
    [
        ("utc", "UTC", 2, lambda _: False),
        (
            "berlin",
            "Europe/Berlin",
            1,
            lambda _: False,
        ),  # where 02:00 to 03:00 is missing once, and there twice
        (
            "new-york",
            "America/New_York",
            4.5,
            lambda _: False,
        ),  # half past midnight in summer, half past 23 in winter
        ("kiritimati", "Pacific/Kiritimati", 10, lambda _: False),  # 14 hours ahead: midnight
        ("utc-missed-days", "UTC", 2, _is_missed),
    ],
)
def test_what_is_kept_after_a_year(
    name: str, zone: str, hour: float, is_missed: Callable[[datetime], bool]
) -> None:
    first = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
    times = [moment for day in range(365) if not is_missed(moment := first + timedelta(days=day))]
    lines = calendar(times, RetentionPolicy(time_zone=zone), until=LAST)
    head = f"one backup a day at {first:%H:%M} UTC, days of {zone}, a plan applied every day; left on {LAST}:"
    text = "\n".join([head, "", *lines]) + "\n"
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text)
    assert text == path.read_text()
