"""Statements whose names and values are bytes in the session's client encoding.

Names in an archive are in any encoding and may not be text at all (SQL_ASCII), so they never become
``str`` on their way to the server. Only libpq is involved: no conversion, no placeholders but ``$1``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import psycopg
from psycopg import generators, pq

from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.session import Connection, connect, translated

__all__ = ["RawSession", "array", "open_raw"]

Row = tuple[bytes | None, ...]

_FINE = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK, pq.ExecStatus.EMPTY_QUERY)


def open_raw(conninfo: ConnInfo, *, encoding: str, settings: Mapping[str, str]) -> RawSession:
    """Return a session whose client encoding is ``encoding``, with ``settings`` in force. The caller closes it."""
    connection = connect(conninfo, settings={**settings, "client_encoding": encoding})
    return RawSession(connection)


class RawSession:
    """One connection in autocommit; transactions are the caller's own BEGIN and COMMIT."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def rows(self, statement: bytes, *values: bytes | None, doing: str) -> list[Row]:
        """Return the rows of one statement, every value in text form. Raises PostgresError."""
        with translated(doing):
            self.connection.pgconn.send_query_params(statement, list(values))
            result = self._result()
        return [
            tuple(result.get_value(row, column) for column in range(result.nfields))
            for row in range(result.ntuples)
        ]

    def value(self, statement: bytes, *values: bytes | None, doing: str) -> bytes | None:
        """Return the single value of a statement, None if it has no row. Raises PostgresError."""
        rows = self.rows(statement, *values, doing=doing)
        return rows[0][0] if rows else None

    def execute(self, statements: bytes, *, doing: str) -> None:
        """Run one or more statements. Raises PostgresError."""
        with translated(doing):
            self.run(statements)

    def run(self, statements: bytes) -> None:
        """Run one or more statements; raises psycopg.Error as it is."""
        self.connection.pgconn.send_query(statements)
        self._result()

    def _result(self) -> pq.abc.PGresult:
        """Return the last result of what was sent; raises for the first that is an error."""
        results: list[pq.abc.PGresult] = self.connection.wait(generators.execute(self.connection.pgconn))
        for result in results:
            if result.status not in _FINE:
                raise psycopg.errors.error_from_result(result, encoding=self.codec)
        return results[-1]

    @property
    def codec(self) -> str:
        """The Python codec for messages of this session; UTF-8 where Python knows none."""
        try:
            codec = self.connection.info.encoding
        except psycopg.NotSupportedError:
            return "utf-8"
        return "utf-8" if codec == "ascii" else codec

    def decode(self, value: bytes | None) -> str:
        """Return a value as text for people."""
        return (value or b"").decode(self.codec, "backslashreplace")

    def close(self) -> None:
        """Close the connection; an open transaction is rolled back by the server."""
        self.connection.close()


def array(values: Iterable[bytes]) -> bytes:
    """Return an array literal of text values."""
    quoted = (b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"' for value in values)
    return b"{" + b",".join(quoted) + b"}"
