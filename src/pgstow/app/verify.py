"""The use case: check that what a repository holds is whole."""

from __future__ import annotations

from collections.abc import Sequence

from pgstow.app.reading import reading
from pgstow.assurance.verify import VerifyReport, verify
from pgstow.catalog.backups import find_backup
from pgstow.core.progress import Progress
from pgstow.repository import Repository

__all__ = ["verify_backups"]


def verify_backups(
    backups: Sequence[str], repository: Repository, progress: Progress, *, read_data: bool
) -> VerifyReport:
    """Check the backups that the texts name, or everything in the repository when there are none."""
    with reading(repository, progress.note) as check_lock:
        check_lock()
        if not backups:
            return verify(repository, read_data=read_data, progress=progress)
        snapshots = [find_backup(repository, text, progress.note).snapshot for text in backups]
        return verify(repository, snapshots, read_data=read_data, progress=progress)
