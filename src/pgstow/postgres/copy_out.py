"""Reading ``COPY ... TO STDOUT`` as fast as libpq hands out rows.

The server sends one CopyData message per row, so rows can be counted and cut exactly without looking
into them. libpq's calls never block here: they are made when the socket is readable, which leaves room
for cancelling and for noticing a peer that has gone silent.
"""

from __future__ import annotations

import contextlib
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
from psycopg import pq
from psycopg.pq.abc import PGconn

from pgstow.core.errors import ConnectionFailed, Interrupted
from pgstow.postgres.copy_rows import row_taker
from pgstow.postgres.session import Connection

__all__ = ["Piece", "RowStream"]

_POLL_MS = 500
_TLS_POLL_MS = 20  # what TLS has decrypted ahead shows on no socket
# The server sends 8 KiB at a time, and being woken for each costs both sides. What arrives meanwhile fits
# the socket's buffer; longer, and the server would have to wait. Source: python -m bench --only backup.
_GATHER_S = 0.0002
_END_OF_ROW = ord("\n")
_COPYING = pq.ExecStatus.COPY_OUT
_FINE = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK, pq.ExecStatus.EMPTY_QUERY)


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole rows in COPY text format."""

    data: bytes
    rows: int


class RowStream:
    """The rows of one COPY statement, in the order the server sends them.

    ``statement`` may be several SQL statements of which the last is the COPY; they are sent as one
    message, so a table costs one round trip. The connection is idle again after ``finish()``. ``buffer`` is where
    pieces are put together: larger than a piece, and used by one stream at a time.

    Raises psycopg.Error for what the server says, ConnectionFailed when no byte arrives for
    ``stall_timeout_s``, Interrupted once ``stop`` is set.
    """

    def __init__(
        self,
        connection: Connection,
        statement: bytes,
        *,
        buffer: bytearray,
        stop: threading.Event,
        stall_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pgconn: PGconn = connection.pgconn
        self._stop = stop
        self._stall_timeout_s = stall_timeout_s
        self._clock = clock
        self._take = row_taker(self._pgconn, wait_ms=_POLL_MS, gather_s=_GATHER_S)
        self._buffer = buffer
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)
        self._poll_ms = _TLS_POLL_MS if self._pgconn.ssl_in_use else _POLL_MS
        self._heard()
        self._ended = False
        self._pgconn.send_query(statement)
        self._flush()
        self._skip_to_copy()

    def _flush(self) -> None:
        writable = select.poll()
        writable.register(self._pgconn.socket, select.POLLOUT)
        while self._pgconn.flush() == 1:
            writable.poll(_POLL_MS)

    def _skip_to_copy(self) -> None:
        while True:
            result = self._next_result()
            if result is None:
                raise psycopg.ProgrammingError("the statement is not a COPY TO STDOUT")
            if result.status == _COPYING:
                return

    def _next_result(self) -> pq.abc.PGresult | None:
        while self._pgconn.is_busy():
            self._receive()
        result = self._pgconn.get_result()
        if result is not None and result.status not in (*_FINE, _COPYING):
            with contextlib.suppress(psycopg.Error):  # the first error matters; the connection may be gone
                self._drain()
            raise psycopg.errors.error_from_result(result)
        return result

    def _drain(self) -> None:
        while True:
            while self._pgconn.is_busy():
                self._receive()
            if self._pgconn.get_result() is None:
                self._ended = True
                return

    def _receive(self) -> None:
        """Wait a little for more to arrive, and take it in."""
        if self._poll.poll(0):
            self._heard()
        elif self._poll.poll(self._poll_ms):
            self._heard()
            time.sleep(_GATHER_S)
        elif self._stop.is_set():
            raise Interrupted("reading was cancelled")
        elif self._clock() > self._deadline:
            raise ConnectionFailed(
                f"the server sent nothing for {self._stall_timeout_s:.0f} s in the middle of a table",
                hint="look at the network between here and the server, and at what the session waits for",
            )
        self._pgconn.consume_input()  # also if nothing arrived: TLS may hold what it has decrypted already

    def _heard(self) -> None:
        self._deadline = self._clock() + self._stall_timeout_s

    def pieces(self, rows: int | None, piece_bytes: int) -> Iterator[Piece]:
        """Yield the next ``rows`` rows (None: all that come), in pieces that end with the row reaching ``piece_bytes``.

        Where a piece ends depends on the rows alone, so equal rows give equal pieces. Fewer rows than asked for
        means that the statement ended.
        """
        left = sys.maxsize if rows is None else rows
        while left and not self._ended:
            piece = self._piece(left, piece_bytes)
            if self._stop.is_set():
                raise Interrupted("reading was cancelled")
            if piece.rows:
                left -= piece.rows
                yield piece

    def _piece(self, rows: int, size: int) -> Piece:
        buffer, used, count = self._buffer, 0, 0
        length = len(buffer)
        while count < rows and (used < size or buffer[used - 1] != _END_OF_ROW):
            taken, used, said = self._take(buffer, used, rows - count, size)
            count += taken
            if taken:
                self._heard()
            if said < 0:
                self._finish_copy()
                break
            if said == 0:
                self._receive()
            elif used == len(buffer) and buffer[-1] != _END_OF_ROW:
                buffer.extend(bytes(used))  # a row that is longer than the whole buffer
        data = bytes(memoryview(buffer)[:used])
        del buffer[length:]
        return Piece(data, count)

    def _finish_copy(self) -> None:
        while self._next_result() is not None:
            pass
        self._ended = True

    def finish(self) -> int:
        """Read to the end of the statement; return how many rows were left unread."""
        return sum(piece.rows for piece in self.pieces(None, 1 << 20))
