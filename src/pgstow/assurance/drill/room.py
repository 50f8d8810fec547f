"""What a restored backup takes on disk, told beforehand, and whether it is there."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

from pgstow.catalog.manifest import Manifest, TableRecord
from pgstow.core.errors import TargetRefused
from pgstow.postgres.archive import Toc, TocEntry

__all__ = ["refuse_too_little_room", "restored_bytes"]

_MIB = 1 << 20
_SERVER_BYTES = 300 * _MIB  # an empty server, its write-ahead log, and what it writes on its way
_ROW_BYTES = 28  # header and line pointer of a row
_COLUMN_BYTES = 6  # by how much a number may be longer in a row than as text
_INDEX_ROW_BYTES = 40  # of a sorted index of a number, a time or a short text
_TOAST_SHARE = 1.1  # of its text, which a long value does not exceed by more
_KEYS = (b"PRIMARY KEY", b"UNIQUE", b"EXCLUDE")
_VIEW_DATA = b"MATERIALIZED VIEW DATA"


def restored_bytes(manifest: Manifest, toc: Toc) -> int:
    """Return about how much the disk must have for a server with this backup in it.

    Tables and indexes take what they took in the source, which the manifest says, but not the room that deleted rows
    had left there. Where it does not say, a row takes its text and a header, and a part of that again in each index. The
    largest index is sorted on disk. What is told too low ends as a full disk, which is said.
    """
    indexes = _indexes_by_data(toc)
    columns = {entry.dump_id: _columns(entry) for entry in toc.entries if entry.desc == b"TABLE DATA"}
    total, largest = 0, 0
    for table in manifest.tables:
        count = indexes[table.dump_id]
        index_bytes = table.index_bytes or table.rows * _INDEX_ROW_BYTES * count
        total += _table_bytes(table, columns.get(table.dump_id, 0)) + index_bytes
        largest = max(largest, index_bytes // count if count else 0)
    if any(entry.desc == _VIEW_DATA for entry in toc.entries):
        total += manifest.materialized_views_bytes or 0
    return total + largest + manifest.large_objects.size_bytes + _SERVER_BYTES


def _table_bytes(table: TableRecord, columns: int) -> int:
    """Return what the rows of a table take: no more than in the source, and no more than their text can."""
    as_text = table.size_bytes + table.rows * _ROW_BYTES
    if table.heap_bytes is None:
        return as_text
    heap_bytes = min(table.heap_bytes, as_text + table.rows * columns * _COLUMN_BYTES)
    return heap_bytes + min(table.toast_bytes or 0, round(table.size_bytes * _TOAST_SHARE))


def _columns(entry: TocEntry) -> int:
    return entry.copy_stmt.count(b",") + 1 if entry.copy_stmt else 0


def _indexes_by_data(toc: Toc) -> Counter[int]:
    """Return how many indexes each table has, by the dump id of its rows."""
    tables = {entry.dump_id for entry in toc.entries if entry.desc == b"TABLE"}
    on_table: Counter[int] = Counter()
    for entry in toc.entries:
        is_key = entry.desc == b"CONSTRAINT" and any(key in (entry.defn or b"") for key in _KEYS)
        if entry.desc == b"INDEX" or is_key:
            on_table.update(one for one in entry.dependencies if one in tables)
    found: Counter[int] = Counter()
    for entry in toc.entries:
        if entry.desc == b"TABLE DATA":
            found[entry.dump_id] = max((on_table[one] for one in entry.dependencies), default=0)
    return found


def refuse_too_little_room(folder: Path, needed_bytes: int) -> None:
    """Raise TargetRefused if the disk of ``folder`` has less free space than that."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise TargetRefused(
            f"{folder} has {_gib(free_bytes)} free, and the restored database will take about {_gib(needed_bytes)}",
            hint="set TMPDIR to a folder on a larger disk, or let the drill make its database on a server with --on URL",
            free_bytes=free_bytes,
            needed_bytes=needed_bytes,
        )


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):.1f} GiB" if size_bytes >= 100 * _MIB else f"{size_bytes / _MIB:.0f} MiB"
