"""The use case: say, before anything is done, whether a backup would work and what it would miss."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from pgstow.app.doctor_checks import SESSION_CHECKS
from pgstow.app.findings import DoctorReport, Finding, Level, store_clock_finding
from pgstow.core.errors import (
    ConnectionFailed,
    Interrupted,
    NoRepository,
    PgstowError,
    PoolerRefused,
    StoreError,
    ToolMissing,
)
from pgstow.core.secrets import Secret
from pgstow.postgres import inspection
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.copy_rows import rows_are_taken_by
from pgstow.postgres.pooler import Route, refuse_transaction_pooler
from pgstow.postgres.session import Connection, postgres_error
from pgstow.postgres.tools import ClientTools, known_outdated, pick
from pgstow.repository import Repository
from pgstow.store.api import Store
from pgstow.store.clock import store_now

__all__ = ["RepositoryToCheck", "diagnose"]

_SKEW_WARNING_S = 60.0
_LEAST_ROOM_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryToCheck:
    """The repository a backup would go to.

    ``password`` None: it is looked at, not opened. ``folder`` None: its store is no local folder.
    """

    store: Store
    folder: Path | None
    password: Secret | None


def diagnose(
    source: ConnInfo,
    *,
    tools: Sequence[ClientTools],
    repository: RepositoryToCheck | None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> DoctorReport:
    """Return what was found; what could not be looked at is told as unknown.

    Nothing is changed anywhere. A tiny object is written to the repository and removed again, to see that it can be
    written to and what time it is there.
    """
    findings = [*_repository(repository, clock)]
    try:
        route = refuse_transaction_pooler(source)
    except PoolerRefused as exc:
        findings.append(Finding(code="pooler", level=Level.PROBLEM, text=exc.message, remedy=exc.hint))
    except Interrupted:
        raise
    except PgstowError as exc:
        findings.append(Finding(code="connection", level=Level.PROBLEM, text=exc.message, remedy=exc.hint))
        findings.extend(_tools_found(tools))
    else:
        findings.append(_route(route))
        with inspection.inspection_session(source) as session:
            findings.extend(_client_tools(session, tools))
            findings.append(_row_loop())
            findings.extend(_ask_everything(session))
            findings.extend(_sizes(session, repository))
            findings.append(_clock_skew(session, clock))
    return DoctorReport(source=str(source), findings=tuple(findings))


def _ask_everything(session: Connection) -> Iterator[Finding]:
    for code, check in SESSION_CHECKS:
        try:
            yield from check(session)
        except psycopg.Error as exc:
            error = postgres_error(f"{code} could not be checked", exc)
            if isinstance(error, ConnectionFailed):
                raise error from exc
            yield Finding(code=code, level=Level.UNKNOWN, text=error.message, remedy=error.hint)


def _route(route: Route) -> Finding:
    text = (
        "a session pooler stands before the server"
        if route is Route.SESSION_POOLER
        else "the server is reached directly"
    )
    return Finding(code="pooler", level=Level.OK, text=text)


def _tools_found(tools: Sequence[ClientTools]) -> Iterator[Finding]:
    if not tools:
        yield Finding(
            code="client_tools",
            level=Level.PROBLEM,
            text="pg_dump, pg_restore and pg_dumpall were not found on this machine",
            remedy="install the package postgresql-client of the server's release",
        )


def _client_tools(session: Connection, tools: Sequence[ClientTools]) -> Iterator[Finding]:
    try:
        chosen = pick(tools, session.info.server_version, needs_tls=bool(session.pgconn.ssl_in_use))
    except ToolMissing as exc:
        yield Finding(code="client_tools", level=Level.PROBLEM, text=exc.message, remedy=exc.hint)
        return
    found = tuple(f"{tool.version[0]}.{tool.version[1]} in {tool.bin_dir}" for tool in tools)
    what = f"pg_dump {chosen.version[0]}.{chosen.version[1]} in {chosen.bin_dir} would be used"
    outdated = known_outdated(chosen.version)
    yield Finding(
        code="client_tools",
        level=Level.WARNING if outdated else Level.OK,
        text=f"{what}, but {outdated}" if outdated else what,
        remedy="update the client package" if outdated else None,
        names=found,
    )


def _row_loop() -> Finding:
    if rows_are_taken_by() == "C":
        return Finding(code="row_loop", level=Level.OK, text="rows are taken from the connection in C")
    return Finding(
        code="row_loop",
        level=Level.WARNING,
        text="rows are taken from the connection in Python, which needs more processor time; nothing else differs",
        remedy="install pgstow again where a C compiler is present, or from a built wheel",
    )


def _repository(place: RepositoryToCheck | None, clock: Callable[[], datetime]) -> Iterator[Finding]:
    if place is None:
        yield Finding(
            code="repository",
            level=Level.UNKNOWN,
            text="no repository was given, so nothing is known of the place a backup would go to",
            remedy="give --repo LOCATION or set PGSTOW_REPOSITORY",
        )
        return
    try:
        if place.password is None:
            place.store.stat("config")
            yield Finding(
                code="repository",
                level=Level.UNKNOWN,
                text=f"there is a repository at {place.store.location}; without its password it was not opened",
            )
        else:
            Repository.open(place.store, place.password)
            yield Finding(
                code="repository", level=Level.OK, text=f"the repository at {place.store.location} opens"
            )
            yield _store_clock(place.store, clock)
    except NoRepository as exc:
        yield _no_repository(exc.message)
    except Interrupted:
        raise
    except PgstowError as exc:
        if exc.code == "object_not_found":
            yield _no_repository(f"there is no repository at {place.store.location}")
        else:
            yield Finding(code="repository", level=Level.PROBLEM, text=exc.message, remedy=exc.hint)


def _store_clock(store: Store, clock: Callable[[], datetime]) -> Finding:
    try:
        skew_s = (clock() - store_now(store)).total_seconds()
    except StoreError as exc:
        return Finding(
            code="store_clock",
            level=Level.PROBLEM,
            text=f"the repository cannot be written to: {exc.message}",
            remedy=exc.hint,
        )
    return store_clock_finding(
        skew_s,
        code="store_clock",
        near="the repository can be written to, and its clock is near this machine's",
    )


def _no_repository(text: str) -> Finding:
    return Finding(code="repository", level=Level.PROBLEM, text=text, remedy="pgstow init makes one")


def _sizes(session: Connection, repository: RepositoryToCheck | None) -> Iterator[Finding]:
    try:
        size_bytes = inspection.database_size_bytes(session)
    except psycopg.Error as exc:
        error = postgres_error("the database's size is unknown", exc)
        yield Finding(code="database_size", level=Level.UNKNOWN, text=error.message)
        return
    yield Finding(
        code="database_size", level=Level.OK, text=f"the database takes {_mib(size_bytes)} on the server"
    )
    if repository is None:
        return
    if repository.folder is None:
        yield Finding(
            code="free_space",
            level=Level.UNKNOWN,
            text=f"how much room is left at {repository.store.location} cannot be asked",
        )
        return
    yield _free_space(repository.folder, size_bytes)


def _free_space(folder: Path, size_bytes: int) -> Finding:
    existing = next(path for path in [folder, *folder.parents] if path.exists())
    free_bytes = shutil.disk_usage(existing).free
    # A first backup of ordinary rows takes a quarter to a third of the database on disk; a later one less.
    if free_bytes < _LEAST_ROOM_BYTES:
        level = Level.PROBLEM
    elif free_bytes < size_bytes // 2:
        level = Level.WARNING
    else:
        level = Level.OK
    return Finding(
        code="free_space",
        level=level,
        text=f"{_mib(free_bytes)} are free at {folder}",
        remedy=None
        if level is Level.OK
        else "a first backup takes about a third of the database's size: make room",
    )


def _clock_skew(session: Connection, clock: Callable[[], datetime]) -> Finding:
    before = clock()
    try:
        there = inspection.server_clock(session)
    except psycopg.Error as exc:
        return Finding(
            code="clock", level=Level.UNKNOWN, text=postgres_error("the server's clock", exc).message
        )
    after = clock()
    skew_s = (there - (before + (after - before) / 2)).total_seconds()
    is_off = abs(skew_s) > _SKEW_WARNING_S
    return Finding(
        code="clock",
        level=Level.WARNING if is_off else Level.OK,
        text=f"the server's clock is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's"
        if is_off
        else "the clocks of the server and this machine agree",
        remedy="set both by NTP: backups are told apart by time" if is_off else None,
    )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1024 * 1024):,.0f} MiB"
