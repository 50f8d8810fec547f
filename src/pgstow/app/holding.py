"""What a backup holds while it runs: the lease of its database and a shared lock of the repository."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from pgstow.catalog.manifest import Warning_
from pgstow.core.errors import RepositoryLocked
from pgstow.core.progress import Progress
from pgstow.repository import Lease, LeasedDatabase, Repository, RepositoryLock

__all__ = ["MOST_SKEW_S", "Hold", "Waits", "clock_text", "holding"]

# restic judges locks by the time written in them and its own clock, and takes one of half an hour for dead; ours
# are refreshed every five minutes, so fifteen leave room for a refresh that fails and a clock at the other end.
MOST_SKEW_S = 15 * 60.0


@dataclass(slots=True, kw_only=True)
class Hold:
    """Both are ours to rely on once ``check()`` has passed."""

    lease: Lease
    lock: RepositoryLock
    progress: Progress
    has_waited: bool
    _has_warned: bool = field(default=False, init=False)

    def check(self) -> None:
        """Raise RepositoryLocked unless both are ours; asks no store, but waits until that is settled."""
        self.lock.check()
        self.lease.check()

    def clock_warnings(self) -> tuple[Warning_, ...]:
        """Return what is to be said of this machine's clock, and tell it at once, the first time."""
        skew_s = self.lock.skew_s
        if skew_s is None or abs(skew_s) <= MOST_SKEW_S:
            return ()
        text = clock_text(skew_s)
        if not self._has_warned:
            self.progress.note(f"warning: {text}")
            self._has_warned = True
        return (Warning_(code="clock", message=text),)


def clock_text(skew_s: float) -> str:
    """Say what a clock that is too far from the store's means."""
    where = "ahead of" if skew_s > 0 else "behind"
    return (
        f"this machine's clock is {abs(skew_s) / 60:.0f} minutes {where} the store's: unsupported beside restic clients,"
        " which judge our locks by their own clock; set it by NTP"
    )


class Waits:
    """Tells once what is waited for; given to ``Repository.lock()`` as ``on_wait``."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.has_waited = False

    def __call__(self, exc: RepositoryLocked) -> None:
        if not self.has_waited:
            self._progress.phase("waiting for others")
            self._progress.note(f"{exc.message}; waiting for it")
        self.has_waited = True


@contextlib.contextmanager
def holding(
    repository: Repository,
    database: LeasedDatabase,
    *,
    run_id: str,
    wait_s: float,
    progress: Progress,
    supersedes: Collection[str] = (),
) -> Iterator[Hold]:
    """Hold both for a block. RepositoryLocked if someone else's forbids it for ``wait_s``.

    The lease comes first, and is waited for without the lock: a prune need not wait for who waits. Without a wait
    the block begins before either is certain; ``Hold.check()``, and every write, waits for that.
    """
    clock_s = repository.lock_times.clock_s
    deadline_s = clock_s() + wait_s
    waits = Waits(progress)
    with (
        repository.lease(
            database, run_id=run_id, early=True, wait_s=wait_s, on_wait=waits, supersedes=supersedes
        ) as lease,
        repository.lock(
            early=True, wait_s=max(0.0, deadline_s - clock_s()) if wait_s else 0.0, on_wait=waits
        ) as lock,
    ):
        yield Hold(lease=lease, lock=lock, progress=progress, has_waited=waits.has_waited)
