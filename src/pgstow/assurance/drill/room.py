"""What a restored backup takes on disk, told beforehand, and whether it is there."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

from pgstow.catalog.manifest import Manifest
from pgstow.core.errors import TargetRefused
from pgstow.postgres.archive import Toc

__all__ = ["memory_bytes", "refuse_too_little_room", "restored_bytes", "usable_cpus"]

_MIB = 1 << 20
_SERVER_BYTES = 300 * _MIB  # an empty server, its write-ahead log, and what it writes on its way
_ROW_BYTES = 28  # header and line pointer of a row
_INDEX_ROW_BYTES = 40  # of a sorted index of a number, a time or a short text
_KEYS = (b"PRIMARY KEY", b"UNIQUE", b"EXCLUDE")
_CGROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def restored_bytes(manifest: Manifest, toc: Toc) -> int:
    """Return about how much the disk must have for a server with this backup in it.

    A row takes its text and a header, and a part of that again in each index; the largest table's indexes are sorted on disk.
    Measured with 15, as a multiple of what drills took at most beyond an empty server (which is 40 MiB): 1.0 to 2.1 for ordinary
    rows with none to five indexes, 0.8 for long values that do not compress and 21 for some that do, 0.6 with a GIN index over
    documents, 0.3 where a materialized view holds more than its table. What is told too low ends as a full disk, which is said.
    """
    indexes = _indexes_by_data(toc)
    rows_bytes, index_bytes, largest = 0, 0, 0
    for table in manifest.tables:
        rows_bytes += table.size_bytes + table.rows * _ROW_BYTES
        one_index = table.rows * _INDEX_ROW_BYTES
        index_bytes += one_index * indexes[table.dump_id]
        largest = max(largest, one_index if indexes[table.dump_id] else 0)
    return rows_bytes + index_bytes + largest + manifest.large_objects.size_bytes + _SERVER_BYTES


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


def memory_bytes() -> int:
    """Return the memory that this process may use: the machine's, or the limit of its container."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CGROUP_LIMITS:
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdigit():  # else "max"
            limits.append(int(text))
    return min(limits)


def usable_cpus() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
