"""Ending every session and program of a backup at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import psycopg

from pgstow.core.errors import CaptureError
from pgstow.core.process import Process
from pgstow.postgres.session import Connection

__all__ = ["Cancellation"]

_CANCEL_TIMEOUT_S = 5.0
_END_GRACE_S = 5.0  # in which pg_dump tells the server to stop


class Cancellation(threading.Event):
    """An event whose ``set()`` also cancels what the registered sessions are doing.

    ``reason`` is the error that the whole backup then fails with; None when a person or another error ended it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reason: CaptureError | None = None
        self._connections: dict[Connection, int] = {}
        self._programs: set[Process] = set()
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def covering(self, connection: Connection, pid: int) -> Iterator[None]:
        """Cancel this session's statement, too, when the event is set inside the block. ``pid`` is the server's."""
        with self._guard:
            self._connections[connection] = pid
        try:
            yield
        finally:
            with self._guard:
                del self._connections[connection]

    @contextlib.contextmanager
    def ending(self, program: Process) -> Iterator[None]:
        """End this program, too, when the event is set before the block ends."""
        with self._guard:
            self._programs.add(program)
        try:
            if self.is_set():
                program.kill()
            yield
        finally:
            with self._guard:
                self._programs.discard(program)

    @property
    def pids(self) -> list[int]:
        """Return the server's processes of all sessions that are covered now."""
        with self._guard:
            return list(self._connections.values())

    def set(self) -> None:
        super().set()
        self.cancel()
        self._end_programs()

    def cancel(self) -> None:
        """Cancel what the sessions are doing. To be repeated: between two statements there is nothing to cancel."""
        with self._guard:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(
                psycopg.Error
            ):  # a session that cannot be reached is closed by its owner
                connection.cancel_safe(timeout=_CANCEL_TIMEOUT_S)

    def _end_programs(self) -> None:
        """Ask first: pg_dump has its locks in a session of its own, which would notice only later that it is gone."""
        with self._guard:
            programs = list(self._programs)
        for program in programs:
            program.end(_END_GRACE_S)

    def because(self, reason: CaptureError) -> None:
        """Set the event and let the backup fail with ``reason``, unless it is ending for another one already."""
        if self.is_set():
            return
        self.reason = reason
        self.set()
