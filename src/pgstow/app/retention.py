"""The use cases: say which backups expire, and remove them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace

from pgstow.app.auditing import note_access
from pgstow.app.holding import Waits
from pgstow.app.prune import prune_under
from pgstow.catalog.backups import IMPORT
from pgstow.core.errors import Interrupted, PgstowError
from pgstow.core.progress import Progress
from pgstow.repository import Repository, RepositoryLock
from pgstow.retention import AttemptHistory, Decision, ReasonCode, RetentionPolicies
from pgstow.upkeep.expire import ExpiryPlan, PlannedDrops, expire, plan_expiry
from pgstow.upkeep.prune import PruneResult
from pgstow.upkeep.prune_plan import PruneOptions, PrunePlan

__all__ = ["AppliedRetention", "RetentionRequest", "apply_retention", "plan_retention_only"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRequest:
    """What is to be planned or done.

    ``history`` is asked for the newest run of each database when nobody else is at work any more. ``name`` limits
    everything to one database.
    """

    policy: RetentionPolicies = field(default_factory=RetentionPolicies)
    history: Callable[[], AttemptHistory] = AttemptHistory
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedRetention:
    """What was done. The backups are gone also where the prune after it failed."""

    plan: ExpiryPlan
    prune: tuple[PrunePlan, PruneResult] | None = None
    prune_error: PgstowError | None = None


def plan_retention_only(
    repository: Repository, request: RetentionRequest, progress: Progress, *, wait_s: float = 0.0
) -> ExpiryPlan:
    """Return what ``apply_retention()`` would do now."""
    with repository.lock(wait_s=wait_s, on_wait=Waits(progress)) as lock:
        return _plan(repository, lock, request, progress)


def apply_retention(
    repository: Repository,
    request: RetentionRequest,
    progress: Progress,
    *,
    planned: PlannedDrops | None,
    prune: PruneOptions | None,
    show: Callable[[ExpiryPlan], None] = lambda _: None,
    wait_s: float = 0.0,
) -> AppliedRetention:
    """Remove what expires, with nobody else at work, and with ``prune`` free what that alone needed.

    The plan is made anew under the lock; PgstowError, and nothing is removed, if it is not the one that was ``planned``.
    ``show`` is told it before anything is removed.
    """
    with repository.lock(exclusive=True, wait_s=wait_s, on_wait=Waits(progress)) as lock:
        plan = _plan(repository, lock, request, progress)
        if planned is not None:
            plan.require(planned)
        show(plan)
        note_access(
            subjects=[decision.backup.id for decision in plan.dropped],
            expired=len(plan.dropped),
            expiry_plan=plan.hash,
        )
        expire(plan, repository, lock, progress)
        if prune is None:
            return AppliedRetention(plan=plan)
        try:
            return AppliedRetention(plan=plan, prune=prune_under(lock, repository, prune, progress))
        except Interrupted:
            raise
        except PgstowError as exc:  # what expired is gone, and is told with this
            return AppliedRetention(plan=plan, prune_error=exc)


def _plan(
    repository: Repository, lock: RepositoryLock, request: RetentionRequest, progress: Progress
) -> ExpiryPlan:
    history = request.history()
    plan = plan_expiry(
        repository, lock, request.policy, progress, attempts=history.attempts, name=request.name
    )
    problem = () if history.problem is None else (history.problem,)
    return replace(plan, notes=(*plan.notes, *_of_strangers(plan, history.names), *problem))


def _of_strangers(plan: ExpiryPlan, names: Collection[str] | None) -> Iterator[str]:
    """Yield what to know of databases that nobody backs up by the settings, such as one that was renamed there."""
    if names is None:
        return
    of_name: dict[str, list[Decision]] = {}
    for decision in plan.decisions:
        of_name.setdefault(decision.backup.name, []).append(decision)
    for name, decisions in sorted(of_name.items()):
        is_retired = any(one.code is ReasonCode.RETIRED for each in decisions for one in each.reasons)
        is_made_here = any(each.backup.kind != IMPORT for each in decisions)
        if name not in names and is_made_here and not is_retired:
            yield (
                f"{name} is not in the settings: while no new backup of it arrives none of the others ages, and the last ones stay;"
                f" if it is gone, pgstow retire {name} says so"
            )
