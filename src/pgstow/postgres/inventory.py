"""Named questions to a restored database: what is there, and in which state.

Names come back as bytes in the session's client encoding, as the archive spells them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pgstow.postgres.catalogs import LOCALE_PROVIDERS
from pgstow.postgres.raw import RawSession, array

__all__ = [
    "BtreeIndex",
    "ConstraintState",
    "DatabaseFacts",
    "HeapTable",
    "IndexState",
    "LargeObjectPiece",
    "Membership",
    "RoleState",
    "btree_indexes",
    "constraint_states",
    "database_facts",
    "differing_large_objects",
    "heap_tables",
    "index_states",
    "memberships",
    "newest_value",
    "populated_views",
    "role_states",
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
        b" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'S' AND c.relpersistence <> 't'",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeObjectPiece:
    """What a large object must hold from ``offset`` on; sizes are bytes."""

    oid: int
    offset: int
    size_bytes: int
    sha256: bytes


def differing_large_objects(session: RawSession, pieces: Sequence[LargeObjectPiece]) -> set[int]:
    """Return which of these large objects, that are there, hold something else. The server reads them, one piece after the other."""
    rows = session.rows(
        b"SELECT DISTINCT oid FROM unnest($1::oid[], $2::int8[], $3::int4[], $4::text[]) AS wanted(oid, start, size, digest)"
        b" WHERE pg_catalog.encode(pg_catalog.sha256(pg_catalog.lo_get(oid, start, size)), 'hex') <> digest",
        array(b"%d" % one.oid for one in pieces),
        array(b"%d" % one.offset for one in pieces),
        array(b"%d" % one.size_bytes for one in pieces),
        array(one.sha256.hex().encode() for one in pieces),
        doing="reading large objects",
    )
    return {int(row[0] or 0) for row in rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleState:
    """A role as it is. ``settings`` are the names of those that it brings into every database."""

    name: bytes
    is_superuser: bool
    inherits: bool
    may_create_roles: bool
    may_create_databases: bool
    may_replicate: bool
    bypasses_row_security: bool
    connection_limit: int
    valid_until: str | None
    settings: tuple[bytes, ...]


def role_states(session: RawSession) -> list[RoleState]:
    """Return the roles of the server; moments as the session's time zone prints them."""
    rows = session.rows(
        b"SELECT rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolconnlimit,"
        b" rolvaliduntil, (SELECT pg_catalog.string_agg(pg_catalog.split_part(one, '=', 1), E'\\n')"
        b" FROM pg_catalog.unnest(rolconfig) AS one) FROM pg_catalog.pg_roles",
        doing="listing roles",
    )
    return [
        RoleState(
            name=row[0] or b"",
            is_superuser=row[1] == b"t",
            inherits=row[2] == b"t",
            may_create_roles=row[3] == b"t",
            may_create_databases=row[4] == b"t",
            may_replicate=row[5] == b"t",
            bypasses_row_security=row[6] == b"t",
            connection_limit=int(row[7] or -1),
            valid_until=None if row[8] is None else session.decode(row[8]),
            settings=tuple((row[9] or b"").splitlines()),
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What a member of a role may do with it, by whomever it was granted. Before 16 the last two are unknown: None."""

    is_admin: bool
    inherits: bool | None
    may_set: bool | None


def memberships(session: RawSession) -> dict[tuple[bytes, bytes], Membership]:
    """Return the memberships among roles of the server, by role and member."""
    has_options = session.connection.info.server_version >= 160000
    options = b"bool_or(inherit_option), bool_or(set_option)" if has_options else b"NULL, NULL"
    rows = session.rows(
        b"SELECT r.rolname, m.rolname, bool_or(a.admin_option), "
        + options
        + b" FROM pg_catalog.pg_auth_members a"
        b" JOIN pg_catalog.pg_roles r ON r.oid = a.roleid JOIN pg_catalog.pg_roles m ON m.oid = a.member GROUP BY 1, 2",
        doing="listing memberships of roles",
    )
    return {
        (row[0] or b"", row[1] or b""): Membership(
            is_admin=row[2] == b"t",
            inherits=None if row[3] is None else row[3] == b"t",
            may_set=None if row[4] is None else row[4] == b"t",
        )
        for row in rows
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """How the database was made."""

    name: bytes
    encoding: str
    collate: str
    ctype: str
    locale_provider: str
    icu_locale: str | None


def database_facts(session: RawSession) -> DatabaseFacts:
    """Return how the session's database was made."""
    version_num = session.connection.info.server_version
    locale = b"datlocale" if version_num >= 170000 else b"daticulocale" if version_num >= 150000 else b"NULL"
    provider = b"datlocprovider" if version_num >= 150000 else b"'c'"
    row = session.rows(
        b"SELECT datname, pg_catalog.pg_encoding_to_char(encoding), datcollate, datctype, %s, %s"
        b" FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()" % (provider, locale),
        doing="looking at the database",
    )[0]
    return DatabaseFacts(
        name=row[0] or b"",
        encoding=session.decode(row[1]),
        collate=session.decode(row[2]),
        ctype=session.decode(row[3]),
        locale_provider=LOCALE_PROVIDERS.get(session.decode(row[4]), session.decode(row[4])),
        icu_locale=None if row[5] is None else session.decode(row[5]),
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
