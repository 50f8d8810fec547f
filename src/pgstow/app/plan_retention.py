"""What retention needs to know of the history of runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime

from pgstow.app.observation import CLOCKS_APART, opened_history
from pgstow.catalog.backups import CRITICAL
from pgstow.config.settings import Settings
from pgstow.core.errors import PgstowError, StateError
from pgstow.retention import Attempt, AttemptHistory
from pgstow.state.database import StateDatabase, is_state_kept_here
from pgstow.state.runs import DestinationResult, Outcome, RunRecord, Runs

__all__ = ["newest_attempts", "read_attempts"]

_SUCCEEDED: dict[Outcome, bool] = {
    "done": True,
    "partial": True,
    "failed": False,
    "interrupted": False,
    "abandoned": False,
}


def read_attempts(
    settings: Settings, environ: Mapping[str, str], *, repository: str | None, conceal: Callable[[str], None]
) -> AttemptHistory:
    """Return what the state database of the settings says; where it is away, that it is not known. None is made."""
    if settings.state is None:
        if not is_state_kept_here(environ):
            return _unknown(settings, "this machine has no history of runs")
    else:
        with contextlib.suppress(PgstowError):  # told when it is opened
            conceal(settings.state.resolve(environ).reveal())
    with opened_history(settings, environ) as history:
        return newest_attempts(settings, history.state, repository=repository, problem=history.error)


def newest_attempts(
    settings: Settings,
    state: StateDatabase | None,
    *,
    repository: str | None,
    problem: PgstowError | None = None,
) -> AttemptHistory:
    """Return how the newest backup of each database ended, as far as ``repository`` of the settings is concerned.

    One of the critical tables that ended well does not make up for a failed one of everything.
    """
    if state is None:
        return _unknown(settings, "the state database is away" if problem is None else problem.message)
    try:
        latest = state.now() + CLOCKS_APART
        attempts = _attempts(settings, Runs(state), repository, latest)
        return AttemptHistory(attempts=attempts, names=tuple(settings.databases))
    except StateError as exc:
        return _unknown(settings, exc.message)


def _unknown(settings: Settings, why: str) -> AttemptHistory:
    return AttemptHistory(
        names=tuple(settings.databases),
        problem=f"whether the newest runs failed is not known, and only the repository was judged: {why}",
    )


def _attempts(settings: Settings, runs: Runs, repository: str | None, latest: datetime) -> dict[str, Attempt]:
    """Return the newest attempt of each database; what began after ``latest`` was written by a clock that was wrong."""
    attempts = {}
    for name in settings.databases:
        found = runs.find(database=name, job="backup", with_tables=False)
        ended = [one for one in found if one.outcome in _SUCCEEDED and one.started <= latest]
        attempt = _newest([_attempt(name, one, repository) for one in ended])
        if attempt is not None:
            attempts[name] = attempt
    return attempts


def _newest(attempts: list[Attempt]) -> Attempt | None:
    """Return the newest of several, the newest first; or the newest of more than critical tables, if that failed."""
    of_more = next((one for one in attempts if one.kind != CRITICAL), None)
    if of_more is not None and not of_more.has_succeeded:
        return of_more
    return next(iter(attempts), None)


def _attempt(name: str, run: RunRecord, repository: str | None) -> Attempt:
    missed = _missed_by(run, repository)
    if missed is not None:
        # The backup may be brought there later by a copy. It is from after the run's start, and ends this.
        return Attempt(
            name=name,
            kind=run.kind,
            when=run.started,
            has_succeeded=False,
            error=f"it did not reach {missed.repository}: {missed.error}",
        )
    return Attempt(
        name=name,
        kind=run.kind,
        when=run.finished or run.started,
        has_succeeded=_SUCCEEDED[run.outcome],
        error=run.error,
    )


def _missed_by(run: RunRecord, repository: str | None) -> DestinationResult | None:
    """Return why a backup that was made did not reach this repository; None if it did, or was never to."""
    if run.outcome != "partial":
        return None
    failed = (one for one in run.destinations if one.error_code is not None)
    return next((one for one in failed if one.repository == repository), None)
