"""PostgreSQL's own checks of heap and B-tree pages: the extension amcheck."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import errors as pgerrors

from pgstow.core.errors import PostgresError
from pgstow.postgres.raw import RawSession

__all__ = ["Amcheck", "broken_index", "broken_tuples", "find_amcheck", "install_amcheck"]

_HEAP_SINCE = 140000
# A damaged page or file, and amcheck's own verdicts. Everything else says that the check could not be made.
_DAMAGE = {
    pgerrors.IndexCorrupted.sqlstate,
    pgerrors.DataCorrupted.sqlstate,
    pgerrors.IoError.sqlstate,
    pgerrors.UndefinedFile.sqlstate,
    pgerrors.InternalError.sqlstate,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Amcheck:
    """The extension as it is installed: its schema, quoted. ``has_heap``: it can check tables, too."""

    schema: bytes
    has_heap: bool


def find_amcheck(session: RawSession) -> Amcheck | None:
    """Return the extension if the database has it and its functions are the server's own code."""
    schema = session.value(
        b"""
        SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
        JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = e.oid
            AND d.classid = 'pg_catalog.pg_proc'::regclass AND d.deptype = 'e'
        JOIN pg_catalog.pg_proc p ON p.oid = d.objid AND p.pronamespace = n.oid
        JOIN pg_catalog.pg_language l ON l.oid = p.prolang
        WHERE e.extname = 'amcheck' AND p.proname = 'bt_index_check' AND p.prosrc = 'bt_index_check'
            AND l.lanname = 'c' AND p.probin = '$libdir/amcheck' LIMIT 1
        """,
        doing="looking for amcheck",
    )
    if schema is None:
        return None
    return Amcheck(schema=schema, has_heap=session.connection.info.server_version >= _HEAP_SINCE)


def install_amcheck(session: RawSession) -> None:
    """Install it in a schema of its own; event triggers of the database do not fire. Raises PostgresError."""
    schema = b"pgstow_amcheck_" + secrets.token_hex(4).encode()
    # Those that fire for replicas too are switched over for as long, which no event trigger hears of.
    eager = session.rows(
        b"SELECT pg_catalog.quote_ident(evtname), CASE evtenabled WHEN 'A' THEN 'ALWAYS' ELSE 'REPLICA' END"
        b" FROM pg_catalog.pg_event_trigger WHERE evtenabled IN ('A', 'R')",
        doing="looking for event triggers",
    )
    off = b"".join(b"ALTER EVENT TRIGGER %s ENABLE; " % (row[0] or b"") for row in eager)
    on = b"".join(b"ALTER EVENT TRIGGER %s ENABLE %s; " % (row[0] or b"", row[1] or b"") for row in eager)
    session.execute(
        b"BEGIN; SET LOCAL session_replication_role = replica; %s"
        b"CREATE SCHEMA %s; CREATE EXTENSION amcheck SCHEMA %s; %sCOMMIT" % (off, schema, schema, on),
        doing="installing amcheck",
    )


def broken_index(session: RawSession, amcheck: Amcheck, index: int, *, with_heap: bool) -> str | None:
    """Return what is wrong with a B-tree index, None if nothing is. Raises PostgresError if it cannot be checked.

    ``with_heap``: also whether every row that must be in it is.
    """
    try:
        session.value(
            b"SELECT %s.bt_index_check($1::oid::regclass, $2::bool)" % amcheck.schema,
            b"%d" % index,
            b"t" if with_heap else b"f",
            doing="checking the index",
        )
    except PostgresError as exc:
        if exc.facts.get("sqlstate") in _DAMAGE:
            return exc.message.removeprefix("checking the index: ")
        raise
    return None


def broken_tuples(session: RawSession, amcheck: Amcheck, table: int) -> Sequence[str]:
    """Return the first things that are wrong with the pages of a table and its TOAST table. Raises PostgresError."""
    try:
        rows = session.rows(
            b"SELECT pg_catalog.format('page %%s, row %%s: %%s', blkno, offnum, msg)"
            b" FROM %s.verify_heapam($1::oid::regclass, check_toast => true) LIMIT 5" % amcheck.schema,
            b"%d" % table,
            doing="checking the table",
        )
    except PostgresError as exc:
        if exc.facts.get("sqlstate") in _DAMAGE:
            return [exc.message.removeprefix("checking the table: ")]
        raise
    return [session.decode(row[0]) for row in rows]
