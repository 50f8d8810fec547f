"""Named questions to a restored database: what is there, and in which state.

Names come back as bytes in the session's client encoding, as the archive spells them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pgstow.postgres.raw import RawSession

__all__ = [
    "BtreeIndex",
    "ConstraintState",
    "DatabaseFacts",
    "HeapTable",
    "IndexState",
    "btree_indexes",
    "constraint_states",
    "database_facts",
    "heap_tables",
    "index_states",
    "memberships",
    "newest_value",
    "populated_views",
    "sequence_states",
]

Name = tuple[bytes, bytes]  # schema and name

_BATCH = 100
_OF_USERS = b"n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'"
_NO_EXTENSION = b"""NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d
    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')"""
_QUALIFIED = b"pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)"


def sequence_states(session: RawSession) -> dict[Name, tuple[int, bool]]:
    """Return last_value and is_called of every sequence."""
    found = session.rows(
        b"SELECT n.nspname, c.relname, " + _QUALIFIED + b" FROM pg_catalog.pg_class c"
        b" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'S' AND " + _OF_USERS,
        doing="listing sequences",
    )
    states = {}
    for start in range(0, len(found), _BATCH):
        batch = found[start : start + _BATCH]
        query = b" UNION ALL ".join(
            b"SELECT %d, last_value, is_called FROM %s" % (place, row[2] or b"")
            for place, row in enumerate(batch)
        )
        for place, last_value, is_called in session.rows(query, doing="reading sequences"):
            schema, name, _ = batch[int(place or 0)]
            states[schema or b"", name or b""] = (int(last_value or 0), is_called == b"t")
    return states


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstraintState:
    """A constraint of a table or domain. ``root`` is the name of the one that it was made for on a partitioned table."""

    schema: bytes
    owner: bytes
    name: bytes
    root: bytes
    is_validated: bool
    is_local: bool  # not merely inherited


