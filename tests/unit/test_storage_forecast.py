"""How fast storage grows, and when it is full."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgstow.app.storage import observe_storage
from pgstow.core.errors import StateError, StoreError
from pgstow.monitor.storage import Growth, Sample, StorageFacts, forecast_full, growth_of
from pgstow.state.database import StateDatabase, open_state
from pgstow.state.samples import StorageSample, StorageSamples
from pgstow.store.memory import MemoryStore
from support.repositories import WatchedStore

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def samples(*used: int, step: timedelta = timedelta(days=1)) -> list[Sample]:
    first = NOW - step * (len(used) - 1)
    return [Sample(time=first + step * number, used_bytes=each) for number, each in enumerate(used)]


@pytest.mark.parametrize("used", [(), (5,), (5, 10)])
def test_too_little_is_known(used: tuple[int, ...]) -> None:
    assert growth_of(samples(*used)) is None


def test_three_samples_of_one_hour_say_nothing() -> None:
    assert growth_of(samples(1, 2, 3, 4, step=timedelta(hours=6))) is None
    assert growth_of(samples(1, 2, 3, 4, 5, step=timedelta(hours=6))) is not None


@given(
    st.integers(-(10**9), 10**9),
    st.integers(0, 10**12),
    st.integers(3, 400),
    st.randoms(use_true_random=False),
)
def test_a_straight_line_is_seen_in_any_order(slope: int, start: int, count: int, random: object) -> None:
    line = samples(*(start + slope * day for day in range(count)))
    random.shuffle(line)  # type: ignore[attr-defined]
    growth = growth_of(line)
    assert growth is not None
    assert growth.per_day == pytest.approx(slope)
    assert growth.low == pytest.approx(slope)
    assert growth.high == pytest.approx(slope)


def test_a_prune_or_a_jump_moves_it_little() -> None:
    used = [100 * day for day in range(30)]
    used[10] += 50_000  # a leftover that was there for a day
    used[20] -= 1000
    growth = growth_of(samples(*used))
    assert growth is not None
    assert growth.per_day == pytest.approx(100, rel=0.05)


def test_forecast_lies_between_the_quartiles() -> None:
    forecast = forecast_full(NOW, 1000, Growth(per_day=100, low=50, high=200))
    assert forecast is not None
    assert (forecast.earliest, forecast.at, forecast.latest) == tuple(
        NOW + timedelta(days=days) for days in (5, 10, 20)
    )
    unsteady = forecast_full(NOW, 1000, Growth(per_day=100, low=-5, high=200))
    assert unsteady is not None
    assert unsteady.latest is None


@pytest.mark.parametrize(
    "growth",
    [
        None,
        Growth(per_day=0, low=0, high=0),
        Growth(per_day=-5, low=-9, high=3),
        Growth(per_day=1e-9, low=0, high=1),
    ],
)
def test_no_forecast_of_what_does_not_grow(growth: Growth | None) -> None:
    assert forecast_full(NOW, 10**12, growth) is None


def test_what_is_full_is_full_now() -> None:
    forecast = forecast_full(NOW, 0, Growth(per_day=1, low=1, high=1))
    assert forecast is not None
    assert forecast.at == NOW


# -- measuring


@pytest.fixture
def state(tmp_path: Path) -> StateDatabase:
    return open_state(None, {"PGSTOW_STATE_DIR": str(tmp_path / "state")})


def test_samples_are_kept_for_three_months(state: StateDatabase) -> None:
    kept = StorageSamples(state)
    for days in (100, 91, 2, 1, 0):
        kept.add(StorageSample(place="disk", time=NOW - timedelta(days=days), used_bytes=days))
    kept.add(StorageSample(place="disk", time=NOW, used_bytes=77))
    kept.add(StorageSample(place="other", time=NOW, used_bytes=1, free_bytes=2, total_bytes=3))
    found = kept.of("disk", since=NOW - timedelta(days=200))
    assert [each.used_bytes for each in found] == [91, 2, 1, 0]
    assert kept.of("other", since=NOW)[0].total_bytes == 3


def quota(store: WatchedStore, samples: StorageSamples | None, now: datetime) -> StorageFacts:
    (facts,) = observe_storage("off-site", store, None, quota_bytes=1000, now=now, samples=samples)
    return facts


def test_a_sample_from_times_to_come_is_not_the_newest(state: StateDatabase) -> None:
    """Else nothing would be kept until then, and the bucket listed every minute."""
    store = WatchedStore(MemoryStore())
    store.put("data/1", b"x" * 100)
    quota(store, StorageSamples(state), NOW + timedelta(days=60))
    for minutes in (0, 1, 59):
        quota(store, StorageSamples(state), NOW + timedelta(minutes=minutes))
    assert len(store.names("list")) == 2
    assert StorageSamples(state).of("repository off-site", since=NOW)[0].time == NOW


def test_a_bucket_is_listed_once_an_hour(state: StateDatabase) -> None:
    store = WatchedStore(MemoryStore())
    for day in range(4):
        store.put(f"data/{day}", b"x" * 100)
        quota(store, StorageSamples(state), NOW + timedelta(days=day))
    assert len(store.names("list")) == 4
    facts = quota(store, StorageSamples(state), NOW + timedelta(days=3, minutes=59))
    assert len(store.names("list")) == 4
    assert (facts.used_bytes, facts.free_bytes, facts.total_bytes) == (400, 600, 1000)
    assert facts.growth is not None
    assert facts.growth.per_day == 100
    assert facts.forecast_full is not None
    assert facts.forecast_full.at == NOW + timedelta(days=9, minutes=59)
    quota(store, StorageSamples(state), NOW + timedelta(days=3, minutes=60))
    assert len(store.names("list")) == 5


def test_a_clock_that_was_ahead_does_not_stop_measuring(state: StateDatabase) -> None:
    store = WatchedStore(MemoryStore())
    quota(store, StorageSamples(state), NOW + timedelta(days=30))
    store.put("data/1", b"x" * 100)
    assert quota(store, StorageSamples(state), NOW).used_bytes == 100


def test_more_than_the_quota_is_nothing_free() -> None:
    store = WatchedStore(MemoryStore())
    store.put("data/1", b"x" * 2000)
    facts = quota(store, None, NOW)
    assert (facts.free_bytes, facts.free_share) == (0, 0.0)


def test_without_the_state_database_only_the_forecast_is_missing(
    state: StateDatabase, tmp_path: Path
) -> None:
    class Away(StorageSamples):
        def of(self, place: str, *, since: datetime) -> list[StorageSample]:
            raise StateError("it is away")

        def add(self, sample: StorageSample) -> None:
            raise StateError("it is away")

    store = WatchedStore(MemoryStore())
    found = observe_storage("near", store, tmp_path, quota_bytes=50, now=NOW, samples=Away(state))
    assert [each.where for each in found] == [f"disk of {tmp_path}", "repository near"]
    assert found[0].free_bytes
    assert found[0].growth is None


def test_a_bucket_without_quota_is_not_listed_for_nothing() -> None:
    store = WatchedStore(MemoryStore())
    assert observe_storage("far", store, None, quota_bytes=None, now=NOW, samples=None) == ()
    assert store.calls == []


def test_a_disk_that_cannot_be_asked_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be told"):
        observe_storage("near", MemoryStore(), tmp_path / "gone", quota_bytes=None, now=NOW, samples=None)
