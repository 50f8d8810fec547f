"""What a first settings file is made from: which tables a database has, how large they are, and what tells their age.

Every function expects a session from ``inspection_session``; nothing is changed and no row of a user's is read.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgstow.postgres.session import Connection

__all__ = ["TableLook", "TimeColumn", "database_name", "tables_by_size"]

# The user's own tables, a partitioned one standing for its partitions; without what extensions bring along.
_TABLES = """
    WITH RECURSIVE root AS (
        SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
          AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
              AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e')
    ), part AS (
        SELECT oid AS root, oid AS part FROM root
        UNION ALL
        SELECT p.root, i.inhrelid FROM part p JOIN pg_catalog.pg_inherits i ON i.inhparent = p.part
        JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition
    )
    SELECT r.nspname, r.relname,
           (SELECT coalesce(sum(pg_catalog.pg_total_relation_size(p.part)), 0)::bigint FROM part p WHERE p.root = r.oid),
           ARRAY(SELECT a.attname FROM pg_catalog.pg_attribute a WHERE a.attrelid = r.oid AND a.attnum > 0
                 AND NOT a.attisdropped AND a.atttypid IN ('pg_catalog.timestamptz'::pg_catalog.regtype,
                 'pg_catalog.timestamp'::pg_catalog.regtype) ORDER BY a.attnum)::text[],
           ARRAY(SELECT a.attname FROM pg_catalog.pg_index x JOIN pg_catalog.pg_attribute a
                 ON a.attrelid = r.oid AND a.attnum = x.indkey[0] WHERE x.indrelid = r.oid AND x.indpred IS NULL)::text[]
    FROM root r ORDER BY 3 DESC, 1, 2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeColumn:
    """A column of type timestamptz or timestamp; with ``is_indexed`` its newest value is found at once."""

    name: str
    is_indexed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLook:
    """A table with its size on disk, indexes and partitions included."""

    schema: str
    name: str
    size_bytes: int
    time_columns: tuple[TimeColumn, ...]

    @property
    def qualified(self) -> str:
        """``schema.table``, not quoted."""
        return f"{self.schema}.{self.name}"


def tables_by_size(session: Connection) -> list[TableLook]:
    """Return the user's tables, the largest first."""
    return [
        TableLook(
            schema=_text(schema),
            name=_text(name),
            size_bytes=size_bytes,
            time_columns=tuple(
                TimeColumn(name=_text(column), is_indexed=column in indexed) for column in columns
            ),
        )
        for schema, name, size_bytes, columns, indexed in session.execute(_TABLES.encode())
    ]


def database_name(session: Connection) -> str:
    """Return the name of the database; the connection's own idea of it cannot be read where it is not ASCII."""
    row = session.execute("SELECT pg_catalog.current_database()").fetchone()
    assert row is not None
    return _text(row[0])


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
