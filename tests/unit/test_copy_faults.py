"""A copy that ends at any operation of either store: the target is whole, the source untouched, the next one finishes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from pgstow.assurance.verify import verify
from pgstow.core.errors import PgstowError, StoreUnavailable
from pgstow.repository import Repository
from pgstow.store.memory import MemoryStore
from support.copying import assert_copied, copy_all, make_target, objects, quick_locks, small_packs
from support.repositories import (
    MOMENT,
    WatchedStore,
    copy_text,
    init_repository,
    open_repository,
    random_bytes,
    save_backup,
)

FIRST = {"3456.dat": [copy_text(300, seed) for seed in range(3)], "toc.dat": [b"PGDMP"]}
SECOND = {
    "3456.dat": [copy_text(300, seed) for seed in (0, 9)],
    "large": [random_bytes(20_000, seed) for seed in range(3)],
}
EARLIER = {"toc.dat": [b"PGDMP"], "old": [copy_text(300, 50)]}


class DiedError(BaseException):
    """Not an error that anything may handle: the process is gone."""


class Fuse:
    """Lets operations through until it blows; both stores hang on one fuse."""

    def __init__(self) -> None:
        self.calls = 0
        self.blows_at = 0
        self.error: type[BaseException] = DiedError
        self.stays_blown = True
        self.writes_only = False
        self._lock = threading.Lock()

    def __call__(self, method: str, name: str) -> None:
        if self.writes_only and method not in ("put", "delete"):
            return
        with self._lock:
            self.calls += 1
            is_blown = self.calls == self.blows_at or (self.stays_blown and self.calls > self.blows_at > 0)
        if is_blown:
            raise self.error(f"{method} {name}")


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with quick_locks(), small_packs(32 << 10):
        yield


@pytest.fixture(scope="module")
def start() -> dict[bool, tuple[dict[str, bytes], dict[str, bytes]]]:
    """The objects of a source with two backups and of a target with one of its own, by whether they share a key."""
    made = {}
    with small_packs(32 << 10):
        for shares_key in (True, False):
            source = init_repository(MemoryStore())
            save_backup(source, FIRST, run="beef-1")
            save_backup(source, SECOND, run="beef-2", time=MOMENT + timedelta(days=1))
            target = make_target(MemoryStore(), source, shares_key=shares_key)
            made[shares_key] = (objects(source.store), objects(target.store))
    return made


def stores(start: tuple[dict[str, bytes], dict[str, bytes]], fuse: Fuse) -> tuple[WatchedStore, WatchedStore]:
    found = WatchedStore(), WatchedStore()
    for store, content in zip(found, start, strict=True):
        for name, data in content.items():
            store.inner.put(name, data)
        store.before = fuse
    return found


def attempt(start: tuple[dict[str, bytes], dict[str, bytes]], fuse: Fuse) -> tuple[bool, int]:
    """Copy until the fuse blows, see that all is well, copy again; return whether the first copy claimed success."""
    source_store, target_store = stores(start, Fuse())
    source, target = open_repository(source_store), open_repository(target_store)
    source_store.before = target_store.before = fuse
    claimed = False
    with contextlib.suppress(PgstowError, DiedError):
        claimed = copy_all(source, target).is_complete
    survivor = open_repository(target_store.inner)
    assert verify(survivor, read_data=True).problems == ()
    assert objects(source_store.inner) == start[0]
    if claimed:
        assert_copied(source_store.inner, target_store.inner)
    again = copy_all(open_repository(source_store.inner), survivor)
    assert again.is_complete
    assert_copied(source_store.inner, target_store.inner)
    assert len(survivor.snapshots()) == 2
    return claimed, again.sent_bytes


@pytest.mark.parametrize("shares_key", [True, False], ids=["same-key", "other-key"])
@pytest.mark.parametrize(
    ("error", "stays_blown", "writes_only"),
    [(StoreUnavailable, True, False), (StoreUnavailable, False, False), (DiedError, True, True)],
    ids=["gone", "one-error", "died"],
)
def test_at_every_operation(
    start: dict[bool, tuple[dict[str, bytes], dict[str, bytes]]],
    shares_key: bool,
    error: type[BaseException],
    stays_blown: bool,
    writes_only: bool,
) -> None:
    def fuse(blows_at: int) -> Fuse:
        made = Fuse()
        made.error, made.stays_blown, made.writes_only, made.blows_at = (
            error,
            stays_blown,
            writes_only,
            blows_at,
        )
        return made

    clean = fuse(0)
    assert attempt(start[shares_key], clean) == (True, 0)
    operations = clean.calls
    assert operations > (10 if writes_only else 40)
    sent = [attempt(start[shares_key], fuse(blows_at))[1] for blows_at in range(1, operations + 1)]
    assert sent[-1] == 0
    assert len(set(sent)) > 2  # what an interrupted copy brought over is not sent again


def test_repository_that_was_there_before_is_kept(
    start: dict[bool, tuple[dict[str, bytes], dict[str, bytes]]],
) -> None:
    source_store, target_store = stores(start[False], Fuse())
    target: Repository = open_repository(target_store)
    save_backup(target, EARLIER, run="cafe-1", folder="other")
    fuse = Fuse()
    fuse.writes_only, fuse.blows_at = True, 5
    source_store.before = target_store.before = fuse
    with pytest.raises(DiedError):
        copy_all(open_repository(source_store.inner), target)
    survivor = open_repository(target_store.inner)
    assert verify(survivor, read_data=True).problems == ()
    copy_all(open_repository(source_store.inner), survivor)
    assert {snapshot.tags[-1] for snapshot in survivor.snapshots()} == {
        "run=beef-1", "run=beef-2", "run=cafe-1",
    }  # fmt: skip
