"""Rules about backups: whether they were made, are where they should be, and hold what they must."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from pgstow.catalog.backups import DAILY, BackupRecord
from pgstow.monitor.facts import CRITICAL_KIND, DatabaseFacts, Facts, PlanFacts, RepositoryFacts, holds
from pgstow.monitor.findings import Finding, Severity, fingerprint
from pgstow.monitor.rules.common import Judgement, everything_of, lasting, moment, names, newest_in, some
from pgstow.state.runs import RunRecord

__all__ = [
    "backup_failed",
    "backup_missing",
    "critical_table_missing",
    "destination_failed",
    "newest_that_must_hold",
    "reuse_alarm",
    "rpo_exceeded",
    "unprotected",
]

_FAILED = ("failed", "abandoned", "interrupted")
_FROM_A_STORE = ("store", "object_")
REUSE_ALARM = "reuse alarm"  # how the warning of a run begins whose sample differed from the base


def backup_failed(facts: Facts) -> Judgement:
    """The newest run of a plan's kind for a database failed; nothing has succeeded since."""
    if facts.runs is None:
        yield everything_of("backup_failed")
    for database, kind, run in _newest_runs(facts):
        if run.outcome in _FAILED:
            reason = run.error or {"abandoned": "its host died", "interrupted": "it was interrupted"}.get(
                run.outcome, "it did not say why"
            )
            yield Finding(
                rule="backup_failed",
                subject=f"{database}/{kind}",
                severity=Severity.CRITICAL,
                message=f"the {kind} backup of {database} failed on {run.host}: {reason}",
                hint=f"pgstow doctor says whether a backup would work; then pgstow run {run.plan or 'PLAN'}",
                since=run.finished or run.started,
                facts={"run": run.id, "error_code": run.error_code, "host": run.host},
            )


def destination_failed(facts: Facts) -> Judgement:
    """The newest run published elsewhere, or nowhere, and this repository lacks its backup."""
    if facts.runs is None:
        yield everything_of("upload_failed")
        yield everything_of("destination_failed")
    for database, kind, run in _newest_runs(facts):
        for result in run.destinations:
            if result.error is None and result.error_code is None:
                continue
            is_store = (result.error_code or "").startswith(_FROM_A_STORE)
            yield Finding(
                rule="upload_failed" if is_store else "destination_failed",
                subject=f"{database}/{kind}@{result.repository}",
                severity=Severity.CRITICAL,
                message=f"the {kind} backup of {database} did not reach {result.repository}: "
                f"{result.error or result.error_code}",
                hint="pgstow repo check looks at the repository; a later run, or a copy, brings the backup there",
                since=run.finished or run.started,
                facts={"run": run.id, "error_code": result.error_code},
                inhibited_by=(fingerprint("repository_unreachable", result.repository),),
            )


def backup_missing(facts: Facts) -> Judgement:
    """A scheduled backup is not in a repository that should have it. Judged from the repository alone."""
    for plan in facts.plans:
        if plan.job != "backup" or plan.database is None or plan.expected_since is None:
            continue
        for name in plan.repositories:
            subject = f"{plan.database}/{plan.kind}@{name}"
            repository = facts.repositories.get(name)
            if repository is None or repository.backups is None:
                yield fingerprint("backup_missing", subject)
                continue
            newest = newest_in(repository, plan.database, plan.kind)
            since = facts.expected_since(plan, name, newest)
            if since is not None and (newest is None or newest.time < since):
                yield _missing(facts, plan, repository, newest, subject)


