"""Gathering the facts that status, alerts, metrics and checklists are made from.

The truth about backups is read from the repositories. What cannot be reached is told as unknown, and the rest goes on.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol, get_args

from pgstow.app.alert_source import StateAlerts
from pgstow.app.opening import local_folder
from pgstow.app.storage import observe_storage
from pgstow.catalog.backups import BackupFiles, BackupRecord, list_backups
from pgstow.catalog.drills import CheckRecord, DrillRecord, read_drills
from pgstow.config.connections import credentials_of
from pgstow.config.settings import (
    CriticalTable,
    DatabaseSettings,
    Job,
    PlanSettings,
    RepositorySettings,
    Settings,
)
from pgstow.core.errors import (
    ArchiveError,
    Interrupted,
    PgstowError,
    RepositoryDamaged,
    StateError,
    StoreError,
)
from pgstow.core.secrets import Secret
from pgstow.jobs.schedule import last_due, next_due
from pgstow.monitor.facts import AlertFacts, DatabaseFacts, Facts, PlanFacts, RepositoryFacts, TableSize
from pgstow.monitor.newest_rows import moment_of
from pgstow.monitor.usual import MOST_COMPARED
from pgstow.repository import Repository
from pgstow.state.alerts import AlertBook
from pgstow.state.database import StateDatabase, open_state
from pgstow.state.runs import RunRecord, Runs
from pgstow.state.samples import StorageSamples
from pgstow.store.clock import store_now
from pgstow.store.opening import open_retrying_store
from pgstow.store.retrying import RetryPolicy

__all__ = [
    "CLOCKS_APART",
    "PATIENCE",
    "AlertSource",
    "History",
    "Insides",
    "KnownDrills",
    "Place",
    "database_facts",
    "observe",
    "observe_place",
    "observed_runs",
    "opened_history",
    "place_of",
    "plan_facts",
]

# Who looks wants an answer now, and asks again: a store that is away is a finding, not something to sit out.
PATIENCE = RetryPolicy(give_up_after_s=15.0)

_HISTORY = timedelta(days=92)
_DRILLS = timedelta(days=366)
CLOCKS_APART = timedelta(hours=1)  # more than clocks that anybody looks after are
_MOST_RUNS = 5000
_PASSED = CheckRecord(code="passed", outcome="pass", message="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Insides:
    """What was read inside newest backups, by backup id."""

    tables: dict[str, Mapping[str, TableSize]] = field(default_factory=dict)
    server_versions: dict[str, int] = field(default_factory=dict)


class KnownDrills:
    """Drills that a process which looks again and again has read already, for several threads.

    A record is written once and never changed, so that it need not be fetched, opened and parsed every minute for a year.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, DrillRecord]] = {}

    def of(self, repository: Repository) -> Mapping[str, DrillRecord]:
        """Return those of one repository, by the names of their files."""
        with self._lock:
            return self._known.get(repository.store.location, {})

    def remember(self, repository: Repository, drills: Iterable[DrillRecord]) -> None:
        """Keep these instead, and forget the others."""
        with self._lock:
            self._known[repository.store.location] = {one.file_name: one for one in drills}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A repository to look at. ``unlock`` gives its password and the environment its store is opened with."""

    name: str
    location: str
    unlock: Callable[[], tuple[Secret, Mapping[str, str]]]
    quota_bytes: int | None = None


class AlertSource(Protocol):
    """What is known of alerts. Both raise StateError."""

    def open_alerts(self, now: datetime) -> tuple[AlertFacts, ...] | None:
        """Return the alerts that are open; None where nobody looked lately, so that none says nothing."""

    def last_acknowledged(self) -> datetime | None:
        """Return since when a test message of every channel has been acknowledged; None if one never was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The state database, or why there is none to ask. Without ``alerts`` nothing is known of alerts."""

    state: StateDatabase | None = None
    error: PgstowError | None = None
    alerts: AlertSource | None = None

    @property
    def samples(self) -> StorageSamples | None:
        return None if self.state is None else StorageSamples(self.state)


@contextlib.contextmanager
def opened_history(settings: Settings, environ: Mapping[str, str]) -> Iterator[History]:
    """Give the state database of the settings; one that cannot be opened is told, not raised."""
    try:
        url = None if settings.state is None else settings.state.resolve(environ)
        state = open_state(url, environ)
    except Interrupted:
        raise
    except PgstowError as exc:
        yield History(error=exc)
        return
    with contextlib.closing(state):
        yield History(state=state, alerts=StateAlerts(state, channels=tuple(settings.channels)))


def observe(
    settings: Settings,
    environ: Mapping[str, str],
    history: History,
    *,
    now: datetime,
    databases: Sequence[str] = (),
    with_contents: bool = False,
    with_storage: bool = True,
    with_drills: bool = True,
    with_upkeep: bool = False,
    drills: KnownDrills | None = None,
    note: Callable[[str], None] = lambda _message: None,
    conceal: Callable[[str], None] = lambda _secret: None,
) -> Facts:
    """Return what is known now; ``databases`` names those to look at, all without any.

    ``note`` hears of passing failures, ``conceal`` of every secret that is used.
    ``with_contents`` the tables of the newest backups are read as well, which needs the index of a repository;
    ``with_drills`` the records of the last year's drills; what is in ``drills`` is not read again;
    ``with_upkeep`` keys and clocks are looked at, for which a tiny object is written to each store and removed.
    """
    chosen = [each for name, each in settings.databases.items() if not databases or name in databases]
    names = {each.name for each in chosen}
    insides = Insides()
    repositories = {
        name: observe_place(
            place_of(repository, environ, conceal),
            history if with_storage else None,
            now=now,
            insides=insides if with_contents else None,
            with_drills=with_drills,
            with_upkeep=with_upkeep,
            drills=drills,
            of=names,
            note=note,
        )
        for name, repository in settings.repositories.items()
    }
    runs, runs_error = observed_runs(history, now)
    begun, ahead = _begun(runs, now)
    plans = tuple(plan_facts(settings, now, databases=names))
    return Facts(
        now=now,
        databases=tuple(database_facts(each) for each in chosen),
        repositories=repositories,
        plans=plans,
        policy=settings.alerts,
        runs=begun,
        runs_ahead=ahead,
        runs_error=runs_error,
        alerts=_open_alerts(history, now),
        has_channels=bool(settings.channels),
        contents=insides.tables,
        server_versions=insides.server_versions,
        known_since=_known_since(history, plans, repositories, sorted(names), now),
    )


def _known_since(
    history: History,
    plans: Sequence[PlanFacts],
    repositories: Iterable[str],
    databases: Iterable[str],
    now: datetime,
) -> Mapping[str, datetime]:
    """Return since when each thing has been expected, remembering what is new; without a memory nothing is new."""
    if history.state is None:
        return {}
    expected = [
        f"{plan.database}/{plan.kind}@{name}"
        for plan in plans
        if plan.job == "backup"
        for name in plan.repositories
    ]
    expected += [f"plan {plan.plan}" for plan in plans]
    expected += [f"repository {name}" for name in repositories]
    expected += [f"database {name}" for name in databases]
    try:
        known = AlertBook(history.state).reaches(dict.fromkeys(expected), now=now)
    except StateError:  # that the state database is away is told by the runs
        return {}
    return {target: each.known_since for target, each in known.items()}


def database_facts(database: DatabaseSettings) -> DatabaseFacts:
    """Return what of a database's settings matters for judging its backups."""
    return DatabaseFacts(
        name=database.name,
        rpo_s=database.rpo_s,
        rto_s=database.rto_s,
        critical=tuple(map(_table_name, database.critical)),
        must_contain=database.must_contain,
        is_partial=database.is_partial,
    )


