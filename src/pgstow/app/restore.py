"""The use case: restore a backup into a database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from pgstow.app.auditing import note_access
from pgstow.app.foundation import foundation_for
from pgstow.app.reading import reading
from pgstow.catalog.backups import BackupFiles, find_backup, load_readable_index
from pgstow.core.errors import ConnectionFailed
from pgstow.core.progress import Progress
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.tools import ClientTools
from pgstow.repository import Repository
from pgstow.restore import engine
from pgstow.restore.report import RestoreReport
from pgstow.restore.request import RestoreOptions

__all__ = ["restore"]


def restore(
    backup: str,
    target: ConnInfo,
    options: RestoreOptions,
    repository: Repository,
    tools: Sequence[ClientTools],
    progress: Progress,
) -> RestoreReport:
    """Restore the backup that ``backup`` names (id, prefix, ``latest``, ``NAME@...``) into ``target``.

    Raises BackupNotFound, TargetRefused, RestoreError, ContentMismatch, RepositoryDamaged, ConnectionFailed.
    """
    options.check()
    note_access(target=str(target), database_user=target.params.get("user"))
    progress.phase("looking up the backup")
    with _with_remedy(options), reading(repository, progress.note) as check_lock:
        record = find_backup(repository, backup, progress.note)
        note_access(subjects=[record.id, record.name])
        load_readable_index(repository, progress.note)

        def settle() -> None:
            check_lock()
            repository.load_index(damaged=[])  # somebody may have pruned until now

        files = BackupFiles(repository, record)
        is_whole = not (options.is_selective or options.data_only)
        is_into_nothing = is_whole and (options.create or not options.clean)
        return engine.restore(
            files,
            target,
            options,
            tools=tools,
            progress=progress,
            before_touching=settle,
            foundation=foundation_for(repository, record, files, progress.note) if is_into_nothing else None,
        )


@contextlib.contextmanager
def _with_remedy(options: RestoreOptions) -> Iterator[None]:
    """Where the target does not exist, say which option makes it."""
    try:
        yield
    except ConnectionFailed as exc:
        if not options.create and 'database "' in exc.message and "does not exist" in exc.message:
            exc.hint = "--create makes the target database; or check its name"
        raise
