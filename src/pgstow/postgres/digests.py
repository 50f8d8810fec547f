"""What a database contains, as numbers that two databases can be compared by.

A table's digest is its row count and three sums of 64 bits each, over the SHA-256 of every row's text. Sums do
not depend on the order of rows and tell a multiset: a row that is lost, added, doubled or changed, or values
that changed places between rows, give other sums (unless 192 bits of SHA-256 collide). The server computes
them in one pass, in constant memory, and sends four numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pgstow.postgres.session import Connection

__all__ = [
    "Digest",
    "StoredTable",
    "database_encoding",
    "digest_large_objects",
    "digest_sequences",
    "digest_table",
    "stored_tables",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """How many rows, and their sums. Digests of parts add up to the digest of the whole."""

    rows: int
    sums: tuple[int, int, int]

    def __str__(self) -> str:
        """The sums as one number of 192 bits, in hexadecimal."""
        return "".join(f"{value % 2**64:016x}" for value in self.sums)

    def __add__(self, other: Digest) -> Digest:
        first, second, third = (a + b for a, b in zip(self.sums, other.sums, strict=True))
        return Digest(rows=self.rows + other.rows, sums=(first, second, third))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTable:
    """A table that holds rows of its own.

    ``unit`` is the schema and name that its rows count for: its own, or, below a hash-partitioned table, that
    table's, because a restore may put rows into other partitions than the source had them in.
    ``condition`` limits an extension's configuration table to the rows that are the user's.
    """

    unit: tuple[str, str]
    qualified: bytes
    columns: bytes
    column_names: str
    condition: bytes


# Ancestors of a partition with their distance; the topmost hash-partitioned one gives the unit and the columns
# (a partition may have them in another order). Materialized views hold nothing of their own, and the rows of
# foreign and of extensions' tables are not the database's, but for configuration tables.
_STORED_TABLES = """
WITH RECURSIVE ancestor(leaf, relation, distance) AS (
    SELECT c.oid, c.oid, 0 FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence <> 't'
      AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
    UNION ALL
    SELECT a.leaf, i.inhparent, a.distance + 1 FROM ancestor a
    JOIN pg_catalog.pg_inherits i ON i.inhrelid = a.relation
    JOIN pg_catalog.pg_class c ON c.oid = a.relation AND c.relispartition
), unit AS (
    SELECT DISTINCT ON (a.leaf) a.leaf, a.relation FROM ancestor a
    LEFT JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = a.relation
    WHERE a.distance = 0 OR p.partstrat = 'h'
    ORDER BY a.leaf, a.distance DESC
)
SELECT pg_catalog.convert_to(un.nspname::text, %(encoding)s), pg_catalog.convert_to(uc.relname::text, %(encoding)s),
       pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
       coalesce(columns.quoted, ''), pg_catalog.convert_to(coalesce(columns.quoted, ''), %(encoding)s),
       coalesce(e.extcondition[pg_catalog.array_position(e.extconfig, c.oid)], '')
FROM unit u
JOIN pg_catalog.pg_class c ON c.oid = u.leaf
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class uc ON uc.oid = u.relation
JOIN pg_catalog.pg_namespace un ON un.oid = uc.relnamespace
LEFT JOIN LATERAL (
    SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) AS quoted
    FROM pg_catalog.pg_attribute a WHERE a.attrelid = u.relation AND a.attnum > 0 AND NOT a.attisdropped
) columns ON true
LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid
    AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'
LEFT JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
WHERE d.objid IS NULL OR c.oid = ANY (e.extconfig)
ORDER BY 1, 2, c.oid
"""

_SEQUENCES = """
SELECT pg_catalog.convert_to(n.nspname::text, %(encoding)s), pg_catalog.convert_to(c.relname::text, %(encoding)s),
       pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid
    AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'
LEFT JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
  AND (d.objid IS NULL OR c.oid = ANY (e.extconfig))
