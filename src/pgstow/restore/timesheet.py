"""How long each kind of work took, where several kinds go on at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from pgstow.restore.report import WorkSpan

__all__ = ["Timesheet"]


class Timesheet:
    """When each kind of work began and ended, and what the sessions spent on it together. Used by several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started = clock()
        self._kinds: dict[str, tuple[float, float, float]] = {}  # begun, ended, spent
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def working(self, kind: str) -> Iterator[None]:
        """Count the time that the block takes."""
        begun = self._clock()
        try:
            yield
        finally:
            self.worked(kind, begun, self._clock())

    def worked(self, kind: str, begun: float, ended: float) -> None:
        """Count from ``begun`` to ``ended``, by the clock."""
        with self._guard:
            first, last, spent = self._kinds.get(kind, (begun, ended, 0.0))
            self._kinds[kind] = (min(first, begun), max(last, ended), spent + ended - begun)

    def spans(self) -> tuple[WorkSpan, ...]:
        """Return every kind of work, in the order in which they began."""
        with self._guard:
            kinds = sorted(self._kinds.items(), key=lambda one: one[1][0])
        return tuple(
            WorkSpan(
                name=name,
                begun_s=round(first - self._started, 3),
                seconds=round(last - first, 3),
                busy_s=round(spent, 3),
            )
            for name, (first, last, spent) in kinds
        )
