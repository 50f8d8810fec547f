"""What is left of a table that lost some of its rows: the page ranges that are whole, as a script for psql.

A table that lost a blob leaves its backup: half a table in the place of the table would be a lie, and foreign keys and sums would
tell so at best. What is whole of it is kept beside the archive, where no restore takes it for the table: ``salvaged/N.sql`` holds
a COPY statement, the rows of each page range whose blobs all are there, and the end of the data. The page-range index says
which blobs those are, and how many rows; without it, as for tables of one range, blobs may end within a row, and nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from pgstow.capture.ranges import PageRange, decode_ranges
from pgstow.catalog.backups import SALVAGED, BackupFiles, backup_record, salvaged_member
from pgstow.catalog.manifest import TableRecord
from pgstow.core.errors import ArchiveError, RepositoryDamaged
from pgstow.postgres.archive import TABLE_DATA_TRAILER
from pgstow.repository import (
    BlobId,
    BlobIds,
    BlobKind,
    DirNode,
    FileNode,
    Repository,
    Snapshot,
    encode_tree,
)
from pgstow.upkeep.repair_report import SalvagedTable

__all__ = ["Salvage", "Save", "salvage_tables"]

Save = Callable[[BlobKind, bytes], BlobId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvage:
    """A folder for a backup: what is left of its tables, beside what an earlier repair left there."""

    path: str  # of the backup's own folder, which it comes into
    folder: DirNode
    tables: tuple[SalvagedTable, ...]  # the new ones
    size_bytes: int  # of the new files


def salvage_tables(
    repository: Repository, snapshot: Snapshot, lost_paths: Collection[str], save: Save
) -> Salvage | None:
    """Return what is left of the tables whose members are among ``lost_paths``; ``save`` stores its folder and new blobs.

    None where nothing is, or the manifest or the contents of the backup cannot be read.
    """
    record = backup_record(snapshot)
    if record is None:
        return None
    files = BackupFiles(repository, record)
    lost = {path.lstrip("/").partition("/")[2] for path in lost_paths}
    try:
        tables = [table for table in files.manifest.tables if table.member in lost]
        found = [each for table in tables if (each := _salvage(files, table, save)) is not None]
        earlier = [
            node for name, node in files.members() if name.startswith(f"{SALVAGED}/") and name not in lost
        ]
    except (RepositoryDamaged, ArchiveError):
        return None
    if not found:
        return None
    nodes = [node for node, _ in found]
    subtree = save(BlobKind.TREE, encode_tree([*earlier, *nodes]))
    return Salvage(
        path=snapshot.paths[0],
        folder=DirNode(name=SALVAGED, subtree=subtree, modified=nodes[0].modified),
        tables=tuple(table for _, table in found),
        size_bytes=sum(node.size_bytes for node in nodes),
    )


def _salvage(files: BackupFiles, table: TableRecord, save: Save) -> tuple[FileNode, SalvagedTable] | None:
    node = files.member(table.member)
    if node is None or table.ranges is None:
        return None
    statement = next((e.copy_stmt for e in files.toc.entries if e.dump_id == table.dump_id), None)
    try:
        ranges = list(decode_ranges(files.read(table.ranges))[1])
    except RepositoryDamaged:  # which costs the other tables nothing
        return None
    content = BlobIds.of(node.content)
    if not statement or sum(one.blobs for one in ranges) + 1 != len(content):
        return None
    whole = list(_whole(files.repository, ranges, content))
    rows = sum(one.rows for one, _ in whole)
    if not rows:
        return None
    lost_rows = sum(one.rows for one in ranges) - rows
    head = b"-- pgstow repo repair: %d rows are here, %d are lost\nSET client_encoding = '%s';\n%s" % (
        rows,
        lost_rows,
        files.manifest.server.encoding.encode(),
        statement,
    )
    member = salvaged_member(table.dump_id)
    content_ids = [save(BlobKind.DATA, head), *(ids.packed for _, ids in whole)]
    left = FileNode(
        name=member.rpartition("/")[2],
        size_bytes=len(head) + sum(one.size_bytes for one, _ in whole) + len(TABLE_DATA_TRAILER),
        content=BlobIds(b"".join([*content_ids, save(BlobKind.DATA, TABLE_DATA_TRAILER)])),
        modified=node.modified,
    )
    return left, SalvagedTable(
        table=f"{table.schema_}.{table.name}",
        path=f"{files.record.snapshot.paths[0]}/{member}",
        rows=rows,
        lost_rows=lost_rows,
    )


def _whole(
    repository: Repository, ranges: Sequence[PageRange], content: BlobIds
) -> Iterator[tuple[PageRange, BlobIds]]:
    """Yield the ranges that have rows and all of whose blobs are there, with those."""
    place = 0
    for one in ranges:
        ids = content[place : place + one.blobs]
        place += one.blobs
        sizes = [repository.blob_size(BlobKind.DATA, blob) for blob in ids]
        if one.rows and None not in sizes and sum(size or 0 for size in sizes) == one.size_bytes:
            yield one, ids
