"""Reading backups where nothing can be written: credentials that only read, a disk that is full."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from unittest.mock import patch

import pytest

from pgstow.app.copy import copy_repository
from pgstow.app.prune import count_repository
from pgstow.app.reading import reading
from pgstow.app.repository_check import check_repository
from pgstow.app.verify import verify_backups
from pgstow.core.errors import RepositoryLocked, StoreDenied, StoreError, StoreFull
from pgstow.core.progress import SilentProgress
from pgstow.repository.holder import Holder
from pgstow.store.memory import MemoryStore
from support.dated_backups import save_dated
from support.repositories import WatchedStore, init_repository, open_repository


class Noting(SilentProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.parametrize("error", [StoreDenied("read-only"), StoreFull("no room")])
def test_a_store_that_takes_nothing_is_verified_all_the_same(error: StoreError) -> None:
    inner = MemoryStore()
    save_dated(init_repository(inner), 1, datetime(2026, 11, 20, 2, tzinfo=UTC))
    store = WatchedStore(inner)

    def refuse(method: str, name: str) -> None:
        if method in ("put", "delete"):
            raise error

    store.before = refuse
    progress = Noting()
    report = verify_backups((), open_repository(store), progress, read_data=True)
    assert report.is_sound
    assert "no lock could be taken" in progress.notes[0]


def test_a_repository_that_is_locked_stays_so() -> None:
    repository = init_repository(MemoryStore())
    with (
        repository.lock(exclusive=True),
        pytest.raises(RepositoryLocked),
        reading(open_repository(repository.store), SilentProgress().note) as check_lock,
    ):
        check_lock()


def test_who_may_not_delete_reads_beside_a_dead_lock() -> None:
    """Credentials that only add: the lock of a dead process stays, and so does the own one, which is told."""
    inner = MemoryStore()
    save_dated(init_repository(inner), 1, datetime(2026, 11, 20, 2, tzinfo=UTC))
    store = WatchedStore(inner)

    def refuse(method: str, name: str) -> None:
        if method == "delete":
            raise StoreDenied("may not delete")

    store.before = refuse
    dead = replace(Holder.current(), pid=2**22 + 1)
    with patch.object(Holder, "current", lambda: dead), open_repository(store).lock():
        pass
    progress = Noting()
    assert verify_backups((), open_repository(store), progress, read_data=True).is_sound
    (note,) = progress.notes
    assert "could not be removed" in note
    assert len(list(inner.list("locks/"))) == 2


@pytest.mark.parametrize("error", [StoreDenied("read-only"), StoreFull("no room")])
def test_it_is_counted_checked_and_copied_all_the_same(error: StoreError) -> None:
    inner = MemoryStore()
    save_dated(init_repository(inner), 1, datetime(2026, 11, 20, 2, tzinfo=UTC))

    def refuse(method: str, name: str) -> None:
        if method in ("put", "delete"):
            raise error

    repository = open_repository(WatchedStore(inner, before=refuse))
    progress = Noting()
    assert count_repository(repository, progress).snapshots == 1
    assert check_repository(repository, progress, read_data=False).is_sound
    target = init_repository(MemoryStore())
    assert len(copy_repository(repository, target, (), progress, dry_run=False).copied) == 1
    assert [note.partition(" (")[0] for note in progress.notes] == ["no lock could be taken"] * 3
