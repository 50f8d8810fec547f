"""Due times around a moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgstow.jobs.schedule import Schedule, last_due, next_due

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "zone", "before", "after"),
    [
        ("0 2 * * *", "UTC", "2026-11-21T02:00", "2026-11-22T02:00"),
        ("0 12 * * *", "UTC", "2026-11-21T12:00", "2026-11-22T12:00"),
        ("0 2 * * *", "Europe/Berlin", "2026-11-21T01:00", "2026-11-22T01:00"),
        ("0 */6 * * *", "UTC", "2026-11-21T12:00", "2026-11-21T18:00"),
        ("0 3 * * 0", "UTC", "2026-11-15T03:00", "2026-11-22T03:00"),
        ("0 5 1 1 *", "UTC", "2026-01-01T05:00", "2027-01-01T05:00"),
        ("0 5 29 2 *", "UTC", "2024-02-29T05:00", "2028-02-29T05:00"),
    ],
)
def test_neighbours_of_a_moment(cron: str, zone: str, before: str, after: str) -> None:
    schedule = Schedule(cron=cron, time_zone=zone)
    assert last_due(schedule, NOON) == datetime.fromisoformat(before + "+00:00")
    assert next_due(schedule, NOON) == datetime.fromisoformat(after + "+00:00")


@given(
    st.datetimes(datetime(2026, 3, 27), datetime(2026, 4, 1))
    | st.datetimes(datetime(2026, 10, 23), datetime(2026, 10, 28)),
    st.sampled_from(["0 2 * * *", "30 2 * * *", "15 */3 * * *", "30 1 * * *", "*/20 * * * *", "0 3 * * 0"]),
)
def test_nothing_lies_between_them(moment: datetime, cron: str) -> None:
    """Also where clocks change."""
    schedule, at = Schedule(cron=cron, time_zone="Europe/Berlin"), moment.replace(tzinfo=UTC)
    before, after = last_due(schedule, at), next_due(schedule, at)
    assert before is not None
    assert after is not None
    assert before <= at < after
    assert next_due(schedule, before) == after
    assert last_due(schedule, after - timedelta(microseconds=1)) == before
