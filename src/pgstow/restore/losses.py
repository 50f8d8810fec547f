"""What a restore needs and the repository is known to have lost."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence

from pgstow.catalog.backups import DAMAGED, salvaged_member, snapshot_path
from pgstow.core.errors import RepositoryDamaged
from pgstow.postgres.archive import TocEntry
from pgstow.restore.large_objects import listed_large_objects
from pgstow.restore.naming import text
from pgstow.restore.request import ArchiveFiles

__all__ = ["refuse_losses"]

_SHOWN = 10


def refuse_losses(files: ArchiveFiles, entries: Sequence[TocEntry], *, hint: str) -> None:
    """Raise RepositoryDamaged, naming tables, if rows or large objects of ``entries`` are known to be lost.

    Known is what the index and the listing of packs tell; a flipped bit is found when it is read.
    """
    lost = dict(_losses(files, entries))
    if not lost:
        return
    names = sorted(lost)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    raise RepositoryDamaged(
        f"backup {files.manifest.backup_id[:8]} of {files.manifest.name} has lost"
        f" {', '.join(names[:_SHOWN])}{more}: {lost[names[0]]}",
        hint=hint + _said_of_salvage(files, entries),
        tables=names,
    )


def _said_of_salvage(files: ArchiveFiles, entries: Iterable[TocEntry]) -> str:
    """Say where the rows are that a repair kept of lost tables, or nothing."""
    kept = [name for entry in entries if files.member(name := salvaged_member(entry.dump_id)) is not None]
    if not kept:
        return ""
    manifest = files.manifest
    path = snapshot_path(manifest.name, manifest.kind, is_partial=manifest.is_partial)
    more = f" (and {len(kept) - 1} more)" if len(kept) > 1 else ""
    return (
        "; rows that are left of lost tables are kept beside them: restic dump"
        f" --tag run={manifest.backup_id},{DAMAGED} latest {shlex.quote(f'/{path}/{kept[0]}')}{more}"
    )


def _losses(files: ArchiveFiles, entries: Iterable[TocEntry]) -> Iterator[tuple[str, str]]:
    records = {record.dump_id: record for record in files.manifest.tables}
    for entry in entries:
        if not entry.has_data:
            continue
        record = records.get(entry.dump_id)
        if entry.desc == b"BLOBS":
            yield from _lost_large_objects(files, entry)
        elif record is not None and (why := files.missing(record.member)):
            encoding = files.toc.encoding
            yield f"{text(entry.namespace, encoding)}.{text(entry.tag, encoding)}", why


def _lost_large_objects(files: ArchiveFiles, entry: TocEntry) -> Iterator[tuple[str, str]]:
    try:
        objects = listed_large_objects(files, [entry])
    except RepositoryDamaged as exc:
        yield "large objects", exc.message
        return
    for each in objects:
        if why := files.missing(each.member):
            yield f"large object {each.oid}", why
