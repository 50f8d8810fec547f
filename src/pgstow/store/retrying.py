"""Trying again: the one place in pgstow that does."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pgstow.core.errors import ObjectExists, ObjectNotFound, StoreDenied, StoreUnavailable
from pgstow.store.api import ObjectInfo, Store

__all__ = ["RetryPolicy", "RetryingStore"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Pauses double from the first to the longest, each cut by chance to between half and all of it.

    ``give_up_after_s`` counts from the first failure, so one slow attempt does not use it up.
    """

    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    give_up_after_s: float = 300.0


class _Attempts:
    """Counts the failures of one operation and pauses between them."""

    def __init__(self, store: RetryingStore) -> None:
        self._store = store
        self._failures = 0
        self._first_failure = 0.0

    @property
    def any_failed(self) -> bool:
        return self._failures > 0

    def pause(self, exc: StoreUnavailable) -> None:
        """Wait before the next attempt; raises when it is time to give up."""
        store, policy, now = self._store, self._store.policy, self._store.clock()
        if not self._failures:
            self._first_failure = now
        doubled = policy.first_pause_s * 2.0 ** min(self._failures, 60)
        self._failures += 1
        pause_s = min(doubled, policy.longest_pause_s) * (0.5 + store.chance() / 2)
        spent_s = now - self._first_failure
        if spent_s + pause_s > policy.give_up_after_s:
            raise StoreUnavailable(
                f"{exc.message} (gave up after {self._failures} attempts in {spent_s:.0f} s)",
                hint=exc.hint,
                **exc.facts,
            ) from exc
        store.on_retry(f"{exc.message}; trying again in {pause_s:.1f} s")
        store.sleep(pause_s)


class RetryingStore:
    """A store that hides passing failures of another one. Only StoreUnavailable is tried again."""

    def __init__(
        self,
        inner: Store,
        *,
        policy: RetryPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
        on_retry: Callable[[str], None] = lambda _message: None,
    ) -> None:
        """``chance`` returns a number in [0, 1); ``on_retry`` is told, from any thread, why we wait."""
        self._inner = inner
        self.policy = policy or RetryPolicy()
        self.clock = clock
        self.sleep = sleep
        self.chance = chance
        self.on_retry = on_retry

    def __repr__(self) -> str:
        return f"RetryingStore({self._inner!r})"

    @property
    def location(self) -> str:
        return self._inner.location

    def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
        """Like ``Store.put``; an earlier attempt of ours that did arrive counts as success.

        With ``if_absent`` that is told by comparing bytes: who must know that it was them and not an
        equal other, writes something unique.
        """
        attempts = _Attempts(self)
        while True:
            try:
                return self._inner.put(name, data, if_absent=if_absent)
            except StoreUnavailable as exc:
                attempts.pause(exc)
            except (ObjectExists, StoreDenied):
                # A lost reply: the attempt that failed may be what now stands in the way of this one. Where nobody may
                # overwrite, that is said of a put without a condition too.
                if not (attempts.any_failed and self._holds(name, data)):
                    raise
                return None

    def get(self, name: str) -> bytes:
        return self._retry(lambda: self._inner.get(name))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self._retry(lambda: self._inner.get_range(name, offset, length))

    def stat(self, name: str) -> ObjectInfo:
        return self._retry(lambda: self._inner.stat(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Like ``Store.list``; a listing that broke starts over without showing an object twice."""
        shown: set[str] = set()
        attempts = _Attempts(self)
        while True:
            try:
                for info in self._inner.list(prefix):
                    if info.name not in shown:
                        shown.add(info.name)
                        yield info
                        attempts = _Attempts(self)  # it moves: the budget is for being stuck
            except StoreUnavailable as exc:
                attempts.pause(exc)
            else:
                return

    def delete(self, name: str) -> None:
        self._retry(lambda: self._inner.delete(name))

    def remove_stale_temporaries(self) -> int:
        return self._retry(self._inner.remove_stale_temporaries)

    def _holds(self, name: str, data: bytes | bytearray | memoryview) -> bool:
        try:
            return self.get(name) == data
        except ObjectNotFound:
            return False

    def _retry(self, operation: Callable[[], T]) -> T:
        attempts = _Attempts(self)
        while True:
            try:
                return operation()
            except StoreUnavailable as exc:
                attempts.pause(exc)
