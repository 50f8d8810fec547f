"""Sessions that work off one list of tasks side by side."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic, TypeVar

import psycopg

from pgstow.core.schedule import Schedule
from pgstow.postgres.raw import RawSession

__all__ = ["Workers"]

Task = TypeVar("Task")

_POLL_S = 0.2  # how soon the main thread notices a signal
_CANCEL_TIMEOUT_S = 10.0


class Workers(Generic[Task]):
    """Up to ``jobs`` threads, each with a session of its own.

    The first error stops everything: statements under way are cancelled, sessions closed, threads ended, and
    then it is raised. The same happens when the waiting thread itself is interrupted.
    """

    def __init__(self, jobs: int, open_session: Callable[[], RawSession]) -> None:
        self._jobs = jobs
        self._open_session = open_session
        self._sessions: list[RawSession] = []
        self._guard = threading.Lock()
        self._failure: BaseException | None = None
        self.stopped = threading.Event()

    def __enter__(self) -> Workers[Task]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def each(self, tasks: Sequence[Task], work: Callable[[RawSession, Task], object]) -> None:
        """Do ``work`` for every task, beginning with the first; return when all are done."""
        waiting = deque(tasks)

        def take_and_work(session: RawSession) -> bool:
            try:
                task = waiting.popleft()
            except IndexError:
                return False
            work(session, task)
            return True

        self._start(len(tasks), take_and_work)

    def follow(self, schedule: Schedule[Task], work: Callable[[RawSession, Task], object]) -> None:
        """Do ``work`` for every job as the schedule hands them out; return when all are done."""

        def take_and_work(session: RawSession) -> bool:
            job = schedule.take(self.stopped)
            if job is None:
                return False
            work(session, job.work)
            schedule.done(job)
            return True

        self._start(len(schedule), take_and_work)

    def _start(self, tasks: int, take_and_work: Callable[[RawSession], bool]) -> None:
        """Call ``take_and_work`` in every thread until it returns False."""
        threads = [
            threading.Thread(target=self._run, args=(take_and_work,), name=f"restore-{number}")
            for number in range(min(self._jobs, tasks))
        ]
        try:
            for thread in threads:
                thread.start()
            self._join(threads)
        except BaseException:
            self._stop()
            self._join([thread for thread in threads if thread.ident is not None])
            raise
        if self._failure is not None:
            raise self._failure

    def _join(self, threads: Sequence[threading.Thread]) -> None:
        """Wait for threads to end; once all is stopped, cancel what they do until they have."""
        for thread in threads:
            while thread.is_alive():
                thread.join(_POLL_S)
                if self.stopped.is_set():  # again: a statement may have begun after the first time
                    self._cancel()

    def _run(self, take_and_work: Callable[[RawSession], bool]) -> None:
        try:
            with contextlib.closing(self._open_session()) as session:
                with self._guard:
                    self._sessions.append(session)
                try:
                    while not self.stopped.is_set() and take_and_work(session):
                        pass
                finally:
                    with self._guard:
                        self._sessions.remove(session)
        except BaseException as exc:  # noqa: BLE001  raised again by each(), in the thread that waits
            with self._guard:
                self._failure = self._failure or exc
            self._stop()

    def _stop(self) -> None:
        self.stopped.set()
        self._cancel()

    def _cancel(self) -> None:
        with self._guard:
            sessions = list(self._sessions)
        for session in sessions:
            # A session that is done, lost or unreachable has nothing left to cancel.
            with contextlib.suppress(psycopg.Error):
                session.connection.cancel_safe(timeout=_CANCEL_TIMEOUT_S)
