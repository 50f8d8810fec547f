"""Whether a plan is due for a database, for who asks from cron: the service's own judgement, without the service."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pgstow.app.plan_parts import PlanParts
from pgstow.catalog.backups import list_backups
from pgstow.config.settings import DatabaseSettings, PlanSettings
from pgstow.core.errors import RepositoryDamaged, StateError, UsageError
from pgstow.jobs.due import ClockWentBack, Due, Missed, decide
from pgstow.jobs.retry import Ending, ending_of, missed_text
from pgstow.jobs.schedule import Schedule, next_due
from pgstow.jobs.service import Scheduled, ended_record
from pgstow.state.database import StateDatabase
from pgstow.state.dues import DueKey, Dues, OpenDue
from pgstow.state.hosts import Hosts
from pgstow.state.runs import Runs

__all__ = ["Verdict", "find_due", "scheduled_runs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``due`` is what is to be carried out; None where nothing is, or where ``host`` does it already.

    ``retry`` is when what failed is tried again.
    """

    due: DueKey | None
    missed: datetime | None = None
    host: str | None = None
    retry: datetime | None = None
    next_due: datetime | None = None


def scheduled_runs(plans: list[PlanSettings]) -> list[Scheduled]:
    """Return what runs by itself: the plans that have a schedule, per database."""
    return [
        _scheduled(plan, plan.schedule, database)
        for plan in plans
        if plan.schedule is not None
        for database in (plan.databases if plan.is_for_databases else (None,))
    ]


def _scheduled(plan: PlanSettings, schedule: Schedule, database: str | None) -> Scheduled:
    return Scheduled(plan=plan.name, database=database, job=plan.job, kind=plan.kind, schedule=schedule)


def find_due(plan: PlanSettings, database: DatabaseSettings | None, parts: PlanParts) -> Verdict:
    """Return whether the plan is due now, and hand out its due time to who asks.

    Without the state database the repositories tell when a backup was made last; StateError for what they do not tell.
    """
    if plan.schedule is None:
        raise UsageError(f"plan {plan.name} has no schedule", hint="run it without --if-due")
    name = database.name if database is not None else None
    if parts.state is None:
        return _by_repository(plan, _scheduled(plan, plan.schedule, name), parts)
    return _Asking(_scheduled(plan, plan.schedule, name), parts.state, parts.hostname).verdict()


class _Asking:
    """One question to the state database, answered as a service would."""

    def __init__(self, scheduled: Scheduled, state: StateDatabase, hostname: str) -> None:
        self._scheduled = scheduled
        self._state = state
        self._hostname = hostname
        self._dues = Dues(state)
        self._now = state.now()
        self._following = next_due(scheduled.schedule, self._now)

    def verdict(self) -> Verdict:
        mine = self._scheduled
        settled_until = self._dues.settled_until(mine.plan, mine.database, str(mine.schedule), self._now)
        for one in self._dues.open():
            if (one.key.plan, one.key.database) == (mine.plan, mine.database):
                verdict = self._of_open(one)
                if verdict is not None:
                    return verdict
        decision = decide(mine.schedule, mine.key, settled_until=settled_until, now=self._now)
        if isinstance(decision, ClockWentBack):
            self._dues.set_back(mine.plan, mine.database, settled_until=settled_until, to=self._now)
        if decision is None or isinstance(decision, ClockWentBack):
            return Verdict(due=None, next_due=self._following)
        return self._hand_out(decision, settled_until)

    def _hand_out(self, decision: Due | Missed, settled_until: datetime) -> Verdict:
        mine, is_missed = self._scheduled, isinstance(decision, Missed)
        key = DueKey(plan=mine.plan, database=mine.database, due=decision.due)
        is_ours = self._dues.hand_out(
            key,
            settled_until=settled_until,
            schedule=str(mine.schedule),
            coalesced=decision.coalesced,
            is_missed=is_missed,
        )
        if not is_missed:
            return Verdict(due=key if is_ours else None, next_due=self._following)
        if is_ours:
            self._save(key, Ending(outcome="missed", error=missed_text(decision.coalesced)))
        return Verdict(due=None, missed=decision.due if is_ours else None, next_due=self._following)

    def _of_open(self, one: OpenDue) -> Verdict | None:
        """Return whether a due time that was handed out is free to be carried out; None if it has just ended."""
        if one.is_resting(self._now):
            return Verdict(due=None, retry=one.not_before, next_due=self._following)
        hosts = Hosts(self._state).all() if one.state == "running" else []
        holder = next((host for host in hosts if host.id == one.host and not host.is_dead), None)
        if holder is not None:
            who = f"process {holder.pid} on {holder.hostname}"
            return Verdict(due=None, host=who, next_due=self._following)
        ending = ending_of(one, self._scheduled.schedule, self._now)
        if ending is not None:
            if self._dues.settle(one.key, host=one.host):
                self._save(one.key, ending)
            return None
        is_free = one.state == "queued" or self._dues.queue_again(one) is not None
        return Verdict(due=one.key if is_free else None, next_due=self._following)

    def _save(self, key: DueKey, ending: Ending) -> None:
        record = ended_record(self._scheduled, key.due, ending, now=self._now, host=self._hostname)
        Runs(self._state).save(record)


def _by_repository(plan: PlanSettings, scheduled: Scheduled, parts: PlanParts) -> Verdict:
    if plan.job != "backup":
        raise StateError(
            f"whether plan {plan.name} is due cannot be told while the state database is away",
            hint=f"pgstow run {plan.name} without --if-due carries it out now",
        )
    schedule, now = scheduled.schedule, datetime.now(UTC)
    window = timedelta(seconds=max(schedule.catch_up_s, schedule.jitter_s))
    times = [now - window]
    for one in parts.destinations(plan):
        damaged: list[RepositoryDamaged] = []
        records = list_backups(parts.repository(one), damaged=damaged)
        wanted = (scheduled.database, plan.kind)
        times += [each.time for each in records if (each.name, each.kind) == wanted]
    decision = decide(schedule, scheduled.key, settled_until=min(max(times), now), now=now)
    if not isinstance(decision, Due):
        return Verdict(due=None, next_due=next_due(schedule, now))
    due = DueKey(plan=plan.name, database=scheduled.database, due=decision.due)
    return Verdict(due=due, next_due=next_due(schedule, now))
