"""What stands in the way of others: every lock and lease in a repository, dead or alive, and removing them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pgstow.core.errors import RepositoryDamaged, RepositoryLocked
from pgstow.repository.files import FileKind, SealedFiles, list_ids
from pgstow.repository.found_leases import LEASES, FoundLease, find_lease
from pgstow.repository.holder import Holder
from pgstow.repository.leases import seize_lease
from pgstow.repository.lock import FoundLock, decode_lock
from pgstow.repository.lock_times import LockTimes
from pgstow.repository.renewal import Trace
from pgstow.store.clock import store_now

__all__ = ["Obstacle", "find_obstacles", "remove_obstacle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """A lock or a lease that somebody holds, or held until he died."""

    kind: Literal["lock", "lease"]
    name: str  # of its object
    who: str
    age_s: float  # since its last refresh, by the store's clock
    is_exclusive: bool
    database: str | None  # of a lease
    is_readable: bool
    is_dead: bool
    why: str  # ... it is taken for dead or alive
    lease: FoundLease | None = None


def find_obstacles(files: SealedFiles, times: LockTimes, now: datetime | None = None) -> list[Obstacle]:
    """Return every lock and held lease, the longest without a refresh first.

    ``now`` is by the store's clock; without it that is asked, by writing a tiny object.
    """
    now, observer = now or store_now(files.store), Holder.current()
    found = [*_locks(files, now, observer, times), *_leases(files, now, observer, times)]
    return sorted(found, key=lambda obstacle: -obstacle.age_s)


def remove_obstacle(
    files: SealedFiles, obstacle: Obstacle, times: LockTimes, *, is_forced: bool = False
) -> bool:
    """Remove a lock or end a lease; return whether that was done.

    Not done: a lease that has found a live holder since it was looked at. A lock that was refreshed since has
    another file by now, which stays. Who holds what is removed by force notices before he publishes.
    """
    if obstacle.lease is None:
        files.store.delete(obstacle.name)
        return True
    run_id = f"unlock-{uuid.uuid4()}"
    try:
        seize_lease(files, obstacle.lease, Holder.current(), times, run_id=run_id, is_forced=is_forced)
    except RepositoryLocked:
        return False
    return True


def _locks(files: SealedFiles, now: datetime, observer: Holder, times: LockTimes) -> Iterator[Obstacle]:
    for lock_id, info in list_ids(files.store, FileKind.LOCK):
        lock: FoundLock | None = None
        try:
            content = files.load_present(FileKind.LOCK, lock_id)
            if content is None:  # released since it was listed
                continue
            lock = decode_lock(lock_id, info, content)
        except (RepositoryDamaged, ValueError):
            pass
        trace = lock.trace if lock is not None else Trace(holder=None, session=None, renewed=info.modified)
        is_dead, why = _judge(trace, now, observer, times)
        yield Obstacle(
            kind="lock",
            name=info.name,
            who=lock.who if lock is not None else "unknown: the file cannot be read",
            age_s=(now - info.modified).total_seconds(),
            is_exclusive=lock is not None and lock.is_exclusive,
            database=None,
            is_readable=lock is not None,
            is_dead=is_dead,
            why=why,
        )


def _leases(files: SealedFiles, now: datetime, observer: Holder, times: LockTimes) -> Iterator[Obstacle]:
    folders = {info.name.rpartition("/")[0] + "/" for info in files.store.list(LEASES)}
    for folder in sorted(folders):
        lease = find_lease(files, folder)
        if lease is None or lease.is_released:
            continue
        is_dead, why = _judge(lease.trace, now, observer, times)
        yield Obstacle(
            kind="lease",
            name=lease.info.name,
            who=str(lease.holder) if lease.holder is not None else "unknown: the lease cannot be read",
            age_s=(now - lease.info.modified).total_seconds(),
            is_exclusive=True,
            database=lease.database,
            is_readable=lease.holder is not None,
            is_dead=is_dead,
            why=why,
            lease=lease,
        )


def _judge(trace: Trace, now: datetime, observer: Holder, times: LockTimes) -> tuple[bool, str]:
    why = trace.why_dead(observer, lambda: now, times)
    if why is not None:
        return True, why
    minutes = times.stale.total_seconds() / 60
    return False, f"refreshed within the last {minutes:.0f} minutes, and its process may be alive"
