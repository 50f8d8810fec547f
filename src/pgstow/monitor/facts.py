"""What is known before anything is judged: plain data, so that rules, status and checklists are pure functions of it.

What could not be looked at is None and has its error beside it: unknown is not the same as nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pgstow.catalog.backups import IMPORT, BackupRecord
from pgstow.catalog.drills import DrillRecord
from pgstow.core.errors import PgstowError
from pgstow.monitor.newest_rows import RowMoment
from pgstow.monitor.policy import AlertPolicy
from pgstow.monitor.storage import StorageFacts
from pgstow.state.runs import RunRecord

__all__ = [
    "CRITICAL_KIND",
    "AlertFacts",
    "DatabaseFacts",
    "Facts",
    "PlanFacts",
    "RepositoryFacts",
    "TableSize",
    "holds",
]

CRITICAL_KIND = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSize:
    """How much of a table is in a backup. ``reused_rows`` of its rows were taken over from an earlier one, not read.

    ``newest_row`` is the newest value of its time column there; None where that was not recorded, or is no moment.
    """

    rows: int
    size_bytes: int
    reused_rows: int = 0
    newest_row: RowMoment | None = None


def holds(tables: Mapping[str, TableSize], wanted: str) -> bool:
    """Whether a backup with these tables holds ``schema.table``, or any table of ``schema.*``."""
    if wanted.endswith(".*"):
        return any(name.startswith(wanted[:-1]) for name in tables)
    return wanted in tables


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """A database that is to be protected. Tables are ``schema.table``; ``must_contain`` also knows ``schema.*``.

    ``is_partial``: its settings leave something out, so that its backups are partial ones by intent.
    """

    name: str
    rpo_s: float | None = None
    rto_s: float | None = None
    is_partial: bool = False
    critical: tuple[str, ...] = ()
    must_contain: tuple[str, ...] = ()

    def is_whole(self, record: BackupRecord) -> bool:
        """Whether a backup holds everything that the settings want of this database."""
        return (
            record.kind
            not in {CRITICAL_KIND, IMPORT}  # a dump from elsewhere is no sign that backups are made
            and not record.is_damaged
            and (self.is_partial or not record.is_partial)
        )

    def counts_for_rpo(self, record: BackupRecord) -> bool:
        """Whether a backup limits what would be lost: with critical tables the RPO is theirs, else the database's."""
        if self.critical and record.kind == CRITICAL_KIND:
            return not record.is_damaged
        return self.is_whole(record)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """What one plan promises for one database; ``database`` is None for jobs that concern repositories.

    ``repositories`` are those that take this kind. ``expected_since``: a run at or after this moment must be there by
    now, grace and jitter counted; None where nothing can be missing yet, or the plan has no schedule.
    """

    plan: str
    job: str
    kind: str
    database: str | None
    repositories: tuple[str, ...]
    cron: str | None = None
    expected_since: datetime | None = None
    next_due: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryFacts:
    """A repository as it was found. ``backups``, oldest first, is None where it could not be opened: see ``error``.

    ``drills`` are those of the last year, oldest first; None where they were not read, or could not be: see ``drills_error``,
    which is also set where some of them could not be.
    ``key_times``, when its passwords were set, and ``clock_skew_s``, how far this machine's clock is ahead of the store's,
    are None where nobody asked.
    """

    name: str
    location: str
    backups: tuple[BackupRecord, ...] | None
    unreadable: tuple[str, ...] = ()  # snapshots that cannot be read: backups may be missing from the list
    error: PgstowError | None = None
    storage: tuple[StorageFacts, ...] = ()
    storage_error: PgstowError | None = None
    drills: tuple[DrillRecord, ...] | None = None
    drills_error: PgstowError | None = None
    key_times: tuple[datetime, ...] | None = None
    clock_skew_s: float | None = None
    _by_source: Mapping[str, Mapping[str, Sequence[BackupRecord]]] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        # Every rule asks for every database and kind: without this, each would go through all backups for each.
        by_source: dict[str, dict[str, list[BackupRecord]]] = {}
        for record in self.backups or ():
            by_source.setdefault(record.name, {}).setdefault(record.kind, []).append(record)
        object.__setattr__(self, "_by_source", by_source)

    def backups_of(self, database: str, kind: str | None = None) -> Sequence[BackupRecord]:
        """Return the backups of a database, damaged ones as well; those of one kind are in the order of ``backups``."""
        kinds = self._by_source.get(database, {})
        if kind is not None:
            return kinds.get(kind, ())
        return [record for records in kinds.values() for record in records]

    @property
    def are_drills_known(self) -> bool:
        """Whether the list of drills is there, and whole."""
        return self.drills is not None and self.drills_error is None

    @property
    def is_known(self) -> bool:
        """Whether the list of backups is there, and whole."""
        return self.backups is not None and not self.unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertFacts:
    """An alert that is open. ``severity`` is ``warning`` or ``critical``; ``database`` None: it concerns something else."""

    fingerprint: str
    rule: str
    severity: str
    subject: str
    message: str
    since: datetime
    database: str | None = None
    is_acknowledged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that was gathered at ``now``.

    ``runs``, newest first, is None where the history could not be read: see ``runs_error``; so are ``alerts``, the open
    ones. ``runs_ahead`` say that they began in times to come, and are judged by nothing else. ``has_channels``: somebody wants to be told
    of alerts. ``contents`` are the tables of newest backups by backup id: what is not in it was not looked at. So are
    ``server_versions``, as PostgreSQL numbers them (150019). ``known_since`` says when what is not there yet was first
    expected: ``DATABASE/KIND@REPOSITORY`` of backups, ``plan NAME``, ``database NAME`` and ``repository NAME``.
    """

    now: datetime
    databases: tuple[DatabaseFacts, ...]
    repositories: Mapping[str, RepositoryFacts]
    plans: tuple[PlanFacts, ...]
    policy: AlertPolicy = field(default_factory=AlertPolicy)
    runs: tuple[RunRecord, ...] | None = None
    runs_ahead: tuple[RunRecord, ...] = ()
    runs_error: PgstowError | None = None
    alerts: tuple[AlertFacts, ...] | None = None
    has_channels: bool = False
    contents: Mapping[str, Mapping[str, TableSize]] = field(default_factory=dict)
    server_versions: Mapping[str, int] = field(default_factory=dict)
    known_since: Mapping[str, datetime] = field(default_factory=dict)

    def plans_of(self, database: str) -> Sequence[PlanFacts]:
        """Return the plans that make backups of a database."""
        return [plan for plan in self.plans if plan.database == database and plan.job == "backup"]

    def expected_since(
        self, plan: PlanFacts, repository: str, newest: BackupRecord | None
    ) -> datetime | None:
        """Return since when a repository must have a backup of a plan, ``newest`` being its newest; None: none is missing.

        Without any backup nothing shows that there should be one, but that it was waited for when it was due: a plan or
        a repository may be newer than that. Of a repository that cannot be read nothing is taken for new.
        """
        since = plan.expected_since
        place = self.repositories.get(repository)
        if since is None or newest is not None or place is None or place.backups is None:
            return since
        waited_since = self.known_since.get(f"{plan.database}/{plan.kind}@{repository}", since)
        return since if since >= waited_since else None
