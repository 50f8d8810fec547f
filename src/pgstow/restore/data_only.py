"""Loading rows into tables that exist already.

Such tables have triggers and foreign keys, and rows of other people may be in them. Rows come in as a replica
applies them, without triggers and checks, where the role may do so. Otherwise triggers of users are switched
off for the load, and tables are loaded in the order that their foreign keys demand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pgstow.core.errors import TargetRefused
from pgstow.postgres import loading
from pgstow.postgres import target as target_sql
from pgstow.postgres.archive import Toc, copy_target, large_object_ids
from pgstow.postgres.loading import ForeignKey
from pgstow.postgres.raw import RawSession
from pgstow.restore.naming import text
from pgstow.restore.request import ArchiveFiles
from pgstow.restore.selection import Selection

__all__ = ["check_tables_are_ready", "load_order"]

_SHOWN = 5


def check_tables_are_ready(session: RawSession, files: ArchiveFiles, selection: Selection) -> None:
    """TargetRefused unless every table of the selection is there, empty, and can be filled."""
    names = list(dict.fromkeys(copy_target(entry) for entry in selection.table_data))
    tables = loading.load_tables(session, names)
    encoding = files.toc.encoding
    _refuse(
        "the target has no table",
        [text(name, encoding) for name in names if name not in tables],
        "restore it without --data-only",
    )
    filled = [
        text(name, encoding) for name in names if name in tables and loading.has_rows(session, tables[name])
    ]
    _refuse(
        "there are rows already in",
        filled,
        "--data-only adds to empty tables only: TRUNCATE them first, if they may go",
    )
    _check_large_objects(session, files.toc, selection)
    if not loading.may_be_replica(session):
        oids = [table.oid for table in tables.values()]
        load_order(oids, loading.foreign_keys(session, oids))


def _refuse(what: str, names: Sequence[str], hint: str) -> None:
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise TargetRefused(f"{what} {', '.join(names[:_SHOWN])}{more}", hint=hint)


def _check_large_objects(session: RawSession, toc: Toc, selection: Selection) -> None:
    oids = [oid for entry in selection.large_object_data for oid in large_object_ids(toc, entry)]
    there = [str(oid) for oid in target_sql.existing_large_objects(session, oids)] if oids else []
    _refuse("the target has large objects of the same number:", there, "unlink them first, if they may go")


def load_order(oids: Iterable[int], keys: Sequence[ForeignKey]) -> list[list[int]]:
    """Return the tables in steps; those of one step need nothing but earlier steps.

    A key of a table to itself is no obstacle: it is checked when all rows are in. TargetRefused when tables
    refer to each other in a circle.
    """
    waiting = {oid: _referenced(oid, keys) for oid in oids}
    steps: list[list[int]] = []
    while waiting:
        ready = [oid for oid, needs in waiting.items() if not needs & waiting.keys()]
        if not ready:
            raise TargetRefused(
                "foreign keys refer to each other in a circle: " + ", ".join(_in_circle(waiting, keys)),
                hint="connect with a role that may set session_replication_role (a superuser), or drop one of the keys"
                " and set it again afterwards",
            )
        steps.append(ready)
        for oid in ready:
            del waiting[oid]
    return steps


def _referenced(oid: int, keys: Sequence[ForeignKey]) -> set[int]:
    return {key.references for key in keys if key.table == oid and key.references != oid}


def _in_circle(waiting: Mapping[int, set[int]], keys: Sequence[ForeignKey]) -> list[str]:
    """Return the keys that make the circles, without those of tables that only hang on one."""
    inside = set(waiting)
    while hanging := {oid for oid in inside if not any(oid in waiting[other] for other in inside)}:
        inside -= hanging
    found = {
        key.description
        for key in keys
        if {key.table, key.references} <= inside and key.table != key.references
    }
    return sorted(found)[:_SHOWN]
