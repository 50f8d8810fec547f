"""When RetryingStore tries again, when it gives up, and what it makes of lost replies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from pgstow.core.errors import (
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from pgstow.store.api import ObjectInfo
from pgstow.store.memory import MemoryStore
from pgstow.store.retrying import RetryingStore, RetryPolicy


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Scripted(MemoryStore):
    """Follows a script, one entry a request: an error before the work, one after it, or None."""

    def __init__(self, *script: StoreError | tuple[StoreError] | None) -> None:
        super().__init__()
        self.script = list(script)
        self.requests: list[str] = []

    def _next(self, request: str) -> StoreError | None:
        self.requests.append(request)
        step = self.script.pop(0) if self.script else None
        if isinstance(step, StoreError):
            raise step
        return step[0] if step else None

    def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
        lost = self._next("put")
        super().put(name, data, if_absent=if_absent)
        if lost:
            raise lost

    def get(self, name: str) -> bytes:
        self._next("get")
        return super().get(name)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        self._next("get_range")
        return super().get_range(name, offset, length)

    def stat(self, name: str) -> ObjectInfo:
        self._next("stat")
        return super().stat(name)

    def delete(self, name: str) -> None:
        lost = self._next("delete")
        super().delete(name)
        if lost:
            raise lost

    def remove_stale_temporaries(self) -> int:
        self._next("clean")
        return 3


LOST = StoreUnavailable("the reply was lost")


def retrying(inner: MemoryStore, time: Time, **options: object) -> RetryingStore:
    return RetryingStore(inner, clock=time.clock, sleep=time.sleep, chance=lambda: 0.999999, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_name", "operation"),
    [
        ("get", lambda store: store.get("there")),
        ("get_range", lambda store: store.get_range("there", 0, 3)),
        ("stat", lambda store: store.stat("there").size_bytes),
        ("delete", lambda store: store.delete("there")),
        ("put", lambda store: store.put("new", b"abc")),
        ("put", lambda store: store.put("new", b"abc", if_absent=True)),
        ("clean", lambda store: store.remove_stale_temporaries()),
    ],
)
def test_every_operation_is_tried_again(request_name: str, operation: Callable[[object], object]) -> None:
    inner, time = Scripted(), Time()
    MemoryStore.put(inner, "there", b"abc")
    inner.script = [LOST, LOST]
    expected = {"get": b"abc", "get_range": b"abc", "stat": 3, "clean": 3}

    assert operation(retrying(inner, time)) == expected.get(request_name)

    assert inner.requests == [request_name] * 3
    assert len(time.pauses) == 2


@pytest.mark.parametrize("error", [StoreDenied("x"), StoreFull("x"), ObjectNotFound("x"), StoreError("x")])
def test_permanent_errors_are_not_tried_again(error: StoreError) -> None:
    inner, time = Scripted(error), Time()

    with pytest.raises(type(error)) as caught:
        retrying(inner, time).put("new", b"abc")

    assert caught.value is error
    assert inner.requests == ["put"]
    assert time.pauses == []


def test_pauses_double_to_a_limit_and_end_after_a_bounded_time() -> None:
    inner, time = Scripted(*[LOST] * 100), Time()

    with pytest.raises(StoreUnavailable, match=r"lost \(gave up after 15 attempts in 271 s\)") as caught:
        retrying(inner, time).get("there")

    assert [round(pause, 1) for pause in time.pauses[:8]] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert max(time.pauses) <= 30
    assert sum(time.pauses) <= 300
    assert len(inner.requests) == 15
    assert caught.value.__cause__ is LOST


def test_chance_takes_up_to_half_of_a_pause() -> None:
    inner, time = Scripted(LOST, LOST, LOST), Time()
    chances = iter([0.0, 0.5, 0.999999])
    store = RetryingStore(inner, clock=time.clock, sleep=time.sleep, chance=lambda: next(chances))
    store.put("new", b"abc")

    assert [round(pause, 2) for pause in time.pauses] == [0.25, 0.75, 2.0]


def test_a_slow_first_failure_does_not_use_up_the_time() -> None:
    time = Time()

    class Slow(Scripted):
        def _next(self, request: str) -> StoreError | None:
            time.now += 1000
            return super()._next(request)

    inner = Slow(LOST)
    retrying(inner, time).put("new", b"abc")

    assert inner.requests == ["put", "put"]


def test_facts_and_hint_survive_giving_up() -> None:
    error = StoreUnavailable("busy", hint="wait", http_status=503)
    policy = RetryPolicy(give_up_after_s=0)

    with pytest.raises(StoreUnavailable) as caught:
        retrying(Scripted(error), Time(), policy=policy).get("x")

    assert caught.value.facts == {"http_status": 503}
    assert caught.value.hint == "wait"


def test_waiting_is_told() -> None:
    told: list[str] = []
    retrying(Scripted(LOST), Time(), on_retry=told.append).put("new", b"abc")

    assert told == ["the reply was lost; trying again in 0.5 s"]


def test_a_create_whose_reply_was_lost_is_recognised_as_our_own() -> None:
    inner = Scripted((LOST,))
    retrying(inner, Time()).put("config", b"ours", if_absent=True)

    assert inner.requests == ["put", "put", "get"]
    assert inner.get("config") == b"ours"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_create_whose_reply_was_lost_compares_any_buffer(kind: Callable[[bytes], bytes]) -> None:
    inner = Scripted((LOST,))
    retrying(inner, Time()).put("config", kind(b"ours"), if_absent=True)

    assert inner.get("config") == b"ours"


def test_a_create_that_lost_its_request_and_then_the_race_has_lost() -> None:
    inner = Scripted(LOST)
    MemoryStore.put(inner, "config", b"theirs")

    with pytest.raises(ObjectExists):
        retrying(inner, Time()).put("config", b"ours", if_absent=True)

    assert inner.get("config") == b"theirs"


def test_a_create_of_equal_bytes_that_never_failed_has_still_lost() -> None:
    """Without a lost reply an equal object is somebody else's."""
    inner = Scripted()
    MemoryStore.put(inner, "config", b"same")

    with pytest.raises(ObjectExists):
        retrying(inner, Time()).put("config", b"same", if_absent=True)

    assert inner.requests == ["put"]


