"""The use case: drop what a repository has lost, so that the rest of it is whole."""

from __future__ import annotations

from collections.abc import Callable

from pgstow.core.progress import Progress
from pgstow.repository import Repository
from pgstow.upkeep.repair import repair
from pgstow.upkeep.repair_report import RepairReport

__all__ = ["repair_repository"]


def repair_repository(
    repository: Repository,
    progress: Progress,
    *,
    read_data: bool,
    dry_run: bool,
    approve: Callable[[RepairReport], object],
    wait_s: float = 0.0,
) -> RepairReport:
    """Repair a repository, or with ``dry_run`` say what a repair would do, beside nobody else.

    ``approve`` is shown what will be dropped and raises if that must not be.
    """
    with repository.lock(exclusive=True, wait_s=wait_s):
        if not dry_run:
            repository.store.remove_stale_temporaries()  # of runs that were killed
        return repair(repository, progress, read_data=read_data, dry_run=dry_run, approve=approve)
