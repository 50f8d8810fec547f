"""What is held only as long as it is renewed: the frame of locks and leases.

A thread takes it (it is *settled* then, or refused) and renews it until it is released or lost. Whoever relies on it
asks ``check()`` before everything that is written: a process that was stopped for longer than others wait for it finds
out there. What a holder leaves in the store is its *trace*; by that others tell whether it still lives.
"""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import ClassVar, Self

from pgstow.core.errors import RepositoryLocked, StoreError
from pgstow.repository.holder import Holder
from pgstow.repository.lock_times import LockTimes

__all__ = ["Renewed", "Trace"]

# What this process holds or is about to. What it could not release, because the store was away, is not among them: the process
# is alive, its holding is not.
_HELD_HERE: set[str] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Who wrote a lock or a lease, as far as that can be read. ``session`` tells apart what one process held."""

    holder: Holder | None
    session: str | None
    renewed: datetime  # by the store's clock

    def why_dead(self, observer: Holder, now: Callable[[], datetime], times: LockTimes) -> str | None:
        """Return why it is left over, as ``observer``, the current process, can tell; None if it may be held.

        ``now`` is the store's time; it is asked for only if it matters.
        """
        if self.holder is not None and self.holder.is_process(observer) and self.session is not None:
            if self.session not in _HELD_HERE:
                return "this process could not remove it"
        elif self.holder is not None and self.holder.is_gone(observer):
            return "its process has ended"
        if now() - self.renewed > times.stale:
            return f"not refreshed for more than {times.stale.total_seconds() / 60:.0f} minutes"
        return None


class Renewed(ABC):
    """Something held in a repository; leaving the block releases it.

    With ``is_early`` the block begins before it is settled, and ``check()`` waits for that. ``what`` it is, for messages;
    ``session`` is that of its trace.
    """

    _how_lost: ClassVar[str]

    def __init__(self, what: str, times: LockTimes, *, session: str, is_early: bool) -> None:
        self._what = what
        self._session = session
        self._times = times
        self._is_early = is_early
        self._renewed_s = 0.0
        self._lost: str | None = None
        self._refusal: Exception | None = None
        self._settled = threading.Event()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=what, daemon=True)

    def __enter__(self) -> Self:
        _HELD_HERE.add(self._session)
        try:
            self._begin()
            self._thread.start()
            if not self._is_early:
                self.check()
        except BaseException:
            with contextlib.suppress(StoreError):  # the first error matters
                self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(StoreError):  # the next run takes what nobody renews for dead
            self._stop()

    def check(self) -> None:
        """Raise RepositoryLocked unless it is ours to rely on. Asks no store, but waits until it is settled."""
        self._settled.wait()
        if self._refusal is not None:
            raise self._refusal
        if self._lost is not None:
            raise RepositoryLocked(self._lost, hint="run the backup again")
        idle_s = self._times.clock_s() - self._renewed_s
        if idle_s > self._times.expiry_s:
            self._lost = f"{self._what} could not be renewed for {idle_s / 60:.0f} minutes"
            raise RepositoryLocked(self._lost, hint="run the backup again; was the machine asleep?")

    def confirm(self) -> None:
        """Raise RepositoryLocked unless it is still ours in the repository."""
        self.check()
        if not self._is_ours():
            self._lost = f"{self._what} was {self._how_lost} by someone else"
            self.check()

    def _begin(self) -> None:
        """Do what comes before the thread; what this raises is raised where the block would begin."""
        self._renewed_s = self._times.clock_s()

    @abstractmethod
    def _settle(self) -> None:
        """Make it ours, in the thread; what this raises is raised by ``check()``."""

    @abstractmethod
    def _is_ours(self) -> bool:
        """Whether the store still says so."""

    @abstractmethod
    def _renew(self) -> None:
        """Tell the others that we are alive."""

    @abstractmethod
    def _release(self) -> None:
        """Take back what may have been written; the thread has ended."""

    def _stop(self) -> None:
        self._released.set()
        if self._thread.ident is not None:
            self._thread.join()
        _HELD_HERE.discard(self._session)
        self._release()

    def _keep(self) -> None:
        """Settle it, then renew it until it is released or lost."""
        try:
            self._settle()
        except Exception as exc:  # noqa: BLE001  check() raises it where the work is done
            self._refusal = exc
            return
        finally:
            self._settled.set()
        self._renew_in_turn()

    def _renew_in_turn(self) -> None:
        delay_s = self._times.refresh_s
        while not self._released.wait(delay_s):
            try:
                begun_s = self._times.clock_s()  # before the look: who is stopped behind it has not renewed
                self.confirm()
                self._renew()
                self._renewed_s = begun_s
                delay_s = self._times.refresh_s
            except RepositoryLocked:
                return  # check() tells the threads that do the work
            except StoreError:
                delay_s = self._times.retry_s  # check() ends the work if this goes on for too long