def _table_name(table: CriticalTable) -> str:
    return f"{table.schema}.{table.name}"


def plan_facts(settings: Settings, now: datetime, *, databases: Iterable[str]) -> Iterator[PlanFacts]:
    """Yield what each plan promises, once for every database it backs up or drills, and once for other jobs."""
    wanted = set(databases)
    for plan in settings.plans.values():
        names: Sequence[str | None] = plan.databases if plan.is_for_databases else (None,)
        for name in names:
            if name is None or name in wanted:
                yield _plan_facts(plan, name, settings, now)


def _plan_facts(plan: PlanSettings, database: str | None, settings: Settings, now: datetime) -> PlanFacts:
    schedule = plan.schedule
    takes = [
        name
        for name in plan.repositories
        if (kinds := settings.repositories[name].kinds) is None or plan.kind in kinds or plan.job != "backup"
    ]
    facts = PlanFacts(
        plan=plan.name, job=plan.job, kind=plan.kind, database=database, repositories=tuple(takes)
    )
    if schedule is None:
        return facts
    settled = now - timedelta(seconds=schedule.jitter_s + settings.alerts.grace_s)
    return replace(
        facts,
        cron=schedule.cron,
        expected_since=last_due(schedule, settled),
        next_due=next_due(schedule, now),
    )


