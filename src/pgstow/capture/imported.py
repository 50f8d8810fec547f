"""Taking the members of an archive that somebody else made into a repository.

Rows go through as they are: what pg_dump wrote is what a restore will read. Nothing is believed that the archive says of
itself: every entry that should have data must have it, once, and nothing may be left over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic
from typing import Protocol

from pgstow.capture.destinations import FanOutWriter
from pgstow.capture.members import MemberWriter, save_file
from pgstow.capture.row_cutting import RowCutter
from pgstow.capture.written_zone import WrittenZone
from pgstow.catalog.manifest import RootName, TableRecord
from pgstow.core.errors import ArchiveError
from pgstow.core.progress import Progress
from pgstow.postgres.archive import (
    TABLE_DATA_TRAILER,
    Toc,
    TocEntry,
    copy_columns,
    copy_target_parts,
    is_load_via_root,
    large_object_ids,
    write_directory_toc,
)
from pgstow.postgres.encodings import decoded
from pgstow.repository import BlobIds, FileNode

__all__ = ["Archive", "ImportedContents", "TableData", "import_archive", "refuse_inserts"]

_LARGE_OBJECT_PIECE_BYTES = 1 << 20


class Archive(Protocol):
    """An archive of pg_dump, whichever its format; ``toc``, in its directory form, is known at the end."""

    @property
    def toc(self) -> Toc: ...
    @property
    def compression(self) -> str | None: ...
    def members(self) -> Iterator[tuple[str, Iterator[bytes]]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TableData:
    """The rows of one entry, in the repository."""

    rows: int
    size_bytes: int
    new_bytes: int
    content: BlobIds
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedContents:
    """An archive whose members are in the repository; ``files`` are those of its folder, ``toc.dat`` included."""

    toc: Toc
    tables: Sequence[TableRecord]
    large_objects: int
    large_object_bytes: int
    files: Sequence[FileNode]
    zone: str | None  # that the rows were written in, as far as they tell


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blob:
    size_bytes: int
    content: BlobIds


def import_archive(
    archive: Archive, writer: FanOutWriter, *, modified: datetime, progress: Progress
) -> ImportedContents:
    """Save all members of an archive; ``modified`` becomes the time of its files.

    Raises ArchiveError for an archive that is damaged, or could not be restored.
    """
    rows: dict[str, TableData] = {}
    blobs: dict[int, _Blob] = {}
    zone = WrittenZone()
    with ThreadPoolExecutor(max(2, os.cpu_count() or 2), "seal") as pool:
        for name, pieces in archive.members():
            member = MemberWriter(writer, pool)
            if name.startswith("blob_"):
                oid = int(name.removeprefix("blob_").removesuffix(".dat"))
                _refuse_second(oid in blobs, name)
                blobs[oid] = _save_large_object(member, pieces)
            else:
                _refuse_second(name in rows, name)
                rows[name] = _save_rows(member, pieces, name, zone, progress)
    contents = _assemble(archive.toc, rows, blobs, writer, modified)
    return replace(contents, zone=zone.zone)


def _refuse_second(is_there: bool, name: str) -> None:  # noqa: FBT001
    if is_there:
        raise ArchiveError(f"the dump holds {name} twice")


def _save_rows(
    member: MemberWriter, pieces: Iterator[bytes], name: str, zone: WrittenZone, progress: Progress
) -> TableData:
    begun, cutter = monotonic(), RowCutter(name)
    for number, piece in enumerate(pieces):
        zone.look(piece, number)
        before = cutter.rows
        for blob in cutter.add(piece):
            member.add(blob)
        progress.advance(rows=cutter.rows - before)
    for blob in cutter.finish():
        member.add(blob)
    member.add(TABLE_DATA_TRAILER)
    content = member.complete()
    return TableData(
        rows=cutter.rows,
        size_bytes=member.size_bytes,
        new_bytes=member.new_bytes,
        content=content,
        seconds=monotonic() - begun,
    )


def _save_large_object(member: MemberWriter, pieces: Iterator[bytes]) -> _Blob:
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        while len(waiting) >= _LARGE_OBJECT_PIECE_BYTES:  # cut at fixed places, however it arrives
            member.add(bytes(waiting[:_LARGE_OBJECT_PIECE_BYTES]))
            del waiting[:_LARGE_OBJECT_PIECE_BYTES]
    if waiting:
        member.add(bytes(waiting))
    content = member.complete()
    return _Blob(size_bytes=member.size_bytes, content=content)


def _assemble(
    toc: Toc, rows: dict[str, TableData], blobs: dict[int, _Blob], writer: FanOutWriter, modified: datetime
) -> ImportedContents:
    refuse_inserts(toc)
    records, files = [], []
    for entry in toc.table_data():
        name = (entry.file_name or b"").decode()
        data = rows.pop(name, None)
        if data is None:
            raise ArchiveError(
                f"the rows of {entry} are missing from the dump",
                hint="copy the dump again, or make a new one",
            )
        records.append(_table(toc, entry, data))
        files.append(FileNode(name=name, size_bytes=data.size_bytes, content=data.content, modified=modified))
    lists = _lists(toc)
    _check_complete(toc, rows, blobs, lists)
    for name, oids in lists.items():
        listing = b"".join(b"%d blob_%d.dat\n" % (oid, oid) for oid in oids)
        files.append(save_file(writer, name, listing, modified))
    files += [
        FileNode(name=f"blob_{oid}.dat", size_bytes=blob.size_bytes, content=blob.content, modified=modified)
        for oid, blob in blobs.items()
    ]
    files.append(save_file(writer, "toc.dat", write_directory_toc(toc), modified))
    return ImportedContents(
        toc=toc,
        tables=records,
        large_objects=len(blobs),
        large_object_bytes=sum(blob.size_bytes for blob in blobs.values()),
        files=files,
        zone=None,
    )


def _lists(toc: Toc) -> dict[str, tuple[int, ...]]:
    return {
        (entry.file_name or b"").decode(): large_object_ids(toc, entry) for entry in toc.large_object_data()
    }


def _check_complete(
    toc: Toc, left: dict[str, TableData], blobs: dict[int, _Blob], lists: dict[str, tuple[int, ...]]
) -> None:
    """Raise ArchiveError unless there is what the table of contents says, and nothing else."""
    for entry in toc.entries:
        if entry.has_data and entry.desc not in {b"TABLE DATA", b"BLOBS"}:
            raise ArchiveError(
                f"{entry} has data, and what that means is not known", hint="a newer pgstow may read it"
            )
    if left:
        raise ArchiveError(f"the dump holds {min(left)}, which belongs to nothing in its table of contents")
    listed = [oid for oids in lists.values() for oid in oids]
    if missing := set(listed) - blobs.keys():
        raise ArchiveError(
            f"the contents of large object {min(missing)} are missing from the dump ({len(missing)} are)",
            hint="copy the dump again, or make a new one",
        )
    if surplus := blobs.keys() - set(listed):
        raise ArchiveError(
            f"the dump holds large object {min(surplus)}, which its table of contents does not name"
        )


def refuse_inserts(toc: Toc) -> None:
    """Raise ArchiveError for rows that are INSERT statements: only a server could make rows of them."""
    for entry in toc.table_data():
        if not entry.copy_stmt:
            raise ArchiveError(
                f"the rows of {entry} were dumped as INSERT statements (pg_dump --inserts), which is no COPY data",
                hint="make SQL of it and import that: pg_restore --file=dump.sql DUMP, then pgstow import dump.sql",
            )


def _table(toc: Toc, entry: TocEntry, data: TableData) -> TableRecord:
    copy_columns(entry)  # raises where the restore could not read it
    encoding = toc.encoding
    root = copy_target_parts(entry) if is_load_via_root(entry) else None
    return TableRecord(
        dump_id=entry.dump_id,
        member=f"archive/{(entry.file_name or b'').decode()}",
        oid=entry.oid,
        schema_=decoded(entry.namespace or b"", encoding),
        name=decoded(entry.tag, encoding),
        rows=data.rows,
        size_bytes=data.size_bytes,
        load_via_root=RootName(schema_=decoded(root[0], encoding), name=decoded(root[1], encoding))
        if root
        else None,
        read_by="import",
        new_bytes=data.new_bytes,
        seconds=round(data.seconds, 3),
    )
