"""Backups as the commands show them: one record, as a document and in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pgstow.catalog.backups import BackupRecord
from pgstow.catalog.manifest import ImportRecord, Manifest, TableRecord
from pgstow.cli.formats import count_text, plural, safe, size_text, time_text
from pgstow.postgres.archive import TABLE_DATA_TRAILER
from pgstow.repository import Hold

__all__ = [
    "backup_of",
    "hold_documents",
    "hold_text",
    "imported_text",
    "large_objects_text",
    "read_bytes",
    "read_whole",
    "read_whole_lines",
    "record_document",
    "reuse_text",
    "reused_bytes",
]

_READ_WHOLE_SHOWN = 3


def record_document(record: BackupRecord) -> dict[str, Any]:
    """Return a record as it appears in every JSON document."""
    return {
        "id": record.id,
        "name": record.name,
        "kind": record.kind,
        "label": record.label,
        "partial": record.is_partial,
        "damaged": record.is_damaged,
        "set_id": record.set_id,
        "system_identifier": record.system_identifier,
        "time": record.time.isoformat(),
        "size_bytes": record.size_bytes,
        "stored_bytes": record.stored_bytes,
        "snapshot": record.snapshot.id,
    }


def hold_documents(holds: Sequence[Hold]) -> list[dict[str, Any]]:
    """Return the holds of one backup as they appear in JSON documents."""
    return [
        {
            "since": hold.since.isoformat() if hold.since is not None else None,
            "until": hold.until.isoformat() if hold.until is not None else None,
            "by": hold.by or None,
            "reason": hold.reason or None,
            "problem": hold.problem,
        }
        for hold in holds
    ]


def hold_text(hold: Hold) -> str:
    """Return a hold in one line."""
    if hold.problem is not None or hold.since is None:
        return f"held: {safe(hold.problem or '')}; what cannot be read counts as a hold"
    until = f", until {hold.until}" if hold.until is not None else ""
    return f"held since {time_text(hold.since)}Z{until} by {safe(hold.by)}: {safe(hold.reason)}"


def imported_text(record: ImportRecord) -> str:
    """Return which dump a backup was made of."""
    packed = f", {record.compression}" if record.compression else ""
    by = f", by pg_dump {safe(record.dumped_by)}" if record.dumped_by else ""
    return f"{safe(record.file)} ({safe(record.format)}{packed}{by}), {size_text(record.size_bytes)}"


def backup_of(record: BackupRecord) -> str:
    """Return a record in a few words."""
    return safe(str(record))


def reused_bytes(manifest: Manifest) -> int:
    """Return how many bytes of rows and large objects were taken over from the base instead of being read."""
    return sum(record.reused_bytes for record in manifest.tables) + manifest.large_objects.reused_bytes


def large_objects_text(manifest: Manifest) -> str:
    """Return how many large objects there are, and how many of them were not read, or why they all were."""
    objects = manifest.large_objects
    told = f"{count_text(objects.count)}, {size_text(objects.size_bytes)}"
    if objects.reused:
        return f"{told}; {count_text(objects.reused)} unchanged, {size_text(objects.reused_bytes)}"
    if objects.reuse_refused and not manifest.reuse.refused:
        return f"{told}; all read: {safe(objects.reuse_refused)}"
    return told


def read_bytes(record: TableRecord) -> int:
    """Return how many bytes of a table's rows the server sent; the end mark of a member is in no table."""
    return max(0, record.size_bytes - record.reused_bytes - len(TABLE_DATA_TRAILER))


def read_whole(manifest: Manifest) -> list[tuple[TableRecord, str]]:
    """Return the tables that were read whole although there was a base to compare with, each with the reason; largest first.

    Where everything was read, ``manifest.reuse`` says why, and these are none.
    """
    if manifest.reuse.refused or manifest.reuse.is_full_read:
        return []
    refused = [(record, record.reuse_refused) for record in manifest.tables if record.reuse_refused]
    return sorted(refused, key=lambda one: (-one[0].size_bytes, one[0].schema_, one[0].name))


def read_whole_lines(manifest: Manifest) -> Iterator[str]:
    """Yield the largest of these tables in a line each, and how many more there are."""
    tables = read_whole(manifest)
    for record, why in tables[:_READ_WHOLE_SHOWN]:
        yield f"{safe(record.schema_)}.{safe(record.name)}, {size_text(record.size_bytes)}: {safe(why)}"
    if more := tables[_READ_WHOLE_SHOWN:]:
        size = sum(record.size_bytes for record, _ in more)
        yield f"and {plural(len(more), 'more table')}, {size_text(size)} (pgstow show --all)"


def reuse_text(manifest: Manifest) -> str:
    """Return what was taken over from which backup, or why nothing was."""
    reuse = manifest.reuse
    base = f"backup {reuse.base[:8]}" if reuse.base else ""
    if reuse.refused:
        return f"nothing: {safe(reuse.refused)}"
    if reuse.is_full_read:
        checked = f", {plural(reuse.checked_ranges, 'unchanged range')} compared with {base}" if base else ""
        return f"nothing: a full read{checked}"
    reused = reused_bytes(manifest)
    if not reused:
        return f"nothing: no page range could be taken over from {base}"
    return (
        f"{size_text(reused)} unchanged since {base}; {size_text(manifest.totals.size_bytes - reused)} read, "
        f"and {plural(reuse.checked_ranges, 'range')} to be sure"
    )
