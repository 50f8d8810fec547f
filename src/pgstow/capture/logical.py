"""A logical backup from beginning to end."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from psycopg import errors as pgerrors

from pgstow.capture.bases import Base
from pgstow.capture.cancellation import Cancellation
from pgstow.capture.conditions import Source
from pgstow.capture.configuration import capture_configuration
from pgstow.capture.contents import Contents, read_contents
from pgstow.capture.destinations import FanOutWriter
from pgstow.capture.globals import CapturedGlobals, capture_globals
from pgstow.capture.large_objects import KnownLargeObjects
from pgstow.capture.leader import Checkpoint, Leader, no_checkpoint, taking_lead
from pgstow.capture.options import CaptureOptions
from pgstow.capture.questions import Answer, Question, in_order, plan_questions
from pgstow.capture.required import RequiredTable, find_required, refuse_left_out
from pgstow.capture.reuse import Reuse, plan_reuse
from pgstow.capture.tables import CapturedPart, CapturedTable, TablePart, TableTask, assemble, split
from pgstow.capture.watchdog import watching_lock_queues
from pgstow.capture.workers import (
    CapturedLargeObject,
    LargeObjectBatch,
    ReadJobs,
    ReadResults,
    read_everything,
)
from pgstow.catalog.manifest import ConfigurationRecord, Manifest, ReuseRecord, Warning_
from pgstow.core.errors import CaptureError, GaveWay, SourceMoved
from pgstow.core.progress import Progress
from pgstow.postgres import catalogs
from pgstow.postgres.archive import large_object_ids
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.programs import no_timeouts
from pgstow.postgres.relations import owned_names
from pgstow.postgres.session import CAPTURE_SETTINGS, connect, translated
from pgstow.postgres.shapes import read_shapes
from pgstow.postgres.tools import ClientTools

__all__ = ["Capture", "SavedContents", "capture"]

_LARGE_OBJECT_BATCH = 256
_RETRY_PAUSE_S = 2.0
_FLUSH_WAITS_S = (
    0.0,
    0.2,
    0.4,
    1.0,
    2.0,
    4.0,
)  # wal_writer_delay is 0.2 s, and the writer may skip two turns


@dataclass(slots=True, kw_only=True)
class Capture:
    """What a backup works with; ``checkpoint`` and ``pause`` are replaced by tests."""

    source: ConnInfo
    tools: ClientTools
    options: CaptureOptions
    progress: Progress
    base: Base | None = None  # an earlier backup of this database, see choose_base()
    distrusted: tuple[str, ...] = ()  # ids of backups that are no base any more
    checkpoint: Checkpoint = no_checkpoint
    pause: Callable[[float], None] = time.sleep
    before_rows: Callable[[], object] = lambda: None  # raises if what is about to be read could not be kept
    timings_s: dict[str, float] = field(default_factory=dict)
    warnings: list[Warning_] = field(default_factory=list)  # of the application, for the manifest
    relabel: Callable[[Manifest], Manifest] = lambda manifest: manifest  # what is imported says so

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Tell the progress, and record how long the block took."""
        self.progress.phase(name)
        begun = time.monotonic()
        try:
            yield
        finally:
            self.timings_s[name] = round(time.monotonic() - begun, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedContents:
    """Everything that was read under one snapshot; its blobs are in the writer's hands."""

    leader: Leader
    contents: Contents
    tables: Sequence[CapturedTable]
    large_objects: dict[int, CapturedLargeObject]
    materialized_views_bytes: int
    known_objects: KnownLargeObjects | None
    globals: CapturedGlobals
    configuration: ConfigurationRecord
    extensions: Sequence[tuple[str, str, str]]
    system_identifier: str | None
    required: Sequence[RequiredTable]
    answers: Sequence[Answer]
    unasked: Sequence[Warning_]
    reuse: ReuseRecord
    attempts: int


def capture(job: Capture, writer: FanOutWriter) -> SavedContents:
    """Read one database under one snapshot, its rows going to ``writer``. Publishing comes after.

    A source that moves under the backup (DDL, a waiting session, a recovery conflict on a standby) is tried
    again, ``options.attempts`` times in all; what was saved before is then known and costs no space. Rows that
    differ from the base where no row version does are an alarm: everything is read then, and the manifest says so.
    """
    alarms: tuple[str, ...] = ()
    for attempt in range(1, job.options.attempts + 1):
        try:
            try:
                return _attempt(job, writer, attempt, alarms)
            except _BaseDiffers as exc:
                alarms = exc.alarms
                job.progress.note(f"{alarms[0]}; reading everything")
                return _attempt(job, writer, attempt, alarms)
        except (SourceMoved, GaveWay) as exc:
            if attempt == job.options.attempts:
                raise
            job.progress.note(f"{exc.message}; beginning anew")
            job.pause(_RETRY_PAUSE_S)
    raise CaptureError("no attempt was asked for", hint="attempts must be at least 1")


class _BaseDiffers(Exception):
    """A range that was read to be sure is not what the base holds."""

    def __init__(self, alarms: Sequence[str]) -> None:
        super().__init__(*alarms)
        self.alarms = tuple(alarms)


def _attempt(job: Capture, writer: FanOutWriter, attempt: int, alarms: tuple[str, ...]) -> SavedContents:
    cancellation = Cancellation()
    try:
        return _read(job, writer, cancellation, attempt, alarms)
    except KeyboardInterrupt:  # a person's will goes before the watchdog's
        raise
    except Exception as exc:
        if cancellation.reason is not None:
            raise cancellation.reason from exc
        if isinstance(exc.__cause__, (pgerrors.SerializationFailure, pgerrors.DeadlockDetected)):
            raise SourceMoved(
                f"the server cancelled the backup in favour of recovery: {exc}",
                hint="raise max_standby_streaming_delay or set hot_standby_feedback on the standby",
            ) from exc
        raise


def _read(
    job: Capture, writer: FanOutWriter, cancellation: Cancellation, attempt: int, alarms: tuple[str, ...]
) -> SavedContents:
    options = job.options
    job.progress.phase("locking tables")
    with (
        taking_lead(
            job.source,
            lock_timeout_s=options.lock_wait_s,
            checkpoint=job.checkpoint,
            chosen=options.selection.tables,
        ) as leader,
        cancellation.covering(leader.connection, leader.pid),
        watching_lock_queues(
            job.source, cancellation, max_blocking_s=options.max_blocking_s, progress=job.progress
        ),
    ):
        required = find_required(leader.connection, options.must_contain, leader.facts.encoding)
        contents = _read_contents(job, leader, cancellation)
        refuse_left_out(required, contents.toc)
        job.checkpoint("catalog read")
        job.before_rows()
        with translated("looking at the server"):
            found = catalogs.extensions(leader.connection)
            system = catalogs.system_identifier(leader.connection)
            view_pages = catalogs.materialized_view_pages(leader.connection, contents.toc.filled_views())
        reuse = plan_reuse(
            job.base,
            Source(system_identifier=system, extensions=found, leader=leader),
            full_read=options.full_read or bool(alarms),
            full_read_every=options.full_read_every,
            distrusted=job.distrusted,
        )
        questions, unasked = _questions(job, leader, contents)
        tables, read = _read_rows(job, leader, contents, writer, reuse, cancellation, questions)
        if reuse.alarms and not reuse.is_full_read:
            raise _BaseDiffers(reuse.alarms)
        job.checkpoint("tables read")
        _refuse_changed_types(job, leader)
        leader.let_go()
        job.checkpoint("locks released")
        captured_globals = _read_globals(job, leader, contents)
        configuration = capture_configuration(job.source, encoding=leader.facts.encoding)
        return SavedContents(
            leader=leader,
            contents=contents,
            tables=tables,
            large_objects={captured.oid: captured for captured in read.large_objects},
            materialized_views_bytes=view_pages * leader.facts.block_bytes,
            known_objects=read.known_objects,
            globals=captured_globals,
            configuration=configuration,
            extensions=found,
            system_identifier=system,
            required=required,
            answers=in_order(read.answers, questions),
            unasked=unasked,
            reuse=reuse.record(is_base=_is_durable(job, leader), alarms=alarms),
            attempts=attempt,
        )


def _read_contents(job: Capture, leader: Leader, cancellation: Cancellation) -> Contents:
    with job.phase("reading the catalog"):
        relations: Sequence[bytes] = ()
        if job.options.selection.tables:
            with translated("looking for sequences"):
                relations = owned_names(leader.connection, sorted(leader.locked))
        return read_contents(
            job.tools,
            job.source,
            snapshot=leader.snapshot,
            selection=job.options.selection,
            relations=relations,
            lock_timeout_s=job.options.lock_wait_s,
            settings=no_timeouts(leader.facts.version_num),
            covering=cancellation.ending,
        )


def _questions(job: Capture, leader: Leader, contents: Contents) -> tuple[list[Question], list[Warning_]]:
    return plan_questions(
        leader.connection,
        job.options.time_columns,
        job.options.assertions,
        captured={entry.oid for entry in contents.toc.table_data()},
        encoding=leader.facts.encoding,
    )


def _read_rows(
    job: Capture,
    leader: Leader,
    contents: Contents,
    writer: FanOutWriter,
    reuse: Reuse,
    cancellation: Cancellation,
    questions: Sequence[Question],
) -> tuple[list[CapturedTable], ReadResults]:
    tasks = _table_tasks(leader, contents, reuse)
    parts = [part for task in tasks for part in _parts(job.options, task)]
    with job.phase("reading tables"):
        job.progress.expect(
            rows=sum(task.facts.row_estimate for task in tasks),
            size_bytes=sum(task.cost_bytes for task in tasks),
        )
        read = read_everything(
            leader,
            job.source,
            ReadJobs(parts=parts, large_objects=_batches(contents), questions=questions),
            writer,
            job.options,
            reuse=reuse,
            progress=job.progress,
            stop=cancellation,
        )
        by_entry: defaultdict[int, list[CapturedPart]] = defaultdict(list)
        for part in read.parts:
            by_entry[part.part.task.entry.dump_id].append(part)
        tables = [assemble(by_entry[task.entry.dump_id], writer, leader.taken, reuse) for task in tasks]
    return tables, read


def _table_tasks(leader: Leader, contents: Contents, reuse: Reuse) -> list[TableTask]:
    """Return one task per TABLE DATA entry; a table that we do not hold a lock on must not be read."""
    entries = contents.toc.table_data()
    with translated("looking at the tables"):
        facts = catalogs.table_facts(leader.connection, [entry.oid for entry in entries])
    for entry in entries:
        if entry.oid not in facts or entry.oid not in leader.locked:
            raise CaptureError(
                f"{entry} is in pg_dump's archive but was not locked",
                hint="the role must be allowed to SELECT from it",
            )
    block = leader.facts.block_bytes
    ring_above = leader.facts.shared_buffers_bytes // 4
    return [
        TableTask(
            entry=entry,
            facts=facts[entry.oid],
            block_bytes=block,
            base_pages_per_range=reuse.pages_per_range(facts[entry.oid]),
            is_big=facts[entry.oid].heap_bytes > ring_above,
        )
        for entry in entries
    ]


def _parts(options: CaptureOptions, task: TableTask) -> list[TablePart]:
    """Return how a table is read. TID ranges bypass the server's ring buffer and evict the users' pages.

    So a table that is large against shared_buffers is read by one plain COPY, unless speed was asked for.
    """
    if task.is_big and options.split_big_tables:
        return split(task, options.jobs * 2)
    return [TablePart(task=task)]


def _batches(contents: Contents) -> list[LargeObjectBatch]:
    oids = [
        oid for entry in contents.toc.large_object_data() for oid in large_object_ids(contents.toc, entry)
    ]
    return [
        LargeObjectBatch(oids=oids[start : start + _LARGE_OBJECT_BATCH])
        for start in range(0, len(oids), _LARGE_OBJECT_BATCH)
    ]


def _read_globals(job: Capture, leader: Leader, contents: Contents) -> CapturedGlobals:
    with job.phase("reading globals"), translated("listing roles"):
        return capture_globals(
            job.tools,
            job.source,
            leader.connection,
            database=catalogs.text(leader.facts.database),
            with_passwords=job.options.role_passwords,
            owners={entry.owner for entry in contents.toc.entries if entry.owner},
        )


def _is_durable(job: Capture, leader: Leader) -> bool:
    """Return whether a crash of the server could not undo anything this backup saw, waiting a moment for that.

    Else asynchronous commits, and those that touched unlogged tables alone, may be lost, and their transaction
    ids used again, by a server that looks as if it had never stopped.
    """
    if leader.lsn is None or leader.facts.is_standby:
        return False
    for attempt, wait_s in enumerate(_FLUSH_WAITS_S):
        job.pause(wait_s)
        with translated("looking at the write-ahead log"):
            flushed = catalogs.flushed_lsn(leader.connection)
            if flushed is None or flushed >= leader.lsn:
                return flushed is not None
            if not attempt:
                with contextlib.closing(connect(job.source, settings=CAPTURE_SETTINGS)) as fresh:
                    catalogs.wake_wal_writer(fresh)
    return False


def _refuse_changed_types(job: Capture, leader: Leader) -> None:
    """Raise SourceMoved if a type of a saved column is not what it was under the snapshot.

    Seen from a fresh session: the rows were printed with the types of the present, not of the snapshot.
    """
    with (
        contextlib.closing(connect(job.source, settings=CAPTURE_SETTINGS)) as fresh,
        translated("looking at types"),
    ):
        present = read_shapes(fresh, sorted(leader.locked)).present
    if present != leader.shapes.present:
        raise SourceMoved(
            "a data type (an enum's label, a composite's attribute) or a schema's name changed during the backup",
            hint="the backup begins anew; run it outside of migrations if this repeats",
        )