def test_reading_back_after_a_lost_reply_is_tried_again_too() -> None:
    inner = Scripted((LOST,), None, LOST, LOST)
    retrying(inner, Time()).put("config", b"ours", if_absent=True)

    assert inner.requests == ["put", "put", "get", "get", "get"]


def test_what_stood_in_the_way_and_is_gone_again_is_not_called_success() -> None:
    class Vanishing(Scripted):
        def get(self, name: str) -> bytes:
            self.delete(name)
            return super().get(name)

    with pytest.raises(ObjectExists):
        retrying(Vanishing((LOST,)), Time()).put("config", b"ours", if_absent=True)


class BreakingListing(MemoryStore):
    """Breaks after so many objects, each time it is asked, and turns the order round."""

    def __init__(self, breaks: list[int]) -> None:
        super().__init__()
        self.breaks = breaks
        self.requests = 0

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self.requests += 1
        infos = sorted(super().list(prefix), key=lambda info: info.name, reverse=self.requests % 2 == 0)
        limit = self.breaks.pop(0) if self.breaks else len(infos)
        yield from infos[:limit]
        if limit < len(infos):
            raise LOST


def test_a_broken_listing_starts_over_and_shows_each_object_once() -> None:
    inner, time = BreakingListing([3, 0, 7]), Time()
    for number in range(10):
        inner.put(f"data/{number}", b"1")

    listed = [info.name for info in retrying(inner, time).list("data/")]

    assert sorted(listed) == [f"data/{number}" for number in range(10)]
    assert inner.requests == 4
    assert len(time.pauses) == 3


def test_a_listing_that_never_gets_further_gives_up() -> None:
    inner, time = BreakingListing([2] * 1000), Time()
    for number in range(10):
        inner.put(f"data/{number}", b"1")

    with pytest.raises(StoreUnavailable, match="gave up"):
        list(retrying(inner, time).list("data/"))

    assert sum(time.pauses) <= 2 * 300


def test_a_bad_folder_is_refused_at_once() -> None:
    time = Time()

    with pytest.raises(StoreError, match="not a valid folder"):
        list(retrying(MemoryStore(), time).list("../"))

    assert time.pauses == []


def test_memory_store_tells_time_by_the_clock_it_is_given() -> None:
    moment = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
    store = MemoryStore(now=lambda: moment)
    store.put("config", b"1")

    assert store.stat("config").modified == moment
