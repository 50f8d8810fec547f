"""The use case: back up one database, or every database of a server, into one repository or several."""

from __future__ import annotations

import contextlib
import functools
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pgstow.app.auditing import note_access
from pgstow.app.backup_request import BackupRequest
from pgstow.app.backup_source import Source, damage_warnings, inspect, looking
from pgstow.app.holding import Hold, holding
from pgstow.capture.bases import choose_base
from pgstow.capture.destinations import Destination, Destinations, FanOutWriter, OpenDestination
from pgstow.capture.logical import Capture, capture
from pgstow.capture.options import CapturedBackup, CaptureOptions
from pgstow.capture.publish import Identity, publish
from pgstow.catalog.backups import BackupRecord, list_backups
from pgstow.catalog.manifest import Warning_
from pgstow.core.errors import (
    Interrupted,
    PgstowError,
    PostgresError,
    ProcessFailed,
    RepositoryDamaged,
)
from pgstow.core.progress import Progress
from pgstow.postgres import catalogs
from pgstow.postgres.pooler import refuse_transaction_pooler
from pgstow.postgres.session import translated
from pgstow.postgres.tools import ClientTools
from pgstow.repository import Repository

__all__ = [
    "BackupRequest",
    "Destination",
    "FailedBackup",
    "backup",
    "backup_all",
    "backup_all_to",
    "backup_to",
]

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.+-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedBackup:
    """A database of a set whose backup failed; the others went on."""

    database: str
    error: PgstowError


def backup(
    request: BackupRequest, repository: Repository, tools: Sequence[ClientTools], progress: Progress
) -> CapturedBackup:
    """Back up one database. When this returns, the backup is durable in the repository."""
    return backup_to(request, [Destination.of(repository)], tools, progress)


def backup_to(
    request: BackupRequest,
    destinations: Sequence[Destination],
    tools: Sequence[ClientTools],
    progress: Progress,
) -> CapturedBackup:
    """Back up one database, reading it once, into every destination.

    When this returns, the backup is durable in each that has no error; that is one at least. What is wrong with the
    database or the request fails all of it.
    """
    request.check()
    progress.phase("looking at the source")
    refuse_transaction_pooler(request.source)
    return _back_up_one(request, destinations, tools, progress, set_id=None)


def backup_all(
    request: BackupRequest, repository: Repository, tools: Sequence[ClientTools], progress: Progress
) -> list[CapturedBackup | FailedBackup]:
    """Back up every database of the server into one repository; see ``backup_all_to()``."""
    return backup_all_to(request, [Destination.of(repository)], tools, progress)


def backup_all_to(
    request: BackupRequest,
    destinations: Sequence[Destination],
    tools: Sequence[ClientTools],
    progress: Progress,
) -> list[CapturedBackup | FailedBackup]:
    """Back up every database of the server that allows connections, as one set; one failing does not stop the others.

    Each backup holds the globals as well. Names are the databases' own, behind ``NAME.`` when a name is given.
    A destination that cannot be opened is not tried again for the next database; one that failed later is.
    """
    request.check()
    request.check_for_all()
    progress.phase("looking at the server")
    refuse_transaction_pooler(request.source)
    with looking(request.source) as connection, translated("listing databases"):
        databases = catalogs.database_names(connection)
    set_id = str(uuid.uuid4())
    opened = [_opened_once(destination) for destination in destinations]
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
            taken = _back_up_one(one, opened, tools, progress, set_id=set_id)
            results.append(taken)
            if taken.interrupted is not None and database != databases[-1]:
                raise taken.interrupted
        except Interrupted as exc:  # the whole set ends
            if published := sum(isinstance(result, CapturedBackup) for result in results):
                exc.left_behind = f"{published} of {len(databases)} databases were backed up before"
            raise
        except PgstowError as exc:
            results.append(FailedBackup(database=database, error=exc))
    return results


def _opened_once(destination: Destination) -> Destination:
    """Return a destination that gives what it gave the first time, be it the repository or the error."""

    @functools.cache
    def tried() -> Repository | PgstowError:
        try:
            return destination.open()
        except Interrupted:
            raise
        except PgstowError as exc:
            return exc

    def again() -> Repository:
        found = tried()
        if isinstance(found, PgstowError):
            raise found
        return found

    return Destination(name=destination.name, open=again)


@contextlib.contextmanager
def _with_remedy() -> Iterator[None]:
    """Where the role may not read something, say what names all of it: PostgreSQL stops at the first."""
    try:
        yield
    except (PostgresError, ProcessFailed) as exc:  # of the server, or of pg_dump
        if exc.hint is None and "permission denied" in exc.message:
            exc.hint = "pgstow doctor names everything that this role may not read, and what to grant"
        raise


@_with_remedy()
def _back_up_one(
    request: BackupRequest,
    destinations: Sequence[Destination],
    tools: Sequence[ClientTools],
    progress: Progress,
    *,
    set_id: str | None,
) -> CapturedBackup:
    opened = Destinations(destinations, progress)
    with looking(request.source) as connection:
        source = inspect(connection, request, opened, tools)
    return _take(request, source, opened, progress, set_id=set_id)


