"""How well a database can be brought back: what drills of its backups showed, and what that says of the next restore."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from pgstow.catalog.backups import BackupRecord
from pgstow.catalog.drills import OF_THE_PLACE, DrillRecord
from pgstow.monitor.facts import CRITICAL_KIND, DatabaseFacts, Facts, PlanFacts
from pgstow.monitor.rto import (
    RestoreForecast,
    Timing,
    alike,
    forecast_restore,
    timing_of,
    trend_s_per_month,
)
from pgstow.state.runs import RunRecord

__all__ = ["FailedDrill", "RecoveryStanding", "is_of_place", "recovery_of", "unsaved_text"]

_ABOUT_AS_LARGE = 1.25
# What a backup holds besides rows and large objects: less than this, where nobody counted.
_ASIDE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedDrill:
    """The newest drill of a kind of backups in a repository, which failed; the backup is still there."""

    repository: str
    drill: DrillRecord

    @property
    def is_of_place(self) -> bool:
        """Whether the machine, the store or a server was in the way: then nothing is known of the backup by it."""
        return is_of_place(self.drill.error_code)

    @property
    def reason(self) -> str:
        """Why it failed: what stopped it, or the first of the checks that did not pass."""
        issues = [one.message for one in self.drill.issues if one.severity == "error"]
        if self.drill.error is None and len(issues) > 1:
            return f"{issues[0]} (and {len(issues) - 1} more)"
        return self.drill.error or next(iter(issues), "it did not say why")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryStanding:
    """What is known from the drills of one database.

    ``is_known``: every repository told its drills, whole. ``was_read``: at least one did, or tried. ``achieved`` is the newest
    drill of a whole backup that passed; ``timings`` are those that are like it, oldest first, on which ``forecast`` and
    ``trend_s_per_month`` rest. The forecast is for the newest whole backup; ``newest_bytes`` are its rows and large objects.
    ``unsaved`` are planned drills that failed and whose records are in no repository: nothing else tells of them.
    """

    is_known: bool
    was_read: bool
    newest: DrillRecord | None = None
    last_passed: DrillRecord | None = None
    failed: tuple[FailedDrill, ...] = ()
    unsaved: tuple[RunRecord, ...] = ()
    achieved: DrillRecord | None = None
    timings: tuple[Timing, ...] = ()
    basis: str = ""
    trend_s_per_month: float | None = None
    forecast: RestoreForecast | None = None
    newest_bytes: int | None = None
    first_backup: datetime | None = None
    plans: tuple[PlanFacts, ...] = ()

    @property
    def achieved_rto_s(self) -> float | None:
        """How long the newest drill of a whole backup took until everything was proven."""
        return None if self.achieved is None else self.achieved.proven_s

    @property
    def is_representative(self) -> bool | None:
        """Whether what was restored then is about as large as the newest whole backup, or larger; None where one is not known."""
        if self.achieved is None or self.newest_bytes is None:
            return None
        return self.newest_bytes <= self.achieved.size_bytes * _ABOUT_AS_LARGE + _ASIDE_BYTES

    def is_overdue(self, facts: Facts, database: DatabaseFacts) -> bool | None:
        """Whether no backup has passed a drill for too long, as far as is known.

        A database that is new has time for it. Where nobody remembers since when it has been waited for, its backups may show that
        it is too long ago; else None.
        """
        within = timedelta(seconds=facts.policy.drill_within_s)
        passed = self.last_passed
        began = passed.finished if passed else facts.known_since.get(f"database {database.name}")
        if began is not None:
            return facts.now - began > within
        is_long_ago = self.first_backup is not None and facts.now - self.first_backup > within
        return True if is_long_ago else None

    @property
    def next_due(self) -> datetime | None:
        return min((plan.next_due for plan in self.plans if plan.next_due), default=None)


def is_of_place(error_code: str | None) -> bool:
    """Whether what ended a drill was in the machine, the store or a server: then nothing is known of the backup by it."""
    return error_code in OF_THE_PLACE


def recovery_of(facts: Facts, database: DatabaseFacts, newest: BackupRecord | None) -> RecoveryStanding:
    """Return what the drills of a database show; ``newest`` is its newest whole backup."""
    drills = _drills_of(facts, database.name)
    timed, basis = alike(one for one in drills if _is_whole(one, database))
    timings = [timing for one in timed if (timing := timing_of(one)) is not None]
    size_bytes = None if newest is None else _drilled_size(facts, newest)
    places = facts.repositories.values()
    return RecoveryStanding(
        is_known=all(each.are_drills_known for each in places),
        was_read=any(each.drills is not None or each.drills_error is not None for each in places),
        newest=drills[-1] if drills else None,
        last_passed=next((one for one in reversed(drills) if one.is_passed), None),
        failed=tuple(_failed(facts, database.name)),
        unsaved=tuple(_unsaved(facts, database.name, {one.id for one in drills})),
        achieved=timed[-1] if timed else None,
        timings=tuple(timings),
        basis=basis,
        trend_s_per_month=trend_s_per_month(timings),
        forecast=None if size_bytes is None else forecast_restore(timings, size_bytes, basis=basis),
        newest_bytes=size_bytes,
        first_backup=min(
            (one.time for each in places for one in each.backups_of(database.name)), default=None
        ),
        plans=tuple(plan for plan in facts.plans if plan.job == "drill" and plan.database == database.name),
    )


def _is_whole(drill: DrillRecord, database: DatabaseFacts) -> bool:
    return drill.backup_kind != CRITICAL_KIND and (database.is_partial or not drill.is_partial)


def _drills_of(facts: Facts, database: str) -> list[DrillRecord]:
    """Return the drills of a database in any repository, oldest first, each once."""
    found = {
        one.id: one
        for each in facts.repositories.values()
        for one in each.drills or ()
        if one.backup_name == database
    }
    return sorted(found.values(), key=lambda one: (one.started, one.id))


def _failed(facts: Facts, database: str) -> Iterator[FailedDrill]:
    """Yield what failed and has not passed since: another backup that is restored says nothing of this kind, or this copy."""
    for each in facts.repositories.values():
        newest = {
            one.backup_kind: one
            for one in each.drills or ()
            if one.backup_name == database and one.outcome != "interrupted"
        }
        present = {record.id for record in each.backups_of(database)}
        for _, drill in sorted(newest.items()):
            if drill.outcome == "failed" and (drill.backup_id in present or not each.is_known):
                yield FailedDrill(repository=each.name, drill=drill)


def unsaved_text(drill_id: str) -> str:
    """Return how the warning of a run begins whose drill's record could not be saved."""
    return f"the record of drill {drill_id} could not be saved"


def _unsaved(facts: Facts, database: str, saved: set[str]) -> Iterator[RunRecord]:
    """Yield the newest drill of each plan that failed, unless its record, or that of a later one, is there."""
    newest: dict[str | None, RunRecord] = {}
    for run in facts.runs or ():  # newest first
        if (run.job, run.database) == ("drill", database) and run.drill_id is not None:
            newest.setdefault(run.plan, run)
    for run in newest.values():
        told = unsaved_text(run.drill_id or "")
        is_unsaved = run.drill_id not in saved and any(one.startswith(told) for one in run.warnings)
        if run.outcome == "failed" and is_unsaved:
            yield run


def _drilled_size(facts: Facts, backup: BackupRecord) -> int | None:
    """Return the size of a backup as drills count it, rows and large objects; of the whole where nobody looked inside.

    Tables alone do not show large objects: these are what the whole is much larger by.
    """
    tables, whole = facts.contents.get(backup.id), backup.size_bytes
    if tables is None:
        return whole
    rows = sum(table.size_bytes for table in tables.values())
    return rows if whole is None or whole - rows <= _ASIDE_BYTES else whole
