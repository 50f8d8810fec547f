"""A prune that dies at any operation leaves every snapshot whole, and the next one completes what it began."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from pgstow.core.errors import PgstowError, RepositoryDamaged, StoreUnavailable
from pgstow.store.memory import MemoryStore
from support.pruning import (
    DAY_S,
    Clock,
    assert_sound,
    copy_of,
    needed_blobs,
    objects,
    prune_now,
    remove_locks,
    remove_snapshots,
    restored,
)
from support.repositories import (
    WatchedStore,
    init_repository,
    open_repository,
    random_bytes,
    read_files,
    save_backup,
)

_CHANGES = ("put", "delete")


class DiedError(BaseException):
    """Not an error that anything may handle: the process is gone."""


@pytest.fixture(autouse=True)
def small_packs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pgstow.repository.writer.PACK_BYTES", 16 << 10)
        patch.setattr("pgstow.upkeep.prune_plan._SMALL_PACK_BYTES", 1 << 10)
        yield


@dataclass(frozen=True)
class Scene:
    """A repository in which a prune has everything to do."""

    store: MemoryStore
    clock: Clock
    restored: dict[str, dict[str, bytes]]
    operations: int
    changes: int


def blobs(*seeds: int) -> dict[str, list[bytes]]:
    return {"f": [random_bytes(4000, seed) for seed in seeds]}


@functools.cache
def scene() -> Scene:
    clock = Clock()
    store = MemoryStore(now=clock)
    save = functools.partial(save_backup, init_repository(store))
    late, expired = save(blobs(1, 2, 3, 4), run="late"), save(blobs(5, 6, 7, 8), run="expired")
    zombie, unaware = open_repository(store), open_repository(store)
    remove_snapshots(store, late, expired)
    prune_now(store)
    save_backup(zombie, blobs(1, 2, 3, 4), run="zombie")
    clock.pass_s(2 * DAY_S)
    save = functools.partial(save_backup, open_repository(store))
    partly = save(blobs(9, 10, 11), run="partly")
    save(blobs(10, 11, 12), run="kept")
    save_backup(unaware, blobs(10, 12, 13), run="twice")
    unused = save(blobs(30, 31, 32, 33), run="unused")
    index = objects(store, "index")
    orphaned = save_backup(open_repository(store), blobs(20, 21, 22, 23), run="orphaned")
    for name in objects(store, "index") - index:
        store.delete(name)
    remove_snapshots(store, partly, orphaned, unused)
    complete = copy_of(store)
    plan, _ = prune_now(complete)
    assert plan.reindex
    assert plan.remove
    assert plan.unused
    assert plan.repack
    assert plan.orphans
    watched = WatchedStore(inner=copy_of(store))
    prune_now(watched)
    return Scene(
        store=store,
        clock=clock,
        restored=restored(complete),
        operations=len(watched.calls),
        changes=len([method for method, _ in watched.calls if method in _CHANGES]),
    )


def assert_recovers(store: MemoryStore) -> None:
    """What died is survived: nothing is lost once packs are listed again, and pruning comes to an end."""
    remove_locks(store)
    assert_whole(store)
    prune_now(store, max_unused=0)
    assert restored(store) == scene().restored
    assert_sound(store)
    scene().clock.moment += timedelta(seconds=DAY_S)
    prune_now(store, max_unused=0, grace_s=0)
    prune_now(store, max_unused=0, grace_s=0)
    packs = {pack.pack_id.hex() for pack in open_repository(store).indexed_packs()}
    assert {name.rpartition("/")[2] for name in objects(store, "data")} == packs
    assert objects(store, "pgstow") == set()
    assert restored(store) == scene().restored
    assert_sound(store)
    needed_blobs(store)


def assert_whole(store: MemoryStore) -> None:
    """Every snapshot can be read; the one that appeared late only once its packs were listed again."""
    repository = open_repository(store)
    for snapshot in repository.snapshots():
        (run,) = (tag for tag in snapshot.tags if tag.startswith("run="))
        try:
            assert read_files(repository, snapshot) == scene().restored[run]
        except RepositoryDamaged:
            assert run == "run=zombie"
            assert objects(store, "index") == objects(scene().store, "index")


def test_every_kind_of_work_was_among_the_changes() -> None:
    watched = WatchedStore(inner=copy_of(scene().store))
    prune_now(watched)
    changed = {(method, name.split("/")[0]) for method, name in watched.calls if method in _CHANGES}
    work = {("put", "data"), ("put", "index"), ("put", "pgstow"), ("delete", "data"), ("delete", "index")}
    assert changed == {*work, ("delete", "pgstow"), ("put", "locks"), ("delete", "locks")}


def test_dead_at_every_change_in_turn() -> None:
    for last in range(scene().changes + 1):
        store = copy_of(scene().store)
        done = itertools.count()

        def die(method: str, name: str, last: int = last, done: Iterator[int] = done) -> None:
            if method in _CHANGES and next(done) >= last:
                raise DiedError

        watched = WatchedStore(inner=store, before=die)
        with contextlib.suppress(DiedError):
            prune_now(watched)
        assert_recovers(store)


def test_an_error_at_every_operation_in_turn() -> None:
    for last in range(scene().operations):
        store = copy_of(scene().store)
        done = itertools.count()

        def fail(method: str, name: str, last: int = last, done: Iterator[int] = done) -> None:
            if next(done) == last:
                raise StoreUnavailable(f"{method} {name} was cut off")

        with contextlib.suppress(PgstowError):
            prune_now(WatchedStore(inner=store, before=fail))
        assert_recovers(store)
