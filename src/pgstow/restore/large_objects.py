"""Contents of large objects: from the repository into lo_put, without a folder in between."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pgstow.core.errors import ContentMismatch, RepositoryDamaged
from pgstow.core.progress import Progress
from pgstow.postgres import target as target_sql
from pgstow.postgres.archive import TocEntry
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.raw import RawSession, open_raw
from pgstow.postgres.session import translated
from pgstow.restore.load import load_settings
from pgstow.restore.request import ArchiveFiles
from pgstow.restore.workers import Workers

__all__ = ["LargeObject", "listed_large_objects", "load_large_objects"]

_LINE = re.compile(rb"([0-9]{1,10}) ([A-Za-z0-9_.]+)")
_BATCH_OBJECTS = 100  # of one transaction
_BATCH_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeObject:
    """A large object and the member that holds its contents."""

    oid: int
    member: str
    size_bytes: int


def listed_large_objects(files: ArchiveFiles, entries: Sequence[TocEntry]) -> list[LargeObject]:
    """Return the large objects of BLOBS entries, as their ``blobs*.toc`` list them.

    Raises RepositoryDamaged for a list that is not one, or names members the backup lacks.
    """
    found: list[LargeObject] = []
    for entry in entries:
        listing = f"archive/{(entry.file_name or b'').decode()}"
        for line in files.read(listing).splitlines():
            match = _LINE.fullmatch(line)
            member = f"archive/{match[2].decode()}" if match else listing
            node = files.member(member)
            if match is None or node is None:
                raise RepositoryDamaged(
                    f"{listing} has a line that names no large object of the backup: {line[:80]!r}"
                )
            found.append(LargeObject(oid=int(match[1]), member=member, size_bytes=node.size_bytes))
    return found


def load_large_objects(
    files: ArchiveFiles, target: ConnInfo, objects: Sequence[LargeObject], *, jobs: int, progress: Progress
) -> None:
    """Write the contents of large objects that exist and are empty, ``jobs`` at a time.

    Raises PostgresError, RepositoryDamaged; ContentMismatch when the target does not hold all of them afterwards.
    """

    def open_session() -> RawSession:
        return open_raw(target, encoding=files.toc.encoding, settings=load_settings(files.manifest))

    def work(session: RawSession, batch: Sequence[LargeObject]) -> None:
        with translated("writing large objects"), session.connection.transaction():
            for each in batch:
                _write(session, files, each, progress)

    with Workers[Sequence[LargeObject]](jobs, open_session) as workers:
        workers.each(list(_batches(objects)), work)
        workers.each([objects], _check_all_there)


def _batches(objects: Sequence[LargeObject]) -> Iterator[list[LargeObject]]:
    batch: list[LargeObject] = []
    size = 0
    for each in sorted(objects, key=lambda one: -one.size_bytes):
        batch.append(each)
        size += each.size_bytes
        if len(batch) >= _BATCH_OBJECTS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _write(session: RawSession, files: ArchiveFiles, large_object: LargeObject, progress: Progress) -> None:
    offset = 0
    for piece in files.stream(large_object.member):
        target_sql.write_large_object(session, large_object.oid, offset, piece)
        offset += len(piece)
        progress.advance(size_bytes=len(piece))


def _check_all_there(session: RawSession, objects: Sequence[LargeObject]) -> None:
    """Sizes need no check of their own: every write succeeded, and lo_put writes all or fails."""
    oids = [each.oid for each in objects]
    there = target_sql.existing_large_objects(session, oids)
    if len(there) != len(set(oids)):
        raise ContentMismatch(
            f"the target has {len(there)} of the {len(set(oids))} large objects of the backup",
            expected=len(set(oids)),
            found=len(there),
        )
