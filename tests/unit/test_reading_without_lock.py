"""Reading backups where nothing can be written: credentials that only read, a disk that is full."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pgstow.app.reading import reading
from pgstow.app.verify import verify_backups
from pgstow.core.errors import RepositoryLocked, StoreDenied, StoreError, StoreFull
from pgstow.core.progress import SilentProgress
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
