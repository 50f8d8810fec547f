"""--limit-rate: a token bucket that all readers share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["RateLimit"]


class RateLimit:
    """Lets ``bytes_per_s`` through on average; None lets everything through. Thread-safe."""

    def __init__(
        self,
        bytes_per_s: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._wait = wait
        self._lock = threading.Lock()
        self._free_at = clock()

    def spend(self, size_bytes: int) -> None:
        """Return once ``size_bytes`` more may have passed."""
        if not self._bytes_per_s:
            return
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now) + size_bytes / self._bytes_per_s
            delay = self._free_at - now
        if delay > 0:
            self._wait(delay)
