"""Rules about what drills show: that backups can be restored, how long that takes, and how long it will take."""

from __future__ import annotations

from datetime import datetime, timedelta

from pgstow.monitor.facts import DatabaseFacts, Facts, PlanFacts
from pgstow.monitor.findings import Finding, Severity, fingerprint
from pgstow.monitor.recovery import FailedDrill, RecoveryStanding, is_of_place, recovery_of
from pgstow.monitor.rules.common import Judgement, everything_of, lasting, moment
from pgstow.monitor.standing import TableStanding, age_s, newest_whole, tables_of
from pgstow.state.runs import RunRecord

__all__ = ["drill_failed", "drill_missing", "rto_at_risk", "rto_exceeded", "table_rpo_exceeded"]

_FAILED = ("failed", "abandoned", "interrupted")
_WHY = {"abandoned": "its host died", "interrupted": "it was interrupted"}


def _recovery(facts: Facts, database: DatabaseFacts) -> RecoveryStanding:
    return recovery_of(facts, database, newest_whole(facts, database))


def drill_failed(facts: Facts) -> Judgement:
    """The newest drill of a kind of backups in a repository failed; or a planned one could not even be carried out."""
    for repository in facts.repositories.values():
        if not repository.are_drills_known:
            yield from (everything_of("drill_failed", f"{each.name}/") for each in facts.databases)
    if facts.runs is None:
        yield everything_of("drill_failed")
    for database in facts.databases:
        recovery = _recovery(facts, database)
        for failed in recovery.failed:
            yield _failed(database, failed)
        for run in recovery.unsaved:
            yield _unsaved(database, run)
    for plan, run in _newest_runs(facts):
        if run.outcome in _FAILED and (run.drill_id is None or run.outcome != "failed"):
            yield _not_carried_out(plan, run)


def _failed(database: DatabaseFacts, failed: FailedDrill) -> Finding:
    drill = failed.drill
    backup = f"{drill.backup_id[:8]} from {moment(drill.snapshot_taken)}"
    return Finding(
        rule="drill_failed",
        subject=f"{database.name}/{drill.backup_kind}@{failed.repository}",
        severity=Severity.WARNING if failed.is_of_place else Severity.CRITICAL,
        message=f"the drill of the {drill.backup_kind} backup {backup} of {database.name} in {failed.repository} failed: "
        f"{failed.reason}{'; of the backup itself nothing is known by that' if failed.is_of_place else ''}",
        hint=drill.hint
        or f"pgstow drills show {drill.id[:8]} --repo {failed.repository} tells what was found; "
        f"pgstow drill --kind {drill.backup_kind} --repo {failed.repository} tries another backup",
        since=drill.finished,
        extent=max(len(drill.issues), 1),
        facts={"drill": drill.id, "backup": drill.backup_id, "error_code": drill.error_code},
    )


def _unsaved(database: DatabaseFacts, run: RunRecord) -> Finding:
    was_in_the_way = any(is_of_place(one.error_code) for one in run.destinations)
    known = "; of the backup itself nothing is known by that" if was_in_the_way else ""
    return Finding(
        rule="drill_failed",
        subject=f"{database.name}/{run.plan}",
        severity=Severity.WARNING if was_in_the_way else Severity.CRITICAL,
        message=f"{run.error or 'the drill failed'}{known}; its record could not be saved from {run.host}, and is in no repository",
        hint=f"pgstow drills list on {run.host} saves what waits there, and shows it",
        since=run.finished or run.started,
        facts={"run": run.id, "drill": run.drill_id, "backup": run.backup_id},
    )


def _not_carried_out(plan: PlanFacts, run: RunRecord) -> Finding:
    reason = run.error or _WHY.get(run.outcome, "it did not say why")
    return Finding(
        rule="drill_failed",
        subject=f"{plan.database}/{plan.plan}",
        severity=Severity.WARNING,
        message=f"the drill of {plan.database} by plan {plan.plan} could not be carried out on {run.host}: {reason}; "
        "nothing is known of the backup by that",
        hint=f"pgstow run {plan.plan} --database {plan.database} tries again",
        since=run.finished or run.started,
        facts={"run": run.id, "error_code": run.error_code},
        inhibited_by=tuple(fingerprint("repository_unreachable", name) for name in plan.repositories),
    )


def _newest_runs(facts: Facts) -> list[tuple[PlanFacts, RunRecord]]:
    """Return each plan of drills and database with its newest run that has ended."""
    newest: dict[tuple[str | None, str | None], RunRecord] = {}
    for run in facts.runs or ():  # newest first
        if run.job != "drill" or _gave_way(run):
            continue
        if run.outcome not in ("running", "missed"):
            newest.setdefault((run.plan, run.database), run)
    plans = [plan for plan in facts.plans if plan.job == "drill"]
    return [
        (plan, newest[plan.plan, plan.database]) for plan in plans if (plan.plan, plan.database) in newest
    ]


def _gave_way(run: RunRecord) -> bool:
    """Whether it left the field to another drill, or to who has the repository for itself: then it is tried again."""
    is_tried_again = run.outcome == "interrupted" and run.error_code == "repository_locked"
    return is_tried_again or run.error_code == "under_way"


def drill_missing(facts: Facts) -> Judgement:
    """No backup of a database passed a drill for too long, or a planned drill did not run."""
    for database in facts.databases:
        yield from _overdue(facts, database, _recovery(facts, database))
    if facts.runs is None:
        yield everything_of("drill_missing")
        return
    for plan in facts.plans:
        if plan.job == "drill" and plan.expected_since is not None:
            yield from _did_not_run(facts, plan, plan.expected_since)


