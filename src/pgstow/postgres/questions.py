"""Asking a database for one value, with a query that somebody else wrote."""

from __future__ import annotations

from psycopg import errors as pgerrors

from pgstow.core.errors import PostgresError
from pgstow.postgres.raw import RawSession

__all__ = ["answer"]

_TIMED_OUT = pgerrors.QueryCanceled.sqlstate


def answer(session: RawSession, query: bytes, *, timeout_s: float, lock_timeout_s: float) -> bytes | None:
    """Return the single value of a query as PostgreSQL prints it, None for NULL. Raises PostgresError.

    The caller has begun a read-only transaction, and finds it afterwards as it was: locks that the query took are let
    go. Two rows at most are fetched, whatever the query would give. A cursor takes queries alone, and the extended protocol
    one statement alone, so the text cannot end the transaction.
    """
    session.execute(b"SAVEPOINT pgstow_question", doing="beginning a question")
    try:
        session.execute(
            b"SET LOCAL statement_timeout = %d; SET LOCAL lock_timeout = %d"
            % (max(1, round(timeout_s * 1000)), max(1, round(lock_timeout_s * 1000))),
            doing="limiting a question",
        )
        session.rows(
            b"DECLARE pgstow_answer NO SCROLL CURSOR FOR " + query, doing="the query cannot be asked"
        )
        rows = session.rows(b"FETCH 2 FROM pgstow_answer", doing="the query failed")
    except PostgresError as exc:
        if exc.facts.get("sqlstate") == _TIMED_OUT:
            raise PostgresError(
                f"the query had no answer within {timeout_s:.0f} s", sqlstate=_TIMED_OUT
            ) from exc.__cause__
        raise
    finally:
        session.execute(
            b"ROLLBACK TO SAVEPOINT pgstow_question; RELEASE SAVEPOINT pgstow_question",
            doing="ending a question",
        )
    if not rows:
        raise PostgresError("the query gave no row; it must give one value")
    if len(rows) > 1:
        raise PostgresError("the query gave more than one row; it must give one value")
    if len(rows[0]) != 1:
        raise PostgresError(f"the query gave {len(rows[0])} columns; it must give one value")
    return rows[0][0]
