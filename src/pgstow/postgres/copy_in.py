"""Sending rows through ``COPY ... FROM STDIN`` as fast as the server takes them.

libpq hides a server's error, or its death, until the end of the stream: without looking, a table of any
size would be read from the repository and thrown away. During COPY FROM the server has nothing to say but
an error, so a readable socket is taken for one.
"""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Callable

import psycopg
from psycopg import pq

from pgstow.core.errors import ConnectionFailed, Interrupted, PgstowError
from pgstow.postgres.session import Connection

__all__ = ["CopyIn", "FalseAlarm"]

_POLL_MS = 500
_MESSAGE_BYTES = (
    64 * 1024
)  # what stays in the caches of both sides; a megabyte at a time is 5 % slower, measured
_ALARM = b"pgstow: the server spoke in the middle of the rows"
_QUERY_CANCELED = "57014"  # what the server makes of a COPY that the client gives up


class FalseAlarm(Exception):
    """The socket was readable, yet the server had no complaint (TLS has messages of its own)."""


class CopyIn:
    """One COPY FROM STDIN statement. Whatever ends it early leaves the transaction to be rolled back.

    Raises psycopg.Error for what the server says, ConnectionFailed when it takes no byte for
    ``stall_timeout_s``, Interrupted once ``stop`` is set, FalseAlarm at most once and only when ``is_wary``.
    """

    def __init__(
        self,
        connection: Connection,
        statement: bytes,
        *,
        stop: threading.Event,
        stall_timeout_s: float,
        is_wary: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._stop = stop
        self._stall_timeout_s = stall_timeout_s
        self._is_wary = is_wary
        self._clock = clock
        self._poll = select.poll()
        self._pgconn.send_query(statement)
        self._flush()
        result = self._next_result()
        if result is None or result.status != pq.ExecStatus.COPY_IN:
            raise psycopg.ProgrammingError("the statement is not a COPY FROM STDIN")

    def write(self, data: bytes) -> None:
        """Hand ``data`` to the server."""
        view = memoryview(data)
        for start in range(0, len(view), _MESSAGE_BYTES):
            self._pgconn.put_copy_data(view[start : start + _MESSAGE_BYTES])
            self._flush()
        if self._is_wary:
            self._listen(0)

    def finish(self) -> int:
        """End the rows and return how many the server stored."""
        self._pgconn.put_copy_end()
        self._flush()
        result = self._next_result()
        while self._next_result() is not None:
            pass
        assert result is not None
        return result.command_tuples or 0

    def _flush(self) -> None:
        deadline = self._clock() + self._stall_timeout_s
        while self._pgconn.flush() == 1:
            self._check_stop()
            if self._wait(select.POLLIN | select.POLLOUT, _POLL_MS):
                if self._is_wary and self._readable:
                    self._listen(0)
                deadline = self._clock() + self._stall_timeout_s
            elif self._clock() > deadline:
                raise ConnectionFailed(
                    f"the server took no rows for {self._stall_timeout_s:.0f} s",
                    hint="look at the network between here and the server, and at what the session waits for",
                )
        self._check_stop()

    _readable = False

    def _wait(self, events: int, timeout_ms: int) -> bool:
        self._poll.register(self._pgconn.socket, events)
        ready = self._poll.poll(timeout_ms)
        self._readable = any(event & ~select.POLLOUT for _, event in ready)
        return bool(ready)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Interrupted("loading was cancelled")

    def _listen(self, timeout_ms: int) -> None:
        """Raise what the server has to say, if it says anything."""
        if self._pgconn.transaction_status != pq.TransactionStatus.ACTIVE:
            raise psycopg.OperationalError("the connection to the server was lost")
        if not self._wait(select.POLLIN, timeout_ms):
            return
        self._is_wary = False
        self._pgconn.put_copy_end(_ALARM)
        self._flush()
        try:
            while self._next_result() is not None:
                pass
        except psycopg.Error as exc:
            if exc.sqlstate == _QUERY_CANCELED and _ALARM.decode() in str(exc):
                raise FalseAlarm from exc
            raise
        raise psycopg.OperationalError("the server ended the rows before they were complete")

    def _next_result(self) -> pq.abc.PGresult | None:
        result = self._await_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            with contextlib.suppress(
                psycopg.Error, PgstowError
            ):  # the first error matters; the peer may be gone
                while self._await_result() is not None:
                    pass
            raise psycopg.errors.error_from_result(result, encoding=self._encoding())
        return result

    def _await_result(self) -> pq.abc.PGresult | None:
        heard_s = self._clock()
        while self._pgconn.is_busy():
            self._check_stop()
            if self._wait(select.POLLIN, _POLL_MS):
                self._pgconn.consume_input()
            elif self._clock() - heard_s > self._stall_timeout_s:  # checking foreign keys may take as long
                self._connection.refuse_silence(self._stall_timeout_s)
                heard_s = self._clock()
        return self._pgconn.get_result()

    def _encoding(self) -> str:
        try:
            return self._connection.info.encoding
        except psycopg.NotSupportedError:  # an encoding Python has no codec for
            return "utf-8"
