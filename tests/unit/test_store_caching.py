"""Copies of index and snapshot files, and records of drills, on this machine: used when they are right, never needed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgstow.core.errors import ObjectNotFound
from pgstow.store.api import ObjectInfo
from pgstow.store.caching import CachingStore, cache_folder
from pgstow.store.memory import MemoryStore
from pgstow.store.opening import open_retrying_store
from pgstow.store.retrying import RetryingStore

DATA = b"the bytes of an index file"
NAME = f"index/{hashlib.sha256(DATA).hexdigest()}"


class CountingStore(MemoryStore):
    """Counts what is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def get(self, name: str) -> bytes:
        self.fetched.append(name)
        return super().get(name)


@pytest.fixture
def far() -> CountingStore:
    return CountingStore()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "here"


def listed(store: CachingStore, prefix: str) -> Iterator[ObjectInfo]:
    return iter(list(store.list(prefix)))


def test_a_file_is_fetched_once(far: CountingStore, folder: Path) -> None:
    far.put(NAME, DATA)
    for _ in range(3):
        assert CachingStore(far, folder).get(NAME) == DATA
    assert far.fetched == [NAME]


def test_what_was_written_here_is_not_fetched_at_all(far: CountingStore, folder: Path) -> None:
    CachingStore(far, folder).put(NAME, memoryview(DATA))
    assert CachingStore(far, folder).get(NAME) == DATA
    assert far.fetched == []


@pytest.mark.parametrize("damaged", [b"", DATA[:-1], b"X" + DATA[1:]])
def test_a_damaged_copy_is_replaced(far: CountingStore, folder: Path, damaged: bytes) -> None:
    store = CachingStore(far, folder)
    store.put(NAME, DATA)
    (folder / NAME).write_bytes(damaged)
    assert store.get(NAME) == DATA
    assert (folder / NAME).read_bytes() == DATA


def test_packs_locks_and_keys_are_never_kept(far: CountingStore, folder: Path) -> None:
    store = CachingStore(far, folder)
    for name in ("config", "keys/aa", "locks/bb", "data/cc/ccdd", "pgstow/runs/x"):
        store.put(name, b"1")
        far.put(name, b"2")
        assert store.get(name) == b"2"
    assert list(folder.iterdir()) == []


RECORD = "pgstow/drills/20261121T020000Z-0b54e8a7"


def fetched_again(far: CountingStore, folder: Path) -> bytes:
    """Return what another look at the records reads: it lists them, and gets each."""
    far.fetched.clear()
    store = CachingStore(far, folder)
    (found,) = [store.get(info.name) for info in listed(store, "pgstow/drills/")]
    return found


def test_a_record_of_a_drill_is_fetched_once(far: CountingStore, folder: Path) -> None:
    far.put(RECORD, DATA)
    assert (fetched_again(far, folder), far.fetched) == (DATA, [RECORD])
    assert (fetched_again(far, folder), far.fetched) == (DATA, [])
    assert CachingStore(far, folder).get(RECORD) == DATA
    assert far.fetched == [RECORD], "without a listing nothing says that the copy is right"


def test_a_record_that_was_replaced_in_the_store_is_seen(far: CountingStore, folder: Path) -> None:
    far.put(RECORD, DATA)
    fetched_again(far, folder)
    far.put(RECORD, DATA[::-1])  # as long as it was
    assert (fetched_again(far, folder), far.fetched) == (DATA[::-1], [RECORD])
    far.delete(RECORD)
    store = CachingStore(far, folder)
    assert list(listed(store, "pgstow/drills/")) == []
    with pytest.raises(ObjectNotFound):
        store.get(RECORD)


@pytest.mark.parametrize("damaged", [b"", DATA, bytes(32) + DATA])
def test_a_damaged_copy_of_a_record_is_replaced(far: CountingStore, folder: Path, damaged: bytes) -> None:
    far.put(RECORD, DATA)
    fetched_again(far, folder)
    whole = (folder / RECORD).read_bytes()
    (folder / RECORD).write_bytes(damaged)
    assert fetched_again(far, folder) == DATA
    assert (folder / RECORD).read_bytes() == whole


def test_a_record_is_read_back_from_the_store_after_it_was_written(far: CountingStore, folder: Path) -> None:
    far.put(RECORD, b"an older one")
    fetched_again(far, folder)
    store = CachingStore(far, folder)
    listed(store, "pgstow/drills/")
    store.put(RECORD, DATA)
    far.put(RECORD, b"what the store made of it")
    assert store.get(RECORD) == b"what the store made of it"


def test_what_a_listing_does_not_show_is_dropped(far: CountingStore, folder: Path) -> None:
    store = CachingStore(far, folder)
    store.put(NAME, DATA)
    far.delete(NAME)
    listed(store, "index/")
    assert (folder / NAME).exists()  # young: another process may just have written it
    os.utime(folder / NAME, (0, time.time() - 120))
    listed(store, "index/")
    assert not (folder / NAME).exists()
    with pytest.raises(ObjectNotFound):
        store.get(NAME)


def test_a_listing_that_was_left_early_drops_nothing(far: CountingStore, folder: Path) -> None:
    store = CachingStore(far, folder)
    for number in range(3):
        data = bytes([number])
        store.put(f"index/{hashlib.sha256(data).hexdigest()}", data)
    for path in (folder / "index").iterdir():
        os.utime(path, (0, 0))
    next(iter(store.list("index/")))
    assert len(list((folder / "index").iterdir())) == 3


def test_folders_of_forgotten_repositories_go(far: CountingStore, tmp_path: Path) -> None:
    forgotten = tmp_path / "forgotten"
    (forgotten / "index").mkdir(parents=True)
    os.utime(forgotten, (0, time.time() - 40 * 86400))
    CachingStore(far, tmp_path / "used")
    assert [path.name for path in tmp_path.iterdir()] == ["used"]


def test_a_folder_that_cannot_be_written_is_done_without(far: CountingStore, tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_bytes(b"")
    store = CachingStore(far, blocker / "cache")
    store.put(NAME, DATA)
    assert [store.get(NAME), store.get(NAME)] == [DATA, DATA]
    assert [info.name for info in listed(store, "index/")] == [NAME]
    store.delete(NAME)


def test_copies_are_for_the_owner_alone(far: CountingStore, folder: Path) -> None:
    CachingStore(far, folder).put(NAME, DATA)
    modes = [path.stat().st_mode & 0o077 for path in (folder, folder / "index", folder / NAME)]
    assert modes == [0, 0, 0]


def test_repositories_have_folders_of_their_own(tmp_path: Path) -> None:
    assert cache_folder(tmp_path, "s3://a/b") != cache_folder(tmp_path, "s3://a/c")


@pytest.mark.parametrize(
    ("location", "environ", "kind"),
    [
        ("s3://bucket/x", {"PGSTOW_CACHE_DIR": "cache"}, CachingStore),
        ("s3://bucket/x", {"HOME": "home"}, CachingStore),
        ("s3://bucket/x", {"PGSTOW_CACHE_DIR": "", "HOME": "home"}, RetryingStore),
        ("s3://bucket/x", {}, RetryingStore),
        ("folder", {"PGSTOW_CACHE_DIR": "cache"}, RetryingStore),
        ("file:///folder", {"PGSTOW_CACHE_DIR": "cache"}, RetryingStore),
    ],
)
def test_only_buckets_are_cached_and_only_where_told(
    location: str, environ: dict[str, str], kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    credentials = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    store = open_retrying_store(location, credentials | environ, is_cached=True)
    assert type(store) is kind
    assert type(open_retrying_store(location, credentials | environ)) is RetryingStore
