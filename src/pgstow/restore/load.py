"""Rows: straight from the repository into COPY, several tables at a time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import psycopg
from psycopg import errors as pgerrors

from pgstow.catalog.manifest import Manifest
from pgstow.core.errors import ConnectionFailed, ContentMismatch, PgstowError, RepositoryDamaged, RestoreError
from pgstow.core.progress import Progress
from pgstow.core.schedule import Schedule
from pgstow.postgres import loading
from pgstow.postgres.archive import TABLE_DATA_TRAILER
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.copy_in import CopyIn, FalseAlarm
from pgstow.postgres.raw import RawSession, open_raw
from pgstow.postgres.session import NO_TIMEOUTS, postgres_error
from pgstow.restore.builds import Build, Validation, build, validate
from pgstow.restore.contents import Comparison
from pgstow.restore.job_plan import Analysis, Reading, Work, plan_jobs
from pgstow.restore.load_tasks import LoadTask
from pgstow.restore.naming import text
from pgstow.restore.report import RestoredTable
from pgstow.restore.request import ArchiveFiles
from pgstow.restore.sent_rows import ReadTarget
from pgstow.restore.timesheet import Timesheet
from pgstow.restore.workers import Workers

__all__ = ["Loader", "load_settings", "without_trailer"]

# Errors whose detail is "Failing row contains (...)".
_SHOW_THE_ROW = {pgerrors.CheckViolation.sqlstate, pgerrors.NotNullViolation.sqlstate}
_VERIFY = "run pgstow verify --read-data on the backup"
_BUILDS = {b"INDEX": "indexes", b"CONSTRAINT": "constraints", b"FK CONSTRAINT": "foreign keys"}
# What rows are read under. pg_restore's own settings, and those under which the backup wrote the rows.
_SETTINGS = {
    "search_path": "",
    "default_tablespace": "",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "lc_monetary": "C",
    "xmloption": "content",
    "row_security": "off",
    "check_function_bodies": "off",
    "client_min_messages": "error",  # nothing may be said in the middle of the rows (see CopyIn)
    **NO_TIMEOUTS,
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    "synchronous_commit": "off",  # one flush at the very end makes everything durable
}


def load_settings(manifest: Manifest) -> dict[str, str]:
    """Return the settings of a session that loads rows of this backup."""
    written_under = {name: manifest.settings[name] for name in ("lc_monetary",) if name in manifest.settings}
    return {**_SETTINGS, **written_under}


class Loader:
    """Fills tables, ``jobs`` at a time, each by a session of its own. The first error ends them all."""

    def __init__(
        self,
        files: ArchiveFiles,
        target: ConnInfo,
        *,
        jobs: int,
        maintenance_work_mem: int,
        stall_timeout_s: float,
        progress: Progress,
        encoding: str,
        comparison: Comparison | None = None,
        timesheet: Timesheet | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._target = target
        self._jobs = jobs
        self._stall_timeout_s = stall_timeout_s
        self._progress = progress
        self._encoding = encoding
        self._comparison = comparison
        self._timesheet = timesheet or Timesheet(clock)
        self._clock = clock
        standard = "on" if files.toc.has_standard_strings else "off"
        self._settings = {
            **load_settings(files.manifest),
            "standard_conforming_strings": standard,
            "maintenance_work_mem": f"{maintenance_work_mem // 1024}kB",
        }
        self.analyzed: set[bytes] = set()
        self._as_replica = False
        self._with_triggers = False

    def respect_triggers(self, *, as_replica: bool) -> None:
        """Load into tables that have triggers: as a replica, or with users' triggers off for each transaction."""
        self._as_replica = as_replica
        self._with_triggers = True

    def load(
        self,
        tasks: Sequence[LoadTask],
        done: list[RestoredTable],
        *,
        builds: Sequence[Build] = (),
        read_back: Sequence[ReadTarget] = (),
    ) -> None:
        """Load ``tasks``, appending each table to ``done`` once it is committed; make ``builds`` and ``read_back`` meanwhile.

        Tables that need nothing more are analyzed, too, and stand in ``analyzed`` then.

        Raises RestoreError naming table and line, ContentMismatch, RepositoryDamaged, ConnectionFailed.
        """
        schedule = Schedule(plan_jobs(self._files.toc, tasks, builds, read_back))
        with Workers[Work](self._jobs, self._open) as workers:

            def work(session: RawSession, job: Work) -> None:
                with self._timesheet.working(_kind(job)):
                    if isinstance(job, Build):
                        build(session, job, self._encoding)
                    elif isinstance(job, Validation):
                        validate(session, job, self._encoding)
                    elif isinstance(job, Analysis):
                        loading.analyze(session, job.qualified)
                        self.analyzed.add(job.qualified)
                    elif isinstance(job, Reading):
                        assert self._comparison is not None
                        self._comparison.read(session, job.parts, workers.stopped)
                    else:
                        done.extend(self._load(session, job, workers.stopped))

            workers.follow(schedule, work)

    def _open(self) -> RawSession:
        session = open_raw(self._target, encoding=self._files.toc.encoding, settings=self._settings)
        if self._as_replica:
            try:
                loading.begin_replica(session)
            except BaseException:
                session.close()
                raise
        return session

    def _load(
        self, session: RawSession, batch: Sequence[LoadTask], stopped: threading.Event
    ) -> list[RestoredTable]:
        """Load some tables in one transaction."""
        try:
            return self._transaction(session, batch, stopped, is_wary=True)
        except FalseAlarm:
            session.execute(b"ROLLBACK", doing="starting a table again")
            return self._transaction(session, batch, stopped, is_wary=False)

    def _transaction(
        self, session: RawSession, batch: Sequence[LoadTask], stopped: threading.Event, *, is_wary: bool
    ) -> list[RestoredTable]:
        session.execute(b"BEGIN", doing="beginning to load")
        loaded = [self._table(session, task, stopped, is_wary=is_wary) for task in batch]
        names = ", ".join(f"{table.schema}.{table.name}" for table in loaded)
        session.execute(b"COMMIT", doing=f"committing {names}")
        self._progress.advance(rows=sum(table.rows for table in loaded))
        return loaded

    def _table(
        self, session: RawSession, task: LoadTask, stopped: threading.Event, *, is_wary: bool
    ) -> RestoredTable:
        started = self._clock()
        schema, name = text(task.entry.namespace, self._encoding), text(task.entry.tag, self._encoding)
        try:
            rows, size_bytes = self._copy(session, task, stopped, is_wary=is_wary)
        except psycopg.Error as exc:
            raise _load_failed(f"{schema}.{name}", exc) from exc
        except PgstowError as exc:
            if isinstance(exc, RepositoryDamaged):
                exc.message = f"rows of {schema}.{name} are damaged: {exc.message}"
            exc.facts.setdefault("table", f"{schema}.{name}")
            raise
        return RestoredTable(
            schema=schema,
            name=name,
            rows=rows,
            size_bytes=size_bytes,
            seconds=round(self._clock() - started, 3),
            is_frozen=task.is_frozen,
            loaded_via=session.decode(task.table.qualified) if task.via_root else None,
        )

    def _copy(
        self, session: RawSession, task: LoadTask, stopped: threading.Event, *, is_wary: bool
    ) -> tuple[int, int]:
        """Load one table inside the transaction; return (rows, bytes of rows)."""
        silent = (
            loading.triggers(session, task.table, as_replica=self._as_replica) if self._with_triggers else []
        )
        # TRUNCATE in the transaction of the COPY is what allows FREEZE, and with wal_level minimal saves the WAL
        emptying = b"TRUNCATE ONLY " + task.table.qualified + b"; " if task.is_frozen else b""
        session.run(emptying + loading.silence_triggers(task.table, silent))
        copy = CopyIn(
            session.connection,
            task.statement,
            stop=stopped,
            stall_timeout_s=self._stall_timeout_s,
            is_wary=is_wary,
        )
        size_bytes = 0
        with (
            contextlib.closing(self._files.stream(task.record.member)) as pieces,  # type: ignore[type-var]
            self._comparison.sent.sending(task) if self._comparison else contextlib.nullcontext() as tell,
        ):
            for piece in without_trailer(pieces, where=task.record.member):
                copy.write(piece)
                if tell is not None:
                    tell(piece)
                size_bytes += len(piece)
                self._progress.advance(size_bytes=len(piece))
        rows = copy.finish()
        if rows != task.record.rows:
            raise ContentMismatch(
                f"{rows} rows of {session.decode(task.table.qualified)} were loaded, but the backup recorded {task.record.rows}",
                hint=_VERIFY,
                expected=task.record.rows,
                found=rows,
            )
        session.run(loading.restore_triggers(task.table, silent))
        return rows, size_bytes