def _take(
    request: BackupRequest,
    source: Source,
    destinations: Destinations,
    progress: Progress,
    *,
    set_id: str | None,
) -> CapturedBackup:
    job = _job(request, source, progress, set_id)
    identity = Identity(
        backup_id=request.backup_id or str(uuid.uuid4()), started=datetime.now(UTC), username=request.username
    )
    note_access(
        subjects=[identity.backup_id, source.name],
        source=str(source.conninfo),
        database_user=source.conninfo.params.get("user"),
    )
    taken: CapturedBackup | None = None
    try:
        with contextlib.ExitStack() as stack:
            holds = _hold(stack, source, destinations, request, identity.backup_id, progress)
            damage = destinations.each(lambda one: _prepare(destinations, one))
            told = [
                warning
                for one in destinations.alive
                for warning in (*source.known[one.name].warnings, *damage[one.name])
            ]
            job.base, job.distrusted = choose_base(
                destinations,
                _records(source, destinations, holds),
                name=source.name,
                system_identifier=source.system_identifier,
                database_oid=source.database_oid,
                selection=request.selection,
            )

            def settle() -> None:
                destinations.each(lambda one: _settle(one, holds[one.name]))
                job.warnings = [*told, *_clock_warnings(destinations, holds)]

            job.before_rows = settle
            writer = stack.enter_context(FanOutWriter(destinations))
            taken = publish(job, capture(job, writer), identity, writer, holds)
    except Interrupted as exc:
        if taken is None:
            raise
        return replace(taken, interrupted=exc)  # the backup had appeared: that changes nothing about it
    return taken


def _job(request: BackupRequest, source: Source, progress: Progress, set_id: str | None) -> Capture:
    return Capture(
        source=source.conninfo,
        tools=source.tools,
        progress=progress,
        options=CaptureOptions(
            name=source.name,
            kind=request.kind,
            label=request.label,
            set_id=set_id,
            selection=request.selection,
            must_contain=request.must_contain,
            time_columns=request.time_columns,
            assertions=request.assertions,
            jobs=request.jobs,
            limit_rate=request.limit_rate,
            split_big_tables=request.split_big_tables,
            role_passwords=request.role_passwords,
            max_blocking_s=request.max_blocking_s,
            full_read=request.full_read,
            full_read_every=request.full_read_every,
        ),
    )


def _hold(
    stack: contextlib.ExitStack,
    source: Source,
    destinations: Destinations,
    request: BackupRequest,
    run_id: str,
    progress: Progress,
) -> dict[str, Hold]:
    """Take lease and lock of every destination, until the stack ends; all of them may be waited for ``wait_s`` together.

    The order is that of the repositories' ids, whoever asks: two runs that wait for each other would wait for ever.
    """
    clock_s = destinations.first.repository.lock_times.clock_s
    deadline_s = clock_s() + request.wait_s

    def hold(one: OpenDestination) -> Hold:
        return stack.enter_context(
            holding(
                one.repository,
                source.leased,
                run_id=run_id,
                wait_s=max(0.0, deadline_s - clock_s()) if request.wait_s else 0.0,
                progress=progress,
                supersedes=request.supersedes,
            )
        )

    return destinations.each(hold, order=lambda one: one.repository.id)


def _prepare(destinations: Destinations, one: OpenDestination) -> tuple[Warning_, ...]:
    """Clean up after runs that were killed and read the index; return what the manifest says of damage.

    What the store has lost must not be taken for known: this backup could not be restored.
    """
    one.repository.store.remove_stale_temporaries()
    damaged: list[RepositoryDamaged] = []
    one.repository.load_index(damaged=damaged)
    if missing := one.repository.lose_missing_packs():
        packs = (
            "1 pack that the index lists is" if missing == 1 else f"{missing} packs that the index lists are"
        )
        damaged.append(RepositoryDamaged(f"{packs} missing or cut off"))
    return damage_warnings(destinations, one, damaged)


def _records(
    source: Source, destinations: Destinations, holds: Mapping[str, Hold]
) -> Mapping[str, Sequence[BackupRecord]]:
    """Return the backups of each destination; whoever we waited for may have made one."""
    if any(hold.has_waited for hold in holds.values()):
        return destinations.each(lambda one: list_backups(one.repository, damaged=[]))
    return {name: known.records for name, known in source.known.items()}


def _settle(one: OpenDestination, hold: Hold) -> None:
    """Make sure, before rows are read, that they may be written."""
    hold.check()
    one.repository.load_index(damaged=[])  # somebody may have pruned until now


def _clock_warnings(destinations: Destinations, holds: Mapping[str, Hold]) -> Iterator[Warning_]:
    for one in destinations.alive:
        for warning in holds[one.name].clock_warnings():
            yield Warning_(code=warning.code, message=destinations.said_of(one.name, warning.message))