def _missing(
    facts: Facts, plan: PlanFacts, repository: RepositoryFacts, newest: BackupRecord | None, subject: str
) -> Finding:
    assert plan.expected_since is not None
    running = [
        run
        for run in facts.runs or ()
        if run.outcome == "running"
        and (run.database, run.kind) == (plan.database, plan.kind)
        and facts.now - run.started < timedelta(days=1)
    ]
    last = f"the newest is from {moment(newest.time)}" if newest else "there is none at all"
    unreadable = (
        f"; {len(repository.unreadable)} of its snapshots cannot be read, it may be among them"
        if repository.unreadable
        else ""
    )
    at_work = f"; a run that began {moment(running[0].started)} is still at work" if running else ""
    return Finding(
        rule="backup_missing",
        subject=subject,
        severity=Severity.WARNING if running else Severity.CRITICAL,
        message=f"the {plan.kind} backup of {plan.database} that was due {moment(plan.expected_since)} is not in "
        f"{repository.name}: {last}{unreadable}{at_work}",
        hint=f"pgstow run {plan.plan} --database {plan.database} makes it now; "
        "pgstow status shows what was tried",
        since=plan.expected_since,
        facts={"plan": plan.plan, "newest": newest.id if newest else None},
    )


def unprotected(facts: Facts) -> Judgement:
    """There is no backup of a database at all, in no repository."""
    known = [each for each in facts.repositories.values() if each.backups is not None]
    for database in facts.databases:
        if any(newest_in(each, database.name) for each in known):
            continue
        if len(known) < len(facts.repositories):
            yield fingerprint("unprotected", database.name)
            continue
        yield Finding(
            rule="unprotected",
            subject=database.name,
            severity=Severity.CRITICAL,
            message=f"there is no backup of {database.name} in any repository",
            hint=f"{_first_run(facts, database.name)} makes the first one now",
        )


def _first_run(facts: Facts, database: str) -> str:
    """Return the command that makes a first whole backup."""
    plans = [plan for plan in facts.plans_of(database) if plan.kind != CRITICAL_KIND]
    named = next((plan for plan in plans if plan.kind == DAILY), plans[0] if plans else None)
    return f"pgstow run {named.plan} --database {database}" if named else "pgstow backup"


def rpo_exceeded(facts: Facts) -> Judgement:
    """What would be lost now is more than a database's RPO allows.

    Which backups count is said by ``DatabaseFacts.counts_for_rpo()``.
    """
    for database in facts.databases:
        if database.rpo_s is None:
            continue
        known = [each for each in facts.repositories.values() if each.backups is not None]
        newest = max(
            (
                record.time
                for each in known
                for record in each.backups_of(database.name)
                if database.counts_for_rpo(record)
            ),
            default=None,
        )
        lost_s = None if newest is None else (facts.now - newest).total_seconds()
        if lost_s is not None and lost_s <= database.rpo_s:
            continue
        if not known:
            yield fingerprint("rpo_exceeded", database.name)
            continue
        yield _rpo(database, newest, lost_s, is_whole_truth=len(known) == len(facts.repositories))


def _rpo(
    database: DatabaseFacts, newest: datetime | None, lost_s: float | None, *, is_whole_truth: bool
) -> Finding:
    assert database.rpo_s is not None
    what = (
        f"the changes of {lasting(lost_s)} would be lost"
        if lost_s is not None
        else "there is no backup to restore from"
    )
    seen = "" if is_whole_truth else ", as far as the repositories can be read"
    return Finding(
        rule="rpo_exceeded",
        subject=database.name,
        severity=Severity.CRITICAL,
        message=f"{what} of {database.name}{seen}: its RPO is {lasting(database.rpo_s)}",
        hint="make a backup now, with pgstow run or pgstow backup, and look why the planned ones did not come",
        since=newest + timedelta(seconds=database.rpo_s) if newest else None,
        facts={"achieved_s": lost_s, "rpo_s": database.rpo_s},
        inhibited_by=(fingerprint("unprotected", database.name),),  # which says the same
    )


def critical_table_missing(facts: Facts) -> Judgement:
    """The newest backup of a kind lacks a table that it must hold; or what it holds cannot be told."""
    judged: set[str] = set()
    for record, wanted, lacking in newest_that_must_hold(facts):
        subject = f"{record.name}/{record.kind}"
        judged.add(subject)
        if lacking is None:
            yield fingerprint("critical_table_missing", subject)
            yield _tables_unknown(record, subject, len(wanted))
        elif lacking:
            yield _table_missing(record, subject, lacking)
    if not all(each.is_known for each in facts.repositories.values()):
        for subject in _planned(facts) - judged:
            yield fingerprint("critical_table_missing", subject)
            yield fingerprint("tables_unknown", subject)


