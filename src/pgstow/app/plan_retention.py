"""What retention needs to know of the history of runs."""

from __future__ import annotations

from pgstow.app.plan_parts import PlanParts
from pgstow.core.errors import StateError
from pgstow.retention import Attempt
from pgstow.state.runs import Outcome, RunRecord, Runs

__all__ = ["newest_attempts"]

_SUCCEEDED: dict[Outcome, bool] = {
    "done": True,
    "partial": True,
    "failed": False,
    "interrupted": False,
    "abandoned": False,
}


def newest_attempts(parts: PlanParts) -> dict[str, Attempt]:
    """Return how the newest backup of each database ended; without the state database, the repositories are judged alone."""
    if parts.state is None:
        return {}
    attempts = {}
    try:
        for name in parts.settings.databases:
            ended = (one for one in Runs(parts.state).find(database=name, limit=50) if _is_attempt(one))
            newest = next(ended, None)
            if newest is not None:
                attempts[name] = Attempt(
                    name=name,
                    when=newest.finished or newest.started,
                    has_succeeded=_SUCCEEDED[newest.outcome],
                    error=newest.error,
                )
    except StateError as exc:
        parts.progress.note(exc.message)
    return attempts


def _is_attempt(record: RunRecord) -> bool:
    return record.job == "backup" and record.outcome in _SUCCEEDED
