"""What pgstow.yaml says, checked and frozen.

Secrets are references: they are resolved when they are needed, and never part of a settings object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal

from pgstow.assurance.drill.selection import Strategy
from pgstow.catalog.assertions import Assertion
from pgstow.config.references import Reference
from pgstow.jobs.schedule import Schedule
from pgstow.monitor.policy import AlertPolicy
from pgstow.retention.policy import RetentionPolicy, RetentionRule

__all__ = [
    "AuditSettings",
    "ChannelSettings",
    "CriticalTable",
    "DatabaseSettings",
    "DrillSettings",
    "Job",
    "Limits",
    "MonitoringSettings",
    "PlanSettings",
    "RepositorySettings",
    "Settings",
    "Waiver",
]

# What a plan does; the kinds "retention", "verify" and "drill" name the job itself, every other kind is one of backups.
Job = Literal["backup", "retention", "verify", "drill"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalTable:
    """A table whose loss of an hour matters; the newest value of ``time_column`` says how fresh a backup of it is."""

    schema: str
    name: str
    time_column: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """One database to protect. ``must_contain`` holds ``schema.table``, or ``schema.*`` for a schema with any table."""

    name: str
    url: Reference
    password: Reference | None = None
    critical: tuple[CriticalTable, ...] = ()
    must_contain: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()
    exclude_schemas: tuple[str, ...] = ()
    exclude_tables: tuple[str, ...] = ()
    exclude_table_data: tuple[str, ...] = ()
    rpo_s: float | None = None
    rto_s: float | None = None
    jobs: int = 2
    limit_rate: int | None = None  # bytes per second
    max_blocking_s: float = 30.0
    role_passwords: bool = False
    full_read_every: int = 7
    assertions: tuple[Assertion, ...] = ()
    optional_extensions: tuple[str, ...] = ()

    @property
    def is_partial(self) -> bool:
        """Whether something is left out, so that its backups are partial ones by intent."""
        return bool(self.schemas or self.exclude_schemas or self.exclude_tables or self.exclude_table_data)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositorySettings:
    """One destination. ``environment`` is added to the process's own when its store is opened (credentials, endpoints)."""

    name: str
    location: str
    password: Reference
    environment: Mapping[str, Reference] = field(default_factory=dict)
    kinds: tuple[str, ...] | None = None  # None: every kind
    quota_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillSettings:
    """Of plans of kind ``drill``. ``server`` None: a throwaway server of the machine that runs it."""

    strategy: Strategy = "rotate"
    backup_kind: str | None = None  # choose among the backups of this kind alone
    server: Reference | None = None
    password: Reference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """A control that is known not to hold, and accepted until a day, with the reason."""

    control: str  # C1 to C22
    until: date
    reason: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """One plan. ``databases`` and ``repositories`` are names, complete and in order; without a schedule it runs on demand."""

    name: str
    kind: str
    databases: tuple[str, ...]
    repositories: tuple[str, ...]
    schedule: Schedule | None = None
    keep: RetentionRule | None = None  # for the backups of this plan's kind, instead of the rule of the kind
    label: str | None = None
    ping: Reference | None = None  # URL of a dead man's switch that speaks the healthchecks.io protocol
    drill: DrillSettings = field(default_factory=DrillSettings)  # of plans of kind drill

    @property
    def is_for_databases(self) -> bool:
        """Whether a run of it is about one database; else it is about repositories."""
        return self.job in ("backup", "drill")

    @property
    def job(self) -> Job:
        match self.kind:
            case "retention" | "verify" | "drill" as job:
                return job
            case _:
                return "backup"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSettings:
    """A way to tell somebody: an apprise URL, which holds secrets."""

    name: str
    url: Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much may run at the same time; one backup per database always."""

    per_server: int = 1
    per_repository: int = 4
    workers: int = 2  # of one ``pgstow serve``


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringSettings:
    """Where metrics are given: an address to listen on (HOST:PORT), a file for the node exporter, or both."""

    listen: str | None = None
    textfile: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """Fingerprints of the administrators whose word on the keys of hosts counts."""

    administrators: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole file. Mappings are by name, in the file's order."""

    path: Path
    databases: Mapping[str, DatabaseSettings]
    repositories: Mapping[str, RepositorySettings]
    plans: Mapping[str, PlanSettings]
    retention: RetentionPolicy = field(default_factory=RetentionPolicy)
    alerts: AlertPolicy = field(default_factory=AlertPolicy)
    channels: Mapping[str, ChannelSettings] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    monitoring: MonitoringSettings = field(default_factory=MonitoringSettings)
    waivers: tuple[Waiver, ...] = ()
    audit: AuditSettings = field(default_factory=AuditSettings)
    state: Reference | None = None  # postgresql://...; None: SQLite under the state folder
    time_zone: str = "UTC"

    def references(self) -> Iterator[Reference]:
        """Return every reference of the file, in its order; those that are plain text too."""
        if self.state is not None:
            yield self.state
        for database in self.databases.values():
            yield database.url
            if database.password is not None:
                yield database.password
        for repository in self.repositories.values():
            yield repository.password
            yield from repository.environment.values()
        for plan in self.plans.values():
            if plan.ping is not None:
                yield plan.ping
            if plan.drill.server is not None:
                yield plan.drill.server
            if plan.drill.password is not None:
                yield plan.drill.password
        for channel in self.channels.values():
            yield channel.url