def newest_that_must_hold(
    facts: Facts,
) -> Iterator[tuple[BackupRecord, tuple[str, ...], list[str] | None]]:
    """Yield the newest backup of each kind with what it must hold and what of that it lacks; None: cannot be told."""
    for database in facts.databases:
        for kind in sorted({plan.kind for plan in facts.plans_of(database.name)} or {DAILY}):
            wanted = (
                database.critical if kind == CRITICAL_KIND else (*database.critical, *database.must_contain)
            )
            record = _newest_anywhere(facts, database.name, kind)
            if wanted and record is not None:
                tables = facts.contents.get(record.id)
                lacking = None if tables is None else sorted({x for x in wanted if not holds(tables, x)})
                yield record, wanted, lacking


def _planned(facts: Facts) -> set[str]:
    return {f"{plan.database}/{plan.kind}" for plan in facts.plans if plan.job == "backup"}


def _tables_unknown(record: BackupRecord, subject: str, count: int) -> Finding:
    return Finding(
        rule="tables_unknown",
        subject=subject,
        severity=Severity.WARNING,
        message=f"whether the newest {record.kind} backup of {record.name}, {record.short_id}, holds its "
        f"{some(count, 'critical table')} cannot be told",
        hint=f"pgstow show {record.short_id} lists its tables",
        since=record.time,
        facts={"backup": record.id},
    )


def _table_missing(record: BackupRecord, subject: str, lacking: list[str]) -> Finding:
    return Finding(
        rule="critical_table_missing",
        subject=subject,
        severity=Severity.CRITICAL,
        message=f"the newest {record.kind} backup of {record.name}, {record.short_id} from {moment(record.time)}, "
        f"does not hold {names(lacking)}",
        hint="look whether the tables were dropped or renamed; older backups still hold them: "
        f"pgstow list --name {record.name}",
        since=record.time,
        extent=len(lacking),
        facts={"backup": record.id, "tables": lacking},
    )


def _newest_anywhere(facts: Facts, database: str, kind: str) -> BackupRecord | None:
    found = [
        record
        for each in facts.repositories.values()
        if (record := newest_in(each, database, kind)) is not None
    ]
    return max(found, key=lambda record: record.time, default=None)


def reuse_alarm(facts: Facts) -> Judgement:
    """A page range that looked unchanged was not: the newest run compared it and says so."""
    if facts.runs is None:
        yield everything_of("reuse_alarm")
    for database, kind, run in _newest_runs(facts):
        alarms = [text for text in run.warnings if text.startswith(REUSE_ALARM)]
        if alarms:
            yield Finding(
                rule="reuse_alarm",
                subject=f"{database}/{kind}",
                severity=Severity.CRITICAL,
                message=f"rows of {database} that were taken over from an earlier backup were not what the server "
                f"holds: {alarms[0]}",
                hint="this backup is complete; verify the earlier ones by a restore, and report this as a bug",
                since=run.started,
                extent=len(alarms),
                facts={"run": run.id, "backup": run.backup_id},
            )


def _newest_runs(facts: Facts) -> Iterator[tuple[str, str, RunRecord]]:
    """Yield each database and kind that was tried, with its newest run that has ended."""
    known = {database.name for database in facts.databases}
    newest: dict[tuple[str, str], RunRecord] = {}
    for run in facts.runs or ():
        if run.job != "backup" or run.database not in known or _gave_way(run):
            continue
        if run.outcome not in ("running", "missed"):
            newest.setdefault((run.database, run.kind), run)
    for (database, kind), run in sorted(newest.items()):
        yield database, kind, run


def _gave_way(run: RunRecord) -> bool:
    """Whether it left the field to others and is tried again: what it was to bring is missing only when it is late."""
    return run.outcome == "interrupted" and run.error_code in ("repository_locked", "under_way")
