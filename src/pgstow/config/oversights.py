"""What a settings file may say, and probably does not mean: warnings about what nothing uses, and nobody does."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable
from datetime import UTC, datetime

from pgstow.config.document import Document
from pgstow.config.meaning import DRILL, JOBS, Meaning
from pgstow.config.problems import Path
from pgstow.jobs.schedule import Schedule, due_times

__all__ = ["note_oversights", "warn"]

_DAY_S = 86400.0
_LOOKED_AT = (
    datetime(2027, 1, 1, tzinfo=UTC),
    datetime(2029, 1, 1, tzinfo=UTC),
)  # any years, one of them a leap year
_MOST_DUES = 400


def warn(document: Document, at: Path, message: str, *, shown: Path | None = None) -> None:
    """Note a warning about the key at ``at``."""
    document.add(at, message, at_key=True, is_warning=True, shown=shown)


def note_oversights(meaning: Meaning) -> None:
    """Note what runs nowhere, is backed up by nothing, or reaches nobody."""
    if not meaning.names("plans"):
        warn(meaning.document, ("plans",), "there is no plan: nothing runs by itself", shown=())
    elif len(meaning.form.plans) == len(meaning.names("plans")):  # else what the others do is not known
        _of_plans(meaning)
        _of_drills(meaning)
        _of_telling(meaning)


def _of_plans(meaning: Meaning) -> None:
    plans = meaning.form.plans
    backups = {name: plan for name, plan in plans.items() if meaning.kind_of(name, plan) not in JOBS}
    for name in meaning.form.databases:
        if not any(
            name in (plan.databases or meaning.suited_to(meaning.kind_of(each, plan)))
            for each, plan in backups.items()
        ):
            warn(meaning.document, ("databases", name), "no plan backs up this database")
    for name in meaning.form.repositories:
        if not any(
            name in (plan.repositories or meaning.taken_by(meaning.kind_of(each, plan)))
            for each, plan in backups.items()
        ):
            warn(meaning.document, ("repositories", name), "no plan puts backups into this repository")
    if not any(meaning.kind_of(name, plan) == "retention" for name, plan in plans.items()):
        warn(meaning.document, ("plans",), "no plan of kind retention: nothing expires by itself")


def _of_drills(meaning: Meaning) -> None:
    drills = {name: plan for name, plan in meaning.form.plans.items() if meaning.kind_of(name, plan) == DRILL}
    if not drills:
        warn(
            meaning.document, ("plans",), "no plan of kind drill: that backups can be restored is never tried"
        )
    within_s = meaning.form.alerts.drill_within
    for database in meaning.form.databases:
        mine = {
            name: schedule
            for name, plan in drills.items()
            if (schedule := meaning.schedule_of(plan)) is not None
            and database in (plan.databases or meaning.suited_to(meaning.subject_of(name, plan)))
        }
        longest_s = _longest_pause_s(mine.values())
        if mine and longest_s > within_s:
            apart = "more than a year" if math.isinf(longest_s) else f"up to {longest_s / _DAY_S:.0f} days"
            message = f"drills of {database} are {apart} apart, and alerts.drill_within is {within_s / _DAY_S:.0f} days"
            warn(meaning.document, ("plans", next(iter(mine)), "schedule"), message)


def _longest_pause_s(schedules: Iterable[Schedule]) -> float:
    """Return the longest time between two due times of any of these, as far as the next few hundred show."""
    found = [itertools.takewhile(_is_looked_at, due_times(one, _LOOKED_AT[0])) for one in schedules]
    dues = itertools.islice(heapq.merge(*found), _MOST_DUES)
    return max(((later - due).total_seconds() for due, later in itertools.pairwise(dues)), default=math.inf)


def _is_looked_at(due: datetime) -> bool:
    return due < _LOOKED_AT[1]


def _of_telling(meaning: Meaning) -> None:
    used = {name for contact in meaning.form.contacts for name in contact.channels}
    for name in meaning.form.channels:
        if name not in used:
            warn(meaning.document, ("channels", name), "no contact uses this channel")
    if not meaning.form.contacts:
        warn(meaning.document, ("contacts",), "there are no contacts: nobody is told of alerts", shown=())
    for name, plan in meaning.form.plans.items():
        if plan.ping is not None and plan.ping.text is not None and "${" not in plan.ping.text:
            warn(
                meaning.document,
                ("plans", name, "ping"),
                "whoever reads this URL can feign success: a variable keeps it private",
            )