def observed_runs(history: History, now: datetime) -> tuple[tuple[RunRecord, ...] | None, PgstowError | None]:
    """Return the runs of the last three months, newest first; None with the error where they cannot be read.

    Of each job at most 5,000: the many backups of a fleet must not push out its one verification a month. What was in
    their tables is known of the newest ones of each kind, as many as are compared.
    """
    if history.state is None:
        return None, history.error
    try:
        book = Runs(history.state)
        found = [
            run
            for job in get_args(Job)
            for run in book.find(job=job, since=now - _HISTORY, limit=_MOST_RUNS, with_tables=False)
        ]
        tables = book.tables_of(_newest_published(found))
        runs = (replace(run, tables=tables.get(run.id, run.tables)) for run in found)
        return tuple(sorted(runs, key=lambda run: (run.started, run.id), reverse=True)), None
    except Interrupted:
        raise
    except PgstowError as exc:
        return None, exc


def _begun(
    runs: tuple[RunRecord, ...] | None, now: datetime
) -> tuple[tuple[RunRecord, ...] | None, tuple[RunRecord, ...]]:
    """Return the runs that have begun, and those that are yet to: these would be the newest until then, whatever others do."""
    if runs is None:
        return None, ()
    ahead = tuple(run for run in runs if run.started > now + CLOCKS_APART)
    return tuple(run for run in runs if run not in ahead) if ahead else runs, ahead


def _newest_published(runs: Iterable[RunRecord]) -> list[str]:
    """Return the ids of the newest runs of each database and kind that published, as many as are compared."""
    counts: Counter[tuple[str | None, str]] = Counter()
    ids = []
    for run in runs:  # newest first
        if run.job == "backup" and run.outcome in ("done", "partial"):
            counts[run.database, run.kind] += 1
            if counts[run.database, run.kind] <= MOST_COMPARED + 1:
                ids.append(run.id)
    return ids


def _open_alerts(history: History, now: datetime) -> tuple[AlertFacts, ...] | None:
    try:
        return None if history.alerts is None else history.alerts.open_alerts(now)
    except StateError:  # unknown; that the state database is away is told by the runs
        return None


def place_of(
    repository: RepositorySettings,
    environ: Mapping[str, str],
    conceal: Callable[[str], None] = lambda _secret: None,
) -> Place:
    """Return a repository of the settings as a place to look at; its secrets are had when it is opened."""
    return Place(
        name=repository.name,
        location=repository.location,
        unlock=partial(credentials_of, repository, environ, conceal),
        quota_bytes=repository.quota_bytes,
    )


def observe_place(
    place: Place,
    history: History | None,
    *,
    now: datetime,
    insides: Insides | None = None,
    with_drills: bool = True,
    with_upkeep: bool = False,
    drills: KnownDrills | None = None,
    of: Iterable[str] | None = None,
    note: Callable[[str], None] = lambda _message: None,
) -> RepositoryFacts:
    """Return what a repository holds; one that cannot be opened has an error and no list.

    ``history`` None: its storage is not looked at. ``insides`` receives what is inside the newest backups ``of`` these
    databases, those that are not in it yet. ``with_drills`` and ``with_upkeep`` are as for ``observe()``.
    """
    try:
        password, environ = place.unlock()
        store = open_retrying_store(place.location, environ, on_retry=note, is_cached=True, policy=PATIENCE)
        repository = Repository.open(store, password, without_config=True)
        damaged: list[RepositoryDamaged] = []
        records = list_backups(repository, damaged=damaged)
        if insides is not None:
            _read_insides(repository, _newest_of_each(records, of), insides, place.name, note)
    except Interrupted:
        raise
    except PgstowError as exc:
        return RepositoryFacts(name=place.name, location=place.location, backups=None, error=exc)
    facts = RepositoryFacts(
        name=place.name,
        location=store.location,
        backups=tuple(records),
        unreadable=tuple(exc.message for exc in damaged),
    )
    if with_drills:
        facts = _with_drills(facts, repository, now, drills)
    if with_upkeep:
        facts = _with_upkeep(facts, repository, now, note)
    return facts if history is None else _with_storage(facts, place, repository, environ, history, now)


