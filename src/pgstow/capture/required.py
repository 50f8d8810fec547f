"""Tables that a backup must contain: one without them is a failed backup.

They are looked for under the backup's own snapshot, before any row is read, and then in the archive's table of contents:
a table may be there and its rows left out by choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pgstow.capture.chosen import look_up
from pgstow.capture.tables import CapturedTable
from pgstow.catalog.manifest import Warning_
from pgstow.core.errors import MissingTable
from pgstow.postgres.archive import Toc
from pgstow.postgres.names import QualifiedName, parse_qualified
from pgstow.postgres.relations import KINDS, Leaf, leaves_of, user_relations
from pgstow.postgres.session import Connection, translated

__all__ = ["RequiredTable", "empty_warnings", "find_required", "refuse_left_out"]

_WHY = "what a backup must contain is stated with --must-contain, or in the configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequiredTable:
    """A table that the backup must contain, and what holds its rows."""

    oid: int
    name: QualifiedName
    leaves: Sequence[Leaf]

    @property
    def is_partitioned(self) -> bool:
        """Whether its rows, if there are any, are in partitions."""
        return all(leaf.oid != self.oid for leaf in self.leaves)


def find_required(connection: Connection, names: Iterable[str], encoding: str) -> list[RequiredTable]:
    """Return the tables that the backup must contain. Raises MissingTable naming all that are not there."""
    wanted = [parse_qualified(name, may_be_schema=True) for name in names]
    if not wanted:
        return []
    with translated("looking for the tables that the backup must contain"):
        found, missing = look_up(wanted, user_relations(connection, encoding))
        leaves = leaves_of(
            connection, [one.oid for relations in found.values() for one in relations], encoding
        )
    if missing:
        raise MissingTable(
            f"what the backup must contain is not there: {'; '.join(missing)}", hint=_WHY, tables=missing
        )
    tables = {one.oid: QualifiedName(one.schema, one.name) for each in found.values() for one in each}
    return [
        RequiredTable(oid=oid, name=name, leaves=[leaf for leaf in leaves if leaf.root == oid])
        for oid, name in tables.items()
    ]


def refuse_left_out(required: Sequence[RequiredTable], toc: Toc) -> None:
    """Raise MissingTable, naming all, if the archive will not hold the rows of something it must contain."""
    with_rows = {entry.oid for entry in toc.table_data()}
    defined = {entry.oid for entry in toc.entries if entry.desc == b"TABLE"}
    left_out = []
    for table in required:
        without = [leaf for leaf in table.leaves if leaf.oid not in with_rows]
        if without:
            partition = f" ({KINDS[without[0].kind]} {without[0].name})" if len(table.leaves) > 1 else ""
            left_out.append(f"{table.name}{partition}")
        elif table.is_partitioned and table.oid not in defined:  # its partitions would come back without it
            left_out.append(f"{table.name} (itself)")
    if left_out:
        raise MissingTable(
            f"the backup would not hold {', '.join(left_out)}",
            hint=f"an exclude, a choice of schemas or tables, or an extension leaves them out; {_WHY}",
            tables=left_out,
        )


def empty_warnings(required: Sequence[RequiredTable], tables: Sequence[CapturedTable]) -> list[Warning_]:
    """Return a warning for each table that must be there, is, and has no rows."""
    rows = {table.task.facts.oid: table.rows for table in tables}
    return [
        Warning_(code="empty_table", message=f"{table.name}, which the backup must contain, has no rows")
        for table in required
        if not sum(rows.get(leaf.oid, 0) for leaf in table.leaves)
    ]
