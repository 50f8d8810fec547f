"""The intervals of locks and leases."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

__all__ = ["LockTimes"]


def _clock_s() -> float:
    """Return seconds on a clock that goes on while the machine sleeps, unlike the monotonic one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class LockTimes:
    """The intervals of the locking protocol and the clocks that measure them.

    ``clock_s`` measures what passes here, ``now`` is this machine's time of day, which may be wrong: it is written
    down for others and compared with the store's, and nothing is decided by it.
    """

    settle_s: float = 0.2
    blind_settle_s: float = 5.0  # where the store cannot create conditionally
    refresh_s: float = 300.0
    retry_s: float = 30.0  # after a refresh that failed
    conflict_s: float = 2.0  # before the second try to get what others hold; later ones wait longer
    longest_conflict_s: float = 30.0
    expiry_s: float = 1350.0  # stop a quarter of the way before others may take it for dead
    stale: timedelta = timedelta(minutes=30)  # without a refresh, by the store's clock: dead
    unreadable_tries: int = 3
    clock_s: Callable[[], float] = _clock_s
    now: Callable[[], datetime] = _now
    sleep: Callable[[float], None] = time.sleep
