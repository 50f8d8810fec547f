"""How long the next restore will take: never more than the drills show, and honest about how well they show it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgstow.catalog.drills import PhaseRecord
from pgstow.monitor.rto import Timing, alike, forecast_restore, timing_of, trend_s_per_month
from support.drilling import drill_record
from support.policies import NOW

GIB = 1024**3


def timing(size_bytes: float, seconds: float, *, ago: float = 0, index_s: float = 0.0) -> Timing:
    at: datetime = NOW - timedelta(days=ago)
    return Timing(at=at, size_bytes=round(size_bytes), seconds=seconds, index_s=index_s)


@st.composite
def histories(draw: st.DrawFn) -> list[Timing]:
    """Return drills of a database between 1 and 100 GiB, whatever they took."""
    count = draw(st.integers(3, 50))
    sizes = st.integers(GIB, 100 * GIB)
    found = []
    for number in range(count):
        seconds = draw(st.floats(1, 1e5))
        index_s = seconds * draw(st.floats(0, 1))
        found.append(timing(draw(sizes), seconds, ago=number, index_s=index_s))
    return found


@given(histories(), st.integers(GIB, 100 * GIB), st.integers(GIB, 100 * GIB))
def test_a_larger_backup_is_never_faster(history: list[Timing], one: int, other: int) -> None:
    small = forecast_restore(history, min(one, other))
    large = forecast_restore(history, max(one, other))
    if small is not None and large is not None:
        assert small.seconds <= large.seconds * (1 + 1e-9)


@given(histories(), st.integers(1, 300 * GIB))
def test_the_interval_contains_the_forecast_and_its_parts_are_none_below_zero(
    history: list[Timing], size: int
) -> None:
    found = forecast_restore(history, size)
    if found is None:
        sizes = [one.size_bytes for one in history]
        assert size > max(sizes) * 2 or size < min(sizes) / 4
        return
    assert 0 <= found.low_s <= found.seconds <= found.high_s
    assert min(found.fixed_s, found.rows_s, found.index_s) >= 0
    assert found.fixed_s + found.rows_s + found.index_s == pytest.approx(found.seconds)


@given(histories(), st.integers(GIB, 100 * GIB), st.sampled_from([0.5, 3.0, 60.0]), st.integers(2, 9))
def test_units_do_not_matter(history: list[Timing], size: int, slower: float, larger: int) -> None:
    """A machine that is so much slower, and rows that are so much longer, change nothing else."""
    found = forecast_restore(history, size)
    scaled = [
        replace(
            one,
            size_bytes=one.size_bytes * larger,
            seconds=one.seconds * slower,
            index_s=one.index_s * slower,
        )
        for one in history
    ]
    other = forecast_restore(scaled, size * larger)
    if found is None or other is None:
        assert found is other
        return
    for ours, theirs in (
        (found.seconds, other.seconds),
        (found.low_s, other.low_s),
        (found.high_s, other.high_s),
    ):
        assert theirs == pytest.approx(ours * slower, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("count", [3, 5, 12, 50])
def test_nine_of_ten_drills_are_within_the_interval(count: int) -> None:
    """Simulated: 60 s and 20 s for each GiB, with a noise of a tenth; a growing database."""
    chance = random.Random(7)
    inside, said, tries = 0, 0, 400
    for _ in range(tries):
        history = [_simulated(chance, 5 + chance.random() * 20) for _ in range(count)]
        target = _simulated(chance, 5 + chance.random() * 20)
        found = forecast_restore(history, target.size_bytes)
        if found is None:  # so far from the few that were seen that nothing is said
            continue
        said += 1
        inside += found.low_s <= target.seconds <= found.high_s
    assert said > tries / 2
    assert inside / said >= 0.85


def _simulated(chance: random.Random, gib: float) -> Timing:
    true_s = 60 + 20 * gib
    return timing(gib * GIB, true_s * max(chance.gauss(1, 0.1), 0.1), index_s=true_s * 0.3)


def test_what_is_fixed_what_rows_take_and_what_indexes_take() -> None:
    found = forecast_restore(
        [timing(gib * GIB, 30 + 10 * gib + 5 * gib, index_s=5 * gib) for gib in (2, 4, 8, 10)], 6 * GIB
    )
    assert found is not None
    assert (found.fixed_s, found.rows_s, found.index_s) == pytest.approx((30, 60, 30))
    assert found.seconds == pytest.approx(120)
    assert (found.samples, found.is_extrapolated) == (4, False)


def test_a_slow_first_drill_widens_the_interval() -> None:
    even = [timing(gib * GIB, 10 * gib) for gib in (4, 5, 6, 7)]
    odd = [timing(4 * GIB, 400), *even[1:]]
    sure, unsure = (forecast_restore(one, 6 * GIB) for one in (even, odd))
    assert sure is not None
    assert unsure is not None
    assert sure.high_s < 80
    assert unsure.high_s > 400


def test_a_database_that_does_not_grow() -> None:
    found = forecast_restore([timing(10 * GIB, seconds) for seconds in (100, 104, 96, 100)], 10 * GIB)
    assert found is not None
    assert found.seconds == pytest.approx(100)
    assert found.low_s > 85
    grown = forecast_restore([timing(10 * GIB, seconds) for seconds in (100, 104, 96, 100)], 15 * GIB)
    assert grown is not None
    assert grown.is_extrapolated
    assert grown.seconds == pytest.approx(150), "what is fixed is not known, so all of it may grow"


def test_empty_databases_have_a_forecast_too() -> None:
    found = forecast_restore([timing(0, seconds) for seconds in (3, 4, 5)], 0)
    assert found is not None
    assert found.seconds == pytest.approx(4)


def test_noise_of_tiny_databases_is_not_taken_for_growth() -> None:
    """What is fixed prevails there; a line through the noise says nothing of a database of another size."""
    tiny = [timing(size, seconds) for size, seconds in ((2700, 5), (2800, 6), (2900, 7))]
    assert forecast_restore(tiny, 100_000) is None
    near = forecast_restore(tiny, 5000)
    assert near is not None
    assert near.seconds < 15


@pytest.mark.parametrize(
    ("gib", "said"), [(1, None), (3, True), (4, False), (12, False), (13, True), (25, None)]
)
def test_nothing_is_said_of_sizes_that_nobody_drilled(gib: float, said: bool | None) -> None:
    history = [timing(size * GIB, 20 * size) for size in (4.5, 6, 8, 10)]
    found = forecast_restore(history, round(gib * GIB))
    assert (None if found is None else found.is_extrapolated) is said


@pytest.mark.parametrize("count", [0, 1, 2])
def test_two_drills_are_too_few(count: int) -> None:
    assert forecast_restore([timing(GIB, 60, ago=number) for number in range(count)], GIB) is None
    assert trend_s_per_month([timing(GIB, 60, ago=number) for number in range(count)]) is None


def test_the_time_in_which_nothing_but_indexes_is_built() -> None:
    """Loading may go on beside it, and checks and cleaning up come after."""
    phases = (
        PhaseRecord(name="fetch", begun_s=0, seconds=2),
        PhaseRecord(name="data", begun_s=2, seconds=10),
        PhaseRecord(name="post-data", begun_s=8, seconds=10),  # 6 of them alone
        PhaseRecord(name="analyze", begun_s=17, seconds=3),  # and 2
        PhaseRecord(name="checks", begun_s=20, seconds=10),
        PhaseRecord(name="clean-up", begun_s=30, seconds=5),
    )
    found = timing_of(drill_record(phases=phases, proven_s=30.0, size_bytes=GIB))
    assert found is not None
    assert (found.seconds, found.index_s, found.size_bytes) == (30.0, 8.0, GIB)
    assert timing_of(drill_record("failed", proven_s=None)) is None


def test_drills_elsewhere_and_of_another_major_do_not_count() -> None:
    others = [
        drill_record(ago=timedelta(days=9), place="database"),
        drill_record(ago=timedelta(days=8), source_version="15.4"),
        drill_record("failed", ago=timedelta(days=1), place="database", proven_s=None),
    ]
    mine = [drill_record(ago=timedelta(days=7), source_version="16.1"), drill_record(source_version="16.4")]
    found, basis = alike([*others, *reversed(mine)])
    assert found == mine
    assert basis == "2 drills of PostgreSQL 16 in a throwaway server"
    assert alike([]) == ([], "")


def ids(timings: Sequence[Timing]) -> list[float]:
    return [one.seconds for one in timings]


@settings(max_examples=30)
@given(st.floats(-50, 50), st.randoms(use_true_random=False))
def test_the_trend_is_hardly_moved_by_one_bad_drill(slope: float, chance: random.Random) -> None:
    history = [timing(GIB, 1000 - slope * month, ago=30 * month) for month in range(9)]
    chance.shuffle(history)
    bad = replace(history[0], seconds=history[0].seconds * 5)
    found = trend_s_per_month([bad, *history[1:]])
    assert found is not None
    assert trend_s_per_month(history) == pytest.approx(slope, abs=1e-6)
    assert abs(found - slope) < 1
