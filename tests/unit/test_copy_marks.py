"""A rekeyed repository holds what the old one held."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from pgstow.app.copy import copy_repository, rekey_repository
from pgstow.catalog.drills import read_drills, save_drill
from pgstow.core.errors import StoreUnavailable
from pgstow.core.progress import SilentProgress
from pgstow.repository import LockTimes, Proof, Repository
from pgstow.store.api import Store
from pgstow.store.memory import MemoryStore
from support.backups import Notes
from support.dated_backups import backup_id, save_dated
from support.drilling import drill_record
from support.pruning import objects
from support.repositories import WatchedStore, init_repository, open_repository

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
PROOF = Proof(backup_id=backup_id(1), when=AT, what="whole database")


def opened(store: Store) -> Repository:
    repository = open_repository(store)
    repository.lock_times = LockTimes(settle_s=0)
    return repository


def marked(store: MemoryStore) -> None:
    """Backup 1 is held twice and proven, 2 was released, 3 has marks that cannot be read; shop is retired."""
    repository = init_repository(store)
    for number in (1, 2, 3):
        save_dated(repository, number, AT)
    marks = repository.marks()
    marks.hold(backup_id(1), at=AT, by="anna@host", reason="case 7", until=date(2027, 1, 31))
    marks.hold(backup_id(1), at=AT, by="bert@host", reason="audit")
    marks.hold(backup_id(2), at=AT, by="anna@host", reason="case 8")
    marks.release(backup_id(2), at=AT, by="anna@host", reason="closed")
    marks.hold(backup_id(9), at=AT, by="anna@host", reason="of a backup that is not there")
    marks.prove(PROOF)
    marks.retire("shop", at=AT, by="anna@host", reason="shut down")
    store.put(f"pgstow/holds/{backup_id(3)}/000001", b"nonsense")
    store.put(f"pgstow/proofs/{backup_id(3)}/{'0' * 32}", b"nonsense")


def marks_in(store: MemoryStore) -> set[str]:
    """Return the objects of pgstow's own but those of running work."""
    return {name for name in objects(store, "pgstow") if not name.startswith("pgstow/runs/")}


def test_rekeying_that_stops_at_any_write_is_finished_by_the_next() -> None:
    """Nothing is there twice then, and nothing is missing."""
    old = MemoryStore()
    marked(old)
    for tries in itertools.count():
        new = MemoryStore()
        init_repository(new)
        writes = itertools.count()

        def stop(method: str, name: str, *, last: int = tries, writes: Iterator[int] = writes) -> None:
            if method == "put" and next(writes) >= last:
                raise StoreUnavailable("gone")

        with contextlib.suppress(StoreUnavailable):
            rekey_repository(opened(old), opened(WatchedStore(new, before=stop)), Notes(), read_data=False)
            break
        assert rekey_repository(opened(old), opened(new), Notes(), read_data=True).is_complete
        assert len(marks_in(new)) == 5
        assert len(opened(new).snapshots()) == 3
    assert tries > 15


def test_rekeying_takes_along_what_is_held_proven_and_retired() -> None:
    old, new = MemoryStore(), MemoryStore()
    marked(old)
    init_repository(new)
    notes = Notes()
    for _ in range(2):  # the second time nothing is added
        report = rekey_repository(opened(old), opened(new), notes, read_data=True)
        assert report.is_complete
        marks = opened(new).marks()
        held = marks.holds()
        assert held[backup_id(1)] == opened(old).marks().holds()[backup_id(1)]
        assert held.keys() == {backup_id(1), backup_id(3)}
        (unreadable,) = held[backup_id(3)]
        assert "cannot be read in the repository it was copied from" in unreadable.reason
        assert marks.proofs({backup_id(n) for n in (1, 2, 3)}) == ([PROOF], set())
        assert marks.retirements(["shop"])["shop"].when == AT
        assert len(marks_in(new)) == 5
    assert all(backup_id(3) in note for note in notes.notes)
    assert len(notes.notes) == 2


def test_rekeying_takes_records_of_drills_along() -> None:
    """Of a backup that is gone, too; one that cannot be read is told."""
    old, new = MemoryStore(), MemoryStore()
    init_repository(new)
    repository = init_repository(old)
    save_dated(repository, 1, AT)
    drills = [
        drill_record(backup_id=backup_id(1)),
        drill_record("failed", backup_id=backup_id(9), ago=timedelta(days=9)),
    ]
    for drill in drills:
        save_drill(repository, drill)
    old.put("pgstow/drills/20260101T000000Z-00000000", b"nonsense")
    notes = Notes()
    for _ in range(2):
        assert rekey_repository(opened(old), opened(new), notes, read_data=True).is_complete
    assert read_drills(opened(new)) == drills[::-1]
    assert len(list(new.list("pgstow/drills/"))) == 2
    assert sum("does not travel" in note for note in notes.notes) == 2


def test_a_copy_takes_no_marks_along() -> None:
    old, new = MemoryStore(), MemoryStore()
    marked(old)
    init_repository(new)
    copy_repository(opened(old), opened(new), (), SilentProgress(), dry_run=False)
    assert marks_in(new) == set()
