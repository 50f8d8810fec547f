"""Several sessions reading at once under one snapshot."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import psycopg
from psycopg import errors as pgerrors
from psycopg import sql

from pgstow.capture.cancellation import Cancellation
from pgstow.capture.destinations import FanOutWriter
from pgstow.capture.large_objects import KnownLargeObjects, compare_large_objects
from pgstow.capture.leader import Leader
from pgstow.capture.options import CaptureOptions
from pgstow.capture.questions import Answer, LockQueued, Question, ask
from pgstow.capture.rate import RateLimit
from pgstow.capture.reuse import Reuse
from pgstow.capture.tables import CapturedPart, SessionReader, TablePart
from pgstow.core.errors import Interrupted, SourceMoved
from pgstow.core.progress import Progress
from pgstow.core.schedule import Job, Schedule
from pgstow.postgres.catalogs import backend_pid
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.fingerprints import Fingerprints
from pgstow.postgres.large_objects import read_large_objects
from pgstow.postgres.raw import RawSession
from pgstow.postgres.session import CAPTURE_SETTINGS, Connection, connect, postgres_error, translated
from pgstow.repository import BlobIds

__all__ = ["CapturedLargeObject", "LargeObjectBatch", "ReadJobs", "ReadResults", "read_everything"]

_TICK_S = 0.5
_LARGE_OBJECT_COST = 1 << 20  # bytes, for want of its size


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeObjectBatch:
    oids: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedLargeObject:
    oid: int
    content: BlobIds
    size_bytes: int
    is_reused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadJobs:
    """Everything that is to be read under the leader's snapshot, in any order."""

    parts: Sequence[TablePart]
    large_objects: Sequence[LargeObjectBatch]
    questions: Sequence[Question] = ()


@dataclass(frozen=True, slots=True)
class _Fingerprinting:
    """Asking the server what the page ranges of a part hold; reading the part comes after."""

    part: TablePart


@dataclass(frozen=True, slots=True)
class _ComparingLargeObjects:
    """Asking the server which large objects are what they were; reading the others comes after."""


_Reading = LargeObjectBatch | _ComparingLargeObjects | _Fingerprinting | TablePart
_Work = _Reading | Question

_FINGERPRINT_COST = 0.15  # of reading the same rows, as measured


class ReadResults:
    """What was read so far; all jobs add to it."""

    def __init__(self) -> None:
        self.parts: list[CapturedPart] = []
        self.large_objects: list[CapturedLargeObject] = []
        self.known_objects: KnownLargeObjects | None = None
        self.prints: dict[TablePart, Fingerprints] = {}
        self.deferred: list[TablePart] = []
        self.answers: list[Answer] = []
        self.unanswered: list[Question] = []  # an exclusive lock was in the way


def read_everything(
    leader: Leader,
    conninfo: ConnInfo,
    jobs: ReadJobs,
    writer: FanOutWriter,
    options: CaptureOptions,
    *,
    reuse: Reuse,
    progress: Progress,
    stop: Cancellation,
) -> ReadResults:
    """Read all parts and large objects with ``options.jobs`` sessions, so that they end at about the same time.

    A table on which an exclusive lock is queued is left to the leader, who holds its lock: a worker would
    have to wait behind that lock, which waits for us. The first error ends all sessions and is raised.
    """
    schedule = Schedule(list(_plan(jobs)))
    results = ReadResults()
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
                reuse=reuse,
            )

        def put(connection: Connection, question: Question, *, is_last_try: bool) -> None:
            try:
                found = ask(
                    RawSession(connection),
                    question,
                    encoding=leader.facts.encoding,
                    timeout_s=options.question_timeout_s,
                    stop=stop,
                    is_last_try=is_last_try,
                )
            except LockQueued:
                results.unanswered.append(question)
            else:
                results.answers.append(found)

        def work() -> None:
            with _joined(conninfo, leader, stop, lock_timeout_s=options.lock_wait_s) as connection:
                own = reader(connection)
                while (job := schedule.take(stop)) is not None:
                    if isinstance(job.work, Question):
                        put(connection, job.work, is_last_try=False)
                    else:
                        _do(own, job.work, results, reuse)
                    schedule.done(job)

        count = min(options.jobs, len(schedule))
        if count:
            _in_threads([work] * count, stop)
        if stop.is_set():  # between two jobs, where nobody else would notice
            raise Interrupted("reading was cancelled")
        for part in results.deferred:
            progress.note(
                f"an exclusive lock is queued on {part.task}: the session that holds our lock reads it"
            )
            _read(reader(leader.connection), part, results, lock=False)
        for question in results.unanswered:
            put(leader.connection, question, is_last_try=True)
    return results