def _with_drills(
    facts: RepositoryFacts, repository: Repository, now: datetime, known: KnownDrills | None
) -> RepositoryFacts:
    """Return the facts with the drills of the last year, as far as they can be read."""
    damaged: list[RepositoryDamaged] = []
    before = known.of(repository) if known is not None else None
    try:
        read = read_drills(repository, since=now - _DRILLS, damaged=damaged, known=before)
    except Interrupted:
        raise
    except PgstowError as exc:
        return replace(facts, drills_error=exc)
    drills = [_outlined(one) for one in read]
    if known is not None:
        known.remember(repository, drills)
    errors: list[PgstowError] = [*damaged]
    begun = [one for one in drills if one.started <= now + CLOCKS_APART]
    errors += (_not_yet(one) for one in drills if one not in begun)
    return replace(facts, drills=tuple(begun), drills_error=errors[0] if errors else None)


def _outlined(drill: DrillRecord) -> DrillRecord:
    """Return a drill without its tables; of the checks that passed nothing is left but how many they were.

    Thousands of each stand in the record of a large database, and nothing that is judged here asks for them.
    """
    checks = tuple(_PASSED if one.outcome == "pass" else one for one in drill.checks)
    return drill.model_copy(update={"tables": (), "checks": checks})


def _not_yet(drill: DrillRecord) -> PgstowError:
    """Return what is wrong with a drill that is still to come: it would be the newest for as long, whatever others find."""
    return PgstowError(
        f"drill {drill.id[:8]} says that it began {drill.started:%Y-%m-%d %H:%MZ}, which is yet to come: the clock of {drill.host} was wrong",
        hint=f"set the clock; remove pgstow/drills/{drill.file_name} from the store, and drill again",
    )


def _with_upkeep(
    facts: RepositoryFacts, repository: Repository, now: datetime, note: Callable[[str], None]
) -> RepositoryFacts:
    """Return the facts with the times of keys and the difference of the clocks, as far as they can be had."""
    try:
        times = [key.created for key in repository.key_files() if key.created is not None]
        facts = replace(facts, key_times=tuple(times))
        skew_s = (now - store_now(repository.store)).total_seconds()
    except StoreError as exc:
        note(f"repository {facts.name}: keys and clock are unknown: {exc.message}")
        return facts
    return replace(facts, clock_skew_s=skew_s)


def _with_storage(
    facts: RepositoryFacts,
    place: Place,
    repository: Repository,
    environ: Mapping[str, str],
    history: History,
    now: datetime,
) -> RepositoryFacts:
    try:
        storage = observe_storage(
            place.name,
            repository.store,
            local_folder(place.location, environ),
            quota_bytes=place.quota_bytes,
            now=now,
            samples=history.samples,
        )
    except Interrupted:
        raise
    except PgstowError as exc:
        return replace(facts, storage_error=exc)
    return replace(facts, storage=storage)


def _newest_of_each(records: Iterable[BackupRecord], names: Iterable[str] | None) -> list[BackupRecord]:
    """Return the newest sound backup of each kind of each source; partial ones count apart."""
    wanted = None if names is None else set(names)
    newest = {
        (record.name, record.kind, record.is_partial): record
        for record in records
        if not record.is_damaged and (wanted is None or record.name in wanted)
    }
    return list(newest.values())


def _read_insides(
    repository: Repository,
    records: Sequence[BackupRecord],
    insides: Insides,
    where: str,
    note: Callable[[str], None],
) -> None:
    missing = [record for record in records if record.id not in insides.tables]
    if missing:
        repository.load_index(damaged=[])  # what only a damaged file lists makes a backup unreadable below
    for record in missing:
        files = BackupFiles(repository, record)
        try:
            insides.tables[record.id] = _tables(files)
            insides.server_versions[record.id] = files.manifest.server.version_num
        except (RepositoryDamaged, StoreError) as exc:
            note(f"what backup {record} holds cannot be read in {where}: {exc.message}")


def _tables(files: BackupFiles) -> Mapping[str, TableSize]:
    """Return the tables in a backup, also those that hold no rows of their own, such as the roots of partitions."""
    tables: dict[str, TableSize] = {}
    with contextlib.suppress(ArchiveError):
        for entry in files.toc.entries:
            if entry.desc == b"TABLE":
                schema, name = (
                    (entry.namespace or b"").decode(errors="replace"),
                    entry.tag.decode(errors="replace"),
                )
                tables[f"{schema}.{name}"] = TableSize(rows=0, size_bytes=0)
    for record in files.manifest.tables:
        key = f"{record.schema_}.{record.name}"
        tables[key] = TableSize(
            rows=record.rows,
            size_bytes=record.size_bytes,
            reused_rows=record.reused_rows,
        )
    for (schema, name), newest in files.manifest.newest_rows().items():
        key = f"{schema}.{name}"
        if key in tables:
            tables[key] = replace(tables[key], newest_row=moment_of(newest))
    return tables
