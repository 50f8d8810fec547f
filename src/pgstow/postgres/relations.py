"""Named queries about tables that somebody asked for by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pgstow.postgres.catalogs import TableName, text
from pgstow.postgres.encodings import decoded
from pgstow.postgres.session import Connection

__all__ = ["KINDS", "Leaf", "Relation", "leaves_of", "owned_names", "user_relations", "with_partitions"]

KINDS = {
    "r": "table",
    "p": "partitioned table",
    "v": "view",
    "m": "materialized view",
    "f": "foreign table",
    "S": "sequence",
}
_QUALIFIED = "pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)"

# The given tables and all of their partitions, at every level.
_TREE = """
    WITH RECURSIVE tree(root, oid) AS (
        SELECT given.oid, given.oid FROM unnest(%s::oid[]) AS given(oid)
        UNION ALL
        SELECT tree.root, i.inhrelid FROM tree
        JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid
        JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition
    )
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A table, or what somebody may take for one, as ``decoded()`` shows its name."""

    oid: int
    schema: str
    name: str
    kind: str  # pg_class.relkind

    @property
    def is_table(self) -> bool:
        return self.kind in ("r", "p")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """What holds rows of a table: itself, or one of its partitions."""

    root: int  # the table's OID
    oid: int
    name: str
    kind: str


def user_relations(connection: Connection, encoding: str) -> list[Relation]:
    """Return everything of users that has rows or a number to give, by OID, in a database of that encoding."""
    rows = connection.execute(
        """
        SELECT c.oid, n.nspname, c.relname, c.relkind::text
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
            AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
        ORDER BY c.oid
        """
    )
    return [
        Relation(oid=oid, schema=decoded(schema, encoding), name=decoded(name, encoding), kind=text(kind))
        for oid, schema, name, kind in rows
    ]


def with_partitions(connection: Connection, oids: Sequence[int]) -> list[TableName]:
    """Return the tables and all of their partitions, foreign ones left out, by OID."""
    rows = connection.execute(
        f"{_TREE} SELECT DISTINCT c.oid, {_QUALIFIED} FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') ORDER BY c.oid",
        (list(oids),),
    )
    return [TableName(oid, qualified) for oid, qualified in rows]


def leaves_of(connection: Connection, oids: Sequence[int], encoding: str) -> list[Leaf]:
    """Return what holds the rows of the given tables."""
    rows = connection.execute(
        f"{_TREE} SELECT tree.root, c.oid, {_QUALIFIED}, c.relkind::text FROM tree"
        " JOIN pg_catalog.pg_class c ON c.oid = tree.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind <> 'p' ORDER BY c.oid",
        (list(oids),),
    )
    return [
        Leaf(root=root, oid=oid, name=decoded(name, encoding), kind=text(kind))
        for root, oid, name, kind in rows
    ]


def owned_names(connection: Connection, oids: Sequence[int]) -> list[bytes]:
    """Return the qualified names of the given tables, and of the sequences their columns own or take defaults from."""
    rows = connection.execute(
        f"""
        SELECT {_QUALIFIED}
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = ANY(%(oids)s::oid[]) OR c.relkind = 'S' AND c.oid IN (
            SELECT d.objid FROM pg_catalog.pg_depend d
            WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
                AND d.refobjid = ANY(%(oids)s::oid[]) AND d.deptype IN ('a', 'i')
            UNION ALL
            SELECT d.refobjid FROM pg_catalog.pg_attrdef a
            JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = a.oid
            WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND a.adrelid = ANY(%(oids)s::oid[])
        )
        ORDER BY 1
        """,
        {"oids": list(oids)},
    )
    return [name for (name,) in rows]