def _overdue(facts: Facts, database: DatabaseFacts, recovery: RecoveryStanding) -> Judgement:
    passed = recovery.last_passed
    is_overdue = recovery.is_overdue(facts, database)
    if is_overdue is False:
        return
    if is_overdue is None or not recovery.is_known:
        yield fingerprint("drill_missing", database.name)
        return
    last = f"last passed one {moment(passed.finished)}" if passed else "is not known to have ever passed one"
    yield Finding(
        rule="drill_missing",
        subject=database.name,
        severity=Severity.WARNING,
        message=f"{database.name} {last}: whether its backups can be restored is not proven; at most "
        f"{lasting(facts.policy.drill_within_s)} may pass between drills",
        hint=f"pgstow drill --rotate --database {database.name} carries one out now; a plan of the kind drill does it regularly",
        since=passed.finished if passed else None,
        inhibited_by=(fingerprint("unprotected", database.name),),
    )


def _did_not_run(facts: Facts, plan: PlanFacts, due: datetime) -> Judgement:
    runs = [
        run
        for run in facts.runs or ()
        if (run.job, run.plan, run.database) == ("drill", plan.plan, plan.database)
        and run.outcome != "missed"
    ]
    if runs and runs[0].started >= due:
        return  # it is at it, or has ended: how, is told elsewhere
    if not runs and due < facts.known_since.get(f"plan {plan.plan}", due):
        return  # the plan is newer than its last due time
    yield Finding(
        rule="drill_missing",
        subject=f"{plan.database}/{plan.plan}",
        severity=Severity.WARNING,
        message=f"{plan.plan} (drill) of {plan.database} was due {moment(due)} and did not run",
        hint=f"pgstow run {plan.plan} --database {plan.database}; look whether the service, or cron, is alive",
        since=due,
    )


def rto_exceeded(facts: Facts) -> Judgement:
    """The newest drill of a whole backup took longer than the database's RTO."""
    for database in facts.databases:
        recovery = _recovery(facts, database)
        if database.rto_s is None:
            continue
        if not recovery.is_known:
            yield fingerprint("rto_exceeded", database.name)
        achieved_s = recovery.achieved_rto_s
        if recovery.achieved is None or achieved_s is None or achieved_s <= database.rto_s:
            continue
        yield Finding(
            rule="rto_exceeded",
            subject=database.name,
            severity=Severity.CRITICAL,
            message=f"restoring {database.name} took {lasting(achieved_s)} in the drill of "
            f"{moment(recovery.achieved.started)}: its RTO is {lasting(database.rto_s)}",
            hint=f"pgstow drills show {recovery.achieved.id[:8]} says which phase takes how long; more cores, faster disks or "
            "a larger RTO",
            since=recovery.achieved.finished,
            facts={"achieved_s": achieved_s, "rto_s": database.rto_s, "drill": recovery.achieved.id},
        )


def rto_at_risk(facts: Facts) -> Judgement:
    """By the drills so far, restoring the newest backup may take longer than the database's RTO."""
    for database in facts.databases:
        recovery = _recovery(facts, database)
        if database.rto_s is None:
            continue
        if not recovery.is_known:
            yield fingerprint("rto_at_risk", database.name)
        forecast = recovery.forecast
        if forecast is None or forecast.high_s <= database.rto_s:
            continue
        beyond = ", a size that no drill has seen" if forecast.is_extrapolated else ""
        yield Finding(
            rule="rto_at_risk",
            subject=database.name,
            severity=Severity.WARNING,
            message=f"restoring the newest backup of {database.name} is forecast to take {lasting(forecast.seconds)}, and at "
            f"the worst {lasting(forecast.high_s)}{beyond}: its RTO is {lasting(database.rto_s)}",
            hint=f"the forecast rests on {forecast.basis}; a drill of the newest backup shows how it is: pgstow drill --latest "
            f"--database {database.name}",
            facts={"forecast_s": forecast.seconds, "high_s": forecast.high_s, "rto_s": database.rto_s},
            inhibited_by=(fingerprint("rto_exceeded", database.name),),
        )


def table_rpo_exceeded(facts: Facts) -> Judgement:
    """The newest backup that holds a critical table is older than the database's RPO."""
    for database in facts.databases:
        if database.rpo_s is None:
            continue
        for table in tables_of(facts, database):
            if table.newest is None:
                yield fingerprint("table_rpo_exceeded", f"{database.name}/{table.table}")
            elif age_s(table.newest, facts.now) > database.rpo_s:
                yield _table_rpo(facts, database, table, database.rpo_s)


def _table_rpo(facts: Facts, database: DatabaseFacts, table: TableStanding, rpo_s: float) -> Finding:
    assert table.newest is not None
    row = f" (its newest row there is of {table.newest_row.text})" if table.newest_row else ""
    return Finding(
        rule="table_rpo_exceeded",
        subject=f"{database.name}/{table.table}",
        severity=Severity.CRITICAL,
        message=f"the changes of {lasting(age_s(table.newest, facts.now))} to {table.table} of {database.name} would be lost: "
        f"the newest backup that holds it is from {moment(table.newest.time)}{row}; the RPO is {lasting(rpo_s)}",
        hint=f"pgstow status --database {database.name} shows which backups hold it",
        since=table.newest.time + timedelta(seconds=rpo_s),
        facts={"backup": table.newest.id, "rpo_s": rpo_s},
        inhibited_by=(
            fingerprint("rpo_exceeded", database.name),
            fingerprint("unprotected", database.name),
        ),
    )
