"""The use cases: remove what no snapshot needs, or tell what that would be; count what there is."""

from __future__ import annotations

from collections.abc import Callable

from pgstow.app.holding import Waits
from pgstow.app.reading import reading
from pgstow.core.progress import Progress
from pgstow.repository import Repository, RepositoryLock, remove_old_claims, remove_old_leases
from pgstow.store.leftovers import remove_old_questions
from pgstow.upkeep.prune import PruneResult, prune
from pgstow.upkeep.prune_plan import PruneOptions, PrunePlan, plan_prune
from pgstow.upkeep.stats import RepositoryStats, repository_stats
from pgstow.upkeep.survey import take_survey

__all__ = ["count_repository", "plan_only", "prune_repository", "prune_under"]


def plan_only(
    repository: Repository, options: PruneOptions, progress: Progress, *, wait_s: float = 0.0
) -> PrunePlan:
    """Return what ``prune_repository()`` would do now. What running backups have not listed yet counts as orphans."""
    with repository.lock(wait_s=wait_s, on_wait=Waits(progress)) as lock:
        return plan_prune(take_survey(repository, progress), options, repository.holdings().now(lock))


def prune_repository(
    repository: Repository,
    options: PruneOptions,
    progress: Progress,
    *,
    show: Callable[[PrunePlan], None],
    wait_s: float = 0.0,
) -> tuple[PrunePlan, PruneResult]:
    """Prune with nobody else at work; ``show`` is told the plan before anything is changed."""
    with repository.lock(exclusive=True, wait_s=wait_s, on_wait=Waits(progress)) as lock:
        return prune_under(lock, repository, options, progress, show=show)


def prune_under(
    lock: RepositoryLock,
    repository: Repository,
    options: PruneOptions,
    progress: Progress,
    *,
    show: Callable[[PrunePlan], None] = lambda _: None,
) -> tuple[PrunePlan, PruneResult]:
    """Do the same under an exclusive lock that is held already."""
    plan = plan_prune(take_survey(repository, progress), options, repository.holdings().now(lock))
    show(plan)
    result = prune(plan, repository, lock, progress)
    remove_old_claims(repository.store)
    remove_old_leases(repository.store)
    remove_old_questions(repository.store)
    return plan, result


def count_repository(repository: Repository, progress: Progress) -> RepositoryStats:
    """Return the numbers of a repository."""
    with reading(repository, progress.note) as check_lock:
        check_lock()
        return repository_stats(repository, progress)