def _plan(jobs: ReadJobs) -> Iterator[Job[_Work]]:
    keys = itertools.count()
    after: frozenset[int] = frozenset()
    for question in jobs.questions:  # begun first: how long they take is known to nobody
        yield Job(key=next(keys), work=question, cost=0, tier=-1)
    if jobs.large_objects:
        objects = sum(len(batch.oids) for batch in jobs.large_objects)
        cost = objects * _LARGE_OBJECT_COST * _FINGERPRINT_COST
        after = frozenset({key := next(keys)})
        yield Job(key=key, work=_ComparingLargeObjects(), cost=cost)
    for batch in jobs.large_objects:
        yield Job(key=next(keys), work=batch, cost=len(batch.oids) * _LARGE_OBJECT_COST, after=after)
    for part in jobs.parts:
        after = frozenset()
        if part.task.has_ranges:
            key = next(keys)
            yield Job(key=key, work=_Fingerprinting(part), cost=part.cost_bytes * _FINGERPRINT_COST)
            after = frozenset({key})
        yield Job(key=next(keys), work=part, cost=part.cost_bytes, after=after)


def _do(reader: SessionReader, work: _Reading, results: ReadResults, reuse: Reuse) -> None:
    if isinstance(work, _ComparingLargeObjects):
        with translated("comparing large objects"):
            results.known_objects = compare_large_objects(reader.connection, reuse)
        return
    if isinstance(work, LargeObjectBatch):
        assert results.known_objects is not None, "batches come after the comparison"
        results.large_objects.extend(_read_batch(reader, work, results.known_objects, reuse))
        return
    part = work.part if isinstance(work, _Fingerprinting) else work
    if part in results.deferred:
        return
    try:
        if isinstance(work, _Fingerprinting):
            with _server_errors(part):
                results.prints[part] = reader.fingerprints(part, lock=True)
        else:
            _read(reader, part, results, lock=True)
    except _Queued:
        results.deferred.append(part)


def _read(reader: SessionReader, part: TablePart, results: ReadResults, *, lock: bool) -> None:
    """Read a part. Raises _Queued for what the leader may read instead, SourceMoved if not even it can."""
    with _server_errors(part, is_last_try=not lock):
        prints = results.prints.pop(part, None)
        if prints is None and part.task.has_ranges:
            prints = reader.fingerprints(part, lock=lock)
        results.parts.append(reader.read_part(part, prints, lock=lock))


class _Queued(Exception):
    """An exclusive lock is queued on the table."""


@contextlib.contextmanager
def _server_errors(part: TablePart, *, is_last_try: bool = False) -> Iterator[None]:
    try:
        yield
    except pgerrors.LockNotAvailable as exc:
        if is_last_try:
            raise SourceMoved(
                f"{part.task} or one of its indexes is locked exclusively",
                hint="the backup begins anew; run it outside of REINDEX and migrations if this repeats",
            ) from exc
        raise _Queued from exc
    except psycopg.Error as exc:
        raise postgres_error(f"reading {part.task}", exc) from exc


def _read_batch(
    reader: SessionReader, batch: LargeObjectBatch, known: KnownLargeObjects, reuse: Reuse
) -> Iterator[CapturedLargeObject]:
    """Take over what is known, and read the rest; what is read although it is known must be the same."""
    to_read = []
    for oid in batch.oids:
        there = known.content(oid)
        if there is None or oid == known.checked or reuse.is_full_read:
            to_read.append(oid)
        else:
            content, size_bytes = there
            reader.take_over(content, size_bytes)
            yield CapturedLargeObject(oid=oid, content=content, size_bytes=size_bytes, is_reused=True)
    try:
        for oid, pieces in read_large_objects(reader.connection, to_read):
            member = reader.member()
            for piece in pieces:
                reader.keep(member, piece, 0)
            read = CapturedLargeObject(oid=oid, content=member.complete(), size_bytes=member.size_bytes)
            _judge(read, known, reuse)
            yield read
    except psycopg.Error as exc:
        raise postgres_error("reading large objects", exc) from exc


def _judge(read: CapturedLargeObject, known: KnownLargeObjects, reuse: Reuse) -> None:
    there = known.content(read.oid)
    if there is None:
        return
    if read.content == there[0]:
        reuse.checked(1)
    else:
        reuse.alarm(f"large object {read.oid} differs although no version of its rows does")


@contextlib.contextmanager
def _joined(
    conninfo: ConnInfo, leader: Leader, stop: Cancellation, *, lock_timeout_s: float
) -> Iterator[Connection]:
    """Yield a session that sees the leader's snapshot.

    Tables are locked without waiting; the timeout is for their indexes, which planning a query locks as well.
    """
    settings = {**CAPTURE_SETTINGS, "lock_timeout": f"{lock_timeout_s * 1000:.0f}"}
    with contextlib.closing(connect(conninfo, settings=settings)) as connection:
        with translated("joining the snapshot"):
            pid = backend_pid(connection)
        with stop.covering(connection, pid):
            yield _join(connection, leader)


def _join(connection: Connection, leader: Leader) -> Connection:
    with translated("joining the snapshot"):
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(leader.snapshot))
    return connection


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
                if stop.is_set():
                    stop.cancel()
        except BaseException:
            stop.set()
            while wait(futures, timeout=_TICK_S).not_done:
                stop.cancel()
            raise
