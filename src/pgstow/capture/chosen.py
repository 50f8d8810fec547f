"""Tables that a backup is limited to, found by their names.

They are looked for twice, like the tables of any backup: before the locks and under the snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pgstow.core.errors import MissingTable
from pgstow.postgres.catalogs import TableName
from pgstow.postgres.names import QualifiedName, parse_qualified
from pgstow.postgres.relations import KINDS, Relation, user_relations, with_partitions
from pgstow.postgres.session import Connection

__all__ = ["chosen_only", "look_up"]


def chosen_only(names: Iterable[str], encoding: str) -> Callable[[Connection], list[TableName]]:
    """Return what lists the named tables and their partitions; it raises MissingTable naming all that are not there."""
    wanted = [parse_qualified(name) for name in names]

    def tables(connection: Connection) -> list[TableName]:
        found, missing = look_up(wanted, user_relations(connection, encoding))
        if missing:
            raise MissingTable(
                f"what was to be backed up is not there: {'; '.join(missing)}",
                hint="names are exact: SCHEMA.TABLE, in upper and lower case as the database has them",
                tables=missing,
            )
        oids = [relation.oid for relations in found.values() for relation in relations]
        return with_partitions(connection, oids)

    return tables


def look_up(
    wanted: Sequence[QualifiedName], relations: Sequence[Relation]
) -> tuple[dict[QualifiedName, list[Relation]], list[str]]:
    """Return the tables that each name stands for, and in words the names that stand for none."""
    by_name = {(one.schema, one.name): one for one in relations}
    found: dict[QualifiedName, list[Relation]] = {}
    missing: list[str] = []
    for name in wanted:
        if name.name is None:
            mine = [one for one in relations if one.schema == name.schema and one.is_table]
            if not mine:
                missing.append(f"schema {name.schema} has no tables")
            found[name] = mine
            continue
        relation = by_name.get((name.schema, name.name))
        if relation is not None and relation.is_table:
            found[name] = [relation]
        else:
            missing.append(f"{name} is a {KINDS[relation.kind]}" if relation else f"there is no table {name}")
    return found, missing
