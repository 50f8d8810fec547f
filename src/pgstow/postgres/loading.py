"""Named statements on tables that are being filled.

Table names are qualified and quoted as the archive's own COPY statements spell them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg

from pgstow.postgres.raw import RawSession, array

__all__ = [
    "ForeignKey",
    "LoadTable",
    "Trigger",
    "analyzable_tables",
    "analyze",
    "begin_reading",
    "begin_replica",
    "count_rows",
    "count_rows_despite_policies",
    "foreign_keys",
    "has_integer_key",
    "has_rows",
    "load_tables",
    "may_be_replica",
    "partitions_among",
    "restore_triggers",
    "silence_triggers",
    "table_pages",
    "triggers",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTable:
    """A table of the target as its catalogs show it."""

    oid: int
    qualified: bytes
    is_plain: bool  # an ordinary table; else partitioned, foreign, a view ...
    is_extension_owned: bool


def load_tables(session: RawSession, names: Sequence[bytes]) -> dict[bytes, LoadTable]:
    """Return the tables of the target among ``names``; absent ones are left out."""
    rows = session.rows(
        b"""
        SELECT n.name, c.oid, c.relkind, EXISTS (SELECT 1 FROM pg_catalog.pg_depend d
               WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
        FROM pg_catalog.unnest($1::text[]) AS n(name) JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(n.name)
        """,
        array(names),
        doing="looking at the tables to load",
    )
    return {
        row[0] or b"": LoadTable(
            oid=int(row[1] or 0),
            qualified=row[0] or b"",
            is_plain=row[2] == b"r",
            is_extension_owned=row[3] == b"t",
        )
        for row in rows
    }


def partitions_among(
    session: RawSession, roots: Sequence[int], tables: Sequence[int]
) -> dict[int, list[int]]:
    """Return which of the tables are partitions below each of the roots, at whatever level; roots without any are left out."""
    rows = session.rows(
        b"SELECT root.oid, part.relid::pg_catalog.oid FROM pg_catalog.unnest($1::oid[]) AS root(oid),"
        b" pg_catalog.pg_partition_tree(root.oid::pg_catalog.regclass) AS part"
        b" WHERE part.isleaf AND part.relid = ANY ($2::oid[]) AND part.relid <> root.oid",
        array(b"%d" % oid for oid in roots),
        array(b"%d" % oid for oid in tables),
        doing="looking at partitions",
    )
    found: dict[int, list[int]] = {}
    for row in rows:
        found.setdefault(int(row[0] or 0), []).append(int(row[1] or 0))
    return found


def has_rows(session: RawSession, table: LoadTable) -> bool:
    """Return whether the session sees any row of the table (of the partitions, if it is partitioned)."""
    return bool(session.rows(b"SELECT 1 FROM " + _only(table) + b" LIMIT 1", doing="looking for rows"))


def count_rows(session: RawSession, table: LoadTable, condition: bytes | None = None) -> int:
    """Return the number of rows; ``condition`` is a WHERE clause of an extension's configuration table."""
    found = session.value(
        b"SELECT pg_catalog.count(*) FROM " + _only(table) + b" " + (condition or b""),
        doing=f"counting rows of {session.decode(table.qualified)}",
    )
    return int(found or 0)


def count_rows_despite_policies(session: RawSession, table: LoadTable, condition: bytes | None = None) -> int:
    """Return the number of rows of a table of the session's own role that has FORCE ROW LEVEL SECURITY.

    Its owner may lift that; here nobody notices, as the transaction that does it is rolled back.
    """
    doing = f"counting rows of {session.decode(table.qualified)}"
    session.execute(b"BEGIN", doing=doing)
    try:
        session.execute(b"ALTER TABLE %b NO FORCE ROW LEVEL SECURITY" % table.qualified, doing=doing)
        return count_rows(session, table, condition)
    finally:
        session.execute(b"ROLLBACK", doing=doing)


def table_pages(session: RawSession, oids: Sequence[int]) -> dict[int, int]:
    """Return how many pages of rows each table has, by OID."""
    rows = session.rows(
        b"SELECT c.oid, pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::int8"
        b" FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1::oid[])",
        array(b"%d" % oid for oid in oids),
        doing="measuring tables",
    )
    return {int(row[0] or 0): int(row[1] or 0) for row in rows}


def _only(table: LoadTable) -> bytes:
    return b"ONLY " + table.qualified if table.is_plain else table.qualified


def analyze(session: RawSession, qualified: bytes) -> None:
    """Gather the planner's statistics of one table."""
    session.execute(b"ANALYZE " + qualified, doing=f"analyzing {session.decode(qualified)}")


def analyzable_tables(session: RawSession, names: Sequence[bytes]) -> list[bytes]:
    """Return what to ANALYZE so that every table of ``names`` has statistics, the largest first.

    A partition is covered by its topmost root.
    """
    rows = session.rows(
        b"""
        SELECT pg_catalog.format('%I.%I', ns.nspname, top.relname)
        FROM (SELECT DISTINCT coalesce(pg_catalog.pg_partition_root(c.oid), c.oid) AS oid FROM pg_catalog.pg_class c
              WHERE c.oid IN (SELECT pg_catalog.to_regclass(n.name) FROM pg_catalog.unnest($1::text[]) AS n(name))) t
        JOIN pg_catalog.pg_class top USING (oid) JOIN pg_catalog.pg_namespace ns ON ns.oid = top.relnamespace
        WHERE top.relkind IN ('r', 'p', 'm')
        ORDER BY CASE WHEN top.relkind = 'p' THEN
                     (SELECT sum(pg_catalog.pg_relation_size(relid)) FROM pg_catalog.pg_partition_tree(top.oid))
                 ELSE pg_catalog.pg_relation_size(top.oid) END DESC NULLS LAST
        """,
        array(names),
        doing="listing tables to analyze",
    )
    return [row[0] or b"" for row in rows]


def may_be_replica(session: RawSession) -> bool:
    """Return whether the session may apply rows as a replica does: no triggers, no foreign key checks."""
    try:
        session.run(b"BEGIN; SET LOCAL session_replication_role = replica")
    except psycopg.errors.InsufficientPrivilege:
        return False
    finally:
        session.run(b"ROLLBACK")
    return True


def begin_replica(session: RawSession) -> None:
    """Make the session apply rows as a replica does."""
    session.execute(b"SET session_replication_role = replica", doing="becoming a replica")


def has_integer_key(session: RawSession, qualified: bytes, constraint: bytes) -> bool:
    """Return whether all columns of a foreign key are integers. ``constraint`` is its name without quotes."""
    return (
        session.value(
            b"""
            SELECT pg_catalog.bool_and(a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype))
            FROM pg_catalog.pg_constraint c
            JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)
            WHERE c.conrelid = pg_catalog.to_regclass($1) AND c.conname = $2 AND c.contype = 'f'
            """,
            qualified,
            constraint,
            doing="looking at a foreign key",
        )
        == b"t"
    )


def begin_reading(session: RawSession, settings: Mapping[str, str]) -> None:
    """Begin a transaction that only reads, with ``settings`` (those this server knows) until its end."""
    session.execute(b"BEGIN READ ONLY", doing="beginning to read rows back")
    session.rows(
        b"SELECT count(pg_catalog.set_config(s.name, given.value, true))"
        b" FROM unnest($1::text[], $2::text[]) AS given(name, value)"
        b" JOIN pg_catalog.pg_settings s ON pg_catalog.lower(s.name) = given.name",
        array(name.encode() for name in settings),
        array(value.encode() for value in settings.values()),
        doing="applying the settings of the backup",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A user's trigger that would fire for loaded rows. ``state`` is pg_trigger.tgenabled."""

    name: bytes  # quoted
    state: bytes


_RESTORING = {b"O": b"ENABLE TRIGGER ", b"R": b"ENABLE REPLICA TRIGGER ", b"A": b"ENABLE ALWAYS TRIGGER "}


def triggers(session: RawSession, table: LoadTable, *, as_replica: bool) -> list[Trigger]:
    """Return the user's triggers that would fire in this session."""
    rows = session.rows(
        b"SELECT pg_catalog.quote_ident(tgname), tgenabled FROM pg_catalog.pg_trigger"
        b" WHERE tgrelid = $1::oid AND NOT tgisinternal AND tgenabled = ANY ($2::text[]) ORDER BY tgname",
        b"%d" % table.oid,
        array([b"R", b"A"] if as_replica else [b"O", b"A"]),
        doing="listing triggers",
    )
    return [Trigger(name=row[0] or b"", state=row[1] or b"") for row in rows]


def silence_triggers(table: LoadTable, found: Sequence[Trigger]) -> bytes:
    """Return the statements that keep triggers from firing, for the transaction that loads the rows."""
    return b"".join(
        b"ALTER TABLE " + table.qualified + b" DISABLE TRIGGER " + each.name + b"; " for each in found
    )


def restore_triggers(table: LoadTable, found: Sequence[Trigger]) -> bytes:
    """Return the statements that give triggers the state they had, for the same transaction."""
    return b"".join(
        b"ALTER TABLE " + table.qualified + b" " + _RESTORING[each.state] + each.name + b"; "
        for each in found
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """A foreign key between tables, by OID."""

    table: int
    references: int
    description: str


def foreign_keys(session: RawSession, oids: Sequence[int]) -> list[ForeignKey]:
    """Return the foreign keys that rows loaded into the given tables must satisfy."""
    rows = session.rows(
        b"SELECT conrelid, confrelid, pg_catalog.format('%s of %s', pg_catalog.quote_ident(conname), conrelid::regclass)"
        b" FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conrelid = ANY ($1::oid[]) ORDER BY oid",
        array(b"%d" % oid for oid in oids),
        doing="listing foreign keys",
    )
    return [
        ForeignKey(table=int(row[0] or 0), references=int(row[1] or 0), description=session.decode(row[2]))
        for row in rows
    ]
