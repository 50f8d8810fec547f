"""The bench's own bucket: what it lets pgstow measure must be what a store does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.bucket import Bucket, bucket
from pgstow.core.errors import ObjectExists, ObjectNotFound
from pgstow.store.api import Store
from pgstow.store.opening import open_store
from pgstow.store.probing import probe_conditional_put


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def near(folder: Path) -> Iterator[Bucket]:
    with bucket(folder) as running:
        yield running


def store_in(there: Bucket, folder: str = "a/repository") -> Store:
    environ = there.env(folder)
    return open_store(environ["PGSTOW_REPOSITORY"], environ)


def test_objects_come_back_whole_and_in_part(near: Bucket) -> None:
    store, content = store_in(near), bytes(range(256)) * 8192
    store.put("data/one", content)
    assert store.get("data/one") == content
    assert store.get_range("data/one", 300, 1000) == content[300:1300]
    assert store.stat("data/one").size_bytes == len(content)


def test_an_object_is_made_once(near: Bucket) -> None:
    store = store_in(near)
    assert probe_conditional_put(store)
    store.put("locks/one", b"first", if_absent=True)
    with pytest.raises(ObjectExists):
        store.put("locks/one", b"second", if_absent=True)
    assert store.get("locks/one") == b"first"


def test_only_one_of_many_makers_succeeds(near: Bucket) -> None:
    store = store_in(near)

    def make(number: int) -> bool:
        try:
            store.put("config", b"%d" % number, if_absent=True)
        except ObjectExists:
            return False
        return True

    with ThreadPoolExecutor(8) as workers:
        assert sum(workers.map(make, range(8))) == 1


def test_what_is_gone_is_not_found(near: Bucket) -> None:
    store = store_in(near)
    store.put("data/one", b"1")
    store.delete("data/one")
    for ask in (store.get, store.stat):
        with pytest.raises(ObjectNotFound):
            ask("data/one")


def test_lists_come_in_pages_and_end_at_the_prefix(near: Bucket, folder: Path) -> None:
    within = folder / "a" / "repository" / "data"
    within.mkdir(parents=True)
    names = {f"data/{number:04}" for number in range(1050)}
    for name in names:
        (within / name.removeprefix("data/")).write_bytes(b"x")
    store_in(near, "b/repository").put("data/other", b"x")
    store_in(near).put("database", b"x")
    before = near.counts()
    assert {found.name for found in store_in(near).list("data/")} == names
    assert (near.counts() - before) == {"LIST": 2}


def test_requests_are_counted_by_method(near: Bucket) -> None:
    store = store_in(near)
    store.put("data/one", b"1")
    store.put("data/two", b"2")
    store.get("data/one")
    store.stat("data/one")
    store.delete("data/one")
    assert near.counts() == {"PUT": 2, "GET": 1, "HEAD": 1, "DELETE": 1}


def test_a_far_bucket_answers_late_and_counting_is_not_late(folder: Path) -> None:
    with bucket(folder, delay_ms=150) as far:
        store = store_in(far)
        started = time.perf_counter()
        store.put("data/one", b"1")
        first = time.perf_counter() - started
        store.get("data/one")
        both = time.perf_counter() - started
    assert first >= 0.3  # the handshake of a new connection is a round trip too
    assert both >= first + 0.15
