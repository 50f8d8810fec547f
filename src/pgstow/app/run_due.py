"""Whether a plan is due for a database, for who asks from cron: the service's own judgement, without the service."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pgstow.app.plan_parts import PlanParts
from pgstow.catalog.backups import list_backups
from pgstow.config.settings import DatabaseSettings, PlanSettings
from pgstow.core.errors import RepositoryDamaged, UsageError
from pgstow.jobs.due import ClockWentBack, Due, Missed, decide
from pgstow.jobs.schedule import Schedule, next_due
from pgstow.jobs.service import Scheduled, missed_text, scheduled_key
from pgstow.state.database import StateDatabase
from pgstow.state.dues import DueKey, Dues, OpenDue
from pgstow.state.hosts import Hosts
from pgstow.state.runs import RunRecord, Runs

__all__ = ["Verdict", "find_due", "scheduled_runs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``due`` is what is to be carried out; None where nothing is, or where ``host`` does it already."""

    due: DueKey | None
    missed: datetime | None = None
    host: str | None = None
    next_due: datetime | None = None


def scheduled_runs(plans: list[PlanSettings]) -> list[Scheduled]:
    """Return what runs by itself: the plans that have a schedule, per database."""
    return [
        Scheduled(plan=plan.name, database=database, job=plan.job, kind=plan.kind, schedule=plan.schedule)
        for plan in plans
        if plan.schedule is not None
        for database in (plan.databases if plan.job == "backup" else (None,))
    ]


def find_due(plan: PlanSettings, database: DatabaseSettings | None, parts: PlanParts) -> Verdict:
    """Return whether the plan is due now, and hand out its due time to who asks.

    Without the state database the repositories tell when it ran last.
    """
    if plan.schedule is None:
        raise UsageError(f"plan {plan.name} has no schedule", hint="run it without --if-due")
    name = database.name if database is not None else None
    if parts.state is None:
        verdict = _by_repository(plan, plan.schedule, name, parts)
    else:
        verdict = _by_state(plan, plan.schedule, name, parts, parts.state)
    return verdict


def _by_state(
    plan: PlanSettings, schedule: Schedule, database: str | None, parts: PlanParts, state: StateDatabase
) -> Verdict:
    dues, now = Dues(state), state.now()
    following = next_due(schedule, now)
    settled_until = dues.settled_until(plan.name, database, str(schedule), now)
    for one in dues.open():
        if (one.key.plan, one.key.database) == (plan.name, database):
            return _of_open(one, dues, state, following)
    decision = decide(schedule, scheduled_key(plan.name, database), settled_until=settled_until, now=now)
    if isinstance(decision, ClockWentBack):
        dues.set_back(plan.name, database, settled_until=settled_until, to=now)
    if decision is None or isinstance(decision, ClockWentBack):
        return Verdict(due=None, next_due=following)
    key = DueKey(plan=plan.name, database=database, due=decision.due)
    is_missed = isinstance(decision, Missed)
    is_ours = dues.hand_out(
        key, settled_until=settled_until, coalesced=decision.coalesced, is_missed=is_missed
    )
    if is_missed:
        if is_ours:
            Runs(state).save(_missed_record(plan, key, decision.coalesced, state.now(), parts.hostname))
        return Verdict(due=None, missed=decision.due if is_ours else None, next_due=following)
    return Verdict(due=key if is_ours else None, next_due=following)


def _missed_record(plan: PlanSettings, key: DueKey, coalesced: int, now: datetime, host: str) -> RunRecord:
    return RunRecord(
        id=Runs.new_id(),
        plan=plan.name,
        job=plan.job,
        kind=plan.kind,
        database=key.database,
        due=key.due,
        started=now,
        finished=now,
        host=host,
        outcome="missed",
        error=missed_text(coalesced),
    )


def _of_open(one: OpenDue, dues: Dues, state: StateDatabase, following: datetime | None) -> Verdict:
    """Return whether a due time that was handed out is free to be carried out."""
    if one.state == "queued":
        return Verdict(due=one.key, next_due=following)
    holder = next((host for host in Hosts(state).all() if host.id == one.host and not host.is_dead), None)
    if holder is not None:
        return Verdict(due=None, host=f"process {holder.pid} on {holder.hostname}", next_due=following)
    again = dues.queue_again(one)
    return Verdict(due=one.key if again is not None else None, next_due=following)


def _by_repository(plan: PlanSettings, schedule: Schedule, database: str | None, parts: PlanParts) -> Verdict:
    now = datetime.now(UTC)
    window = timedelta(seconds=max(schedule.catch_up_s, schedule.jitter_s))
    times = [now - window]
    if plan.job == "backup":
        for one in parts.destinations(plan):
            damaged: list[RepositoryDamaged] = []
            records = list_backups(parts.repository(one), damaged=damaged)
            times += [each.time for each in records if (each.name, each.kind) == (database, plan.kind)]
    decision = decide(
        schedule, scheduled_key(plan.name, database), settled_until=min(max(times), now), now=now
    )
    due = DueKey(plan=plan.name, database=database, due=decision.due) if isinstance(decision, Due) else None
    return Verdict(due=due, next_due=next_due(schedule, now))
