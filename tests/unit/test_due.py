"""Which runs are due: random schedules, pauses, daylight saving, clocks that jump."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import takewhile

from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from pgstow.jobs.due import ClockWentBack, Due, Missed, decide, is_in_window
from pgstow.jobs.schedule import Schedule, due_times, newest_due, next_due, start_time

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Asia/Kolkata",
]
CRONS = [
    "0 2 * * *", "30 2 * * *", "30 1 * * *", "*/5 * * * *", "0 */6 * * *", "15 1,2,3 * * *", "0 0 1 * *",
    "30 1 * * 0", "0 * * * *", "*/20 2 * * *",
]  # fmt: skip
# Around days on which clocks are set: Berlin, New York, Lord Howe, and one without.
DAYS = [
    datetime(2026, *day, tzinfo=UTC) for day in ((3, 28), (10, 24), (3, 7), (10, 31), (4, 4), (10, 3), (7, 1))
]

schedules = st.builds(
    Schedule,
    cron=st.sampled_from(CRONS),
    time_zone=st.sampled_from(ZONES),
    jitter_s=st.sampled_from([0.0, 60.0, 900.0, 7200.0]),
    catch_up_s=st.sampled_from([0.0, 3600.0, 6 * 3600.0, 86400.0]),
)
pauses = st.lists(
    st.one_of(st.floats(1, 120), st.floats(1, 120), st.floats(600, 14400), st.floats(3600, 2 * 86400)),
    min_size=1,
    max_size=80,
)


def listed(schedule: Schedule, after: datetime, until: datetime) -> list[datetime]:
    return list(takewhile(lambda moment: moment <= until, due_times(schedule, after)))


class Host:
    """A host that looks now and then and carries out what it is told, like the service."""

    def __init__(self, schedule: Schedule, begin: datetime) -> None:
        self.schedule = schedule
        self.settled_until = begin
        self.ran: list[tuple[datetime, datetime]] = []  # due, when
        self.missed: list[datetime] = []
        self.coalesced = 0
        self.handed_out: set[datetime] = set()

    def look(self, now: datetime) -> Due | Missed | ClockWentBack | None:
        decision = decide(self.schedule, "plan/shop", settled_until=self.settled_until, now=now)
        if isinstance(decision, ClockWentBack):
            self.settled_until = decision.now
        elif decision is not None:
            assert decision.due > self.settled_until
            self.settled_until = decision.due
            if decision.due not in self.handed_out:  # the state database's primary key
                self.handed_out.add(decision.due)
                if isinstance(decision, Due):
                    self.ran.append((decision.due, now))
                else:
                    self.missed.append(decision.due)
                self.coalesced += decision.coalesced
        return decision


@examples(max_examples=150)
@given(schedule=schedules, day=st.sampled_from(DAYS), steps=pauses, offset=st.floats(0, 86400))
def test_every_due_time_is_run_coalesced_or_missed_once(
    schedule: Schedule, day: datetime, steps: list[float], offset: float
) -> None:
    begin = day + timedelta(seconds=offset)
    host, now, looks_that_ran = Host(schedule, begin), begin, 0
    for step in steps:
        now += timedelta(seconds=step)
        before = len(host.ran) + len(host.missed)
        host.look(now)
        looks_that_ran += len(host.ran) > before
        assert len(host.ran) + len(host.missed) <= before + 1, "one pause, one run"
        assert not isinstance(host.look(now), Due), "looking again runs nothing again"
    due = [moment for moment, _ in host.ran]
    assert due == sorted(set(due))
    for moment, when in host.ran:
        assert start_time(schedule, "plan/shop", moment) <= when
        assert is_in_window(schedule, moment, when)
    expected = listed(schedule, begin, now)
    assert set(due) | set(host.missed) <= set(expected)
    settled = [moment for moment in expected if moment <= host.settled_until]
    assert len(due) + len(host.missed) + host.coalesced == len(settled), "none is forgotten"
    for moment in expected[len(settled) :]:  # only those that wait for their jitter are open
        assert start_time(schedule, "plan/shop", moment) > now


@examples(max_examples=100)
@given(
    schedule=schedules,
    day=st.sampled_from(DAYS),
    steps=st.lists(st.floats(-5 * 3600, 5 * 3600), min_size=1, max_size=60),
)
def test_a_clock_that_is_set_back_runs_nothing_again(
    schedule: Schedule, day: datetime, steps: list[float]
) -> None:
    host, now = Host(schedule, day), day
    for step in steps:
        now += timedelta(seconds=step)
        now = max(now, host.settled_until - timedelta(hours=24))
        assert not isinstance(host.look(now), ClockWentBack)
    due = [moment for moment, _ in host.ran]
    assert due == sorted(set(due))


def test_a_pause_of_six_hours_is_one_run() -> None:
    schedule = Schedule(cron="*/30 * * * *")
    begin = datetime(2026, 11, 20, tzinfo=UTC)
    decision = decide(schedule, "p", settled_until=begin, now=begin + timedelta(hours=6, minutes=1))
    assert decision == Due(due=begin + timedelta(hours=6), coalesced=11)


def test_outside_of_the_window_it_is_missed() -> None:
    schedule = Schedule(cron="0 2 * * *", catch_up_s=3600)
    begin = datetime(2026, 11, 19, 3, tzinfo=UTC)
    due = datetime(2026, 11, 20, 2, tzinfo=UTC)
    assert decide(schedule, "p", settled_until=begin, now=due + timedelta(minutes=61)) == Due(
        due=due, coalesced=0
    )
    assert decide(schedule, "p", settled_until=begin, now=due + timedelta(minutes=63)) == Missed(
        due=due, coalesced=0
    )


def test_a_clock_that_was_years_ahead_for_a_moment() -> None:
    """What was settled then does not stop the plan for years, and nothing runs twice when those years come."""
    schedule = Schedule(cron="0 2 * * *")
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    host = Host(schedule, now)
    host.look(datetime(2030, 1, 1, 2, 0, 30, tzinfo=UTC))
    assert isinstance(host.look(now), ClockWentBack)
    host.look(datetime(2026, 11, 21, 2, 0, 30, tzinfo=UTC))
    host.look(datetime(2029, 12, 31, 2, 0, 30, tzinfo=UTC))
    host.look(datetime(2030, 1, 1, 2, 0, 40, tzinfo=UTC))
    host.look(datetime(2030, 1, 2, 2, 0, 40, tzinfo=UTC))
    assert [moment.isoformat()[:10] for moment, _ in host.ran] == [
        "2030-01-01", "2026-11-21", "2029-12-31", "2030-01-02",
    ]  # fmt: skip


def test_daylight_saving_as_debians_cron_does_it() -> None:
    berlin = Schedule(cron="30 2 * * *", time_zone="Europe/Berlin")
    spring = listed(berlin, datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 3, 30, 12, tzinfo=UTC))
    assert [moment.isoformat()[5:16] for moment in spring] == ["03-28T01:30", "03-29T01:00", "03-30T00:30"]
    autumn = listed(berlin, datetime(2026, 10, 24, 12, tzinfo=UTC), datetime(2026, 10, 26, 12, tzinfo=UTC))
    assert [moment.isoformat()[5:16] for moment in autumn] == ["10-25T00:30", "10-26T01:30"]
    hourly = Schedule(cron="0 * * * *", time_zone="Europe/Berlin")
    day = listed(
        hourly, datetime(2026, 10, 24, 21, 59, tzinfo=UTC), datetime(2026, 10, 25, 22, 59, tzinfo=UTC)
    )
    assert len(day) == 25


@examples(max_examples=100)
@given(
    schedule=schedules,
    day=st.sampled_from(DAYS),
    first=st.floats(0, 3 * 86400),
    length=st.floats(0, 2 * 86400),
)
def test_where_one_looks_from_changes_no_due_time(
    schedule: Schedule, day: datetime, first: float, length: float
) -> None:
    after = day + timedelta(seconds=first)
    until = after + timedelta(seconds=length)
    whole = [moment for moment in listed(schedule, day, until) if moment > after]
    assert listed(schedule, after, until) == whole
    assert newest_due(schedule, after, until) == (whole[-1] if whole else None)
    assert newest_due(schedule, after - timedelta(days=400), until) == (
        whole[-1] if whole else newest_due(schedule, after - timedelta(days=90), after)
    )


def test_exactly_then() -> None:
    schedule = Schedule(cron="0 2 * * *")
    due = datetime(2026, 11, 20, 2, tzinfo=UTC)
    before = due - timedelta(days=1)
    assert newest_due(schedule, before, due) == due
    assert newest_due(schedule, due, due) is None
    assert next_due(schedule, due) == due + timedelta(days=1)
    assert decide(schedule, "p", settled_until=before, now=due) == Due(due=due, coalesced=0)
    assert decide(schedule, "p", settled_until=due, now=due) is None


def test_rare_and_impossible_days() -> None:
    now = datetime(2026, 11, 20, tzinfo=UTC)
    leap = Schedule(cron="0 0 29 2 *")
    assert next_due(leap, now) == datetime(2028, 2, 29, tzinfo=UTC)
    assert newest_due(leap, datetime(1990, 1, 1, tzinfo=UTC), now) == datetime(2024, 2, 29, tzinfo=UTC)


def test_jitter_is_the_same_everywhere_and_spreads() -> None:
    schedule = Schedule(cron="0 2 * * *", jitter_s=600)
    due = datetime(2026, 11, 20, 2, tzinfo=UTC)
    delays = {(start_time(schedule, f"nightly/{i}", due) - due).total_seconds() for i in range(50)}
    assert delays == {(start_time(schedule, f"nightly/{i}", due) - due).total_seconds() for i in range(50)}
    assert len(delays) == 50
    assert all(0 <= delay < 600 for delay in delays)
    assert max(delays) - min(delays) > 300
