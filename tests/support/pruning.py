"""Pruning in tests: without the waits of a real lock, and with a store whose clock the test moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pgstow.assurance.verify import verify
from pgstow.core.progress import SilentProgress
from pgstow.core.secrets import Secret
from pgstow.repository import BlobKind, LockTimes, Repository
from pgstow.store.api import Store
from pgstow.store.memory import MemoryStore
from pgstow.upkeep.prune import PruneResult, prune
from pgstow.upkeep.prune_plan import PruneOptions, PrunePlan, plan_prune
from pgstow.upkeep.survey import take_survey
from support.repositories import open_repository, read_files
from support.restic import PASSWORD

DAY_S = 24 * 3600.0


@dataclass
class Clock:
    """A store's clock, years away from the machine's."""

    moment: datetime = field(default_factory=lambda: datetime(2007, 3, 1, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.moment

    def pass_s(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


def prune_now(
    store: Store, *, grace_s: float = DAY_S, max_unused: float = 0.05, repository: Repository | None = None
) -> tuple[PrunePlan, PruneResult]:
    """Prune under the exclusive lock."""
    repository = repository or Repository.open(store, Secret(PASSWORD))
    with repository.lock(exclusive=True, times=LockTimes(settle_s=0)) as lock:
        survey = take_survey(repository, SilentProgress())
        options = PruneOptions(grace_s=grace_s, max_unused=max_unused)
        plan = plan_prune(survey, options, repository.holdings().now(lock))
        return plan, prune(plan, repository, lock, SilentProgress())


def remove_snapshots(store: Store, *ids: str) -> None:
    repository = open_repository(store)
    with repository.lock(exclusive=True, times=LockTimes(settle_s=0)):
        for snapshot_id in ids:
            repository.remove_snapshot(snapshot_id)


def copy_of(store: MemoryStore) -> MemoryStore:
    """Return a store with the same objects, as old as they are there."""
    copy = MemoryStore(now=store._now)
    copy._objects = dict(store._objects)
    return copy


def remove_locks(store: Store) -> None:
    """Remove what a run left that died inside this very process."""
    for info in list(store.list("locks/")):
        store.delete(info.name)


def objects(store: Store, folder: str) -> set[str]:
    """Return the names of the objects in a folder."""
    return {info.name for info in store.list(f"{folder}/")}


def restored(store: Store) -> dict[str, dict[str, bytes]]:
    """Return every file of every snapshot, by run."""
    repository = open_repository(store)
    return {
        next(tag for tag in snapshot.tags if tag.startswith("run=")): read_files(repository, snapshot)
        for snapshot in repository.snapshots()
    }


def assert_sound(store: Store) -> None:
    report = verify(open_repository(store), read_data=True)
    assert report.problems == ()


def needed_blobs(store: Store) -> set[tuple[BlobKind, bytes]]:
    """Return what the index lists, blob by blob; fails if one is listed twice."""
    listed = [
        (entry.kind, entry.id) for pack in open_repository(store).indexed_packs() for entry in pack.entries
    ]
    assert len(listed) == len(set(listed))
    return set(listed)
