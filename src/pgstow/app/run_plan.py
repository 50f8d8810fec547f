"""The use case: carry out one plan for one database now, and write down what became of it.

The same work whoever asks: a person, cron, CI, or the service for a due time. A due time belongs to one run at a time
(``state.dues``). A run that takes over one whose earlier attempts were cut off first makes sure that none of these can
publish any more, then looks whether one has: then nothing is left to do but to write it down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pgstow.app.auditing import recording_step
from pgstow.app.catching_up import CaughtUp, Lacking, bring, find_lacking
from pgstow.app.plan_jobs import JobResult, back_up, drill_one, find_published, look_after_repositories
from pgstow.app.plan_parts import PlanParts
from pgstow.app.run_history import RunHistory
from pgstow.app.run_slots import taking_slots
from pgstow.config.settings import DatabaseSettings, PlanSettings
from pgstow.core.errors import Interrupted, PgstowError, RepositoryLocked, RunUnderWay, StateError
from pgstow.jobs.retry import coalesced_text, may_pass, retry_at
from pgstow.state.database import StateDatabase
from pgstow.state.dues import DueKey, Dues, OpenDue
from pgstow.state.hosts import Hosts
from pgstow.state.runs import DestinationResult, Outcome, RunRecord, Runs

__all__ = ["PlanOrder", "PlanRun", "RunEvent", "catch_up_after", "run_plan"]


_ACTIONS = {"retention": "retention apply"}  # of jobs that the audit trail calls by another name


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOrder:
    """One plan for one database (None for jobs that concern repositories); ``due`` for one of its due times."""

    plan: PlanSettings
    database: DatabaseSettings | None
    due: DueKey | None = None
    label: str | None = None
    wait_s: float = 0.0  # for other runs of the same database, server or repository


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """A run began (its outcome is ``running``) or ended. Told once each, to whoever pings or alerts."""

    plan: PlanSettings
    record: RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRun:
    """What became of it; ``error`` is why it failed. ``lacking`` is left to ``catch_up_after()``.

    ``interrupted`` is set where that was asked for when it was too late for this run: nothing else is to be begun.
    """

    record: RunRecord
    error: PgstowError | None = None
    lacking: Lacking | None = None
    interrupted: Interrupted | None = None


def run_plan(
    order: PlanOrder, parts: PlanParts, *, on_event: Callable[[RunEvent], None] = lambda _: None
) -> PlanRun | None:
    """Carry it out; None if its due time is another run's by now, or has ended.

    Raises Interrupted, once that is written down; every other failure of the work is returned. StateError if it is
    for a due time and nobody can tell whose that is.
    """
    history = RunHistory(parts.state, parts.spool, parts.progress.note)
    record = _first_record(order, parts)
    taken = None
    if order.due is not None and parts.state is not None:
        taken = Dues(parts.state).take(order.due, run_id=record.id, host=parts.host_id)
        if taken is None:
            return None
    run = _Run(order, parts, history, taken)
    database = order.database.name if order.database is not None else None
    with recording_step(
        _ACTIONS.get(order.plan.job, order.plan.job),
        is_destructive=order.plan.job == "retention",
        subjects=[database] if database else [],
        plan=order.plan.name,
        kind=order.plan.kind,
        due=order.due.due.isoformat() if order.due is not None else None,
    ) as step:
        done = run.conduct(record, lambda each: on_event(RunEvent(plan=order.plan, record=each)))
        if step is not None and done.record.outcome in ("partial", "failed"):
            step.ends("partial" if done.record.outcome == "partial" else "failed", done.record.error_code)
    return done


def catch_up_after(order: PlanOrder, run: PlanRun, parts: PlanParts) -> PlanRun:
    """Bring its repositories what they lack of earlier backups, and return the run with what came of that.

    The run has ended and is written down: whatever happens here changes nothing about how. Raises Interrupted, once
    what was brought until then is written down too.
    """
    if run.lacking is None or order.database is None:
        return run
    caught = CaughtUp()
    try:
        with recording_step("copy", subjects=[order.database.name], plan=order.plan.name):
            bring(run.lacking, order.database, parts, caught, wait_s=order.wait_s)
    finally:
        record = replace(
            run.record,
            warnings=(*run.record.warnings, *caught.warnings),
            destinations=tuple(
                replace(one, caught_up=tuple(caught.brought.get(one.repository, ())))
                for one in run.record.destinations
            ),
        )
        RunHistory(parts.state, parts.spool, parts.progress.note).save(record)
    return replace(run, record=record)


class _Run:
    """A run that has begun. ``taken`` is its due time, if it is for one and the state database is there."""

    def __init__(
        self, order: PlanOrder, parts: PlanParts, history: RunHistory, taken: OpenDue | None
    ) -> None:
        self._order = order
        self._parts = parts
        self._history = history
        self._taken = taken
        self._earlier = taken.runs if taken is not None else ()

    def conduct(self, record: RunRecord, tell: Callable[[RunRecord], None]) -> PlanRun:
        """Do the work; the record of it is saved before and after, and the due time settled, or left to the next."""
        if self._taken is not None and self._taken.coalesced:
            passed = coalesced_text(self._taken.coalesced)
            record = replace(record, warnings=(f"stands for {passed} before as well, which had passed",))
        error: PgstowError | None = None
        result: JobResult | None = None
        try:
            published = self._published_earlier(record)
            if published is not None:
                tell(published)
                self._settle()
                return PlanRun(record=published)
            self._tell_state(lambda state: Hosts(state).begins(self._parts.host_id, record.id))
            self._history.save(record)
            tell(record)
            with taking_slots(self._parts, self._resources(), wait_s=self._order.wait_s):
                result = self._work(record)
            record, error = _finished(record, result), result.error
        except Interrupted as exc:
            self._end(_of_drill(_failed(record, exc, "interrupted"), exc), tell)
            self._begin_again()
            raise
        except PgstowError as exc:
            record, error = _failed(record, exc, "failed"), exc
        except Exception as exc:  # a bug is written down too, and stays one
            bug = PgstowError(f"{type(exc).__name__}: {exc}")
            self._end(_failed(record, bug, "failed"), tell)
            raise
        self._conclude(record, error, tell)
        interrupted = (
            result.captured.interrupted if result is not None and result.captured is not None else None
        )
        lacking = None if interrupted is not None else self._lacking(result)
        return PlanRun(record=record, error=error, lacking=lacking, interrupted=interrupted)

    def _lacking(self, result: JobResult | None) -> Lacking | None:
        """Return what the repositories that have the new backup lack of earlier ones; None where that is nothing."""
        if result is None or result.captured is None or self._order.database is None:
            return None
        return find_lacking(self._order.database, result.reached, self._parts.settings)

    def _resources(self) -> dict[str, int]:
        return self._parts.resources(self._order.plan, self._order.database)

    def _work(self, record: RunRecord) -> JobResult:
        order = self._order
        if order.database is None:
            return look_after_repositories(order.plan, self._parts, wait_s=order.wait_s)
        if order.plan.job == "drill":
            return drill_one(order.plan, order.database, self._parts)
        return back_up(
            order.plan,
            order.database,
            self._parts,
            run_id=record.id,
            supersedes=self._earlier,
            label=order.label,
            wait_s=order.wait_s,
        )

    def _end(self, record: RunRecord, tell: Callable[[RunRecord], None]) -> None:
        """Write down how it ended, unless another run that took its place did."""
        self._history.save(record, only_if_running=self._taken is not None)
        tell(record)

    # -- earlier attempts

    def _published_earlier(self, record: RunRecord) -> RunRecord | None:
        """Return the record of an earlier attempt whose backup is there, saved as done; None if there is none.

        The others are written down as abandoned.
        """
        if not self._earlier:
            return None
        is_backup = self._order.plan.job == "backup"
        found = find_published(self._order.plan, self._parts, self._earlier) if is_backup else {}
        published = None
        for run_id in self._earlier:
            places = found.get(run_id)
            ended = self._earlier_record(record, run_id, places)
            self._history.save(ended, only_if_running=places is None)
            published = ended if places else published
        return published

    def _earlier_record(
        self, record: RunRecord, run_id: str, places: list[DestinationResult] | None
    ) -> RunRecord:
        now = datetime.now(UTC)
        known = self._known(run_id) or replace(record, id=run_id)
        if places is None:
            return replace(
                known,
                outcome="abandoned",
                finished=now,
                error_code="abandoned",
                error="it was cut off; another run took its place",
            )
        if known.outcome in ("done", "partial"):
            return known
        there = {one.repository for one in places}
        missing = [one.name for one in self._parts.destinations(self._order.plan) if one.name not in there]
        lost = [
            DestinationResult(repository=name, error_code="abandoned", error="the run was cut off before")
            for name in missing
        ]
        return replace(
            known,
            outcome="partial" if missing else "done",
            finished=known.finished or now,
            backup_id=run_id,
            destinations=(*places, *lost),
            error_code=None,
            error=None,
            warnings=(
                *known.warnings,
                "cut off after it had published; found by the run that took its place",
            ),
        )

    def _known(self, run_id: str) -> RunRecord | None:
        try:
            return Runs(self._parts.state).get(run_id) if self._parts.state is not None else None
        except StateError:
            return None

    # -- the due time

    def _settle(self) -> None:
        """End the due time. If that fails, another run takes it over and finds what this one published."""
        if (taken := self._taken) is not None:
            self._tell_state(lambda state: Dues(state).settle(taken.key, host=self._parts.host_id))

    def _conclude(
        self, record: RunRecord, error: PgstowError | None, tell: Callable[[RunRecord], None]
    ) -> None:
        """Write down how it ended, and settle the due time, or leave it to a later attempt where that may succeed."""
        again = self._retry_at(error) if record.outcome == "failed" and error is not None else None
        if again is not None and isinstance(error, (RepositoryLocked, RunUnderWay)):
            record = replace(record, outcome="interrupted")  # it gave way to others
        self._end(record, tell)
        if again is None:
            self._settle()
            return
        self._begin_again(not_before=again, has_failed=True)
        self._parts.progress.note(f"it is tried again from {again:%H:%M:%S}Z on")

    def _retry_at(self, error: PgstowError) -> datetime | None:
        taken, schedule, state = self._taken, self._order.plan.schedule, self._parts.state
        if taken is None or schedule is None or state is None or not may_pass(error):
            return None
        try:
            return retry_at(schedule, taken.key.due, failures=taken.failures, now=state.now())
        except StateError:  # then it cannot be settled either, and whoever finds it open judges
            return None

    def _begin_again(self, *, not_before: datetime | None = None, has_failed: bool = False) -> None:
        """Leave the due time to another run, at once or later."""
        if (taken := self._taken) is not None:
            self._tell_state(
                lambda state: Dues(state).queue_again(taken, not_before=not_before, has_failed=has_failed)
            )

    def _tell_state(self, tell: Callable[[StateDatabase], object]) -> None:
        """Say something to the state database if that is there: nothing depends on it."""
        if self._parts.state is None:
            return
        try:
            tell(self._parts.state)
        except StateError as exc:
            self._parts.progress.note(exc.message)


def _first_record(order: PlanOrder, parts: PlanParts) -> RunRecord:
    return RunRecord(
        id=Runs.new_id(),
        plan=order.plan.name,
        job=order.plan.job,
        kind=order.plan.kind,
        database=order.database.name if order.database is not None else None,
        due=order.due.due if order.due is not None else None,
        started=datetime.now(UTC),
        host=parts.hostname,
    )


def _failed(record: RunRecord, exc: PgstowError, outcome: Outcome) -> RunRecord:
    return replace(
        record, outcome=outcome, finished=datetime.now(UTC), error_code=exc.code, error=exc.message
    )


def _of_drill(record: RunRecord, exc: Interrupted) -> RunRecord:
    """Return the record with the drill that was interrupted, if one had begun."""
    drill, backup = exc.facts.get("drill"), exc.facts.get("backup")
    if not isinstance(drill, str) or not isinstance(backup, str):
        return record
    return replace(record, drill_id=drill, backup_id=backup)


def _finished(record: RunRecord, result: JobResult) -> RunRecord:
    failed = [one for one in result.destinations if one.error_code is not None]
    if not failed:
        outcome: Outcome = "done" if result.error is None else "failed"
    else:
        outcome = "failed" if len(failed) == len(result.destinations) else "partial"
    record = replace(
        record,
        outcome=outcome,
        finished=datetime.now(UTC),
        destinations=result.destinations,
        warnings=(*record.warnings, *result.warnings),
        tables=result.tables,
        error_code=result.error.code if result.error is not None else None,
        error=result.error.message if result.error is not None else None,
    )
    if result.drill is not None:
        return replace(
            record,
            drill_id=result.drill.id,
            backup_id=result.drill.backup_id,
            size_bytes=result.drill.size_bytes,
        )
    if result.captured is None:
        return record
    totals = result.captured.manifest.totals
    return replace(
        record,
        backup_id=result.captured.manifest.backup_id,
        size_bytes=totals.size_bytes,
        new_bytes=totals.new_bytes,
        stored_bytes=totals.stored_bytes,
    )
