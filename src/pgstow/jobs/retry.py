"""Whether a due run that failed, or was cut off, is tried again: pure functions of its error, its schedule and the time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pgstow.core.errors import (
    ConnectionFailed,
    DrillFailed,
    GaveWay,
    PgstowError,
    ProcessFailed,
    RepositoryLocked,
    RunUnderWay,
    SourceMoved,
    StateError,
    StoreUnavailable,
)
from pgstow.jobs.due import MOST_COUNTED, is_in_window
from pgstow.jobs.schedule import Schedule, newest_due
from pgstow.state.dues import OpenDue
from pgstow.state.runs import Outcome

__all__ = ["Ending", "coalesced_text", "ending_of", "may_pass", "missed_text", "restart_at", "retry_at"]

_PAUSES_S = (60.0, 300.0, 900.0, 1800.0)  # the last one again and again
_MOST_CUT_OFF = 5  # runs that begin and do not come to an end, killed or interrupted, for one due time
_MOST_STARTS = 20  # that do not even begin
_STARTED_AT_ONCE = 3  # of these
_FIRST_START_PAUSE_S = 5.0
_LONGEST_START_PAUSE_S = 600.0

# A tool that fails may be one whose server went away; it is told like a wrong call.
_PASSING = (
    ConnectionFailed,
    GaveWay,
    ProcessFailed,
    RepositoryLocked,
    RunUnderWay,
    SourceMoved,
    StateError,
    StoreUnavailable,
)
# What may end a drill without anything having been found wrong with the backup.
_PASSING_IN_DRILLS = frozenset(
    error.code for error in (ConnectionFailed, RepositoryLocked, StateError, StoreUnavailable)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a due time ends that is not tried any more."""

    outcome: Outcome
    error: str
    error_code: str | None = None


def may_pass(error: PgstowError) -> bool:
    """Whether the same run may succeed a little later, with nobody doing anything about it."""
    if isinstance(error, DrillFailed):
        return error.facts.get("cause") in _PASSING_IN_DRILLS
    return isinstance(error, _PASSING)


def retry_at(schedule: Schedule, due: datetime, *, failures: int, now: datetime) -> datetime | None:
    """Return when a run is tried again that failed ``now``, after so many ``failures`` before.

    None where the time to catch it up will have passed, or the next due time will have come: that is a run of its own.
    """
    pause_s = _PAUSES_S[min(failures, len(_PAUSES_S) - 1)]
    again = now + timedelta(seconds=pause_s)
    if not is_in_window(schedule, due, again) or newest_due(schedule, due, again) is not None:
        return None
    return again


def restart_at(one: OpenDue, now: datetime) -> datetime | None:
    """Return when to start anew what was lost before it had begun; None: at once.

    One host that died is no reason to wait; processes that again and again do not even begin are.
    """
    unbegun = one.attempt - len(one.runs)
    if unbegun <= _STARTED_AT_ONCE:
        return None
    pause_s = min(_FIRST_START_PAUSE_S * 2 ** (unbegun - _STARTED_AT_ONCE), _LONGEST_START_PAUSE_S)
    return now + timedelta(seconds=pause_s)


def ending_of(one: OpenDue, schedule: Schedule, now: datetime) -> Ending | None:
    """Return how a due time ends that nobody carries out; None if it is to be carried out."""
    if not is_in_window(schedule, one.key.due, now):
        if not one.failures:
            return Ending(outcome="missed", error=missed_text(one.coalesced))
        text = f"given up, {one.failures} of its attempts having failed: the time to catch it up has passed"
        return Ending(outcome="failed", error=text, error_code="given_up")
    begun = len(one.runs)
    if begun - one.failures >= _MOST_CUT_OFF or one.attempt - begun > _MOST_STARTS:
        text = f"given up after {one.attempt} attempts that did not come to an end"
        return Ending(outcome="failed", error=text, error_code="given_up")
    return None


def missed_text(coalesced: int) -> str:
    """Say what it means that a run was missed, and so many due times before it."""
    others = f", like {coalesced_text(coalesced)} before it" if coalesced else ""
    return f"not run{others}: the time in which it could have been caught up had passed"


def coalesced_text(count: int) -> str:
    """Return ``1 due time``, ``2 due times`` or ``1000 due times or more``."""
    return f"{count} due time{'' if count == 1 else 's'}{' or more' if count >= MOST_COUNTED else ''}"
