"""Several sessions reading at once under one snapshot."""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import psycopg
from psycopg import errors as pgerrors
from psycopg import sql

from pgstow.capture.cancellation import Cancellation
from pgstow.capture.leader import Leader
from pgstow.capture.options import CaptureOptions
from pgstow.capture.rate import RateLimit
from pgstow.capture.tables import CapturedPart, SessionReader, TablePart
from pgstow.core.progress import Progress
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.large_objects import read_large_objects
from pgstow.postgres.session import CAPTURE_SETTINGS, Connection, connect, postgres_error
from pgstow.repository import BlobId, BlobWriter

__all__ = ["CapturedLargeObject", "LargeObjectBatch", "ReadJobs", "read_everything"]

_TICK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeObjectBatch:
    oids: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedLargeObject:
    oid: int
    content: list[BlobId]
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadJobs:
    """Everything that is to be read under the leader's snapshot, in any order."""

    parts: Sequence[TablePart]
    large_objects: Sequence[LargeObjectBatch]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Results:
    parts: list[CapturedPart]
    large_objects: list[CapturedLargeObject]


def read_everything(
    leader: Leader,
    conninfo: ConnInfo,
    jobs: ReadJobs,
    writer: BlobWriter,
    options: CaptureOptions,
    *,
    progress: Progress,
    stop: Cancellation,
) -> tuple[list[CapturedPart], list[CapturedLargeObject]]:
    """Read all parts and large objects with ``options.jobs`` sessions; the largest go first.

    A table on which an exclusive lock is queued is left to the leader, who holds its lock: a worker would
    have to wait behind that lock, which waits for us. The first error ends all sessions and is raised.
    """
    queue: collections.deque[TablePart | LargeObjectBatch] = collections.deque(
        [*jobs.large_objects, *sorted(jobs.parts, key=lambda part: part.cost_bytes, reverse=True)]
    )
    results = _Results(parts=[], large_objects=[])
    deferred: list[TablePart] = []
    limit = RateLimit(options.limit_rate, wait=stop.wait)
    with ThreadPoolExecutor(max(2, os.cpu_count() or 2), "seal") as pool:

        def reader(connection: Connection) -> SessionReader:
            return SessionReader(
                connection,
                writer,
                pool,
                limit=limit,
                progress=progress,
                stop=stop,
                stall_timeout_s=options.stall_timeout_s,
            )

        def work() -> None:
            with _joined(conninfo, leader, stop) as connection:
                _work_off(reader(connection), queue, results, deferred)

        count = min(options.jobs, len(queue))
        if count:
            _in_threads([work] * count, stop)
        for part in deferred:
            progress.note(
                f"an exclusive lock is queued on {part.task}: the session that holds our lock reads it"
            )
            with _server_errors(part):
                results.parts.append(reader(leader.connection).read_part(part, lock=False))
    return results.parts, results.large_objects


def _work_off(
    reader: SessionReader,
    queue: collections.deque[TablePart | LargeObjectBatch],
    results: _Results,
    deferred: list[TablePart],
) -> None:
    while queue:
        try:
            job = queue.popleft()
        except IndexError:  # another worker took the last one
            return
        if isinstance(job, LargeObjectBatch):
            results.large_objects.extend(_read_batch(reader, job))
            continue
        try:
            with _server_errors(job):
                results.parts.append(reader.read_part(job, lock=True))
        except _Queued:
            deferred.append(job)


class _Queued(Exception):
    """An exclusive lock is queued on the table."""


@contextlib.contextmanager
def _server_errors(part: TablePart) -> Iterator[None]:
    try:
        yield
    except pgerrors.LockNotAvailable as exc:
        raise _Queued from exc
    except psycopg.Error as exc:
        raise postgres_error(f"reading {part.task}", exc) from exc


def _read_batch(reader: SessionReader, batch: LargeObjectBatch) -> Iterator[CapturedLargeObject]:
    try:
        for oid, pieces in read_large_objects(reader.connection, batch.oids):
            member = reader.member()
            for piece in pieces:
                reader.keep(member, piece, 0)
            yield CapturedLargeObject(oid=oid, content=member.complete(), size_bytes=member.size_bytes)
    except psycopg.Error as exc:
        raise postgres_error("reading large objects", exc) from exc


@contextlib.contextmanager
def _joined(conninfo: ConnInfo, leader: Leader, stop: Cancellation) -> Iterator[Connection]:
    """Yield a session that sees the leader's snapshot."""
    with (
        contextlib.closing(connect(conninfo, settings=CAPTURE_SETTINGS)) as connection,
        stop.covering(connection),
    ):
        try:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(leader.snapshot))
        except psycopg.Error as exc:
            raise postgres_error("joining the snapshot", exc) from exc
        yield connection


def _in_threads(work: Sequence[Callable[[], None]], stop: Cancellation) -> None:
    """Run all, and raise the first error once every thread has ended. Sets ``stop`` on the way out of an error."""
    with ThreadPoolExecutor(len(work), "read") as threads:
        futures = [threads.submit(task) for task in work]
        try:
            pending: set[Future[None]] = set(futures)
            while pending:
                done, pending = wait(pending, timeout=_TICK_S, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
        except BaseException:
            stop.set()
            raise
