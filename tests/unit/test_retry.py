"""Which failures are tried again, and when."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from pgstow.core import errors
from pgstow.jobs.due import is_in_window
from pgstow.jobs.retry import ending_of, may_pass, restart_at, retry_at
from pgstow.jobs.schedule import Schedule
from pgstow.state.dues import DueKey, OpenDue

DUE = datetime(2026, 11, 20, 2, tzinfo=UTC)
NIGHTLY = Schedule(cron="0 2 * * *", catch_up_s=3 * 3600)
HOURLY = replace(NIGHTLY, cron="0 * * * *")


def tried_again(schedule: Schedule, *, each_takes_s: float = 0.0) -> list[float]:
    """Return when the attempts at DUE begin that all fail, in minutes after it."""
    begins = [0.0]
    now = DUE
    while True:
        again = retry_at(schedule, DUE, failures=len(begins) - 1, now=now + timedelta(seconds=each_takes_s))
        if again is None:
            return begins
        begins.append((again - DUE).total_seconds() / 60)
        now = again


def test_pauses_grow_until_the_window_has_passed() -> None:
    assert tried_again(NIGHTLY) == [0, 1, 6, 21, 51, 81, 111, 141, 171]


def test_the_next_due_time_is_a_run_of_its_own() -> None:
    assert tried_again(HOURLY) == [0, 1, 6, 21, 51]
    assert tried_again(replace(NIGHTLY, cron="*/5 * * * *")) == [0, 1]


def test_a_plan_that_is_not_caught_up_is_hardly_tried_again() -> None:
    assert tried_again(replace(NIGHTLY, catch_up_s=0)) == [0, 1]
    assert tried_again(replace(NIGHTLY, catch_up_s=0), each_takes_s=90) == [0]


@given(
    catch_up_s=st.floats(0, 86400),
    jitter_s=st.floats(0, 7200),
    failures=st.integers(0, 100),
    late_s=st.floats(0, 2 * 86400),
)
@examples(max_examples=100, deadline=None)
def test_never_beyond_the_window(catch_up_s: float, jitter_s: float, failures: int, late_s: float) -> None:
    schedule = replace(NIGHTLY, catch_up_s=catch_up_s, jitter_s=jitter_s)
    now = DUE + timedelta(seconds=late_s)
    again = retry_at(schedule, DUE, failures=failures, now=now)
    if again is not None:
        assert now + timedelta(minutes=1) <= again <= now + timedelta(minutes=30)
        assert is_in_window(schedule, DUE, again)
        assert again < DUE + timedelta(days=1)


@pytest.mark.parametrize(
    "kind",
    [
        errors.ConnectionFailed, errors.StoreUnavailable, errors.RepositoryLocked, errors.RunUnderWay,
        errors.SourceMoved, errors.GaveWay, errors.StateError, errors.ProcessFailed,
    ],
)  # fmt: skip
def test_what_may_pass(kind: type[errors.PgstowError]) -> None:
    assert may_pass(kind("x"))


@pytest.mark.parametrize(
    "kind",
    [
        errors.PgstowError, errors.UsageError, errors.ConfigInvalid, errors.WrongPassword, errors.NoRepository,
        errors.RepositoryDamaged, errors.StoreDenied, errors.StoreFull, errors.MissingTable, errors.ToolMissing,
        errors.PoolerRefused, errors.PostgresError, errors.CaptureError, errors.Interrupted,
    ],
)  # fmt: skip
def test_what_lasts(kind: type[errors.PgstowError]) -> None:
    assert not may_pass(kind("x"))


def due(**changes: object) -> OpenDue:
    key = DueKey(plan="nightly", database="shop", due=DUE)
    one = OpenDue(key=key, state="queued", attempt=1, runs=(), host=None)
    return replace(one, **changes)  # type: ignore[arg-type]


def test_what_nobody_began_is_missed_and_what_failed_has_failed() -> None:
    late = DUE + timedelta(hours=4)
    assert ending_of(due(), NIGHTLY, DUE) is None
    missed = ending_of(due(coalesced=2), NIGHTLY, late)
    assert missed is not None
    assert (missed.outcome, missed.error_code) == ("missed", None)
    assert "like 2 due times before it" in missed.error
    failed = ending_of(due(attempt=3, runs=("a", "b"), failures=2), NIGHTLY, late)
    assert failed is not None
    assert (failed.outcome, failed.error_code) == ("failed", "given_up")


def test_failures_are_not_counted_among_the_attempts_that_were_cut_off() -> None:
    runs = tuple("abcdefgh")
    assert ending_of(due(attempt=9, runs=runs, failures=8), NIGHTLY, DUE) is None
    assert ending_of(due(attempt=9, runs=runs, failures=4), NIGHTLY, DUE) is None
    ending = ending_of(due(attempt=9, runs=runs, failures=3), NIGHTLY, DUE)
    assert ending is not None
    assert ending.error_code == "given_up"


def test_a_rest_that_a_wrong_clock_made_long_is_none() -> None:
    assert due(not_before=DUE + timedelta(minutes=1)).is_resting(DUE)
    assert not due(not_before=DUE).is_resting(DUE)
    assert not due(not_before=DUE + timedelta(days=300)).is_resting(DUE)
    assert not due(state="running", not_before=DUE + timedelta(minutes=1)).is_resting(DUE)


def test_what_does_not_begin_is_started_anew_with_growing_pauses() -> None:
    pauses = [
        (again - DUE).total_seconds() if again is not None else 0
        for again in (restart_at(due(attempt=number), DUE) for number in range(1, 21))
    ]
    assert pauses[:10] == [0, 0, 0, 10, 20, 40, 80, 160, 320, 600]
    assert set(pauses[10:]) == {600}
    assert restart_at(due(attempt=5, runs=("a", "b", "c")), DUE) is None, (
        "those that began are counted by themselves"
    )
