"""Copies between repositories, and what must be true of them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from unittest.mock import patch

from pgstow.app.copy import copy_repository
from pgstow.assurance.verify import verify
from pgstow.core.progress import SilentProgress
from pgstow.repository import LockTimes, Repository
from pgstow.store.api import Store
from pgstow.upkeep.copy import CopyReport
from support.repositories import init_repository, open_repository, read_files


def copy_all(source: Repository, target: Repository, *backups: str, dry_run: bool = False) -> CopyReport:
    return copy_repository(source, target, backups, SilentProgress(), dry_run=dry_run)


def make_target(store: Store, source: Repository, *, shares_key: bool) -> Repository:
    """Make an empty repository, with the master key of ``source`` or one of its own."""
    return init_repository(store, kin=source.kin if shares_key else None)


def contents_by_origin(repository: Repository) -> dict[str, dict[str, bytes]]:
    """Return every file of every snapshot, by the id that the snapshot first had."""
    return {
        snapshot.original or snapshot.id or "": read_files(repository, snapshot)
        for snapshot in repository.snapshots()
    }


def assert_copied(source: Store, target: Store) -> None:
    """The target is whole and holds exactly the snapshots that the source holds."""
    theirs, ours = open_repository(source), open_repository(target)
    assert verify(ours, read_data=True).problems == ()
    assert contents_by_origin(ours) == contents_by_origin(theirs)


def objects(store: Store) -> dict[str, bytes]:
    """Return everything in a store but locks."""
    return {info.name: store.get(info.name) for info in store.list("") if not info.name.startswith("locks/")}


def pack_names(store: Store) -> set[str]:
    return {info.name for info in store.list("data/")}


def quick_locks() -> AbstractContextManager[object]:
    """Let locks settle at once."""
    return patch("pgstow.repository.repository.LockTimes", lambda: LockTimes(settle_s=0.001))


def small_packs(size_bytes: int = 64 << 10) -> AbstractContextManager[object]:
    """Let there be several packs where there would be one."""
    return patch("pgstow.repository.writer.PACK_BYTES", size_bytes)
