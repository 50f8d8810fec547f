"""Schedules in systemd's words, judged by systemd itself."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from pgstow.core.process import run
from pgstow.jobs.schedule import Schedule
from pgstow.jobs.systemd_calendar import calendar_events
from support.systemd import systemd_analyze

START = datetime(2026, 2, 20, 0, 0, tzinfo=UTC)
COUNT = 60


def due(schedule: Schedule, count: int) -> list[datetime]:
    local = START.astimezone(ZoneInfo(schedule.time_zone))
    return [moment.astimezone(UTC) for moment in islice(CronSim(schedule.cron, local), count)]


def elapses(lines: tuple[str, ...], count: int) -> list[datetime]:
    """Return when a timer with these OnCalendar= lines elapses, as systemd reckons."""
    base = f"--base-time={START:%Y-%m-%d %H:%M:%S} UTC"
    program, env = systemd_analyze()
    printed = run(
        [program, "calendar", f"--iterations={count}", base, *lines], env={**env, "TZ": "UTC"}
    ).decode()
    found = re.findall(
        r"(?:Next elapse|Iter(?:\.|ation) #\d+): \w+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", printed
    )
    assert found, printed
    moments = {datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC) for text in found}
    return sorted(moments)[:count]


@pytest.mark.parametrize(
    ("cron", "zone"),
    [
        ("0 2 * * *", "UTC"),
        ("0 0 * * SUN", "UTC"),
        ("30 1 1 * *", "UTC"),
        ("0 3 1 JAN *", "UTC"),
        ("15 */6 * * *", "UTC"),
        ("*/20 8-18/2 * * MON-FRI", "Asia/Kolkata"),
        ("0 5 * * 7", "UTC"),
        ("0 5 1,15 * MON", "UTC"),  # either field will do
        ("0 5 */2 * MON", "UTC"),  # both must fit
        ("0 5 13 * */5", "UTC"),
        ("0 5 1-31 * MON", "UTC"),
        ("0 4 L * *", "UTC"),
        ("0 4 15,L 2-12/2 *", "UTC"),
        ("0 4 * * 1#2", "UTC"),
        ("0 4 * * 6#5", "UTC"),
        ("0 4 * * 5L", "UTC"),
        ("0 4 */3 * 1#1,3", "UTC"),
        ("0 12 * * *", "Europe/Berlin"),
        ("0 3 * * *", "Europe/Berlin"),  # the first hour after the one that is skipped
        ("59 1 * * *", "Europe/Berlin"),
        ("0 4 29 2 *", "UTC"),
    ],
)
def test_systemd_elapses_when_cron_is_due(cron: str, zone: str) -> None:
    schedule = Schedule(cron=cron, time_zone=zone)
    events = calendar_events(schedule, now=START)
    assert events.why_not is None
    count = 3 if "29 2" in cron else COUNT
    assert elapses(events.lines, count) == due(schedule, count)


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        (Schedule(cron="30 2 * * *", time_zone="Europe/Berlin"), "clocks change in Europe/Berlin"),
        (Schedule(cron="0 */6 * * *", time_zone="America/Havana"), "clocks change"),  # at midnight there
        (Schedule(cron="45 1 * * *", time_zone="Australia/Lord_Howe"), "clocks change"),  # by half an hour
        (Schedule(cron="0 4 LW * *"), "no words"),
        (Schedule(cron="0 4 */2 * 5L"), "no words"),
        (Schedule(cron="0 4 * * *", jitter_s=60), "delay"),
        (Schedule(cron="0 4 * * *", time_zone="Asia/Tokyo"), "lack Asia/Tokyo"),
    ],
)
def test_what_systemd_would_do_otherwise_is_not_given_to_it(schedule: Schedule, reason: str) -> None:
    events = calendar_events(schedule, now=START, has_zone=lambda zone: zone != "Asia/Tokyo")
    assert events.lines == ()
    assert reason in (events.why_not or "")


def test_zone_that_gave_up_changing_its_clocks() -> None:
    events = calendar_events(Schedule(cron="30 2 * * *", time_zone="America/Sao_Paulo"), now=START)
    assert events.lines == ("*-*-* 02:30:00 America/Sao_Paulo",)


def field(low: int, high: int, *further: str) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    spread = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.tuples(st.one_of(st.just("*"), spread), st.integers(1, 9)).map(
        lambda pair: f"{pair[0]}/{pair[1]}"
    )
    one = st.one_of(number.map(str), spread, step, *map(st.just, further))
    return st.one_of(st.just("*"), one, st.lists(one, min_size=2, max_size=3).map(",".join))


@settings(max_examples=40)
@given(
    parts=st.tuples(
        field(0, 59), field(0, 23), field(1, 28, "L"), field(1, 12), field(0, 7, "2#1", "4#5", "0L", "FRI")
    ),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"]),
)
def test_any_schedule(parts: tuple[str, ...], zone: str) -> None:
    schedule = Schedule(cron=" ".join(parts), time_zone=zone)
    events = calendar_events(schedule, now=START)
    if events.why_not is None:
        expected = [moment for moment in due(schedule, 20) if moment < START + timedelta(days=5 * 366)]
        assert elapses(events.lines, max(1, len(expected)))[: len(expected)] == expected
