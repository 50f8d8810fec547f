"""Which span of time a period names."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pgstow.core.errors import UsageError
from pgstow.evidence.period import parse_period


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("2026", "2026-01-01", "2027-01-01"),
        ("2026-H1", "2026-01-01", "2026-07-01"),
        ("2026-h2", "2026-07-01", "2027-01-01"),
        ("2026-Q4", "2026-10-01", "2027-01-01"),
        ("2026-q1", "2026-01-01", "2026-04-01"),
        ("2028-02", "2028-02-01", "2028-03-01"),
        ("2026-12", "2026-12-01", "2027-01-01"),
        ("2026-11-01..2026-11-30", "2026-11-01", "2026-12-01"),
        ("2026-11-30..2026-11-30", "2026-11-30", "2026-12-01"),
    ],
)
def test_a_period_begins_and_ends_at_midnight(text: str, begin: str, end: str) -> None:
    period = parse_period(text)
    found = (period.begin, period.end)
    assert found == tuple(datetime.fromisoformat(each).replace(tzinfo=UTC) for each in (begin, end))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "2026-Q5",
        "2026-13",
        "2026-00",
        "26-Q1",
        "0000",
        "9999",
        "2026-02-30..2026-03-01",
        "2026-W03",
    ],
)
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a period"):
        parse_period(text)


def test_a_period_has_a_length_and_no_more_than_a_year() -> None:
    with pytest.raises(UsageError, match="ends before it begins"):
        parse_period("2026-11-30..2026-11-01")
    with pytest.raises(UsageError, match="longer than a year"):
        parse_period("2024-01-01..2026-01-01")