ORDER BY 1, 2
"""

# OFFSET 0 keeps the hash in the subquery: pulled up, it would be computed once per sum.
_SUMS = b"""
SELECT pg_catalog.count(*)%s FROM (
    SELECT pg_catalog.encode(pg_catalog.sha256(%s), 'hex') AS hash FROM %s OFFSET 0
) AS hashed
"""
_LANES = b"".join(
    b", coalesce(pg_catalog.sum(('x' || pg_catalog.substr(hash, %d, 16))::bit(64)::bigint), 0)" % start
    for start in (1, 17, 33)
)

# A megabyte at a time: a large object may be bigger than a bytea can be. Its length is found by opening it and
# seeking to the end; the last piece is empty or short, so the pieces tell the length as well.
_LARGE_OBJECT_PIECES = b"""(
    SELECT o.oid, piece.start FROM (
        SELECT opened.oid, pg_catalog.lo_lseek64(opened.fd, 0, 2) AS size, pg_catalog.lo_close(opened.fd)
        FROM (SELECT oid, pg_catalog.lo_open(oid, 262144) AS fd FROM pg_catalog.pg_largeobject_metadata OFFSET 0) opened
    ) o, LATERAL pg_catalog.generate_series(0, o.size, 1048576) AS piece(start)
) AS pieces"""
_LARGE_OBJECT_VALUE = b"pg_catalog.convert_to(oid || ':' || start || ':', 'SQL_ASCII') || pg_catalog.lo_get(oid, start, 1048576)"


def database_encoding(connection: Connection) -> str:
    """Return the encoding of the database."""
    row = _row(
        connection, b"SELECT pg_catalog.convert_to(pg_catalog.getdatabaseencoding()::text, 'SQL_ASCII')"
    )
    return bytes(row[0]).decode("ascii")


def stored_tables(connection: Connection, encoding: str) -> list[StoredTable]:
    """Return the tables whose rows belong to the database, partitions in place of their parents.

    ``encoding`` is the one names are given in, the database's own or one it can be converted to.
    """
    return [
        StoredTable(
            unit=(_text(schema), _text(name)),
            qualified=qualified,
            columns=columns,
            column_names=_text(column_names),
            condition=condition,
        )
        for schema, name, qualified, columns, column_names, condition in connection.execute(
            _STORED_TABLES, {"encoding": encoding}, binary=True
        )
    ]


def digest_table(connection: Connection, table: StoredTable, encoding: str) -> Digest:
    """Return the digest of the rows that are stored in this very table."""
    row = b"pg_catalog.convert_to((ROW(%s))::text, '%s')" % (table.columns, encoding.encode("ascii"))
    return _digest(connection, row, b"ONLY %s %s" % (table.qualified, table.condition))


def digest_large_objects(connection: Connection) -> Digest:
    """Return the digest of all large objects, OID and content; ``rows`` counts their pieces of a megabyte."""
    return _digest(connection, _LARGE_OBJECT_VALUE, _LARGE_OBJECT_PIECES)


def digest_sequences(connection: Connection, encoding: str) -> dict[tuple[str, str], Digest]:
    """Return the state of every sequence by schema and name, as a digest of one row."""
    found = connection.execute(_SEQUENCES, {"encoding": encoding}, binary=True).fetchall()
    states = {}
    for schema, name, qualified in found:
        last_value, is_called = _row(connection, b"SELECT last_value, is_called FROM " + qualified)
        states[_text(schema), _text(name)] = Digest(rows=1, sums=(last_value, int(is_called), 0))
    return states


def _digest(connection: Connection, value: bytes, relation: bytes) -> Digest:
    rows, first, second, third = _row(connection, _SUMS % (_LANES, value, relation))
    return Digest(rows=rows, sums=(int(first), int(second), int(third)))


def _row(connection: Connection, statement: bytes) -> tuple[Any, ...]:
    row = connection.execute(statement, binary=True).fetchone()
    assert row is not None, "an aggregate without GROUP BY returns a row"
    return row


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
