"""Reading from the state database and the settings what an evidence report is judged by."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import get_args

from pgstow.app.alert_facts import channel_target
from pgstow.app.evidence_trails import LetGo
from pgstow.app.observation import History
from pgstow.config.connections import connection_of
from pgstow.config.settings import DatabaseSettings, Job, PlanSettings, Settings
from pgstow.core.errors import Interrupted, PgstowError, StateError
from pgstow.evidence import facts as evidence
from pgstow.evidence.period import Period
from pgstow.jobs.schedule import due_times
from pgstow.postgres import catalogs
from pgstow.postgres.session import connect, translated
from pgstow.state.alerts import AlertBook
from pgstow.state.runs import DestinationResult, RunRecord, Runs

__all__ = [
    "PastRuns",
    "channel_facts",
    "gone_facts",
    "known_since",
    "past_runs",
    "plan_facts",
    "server_facts",
]

_BEFORE = timedelta(days=62)  # before a period: the run before its first may be that old
_MOST_RUNS = 20_000  # of each job
_MOST_DUES = 40_000  # of each plan: every quarter of an hour for a year


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRuns:
    """``runs`` None: the history could not be read, see ``error``. ``since``: so far back nothing is missing."""

    runs: tuple[evidence.RunFacts, ...] | None
    since: datetime | None = None
    error: str | None = None


def past_runs(history: History, begin: datetime, until: datetime) -> PastRuns:
    """Return the runs of a time and some weeks before it, oldest first."""
    if history.state is None:
        return PastRuns(runs=None, error=None if history.error is None else history.error.message)
    book = Runs(history.state)
    found: list[RunRecord] = []
    cut: list[datetime] = []
    try:
        for job in get_args(Job):
            runs = book.find(job=job, since=begin - _BEFORE, limit=_MOST_RUNS, with_tables=False)
            found += runs
            if len(runs) == _MOST_RUNS:  # older ones were left out
                cut.append(runs[-1].started)
    except StateError as exc:
        return PastRuns(runs=None, error=exc.message)
    since = max(cut, default=min((run.started for run in found), default=None))
    kept = sorted((run for run in found if run.started < until), key=lambda run: (run.started, run.id))
    return PastRuns(runs=tuple(map(_run_facts, kept)), since=since)


def _run_facts(run: RunRecord) -> evidence.RunFacts:
    return evidence.RunFacts(
        id=run.id,
        plan=run.plan,
        job=run.job,
        kind=run.kind,
        database=run.database,
        due=run.due,
        started=run.started,
        finished=run.finished,
        outcome=run.outcome,
        backup_id=run.backup_id,
        stored_in=tuple(each.repository for each in run.destinations if _is_stored(each)),
        failed_in=tuple(each.repository for each in run.destinations if not _is_stored(each)),
        error_code=run.error_code,
    )


def _is_stored(destination: DestinationResult) -> bool:
    return destination.error is None and destination.error_code is None


def gone_facts(
    settings: Settings,
    runs: Iterable[evidence.RunFacts],
    there: Mapping[str, Collection[str]],
    let_go: Mapping[str, LetGo],
    *,
    now: datetime,
) -> Iterator[evidence.GoneFacts]:
    """Yield the backups of the history that should be in a repository and are not.

    ``there`` are the ids in each repository whose list is complete, ``let_go`` what the audit trail of each knows to be
    removed by retention.
    """
    today = now.astimezone(settings.retention.zone).date()
    for run in runs:
        if run.job != "backup" or run.database not in settings.databases or run.backup_id is None:
            continue
        rule = settings.retention.rules.get(run.kind)
        made = run.started.astimezone(settings.retention.zone).date()
        until = None if rule is None else made + timedelta(days=rule.days)
        if until is not None and until < today:
            continue
        for repository in run.stored_in:
            ids, gone = there.get(repository), let_go.get(repository, LetGo())
            if ids is None or run.backup_id in ids or gone.explains(run.backup_id, run.started):
                continue
            yield evidence.GoneFacts(
                repository=repository,
                database=run.database,
                kind=run.kind,
                backup_id=run.backup_id,
                made=run.started,
                until=until,
            )


def known_since(settings: Settings, history: History, now: datetime) -> Mapping[str, datetime]:
    """Return since when plans, repositories and channels have been known: ``plan NAME``, ``repository NAME``, ``channel NAME``."""
    if history.state is None:
        return {}
    targets = [f"plan {name}" for name in settings.plans]
    targets += [f"repository {name}" for name in settings.repositories]
    targets += [channel_target(name) for name in settings.channels]
    try:
        return {
            target: reach.known_since
            for target, reach in AlertBook(history.state).reaches(targets, now=now).items()
        }
    except StateError:  # the runs tell that the state database is away
        return {}


def plan_facts(
    settings: Settings, known: Mapping[str, datetime], period: Period, until: datetime
) -> Iterator[evidence.PlanFacts]:
    """Yield what each plan promised in the period."""
    for plan in settings.plans.values():
        yield evidence.PlanFacts(
            name=plan.name,
            job=plan.job,
            kind=plan.kind,
            databases=plan.databases if plan.job in ("backup", "drill") else (),
            repositories=tuple(
                name
                for name in plan.repositories
                if (kinds := settings.repositories[name].kinds) is None
                or plan.job != "backup"
                or plan.kind in kinds
            ),
            cron=None if plan.schedule is None else str(plan.schedule),
            dues=_dues(plan, period.begin, until),
            late_s=settings.alerts.grace_s + (0.0 if plan.schedule is None else plan.schedule.jitter_s),
            known_since=known.get(f"plan {plan.name}"),
        )


def _dues(plan: PlanSettings, begin: datetime, until: datetime) -> tuple[datetime, ...] | None:
    """Return all due times; None without a schedule, or with one that is due all the time."""
    if plan.schedule is None:
        return None
    found: list[datetime] = []
    for due in due_times(plan.schedule, begin - timedelta(microseconds=1)):
        if due >= until:
            break
        if len(found) >= _MOST_DUES:
            return None
        found.append(due)
    return tuple(found)


def channel_facts(
    settings: Settings, history: History, known: Mapping[str, datetime], *, begin: datetime, until: datetime
) -> tuple[evidence.ChannelFacts, ...] | None:
    """Return when test messages of each channel were acknowledged, from the last before the period on."""
    if history.state is None:
        return None
    try:
        canaries = AlertBook(history.state).canaries()
    except StateError:
        return None
    found = []
    for name in settings.channels:
        mine = [each for each in canaries if each.channel == name]
        times = sorted(each.acknowledged for each in mine if each.acknowledged and each.acknowledged < until)
        before = [each for each in times if each < begin][-1:]
        found.append(
            evidence.ChannelFacts(
                name=name,
                known_since=known.get(channel_target(name), until),
                acknowledged=(*before, *(each for each in times if each >= begin)),
                last_sent=max((each.sent for each in mine if each.sent < until), default=None),
            )
        )
    return tuple(found)


def server_facts(
    databases: Iterable[DatabaseSettings], environ: Mapping[str, str]
) -> Iterator[evidence.ServerFacts]:
    """Yield which databases the servers have, asking each."""
    for database in databases:
        try:
            yield _ask(database, environ)
        except Interrupted:
            raise
        except PgstowError as exc:
            yield evidence.ServerFacts(database=database.name, error=exc.message)


def _ask(database: DatabaseSettings, environ: Mapping[str, str]) -> evidence.ServerFacts:
    with connect(connection_of(database, environ)) as session, translated("listing databases"):
        info = session.info
        system = catalogs.system_identifier(session)
        return evidence.ServerFacts(
            database=database.name,
            source=info.dbname,
            identity=system or f"{info.host}:{info.port}",
            found=tuple(catalogs.database_names(session)),
        )
