"""What every store must do, asked of every store."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgstow.core.errors import ObjectExists, ObjectNotFound, StoreError, StoreUnavailable
from pgstow.store.api import ObjectInfo, Store
from pgstow.store.caching import CachingStore
from pgstow.store.local import LocalStore
from pgstow.store.memory import MemoryStore
from pgstow.store.opening import open_store
from pgstow.store.probing import probe_conditional_put
from pgstow.store.retrying import RetryingStore
from support.s3 import S3Bucket

BAD_NAMES = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../up",
    "data/../../up",
    "data/./x",
    "data//x",
    "data/",
    "a\nb",
    "a\0b",
    "naïve",
    "tmp/x",
    "data/x-tmp-17",
    "x" * 513,
]


class FlakyStore(MemoryStore):
    """Loses requests before and replies after the work was done."""

    def __init__(self) -> None:
        super().__init__()
        self._chance = random.Random(2)

    def _maybe_fail(self) -> None:
        if self._chance.random() < 0.2:
            raise StoreUnavailable("lost")

    def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
        self._maybe_fail()
        super().put(name, data, if_absent=if_absent)
        self._maybe_fail()

    def get(self, name: str) -> bytes:
        self._maybe_fail()
        return super().get(name)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        self._maybe_fail()
        return super().get_range(name, offset, length)

    def stat(self, name: str) -> ObjectInfo:
        self._maybe_fail()
        return super().stat(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        breaks_at = self._chance.choice([0, 1, 5, 50, None, None])
        for position, info in enumerate(super().list(prefix)):
            if position == breaks_at:
                raise StoreUnavailable("lost")
            yield info

    def delete(self, name: str) -> None:
        self._maybe_fail()
        super().delete(name)
        self._maybe_fail()


@pytest.fixture(params=["local", "memory", "s3", "retrying", "caching"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    match request.param:
        case "local":
            return LocalStore(tmp_path / "new" / "store")
        case "s3":
            bucket: S3Bucket = request.getfixturevalue("s3_bucket")
            return open_store(bucket.location, bucket.environ)
        case "retrying":
            return RetryingStore(FlakyStore(), sleep=lambda _seconds: None)
        case "caching":
            return CachingStore(MemoryStore(), tmp_path / "cache")
    return MemoryStore()


def names(store: Store, prefix: str = "") -> list[str]:
    return sorted(info.name for info in store.list(prefix))


@pytest.mark.parametrize("data", [b"", b"x", b"some bytes\0\xff"])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_get_returns_what_put_took(store: Store, data: bytes, kind: Callable[[bytes], bytes]) -> None:
    store.put("data/ab/object", kind(data))

    got = store.get("data/ab/object")

    assert type(got) is bytes
    assert got == data


def test_part_of_a_larger_buffer_is_stored_as_that_part(store: Store) -> None:
    store.put("part", memoryview(bytearray(b"...middle..."))[3:9])

    assert store.get("part") == b"middle"


def test_a_pack_sized_object_comes_back_whole_and_in_parts(store: Store) -> None:
    data = random.Random(1).randbytes(16 << 20)
    store.put("data/pack", data)

    assert store.get("data/pack") == data
    assert store.stat("data/pack").size_bytes == len(data)
    assert store.get_range("data/pack", 5 << 20, 3 << 20) == data[5 << 20 : 8 << 20]


@pytest.mark.parametrize(("offset", "length"), [(0, 10), (0, 1), (9, 1), (3, 4), (0, 0), (4, 0), (10, 0)])
def test_a_range_is_exactly_those_bytes(store: Store, offset: int, length: int) -> None:
    store.put("ten", b"0123456789")

    assert store.get_range("ten", offset, length) == b"0123456789"[offset : offset + length]


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 11), (9, 2), (10, 1), (11, 0), (11, 1), (0, 1 << 40), (-1, 1), (0, -1)]
)
def test_a_range_that_is_not_there_is_an_error(store: Store, offset: int, length: int) -> None:
    store.put("ten", b"0123456789")

    with pytest.raises(StoreError) as caught:
        store.get_range("ten", offset, length)

    assert type(caught.value) is StoreError


def test_put_replaces(store: Store) -> None:
    store.put("config", b"old and longer")
    store.put("config", b"new")

    assert store.get("config") == b"new"
    assert names(store) == ["config"]


def test_create_if_absent_creates_once(store: Store) -> None:
    store.put("config", b"first", if_absent=True)

    with pytest.raises(ObjectExists):
        store.put("config", b"second", if_absent=True)

    assert store.get("config") == b"first"


def test_create_if_absent_after_delete_creates_again(store: Store) -> None:
    store.put("config", b"first", if_absent=True)
    store.delete("config")
    store.put("config", b"second", if_absent=True)

    assert store.get("config") == b"second"


def test_probe_finds_conditional_put_and_leaves_nothing(store: Store) -> None:
    assert probe_conditional_put(store) is True
    assert names(store) == []


def test_of_many_who_create_at_once_exactly_one_wins(store: Store) -> None:
    workers = 8
    for round_number in range(10):
        name = f"locks/{round_number}"
        start = threading.Barrier(workers)

        def create(worker: int, name: str = name, start: threading.Barrier = start) -> bytes | None:
            data = b"worker %d" % worker
            start.wait()
            try:
                store.put(name, data, if_absent=True)
            except ObjectExists:
                return None
            return data

        with ThreadPoolExecutor(workers) as pool:
            winners = [data for data in pool.map(create, range(workers)) if data is not None]

        assert winners == [store.get(name)]


def test_a_reader_never_sees_a_torn_object(store: Store) -> None:
    size = 200_000
    contents = [bytes([65 + number]) * (size + number) for number in range(4)]
    store.put("data/torn", contents[0])
    stop = threading.Event()

    def read() -> int:
        seen = 0
        while not stop.is_set():
            assert store.get("data/torn") in contents
            seen += 1
        return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for number in range(40):
                store.put("data/torn", contents[number % 4])
        finally:
            stop.set()

        assert all(reader.result() > 0 for reader in readers)


def test_absent_objects(store: Store) -> None:
    store.put("data/ab/there", b"1")
    for name in ["gone", "data/gone", "data/ab/there/below", "data/ab", "other/gone"]:
        with pytest.raises(ObjectNotFound):
            store.get(name)
        with pytest.raises(ObjectNotFound):
            store.get_range(name, 0, 1)
        with pytest.raises(ObjectNotFound):
            store.get_range(name, 0, 0)
        with pytest.raises(ObjectNotFound):
            store.stat(name)
        store.delete(name)

    assert store.get("data/ab/there") == b"1"


def test_delete_is_idempotent(store: Store) -> None:
    store.put("locks/mine", b"1")

    store.delete("locks/mine")
    store.delete("locks/mine")

    with pytest.raises(ObjectNotFound):
        store.get("locks/mine")
    assert names(store) == []


def test_list_shows_the_folder_and_what_is_below_it(store: Store) -> None:
    for name in ["config", "data/00/a", "data/00/b", "data/ff/c", "database", "data-2/x", "keys/k"]:
        store.put(name, name.encode())

    assert names(store, "data/") == ["data/00/a", "data/00/b", "data/ff/c"]
    assert names(store, "data/00/") == ["data/00/a", "data/00/b"]
    assert names(store, "keys/") == ["keys/k"]
    assert names(store, "absent/") == []
    assert names(store) == [
        "config",
        "data-2/x",
        "data/00/a",
        "data/00/b",
        "data/ff/c",
        "database",
        "keys/k",
    ]
    assert {info.name: info.size_bytes for info in store.list("data/")} == {
        "data/00/a": 9,
        "data/00/b": 9,
        "data/ff/c": 9,
    }


def test_list_of_an_untouched_store_is_empty(store: Store) -> None:
    assert names(store) == []
    assert names(store, "data/") == []


def test_list_shows_each_of_many_objects_once(store: Store) -> None:
    expected = sorted(f"index/{number:04}" for number in range(1200))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: store.put(name, b"1"), expected))

    assert names(store, "index/") == expected


def test_objects_deleted_while_listing_do_no_harm(store: Store) -> None:
    for number in range(300):
        store.put(f"data/{number}", b"1")
    listing = store.list("data/")
    first = next(listing)

    for number in range(300):
        store.delete(f"data/{number}")

    assert first.name not in {info.name for info in listing}


@pytest.mark.parametrize("prefix", ["data", "/", "../", "data//", "..", "tmp/"])
def test_bad_folders_cannot_be_listed(store: Store, prefix: str) -> None:
    with pytest.raises(StoreError, match="not a valid folder"):
        list(store.list(prefix))


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused_everywhere(store: Store, name: str) -> None:
    operations: list[Callable[[], object]] = [
        lambda: store.put(name, b"1"),
        lambda: store.put(name, b"1", if_absent=True),
        lambda: store.get(name),
        lambda: store.get_range(name, 0, 1),
        lambda: store.stat(name),
        lambda: store.delete(name),
    ]
    for operation in operations:
        with pytest.raises(StoreError, match="not a valid object name"):
            operation()


def test_names_with_every_allowed_character_survive(store: Store) -> None:
    name = "pgstow/A z(0)+=@._-/..hidden/x.y"
    store.put(name, b"1")

    assert names(store, "pgstow/") == [name]
    assert store.get(name) == b"1"
    assert store.stat(name).name == name


def test_times_are_the_stores_and_in_utc(store: Store) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    store.put("config", b"1")

    found = store.stat("config")

    assert found.modified.utcoffset() == timedelta(0)
    assert before <= found.modified <= datetime.now(UTC) + timedelta(seconds=5)
    (listed,) = store.list("")
    assert listed.size_bytes == found.size_bytes == 1
    assert abs(listed.modified - found.modified) < timedelta(seconds=1)


def test_many_threads_share_a_store(store: Store) -> None:
    def work(number: int) -> bytes:
        store.put(f"data/{number % 7}/{number}", b"%d" % number)
        return store.get(f"data/{number % 7}/{number}")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(120))) == [b"%d" % number for number in range(120)]


def test_nothing_is_stale_after_finished_puts(store: Store) -> None:
    store.put("config", b"1")

    assert store.remove_stale_temporaries() == 0
    assert store.get("config") == b"1"


def test_location_and_repr_hold_no_secret(store: Store) -> None:
    assert store.location
    assert "testing-secret" not in store.location + repr(store)
