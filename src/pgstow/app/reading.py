"""Reading a repository so that nobody may prune what is being read, and without that where nothing may be written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from pgstow.core.errors import RepositoryLocked, StoreDenied, StoreFull
from pgstow.repository import Repository, RepositoryLock

__all__ = ["reading", "unlocked_text"]


@contextlib.contextmanager
def reading(
    repository: Repository,
    note: Callable[[str], object],
    *,
    wait_s: float = 0.0,
    on_wait: Callable[[RepositoryLocked], None] = lambda _: None,
) -> Iterator[Callable[[], None]]:
    """Hold a shared lock for a block; its function raises RepositoryLocked unless the lock is ours to rely on.

    The block begins before that is certain, unless it may wait. Where the credentials may only read, or no room is left, there can be no lock,
    which ``note`` hears: nobody is to be kept from restoring a backup. Raises RepositoryLocked.
    """
    lock: RepositoryLock | None = None
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(repository.lock(early=True, wait_s=wait_s, on_wait=on_wait))
            check: Callable[[], None] = lock.check
        except (StoreDenied, StoreFull) as exc:
            note(unlocked_text(exc))
            check = _nothing
        yield check
    if lock is not None and lock.stays:
        note(
            "a lock that is over could not be removed, which the store does not allow: others may wait for it for "
            "half an hour; pgstow repo unlock removes it where that is allowed"
        )


def unlocked_text(exc: StoreDenied | StoreFull) -> str:
    """Say what it means to read without a lock."""
    return f"no lock could be taken ({exc.message}): should a prune run now, it may remove what is read here"


def _nothing() -> None:
    """There is no lock to check."""
