"""What there is to load: which member goes into which table, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pgstow.catalog.manifest import Manifest, TableRecord
from pgstow.core.errors import RepositoryDamaged, RestoreError
from pgstow.postgres import loading
from pgstow.postgres.archive import TocEntry, copy_target, is_load_via_root
from pgstow.postgres.loading import LoadTable
from pgstow.postgres.raw import RawSession

__all__ = ["LoadTask", "batches", "plan_tasks"]

_PLAIN_COPY_END = b" FROM stdin;\n"
_SMALL_BYTES = 64 * 1024
_BATCH_TABLES = 50  # of one transaction: each holds a few locks


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTask:
    """One member of the archive and the table its rows go into."""

    entry: TocEntry
    record: TableRecord
    table: LoadTable
    is_ours: bool  # this restore made the table: it is empty, and nobody else's
    via_root: bool
    condition: str | None = (
        None  # WHERE and what follows: which of the table's rows are those of this archive
    )

    @property
    def is_frozen(self) -> bool:
        """Whether to TRUNCATE the table first, which FREEZE demands.

        A small table is not worth it: TRUNCATE makes new files, and its commit waits for the disk.
        """
        return self.is_ours and self.record.size_bytes > _SMALL_BYTES

    @property
    def statement(self) -> bytes:
        """The COPY statement; FREEZE spares the server from writing every page again later."""
        statement = self.entry.copy_stmt or b""
        if not self.is_frozen:
            return statement
        return statement.removesuffix(_PLAIN_COPY_END) + b" FROM stdin WITH (FREEZE);\n"


def plan_tasks(
    session: RawSession,
    entries: Sequence[TocEntry],
    manifest: Manifest,
    created: Iterable[tuple[bytes | None, bytes]],
) -> list[LoadTask]:
    """Return what there is to load, the largest first. ``created`` are the tables this restore made."""
    records = {record.dump_id: record for record in manifest.tables}
    tables = loading.load_tables(session, list({copy_target(entry) for entry in entries}))
    made = set(created)
    conditions = _of_roots(session, entries, tables)
    tasks = []
    for entry in entries:
        name = copy_target(entry)
        if entry.dump_id not in records:
            raise RepositoryDamaged(f"the manifest says nothing about the rows of {entry}")
        if name not in tables:
            raise RestoreError(f"the target has no table {session.decode(name)}, whose rows are to be loaded")
        via_root = is_load_via_root(entry)
        table = tables[name]
        # Extensions keep rows of their own in their tables; a root spreads rows over tables that others fill.
        is_ours = (
            (entry.namespace, entry.tag) in made
            and table.is_plain
            and not table.is_extension_owned
            and not via_root
        )
        record = records[entry.dump_id]
        tasks.append(
            LoadTask(
                entry=entry,
                record=record,
                table=table,
                is_ours=is_ours,
                via_root=via_root,
                condition=record.condition or (conditions.get(table.oid) if via_root else None),
            )
        )
    return sorted(tasks, key=lambda task: (-task.record.size_bytes, task.entry.dump_id))


def _of_roots(
    session: RawSession, entries: Sequence[TocEntry], tables: Mapping[bytes, LoadTable]
) -> dict[int, str]:
    """Return the conditions that leave out of a root what is loaded into its partitions by themselves, by the root's OID.

    pg_dump goes through the root only below a level that is hashed by an enum; other partitions of the same root stand alone.
    """
    roots = {
        tables[copy_target(one)].oid
        for one in entries
        if is_load_via_root(one) and copy_target(one) in tables
    }
    others = {tables[copy_target(one)].oid for one in entries if copy_target(one) in tables} - roots
    alone = loading.partitions_among(session, list(roots), list(others)) if roots and others else {}
    return {
        root: f"WHERE tableoid <> ALL ('{{{','.join(map(str, sorted(oids)))}}}'::pg_catalog.oid[])"
        for root, oids in alone.items()
    }


def batches(tasks: Iterable[LoadTask]) -> list[list[LoadTask]]:
    """Return the tasks by transaction: small new tables together, all others alone."""
    found: list[list[LoadTask]] = []
    small: list[LoadTask] = []
    for task in tasks:
        if task.is_frozen or not task.is_ours:
            found.append([task])
            continue
        small.append(task)
        if len(small) == _BATCH_TABLES:
            found.append(small)
            small = []
    return [*found, small] if small else found