def constraint_states(session: RawSession) -> Iterator[ConstraintState]:
    """Yield the constraints that people made."""
    rows = session.rows(
        b"""
        WITH RECURSIVE up(oid, parent, root) AS (
            SELECT oid, conparentid, conname FROM pg_catalog.pg_constraint
            UNION ALL
            SELECT up.oid, p.conparentid, p.conname FROM up JOIN pg_catalog.pg_constraint p ON p.oid = up.parent
        )
        SELECT n.nspname, coalesce(c.relname, t.typname), k.conname, up.root, k.convalidated, k.conislocal
        FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_namespace n ON n.oid = k.connamespace
        JOIN up ON up.oid = k.oid AND up.parent = 0
        LEFT JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
        LEFT JOIN pg_catalog.pg_type t ON t.oid = k.contypid
        WHERE (c.oid IS NOT NULL OR t.oid IS NOT NULL) AND """
        + _OF_USERS
        + b" AND "
        + _NO_EXTENSION,
        doing="listing constraints",
    )
    for row in rows:
        yield ConstraintState(
            schema=row[0] or b"",
            owner=row[1] or b"",
            name=row[2] or b"",
            root=row[3] or b"",
            is_validated=row[4] == b"t",
            is_local=row[5] == b"t",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexState:
    """``is_usable``: valid, ready and live. That of a partitioned index says nothing and is None."""

    schema: bytes
    name: bytes
    table: bytes
    is_usable: bool | None


def index_states(session: RawSession) -> Iterator[IndexState]:
    """Yield the indexes that people made, those of constraints among them."""
    rows = session.rows(
        b"""
        SELECT n.nspname, c.relname, t.relname, c.relkind, i.indisvalid AND i.indisready AND i.indislive
        FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
        JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE """
        + _OF_USERS,
        doing="listing indexes",
    )
    for schema, name, table, kind, is_usable in rows:
        yield IndexState(
            schema=schema or b"",
            name=name or b"",
            table=table or b"",
            is_usable=None if kind == b"I" else is_usable == b"t",
        )


def populated_views(session: RawSession) -> dict[Name, bool]:
    """Return the materialized views, and whether they hold what their query gave."""
    rows = session.rows(
        b"SELECT n.nspname, c.relname, c.relispopulated FROM pg_catalog.pg_class c"
        b" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm' AND " + _OF_USERS,
        doing="listing materialized views",
    )
    return {(row[0] or b"", row[1] or b""): row[2] == b"t" for row in rows}


def memberships(session: RawSession) -> set[tuple[bytes, bytes]]:
    """Return (role, member) for every membership among roles of the server."""
    rows = session.rows(
        b"SELECT r.rolname, m.rolname FROM pg_catalog.pg_auth_members a"
        b" JOIN pg_catalog.pg_roles r ON r.oid = a.roleid JOIN pg_catalog.pg_roles m ON m.oid = a.member",
        doing="listing memberships of roles",
    )
    return {(row[0] or b"", row[1] or b"") for row in rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """How the database was made."""

    name: bytes
    encoding: str
    collate: str
    ctype: str


def database_facts(session: RawSession) -> DatabaseFacts:
    """Return how the session's database was made."""
    row = session.rows(
        b"SELECT datname, pg_catalog.pg_encoding_to_char(encoding), datcollate, datctype"
        b" FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()",
        doing="looking at the database",
    )[0]
    return DatabaseFacts(
        name=row[0] or b"",
        encoding=session.decode(row[1]),
        collate=session.decode(row[2]),
        ctype=session.decode(row[3]),
    )


def newest_value(session: RawSession, table: Name, column: bytes) -> bytes | None:
    """Return the newest value of a column as PostgreSQL prints it, partitions but not children included. Raises PostgresError."""
    row = session.rows(
        b"SELECT pg_catalog.format('SELECT pg_catalog.max(%I) FROM %s%I.%I', $3::text,"
        b" CASE c.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END, $1::text, $2::text)"
        b" FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        b" WHERE n.nspname = $1::text AND c.relname = $2::text",
        *table,
        column,
        doing="looking for the table",
    )
    query = row[0][0] if row else b"SELECT 'there is no such table'::int4"
    return session.value(query or b"", doing="reading the newest row")


@dataclass(frozen=True, slots=True, kw_only=True)
class BtreeIndex:
    """A usable B-tree index that holds rows; sizes are bytes."""

    oid: int
    name: bytes  # quoted and qualified
    size_bytes: int
    table_bytes: int
    is_toast: bool


def btree_indexes(session: RawSession) -> list[BtreeIndex]:
    """Return the B-tree indexes on what people made, those of TOAST tables among them."""
    rows = session.rows(
        b"SELECT c.oid, "
        + _QUALIFIED
        + b", pg_catalog.pg_relation_size(c.oid), pg_catalog.pg_table_size(i.indrelid),"
        b" n.nspname = 'pg_toast'"
        b" FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
        b" JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_am a ON a.oid = c.relam"
        b" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        b" WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence <> 't' AND i.indisvalid AND i.indisready"
        b" AND i.indislive AND (" + _OF_USERS + b" OR n.nspname = 'pg_toast' AND i.indrelid >= 16384)",
        doing="listing B-tree indexes",
    )
    return [
        BtreeIndex(
            oid=int(row[0] or 0),
            name=row[1] or b"",
            size_bytes=int(row[2] or 0),
            table_bytes=int(row[3] or 0),
            is_toast=row[4] == b"t",
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeapTable:
    """A table or materialized view of heap pages; the size, with its TOAST table's, is bytes."""

    oid: int
    name: bytes  # quoted and qualified
    size_bytes: int


def heap_tables(session: RawSession) -> list[HeapTable]:
    """Return what people made of heap pages."""
    rows = session.rows(
        b"SELECT c.oid, " + _QUALIFIED + b", pg_catalog.pg_table_size(c.oid) FROM pg_catalog.pg_class c"
        b" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_am a ON a.oid = c.relam"
        b" WHERE a.amname = 'heap' AND c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND " + _OF_USERS,
        doing="listing tables",
    )
    return [HeapTable(oid=int(row[0] or 0), name=row[1] or b"", size_bytes=int(row[2] or 0)) for row in rows]
