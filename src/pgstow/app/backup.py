"""The use case: back up one database, or every database of a server."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from pgstow.app.holding import holding
from pgstow.capture.logical import Capture, capture
from pgstow.capture.options import CapturedBackup, CaptureOptions
from pgstow.capture.publish import Identity, publish
from pgstow.capture.reuse import choose_base
from pgstow.catalog.backups import DAILY, BackupRecord, check_backup_name, list_backups
from pgstow.catalog.manifest import Selection, Warning_
from pgstow.core.errors import (
    CaptureError,
    Interrupted,
    PgstowError,
    PostgresError,
    RepositoryDamaged,
    UsageError,
)
from pgstow.core.progress import Progress
from pgstow.postgres import catalogs
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.pooler import refuse_transaction_pooler
from pgstow.postgres.session import CAPTURE_SETTINGS, Connection, connect, translated
from pgstow.postgres.tools import ClientTools, pick
from pgstow.repository import LeasedDatabase, Repository

__all__ = ["BackupRequest", "FailedBackup", "backup", "backup_all"]

OLDEST_SERVER = 140000
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.+-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRequest:
    """What to back up and how. ``name`` None: the database's own name."""

    source: ConnInfo
    name: str | None = None
    kind: str = DAILY
    label: str | None = None
    selection: Selection = field(default_factory=Selection)
    jobs: int = 2
    limit_rate: int | None = None
    split_big_tables: bool = False
    role_passwords: bool = False
    max_blocking_s: float = 30.0
    new_source: bool = False
    full_read: bool = False
    full_read_every: int = 7
    wait_s: float = 0.0  # for the database's lease and the repository's lock
    username: str = "pgstow"

    def check(self) -> None:
        """Raise UsageError for a request that cannot be carried out as it stands."""
        check_backup_name(self.kind)
        if self.name is not None:
            check_backup_name(self.name)
        if self.label is not None and (not self.label or re.search(r"[,\x00-\x1f\x7f]", self.label)):
            raise UsageError("a label cannot be empty or hold commas or control characters")
        if self.jobs < 1:
            raise UsageError("--jobs must be at least 1")
        if self.full_read_every < 1:
            raise UsageError("--full-read-every must be at least 1")
        if self.wait_s < 0:
            raise UsageError("--wait cannot be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedBackup:
    """A database of a set whose backup failed; the others went on."""

    database: str
    error: PgstowError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A source that has been looked at: it can be backed up under this name."""

    conninfo: ConnInfo
    tools: ClientTools
    name: str
    system_identifier: str | None
    database_oid: int
    known: _Known

    @property
    def leased(self) -> LeasedDatabase:
        """What no two runs may back up at once: the database itself where the server lets us see which it is."""
        known = f"database {self.system_identifier} {self.database_oid}"
        return LeasedDatabase(
            identity=known if self.system_identifier else f"name {self.name}", name=self.name
        )


def backup(
    request: BackupRequest, repository: Repository, tools: Sequence[ClientTools], progress: Progress
) -> CapturedBackup:
    """Back up one database. When this returns, the backup is durable in the repository."""
    request.check()
    progress.phase("looking at the source")
    refuse_transaction_pooler(request.source)
    with _looking(request.source) as connection:
        source = _inspect(connection, request, _known_backups(repository), tools)
    return _take(request, source, repository, progress, set_id=None)


def backup_all(
    request: BackupRequest, repository: Repository, tools: Sequence[ClientTools], progress: Progress
) -> list[CapturedBackup | FailedBackup]:
    """Back up every database of the server that allows connections, as one set; one failing does not stop the others.

    Each backup holds the globals as well. Names are the databases' own, behind ``NAME.`` when a name is given.
    """
    request.check()
    progress.phase("looking at the server")
    refuse_transaction_pooler(request.source)
    with _looking(request.source) as connection, translated("listing databases"):
        databases = catalogs.database_names(connection)
    set_id = str(uuid.uuid4())
    results: list[CapturedBackup | FailedBackup] = []
    for database in databases:
        name = _NOT_IN_NAMES.sub("_", database)
        one = replace(
            request,
            source=request.source.with_database(database),
            name=f"{request.name}.{name}" if request.name else name,
        )
        progress.note(f"database {database}")
        try:
            with _looking(one.source) as connection:
                source = _inspect(connection, one, _known_backups(repository), tools)
            results.append(_take(one, source, repository, progress, set_id=set_id))
        except Interrupted:  # the whole set ends
            raise
        except PgstowError as exc:
            results.append(FailedBackup(database=database, error=exc))
    return results


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """The backups there are, and what is said of snapshots that cannot be read: they must not stop a new one."""

    records: Sequence[BackupRecord]
    warnings: tuple[Warning_, ...]


def _known_backups(repository: Repository) -> _Known:
    damaged: list[RepositoryDamaged] = []
    records = list_backups(repository, damaged=damaged)
    return _Known(records=records, warnings=_damage_warnings(damaged))


def _damage_warnings(damaged: Sequence[RepositoryDamaged]) -> tuple[Warning_, ...]:
    """Return what the manifest says of damage that was met: what it hides is stored again, the backup is whole."""
    return tuple(
        Warning_(code="repository", message=f"{exc.message}; this backup does without (pgstow repo repair)")
        for exc in damaged
    )


@contextlib.contextmanager
def _looking(conninfo: ConnInfo) -> Iterator[Connection]:
    with contextlib.closing(connect(conninfo, settings=CAPTURE_SETTINGS)) as connection:
        yield connection


def _inspect(
    connection: Connection,
    request: BackupRequest,
    known: _Known,
    tools: Sequence[ClientTools],
) -> _Source:
    version = connection.info.server_version
    if version < OLDEST_SERVER:
        raise PostgresError(
            f"the server is PostgreSQL {version // 10000}; pgstow backs up 14 and newer",
            hint="upgrade the server",
        )
    with translated("looking at the server"):
        facts = catalogs.server_facts(connection)
        database = catalogs.text(facts.database)
        system = catalogs.system_identifier(connection)
    name = check_backup_name(request.name or database)
    if not request.new_source:
        _refuse_other_server(name, system, known.records)
    return _Source(
        conninfo=request.source.with_database(database),
        tools=pick(tools, version, needs_tls=connection.pgconn.ssl_in_use),
        name=name,
        system_identifier=system,
        database_oid=facts.database_oid,
        known=known,
    )


def _refuse_other_server(name: str, system: str | None, records: Sequence[BackupRecord]) -> None:
    """A name belongs to one server: staging must not become the newest backup of production."""
    known = [record for record in records if record.name == name and record.system_identifier]
    if known and system is not None and known[-1].system_identifier != system:
        raise CaptureError(
            f"{name} is the name of another server's backups (system identifier {known[-1].system_identifier},"
            f" this server is {system})",
            hint="give this source a --name of its own, or --new-source if the server was replaced",
        )


def _take(
    request: BackupRequest, source: _Source, repository: Repository, progress: Progress, *, set_id: str | None
) -> CapturedBackup:
    job = Capture(
        source=source.conninfo,
        tools=source.tools,
        progress=progress,
        options=CaptureOptions(
            name=source.name,
            kind=request.kind,
            label=request.label,
            set_id=set_id,
            selection=request.selection,
            jobs=request.jobs,
            limit_rate=request.limit_rate,
            split_big_tables=request.split_big_tables,
            role_passwords=request.role_passwords,
            max_blocking_s=request.max_blocking_s,
            full_read=request.full_read,
            full_read_every=request.full_read_every,
        ),
    )
    identity = Identity(backup_id=str(uuid.uuid4()), started=datetime.now(UTC), username=request.username)
    taken: CapturedBackup | None = None
    try:
        with holding(
            repository, source.leased, run_id=identity.backup_id, wait_s=request.wait_s, progress=progress
        ) as hold:
            repository.store.remove_stale_temporaries()  # of runs that were killed
            damaged: list[RepositoryDamaged] = []
            repository.load_index(damaged=damaged)
            told = [*source.known.warnings, *_damage_warnings(damaged)]
            job.base, job.distrusted = choose_base(
                repository,
                list_backups(repository, damaged=[]) if hold.has_waited else source.known.records,
                name=source.name,
                system_identifier=source.system_identifier,
                database_oid=source.database_oid,
            )

            def settle() -> None:
                hold.check()
                repository.load_index(damaged=[])  # somebody may have pruned until now
                job.warnings = [*told, *hold.clock_warnings()]

            job.before_rows = settle
            with repository.writer() as writer:
                taken = publish(
                    job, capture(job, writer), identity, repository, writer, hold.lock, hold.lease
                )
    except Interrupted:
        if taken is None:
            raise
    return taken  # an interruption after the backup had appeared changes nothing about it
