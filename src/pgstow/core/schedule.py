"""Handing out jobs that wait for each other and get in each other's way."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Job", "Schedule"]

Work = TypeVar("Work")

_POLL_S = 0.2  # how soon a waiting worker notices that everything was stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Generic[Work]):
    """Something to do once all of ``after`` is done, and while nobody holds its tables in a way that conflicts.

    ``cost`` is in any unit, the same for all jobs. Of jobs that could start, those of the lowest ``tier`` do.
    """

    key: int
    work: Work
    cost: float
    tier: int = 0
    after: frozenset[int] = frozenset()
    shares: frozenset[int] = frozenset()  # tables that others may share
    owns: frozenset[int] = frozenset()  # tables that nobody else may touch


class Schedule(Generic[Work]):
    """Jobs in an order that keeps workers busy to the end: in each tier, the head of the longest chain of work first.

    Jobs whose tables are in use are passed over, so that no worker stands in a lock queue and no two can wait
    for each other. Keys in ``after`` that no job has count as done.
    """

    def __init__(self, jobs: Sequence[Job[Work]]) -> None:
        self._jobs = {job.key: job for job in jobs}
        self._waits_for = {job.key: set(job.after & self._jobs.keys()) for job in jobs}
        self._frees: dict[int, list[int]] = {}
        for key, others in self._waits_for.items():
            for other in others:
                self._frees.setdefault(other, []).append(key)
        self._chain = self._chains()
        self._ready = [self._rank(key) for key, others in self._waits_for.items() if not others]
        heapq.heapify(self._ready)
        self._left = len(self._jobs)
        self._shared: dict[int, int] = {}
        self._owned: set[int] = set()
        self._changed = threading.Condition()

    def _rank(self, key: int) -> tuple[int, float, int]:
        return self._jobs[key].tier, -self._chain[key], key

    def _chains(self) -> dict[int, float]:
        """Return the cost of each job and of the longest chain that waits for it."""
        waiting = {key: len(others) for key, others in self._waits_for.items()}
        order = [key for key, count in waiting.items() if not count]
        for key in order:
            for freed in self._frees.get(key, ()):
                waiting[freed] -= 1
                if not waiting[freed]:
                    order.append(freed)
        if len(order) < len(self._jobs):
            raise ValueError("jobs wait for each other in a circle")
        chain: dict[int, float] = {}
        for key in reversed(order):
            following = max((chain[freed] for freed in self._frees.get(key, ())), default=0.0)
            chain[key] = self._jobs[key].cost + following
        return chain

    def __len__(self) -> int:
        return len(self._jobs)

    def take(self, stopped: threading.Event) -> Job[Work] | None:
        """Return the next job, waiting for one if need be; None when there will be none or all was stopped."""
        with self._changed:
            while self._left and not stopped.is_set():
                job = self._pop()
                if job is not None:
                    return job
                self._changed.wait(_POLL_S)
        return None

    def _pop(self) -> Job[Work] | None:
        passed_over = []
        found = None
        while self._ready and found is None:
            entry = heapq.heappop(self._ready)
            job = self._jobs[entry[-1]]
            if self._is_free(job):
                found = job
                self._owned |= job.owns
                for table in job.shares:
                    self._shared[table] = self._shared.get(table, 0) + 1
            else:
                passed_over.append(entry)
        for entry in passed_over:
            heapq.heappush(self._ready, entry)
        return found

    def _is_free(self, job: Job[Work]) -> bool:
        if self._owned & (job.owns | job.shares):
            return False
        return not any(self._shared.get(table) for table in job.owns)

    def done(self, job: Job[Work]) -> None:
        """Let go of the job's tables and free what waited for it."""
        with self._changed:
            self._left -= 1
            self._owned -= job.owns
            for table in job.shares:
                self._shared[table] -= 1
            for freed in self._frees.get(job.key, ()):
                self._waits_for[freed].discard(job.key)
                if not self._waits_for[freed]:
                    heapq.heappush(self._ready, self._rank(freed))
            self._changed.notify_all()
