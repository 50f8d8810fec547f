"""Reading a repository so that nobody may prune what is being read, and without that where nothing may be written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from pgstow.core.errors import StoreDenied, StoreFull
from pgstow.repository import Repository, RepositoryLock

__all__ = ["reading"]


@contextlib.contextmanager
def reading(repository: Repository, note: Callable[[str], object]) -> Iterator[Callable[[], None]]:
    """Hold a shared lock for a block; its function raises RepositoryLocked unless the lock is ours to rely on.

    The block begins before that is certain. Where the credentials may only read, or no room is left, there can be no lock,
    which ``note`` hears: nobody is to be kept from restoring a backup. Raises RepositoryLocked.
    """
    lock: RepositoryLock | None = None
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(repository.lock(early=True))
            check: Callable[[], None] = lock.check
        except (StoreDenied, StoreFull) as exc:
            note(
                f"no lock could be taken ({exc.message}): should a prune run now, it may remove what is read here"
            )
            check = _nothing
        yield check
    if lock is not None and lock.stays:
        note(
            "a lock that is over could not be removed, which the store does not allow: others may wait for it for "
            "half an hour; pgstow repo unlock removes it where that is allowed"
        )


def _nothing() -> None:
    """There is no lock to check."""
