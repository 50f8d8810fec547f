"""The use case: remove the locks and leases that dead processes left behind, or all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pgstow.app.auditing import note_access
from pgstow.core.errors import UsageError
from pgstow.repository import Obstacle, Repository

__all__ = ["UnlockReport", "confirmation_of", "unlock"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlockReport:
    """What was removed, and what was left because it may be in use."""

    removed: Sequence[Obstacle]
    kept: Sequence[Obstacle]


def confirmation_of(repository: Repository) -> str:
    """Return what a person has to type so that live locks are removed."""
    return repository.id[:8]


def unlock(
    repository: Repository, *, remove_all: bool, ask: Callable[[Sequence[Obstacle]], str | None]
) -> UnlockReport:
    """Remove dead locks and leases, with ``remove_all`` live ones too if ``ask``, told which, gives the confirmation.

    UsageError, and nothing is removed, if it does not.
    """
    found = repository.obstacles()
    alive = [obstacle for obstacle in found if not obstacle.is_dead]
    is_forced = remove_all and bool(alive)
    if is_forced and ask(alive) != confirmation_of(repository):
        raise UsageError(
            f"{len(alive)} of the locks and leases may be in use, and removing them was not confirmed",
            hint=f"when nothing uses the repository, on no machine: --all --confirm {confirmation_of(repository)}",
        )
    removed: list[Obstacle] = []
    kept: list[Obstacle] = []
    for obstacle in found:
        may_go = obstacle.is_dead or is_forced
        is_gone = may_go and repository.remove_obstacle(
            obstacle, is_forced=is_forced and not obstacle.is_dead
        )
        (removed if is_gone else kept).append(obstacle)
    note_access(removed=len(removed), forced="yes" if is_forced else None)
    return UnlockReport(removed=removed, kept=kept)
