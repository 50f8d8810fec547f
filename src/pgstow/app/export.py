"""The use case: write a backup out as what pg_dump makes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import IO

from pgstow.app.auditing import note_access
from pgstow.app.reading import reading
from pgstow.catalog.backups import BackupFiles, find_backup, load_readable_index
from pgstow.core.errors import ArchiveError
from pgstow.core.progress import Progress
from pgstow.postgres.archive import ArchiveHeader
from pgstow.postgres.tools import ClientTools, pick
from pgstow.repository import Repository
from pgstow.restore.export import ExportReport, ExportRequest, export_backup

__all__ = ["export"]


def export(
    backup: str,
    request: ExportRequest,
    repository: Repository,
    tools: Sequence[ClientTools],
    progress: Progress,
    *,
    stdout: IO[bytes],
) -> ExportReport:
    """Write the backup that ``backup`` names as ``request`` says; without an output it goes to ``stdout``."""
    request.check()
    progress.phase("looking up the backup")
    with reading(repository, progress.note) as check_lock:
        check_lock()
        record = find_backup(repository, backup, progress.note)
        note_access(subjects=[record.id, record.name])
        load_readable_index(repository, progress.note)
        files = BackupFiles(repository, record)
        chosen = pick(tools, _pg_dump_major(files.toc.header) * 10000)
        return export_backup(files, request, pg_restore=chosen.pg_restore, stdout=stdout, progress=progress)


def _pg_dump_major(header: ArchiveHeader) -> int:
    """Return the release of the pg_dump that made the archive: an older pg_restore refuses it."""
    match = re.match(rb"[0-9]{1,4}", header.pg_dump_version or b"")
    if match is None:
        raise ArchiveError("the archive does not say which pg_dump made it")
    return int(match[0])