def _kind(job: Work) -> str:
    """Return what a job is called in the report."""
    if isinstance(job, Build):
        return _BUILDS[job.entry.desc]
    if isinstance(job, Validation):
        return _BUILDS[b"FK CONSTRAINT"]
    return "statistics" if isinstance(job, Analysis) else "content" if isinstance(job, Reading) else "loading"


def _load_failed(name: str, exc: psycopg.Error) -> RestoreError | ConnectionFailed:
    """Return the error that names table and line. The row itself, which PostgreSQL may show, stays out of it."""
    where = f"loading {name}{_line_of(exc.diag.context)}"
    error = postgres_error(where, exc)
    if exc.sqlstate in _SHOW_THE_ROW:
        error.message = f"{where}: {exc.diag.message_primary}"
    kind = ConnectionFailed if isinstance(error, ConnectionFailed) else RestoreError
    return kind(
        error.message,
        hint=error.hint,
        table=name,
        sqlstate=exc.sqlstate,
        column=exc.diag.column_name,
        constraint=exc.diag.constraint_name,
    )


def _line_of(context: str | None) -> str:
    """Return ``, line 17, column total`` from ``COPY orders, line 17, column total: "12,3"``."""
    if not context:
        return ""
    place = context.partition("\n")[0]
    _, found, rest = place.rpartition(", line ")
    return f", line {rest.partition(':')[0]}" if found else ""


def without_trailer(pieces: Iterable[bytes], *, where: str) -> Iterator[bytes]:
    """Yield the rows of a member, without the end mark that pg_dump puts behind them.

    RepositoryDamaged unless the member ends with exactly that mark. Memory: about two pieces.
    """
    held: deque[bytes] = deque()
    size = 0
    end_of_row = b"\n"
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        while size - len(held[0]) >= len(TABLE_DATA_TRAILER):
            out = held.popleft()
            size -= len(out)
            if out:
                end_of_row = out[-1:]
                yield out
    last = b"".join(held)
    if not last.endswith(TABLE_DATA_TRAILER):
        raise RepositoryDamaged(f"{where} does not end as pg_dump ends a table's rows", hint=_VERIFY)
    rows = last.removesuffix(TABLE_DATA_TRAILER)
    if (rows or end_of_row)[-1:] != b"\n":
        raise RepositoryDamaged(f"{where} ends in the middle of a row", hint=_VERIFY)
    if rows:
        yield rows
