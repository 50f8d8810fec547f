"""A logical backup from beginning to end."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from psycopg import errors as pgerrors

from pgstow.capture.cancellation import Cancellation
from pgstow.capture.contents import Contents, read_contents
from pgstow.capture.globals import CapturedGlobals, capture_globals
from pgstow.capture.leader import Checkpoint, Leader, no_checkpoint, taking_lead
from pgstow.capture.options import CaptureOptions
from pgstow.capture.tables import CapturedPart, CapturedTable, TablePart, TableTask, assemble, split
from pgstow.capture.watchdog import watching_lock_queues
from pgstow.capture.workers import CapturedLargeObject, LargeObjectBatch, ReadJobs, read_everything
from pgstow.core.errors import CaptureError, GaveWay, SourceMoved
from pgstow.core.progress import Progress
from pgstow.postgres import catalogs
from pgstow.postgres.archive import large_object_ids
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.session import CAPTURE_SETTINGS, connect, translated
from pgstow.postgres.tools import ClientTools
from pgstow.repository import BlobWriter

__all__ = ["Capture", "SavedContents", "capture"]

_LARGE_OBJECT_BATCH = 256
_RETRY_PAUSE_S = 2.0


@dataclass(slots=True, kw_only=True)
class Capture:
    """What a backup works with; ``checkpoint`` and ``pause`` are replaced by tests."""

    source: ConnInfo
    tools: ClientTools
    options: CaptureOptions
    progress: Progress
    checkpoint: Checkpoint = no_checkpoint
    pause: Callable[[float], None] = time.sleep
    before_rows: Callable[[], object] = lambda: None  # raises if what is about to be read could not be kept
    timings_s: dict[str, float] = field(default_factory=dict)

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
    """Everything that was read under one snapshot; its blobs are in the repository writer's hands."""

    leader: Leader
    contents: Contents
    tables: Sequence[CapturedTable]
    large_objects: dict[int, CapturedLargeObject]
    globals: CapturedGlobals
    extensions: Sequence[tuple[str, str, str]]
    system_identifier: str | None
    attempts: int


def capture(job: Capture, writer: BlobWriter) -> SavedContents:
    """Read one database under one snapshot, its rows going to ``writer``. Publishing comes after.

    A source that moves under the backup (DDL, a waiting session, a recovery conflict on a standby) is tried
    again, ``options.attempts`` times in all; what was saved before is then known and costs no space.
    """
    for attempt in range(1, job.options.attempts + 1):
        try:
            return _attempt(job, writer, attempt)
        except (SourceMoved, GaveWay) as exc:
            if attempt == job.options.attempts:
                raise
            job.progress.note(f"{exc.message}; beginning anew")
            job.pause(_RETRY_PAUSE_S)
    raise CaptureError("no attempt was asked for", hint="attempts must be at least 1")


def _attempt(job: Capture, writer: BlobWriter, attempt: int) -> SavedContents:
    cancellation = Cancellation()
    try:
        return _read(job, writer, cancellation, attempt)
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


def _read(job: Capture, writer: BlobWriter, cancellation: Cancellation, attempt: int) -> SavedContents:
    options = job.options
    job.progress.phase("locking tables")
    with (
        taking_lead(job.source, lock_timeout_s=options.lock_wait_s, checkpoint=job.checkpoint) as leader,
        cancellation.covering(leader.connection, leader.pid),
        watching_lock_queues(
            job.source, cancellation, max_blocking_s=options.max_blocking_s, progress=job.progress
        ),
    ):
        contents = _read_contents(job, leader)
        job.checkpoint("catalog read")
        job.before_rows()
        tables, large_objects = _read_rows(job, leader, contents, writer, cancellation)
        job.checkpoint("tables read")
        with translated("looking at the server"):
            found = catalogs.extensions(leader.connection)
            system = catalogs.system_identifier(leader.connection)
        captured_globals = _read_globals(job, leader)
        _refuse_changed_types(job, leader)
        return SavedContents(
            leader=leader,
            contents=contents,
            tables=tables,
            large_objects=large_objects,
            globals=captured_globals,
            extensions=found,
            system_identifier=system,
            attempts=attempt,
        )


def _read_contents(job: Capture, leader: Leader) -> Contents:
    with job.phase("reading the catalog"):
        return read_contents(
            job.tools,
            job.source,
            snapshot=leader.snapshot,
            selection=job.options.selection,
            lock_timeout_s=job.options.lock_wait_s,
        )


def _read_rows(
    job: Capture, leader: Leader, contents: Contents, writer: BlobWriter, cancellation: Cancellation
) -> tuple[list[CapturedTable], dict[int, CapturedLargeObject]]:
    tasks = _table_tasks(leader, contents)
    parts = [part for task in tasks for part in _parts(job.options, leader, task)]
    with job.phase("reading tables"):
        job.progress.expect(
            rows=sum(task.facts.row_estimate for task in tasks),
            size_bytes=sum(task.cost_bytes for task in tasks),
        )
        done, large_objects = read_everything(
            leader,
            job.source,
            ReadJobs(parts=parts, large_objects=_batches(contents)),
            writer,
            job.options,
            progress=job.progress,
            stop=cancellation,
        )
        by_entry: defaultdict[int, list[CapturedPart]] = defaultdict(list)
        for part in done:
            by_entry[part.part.task.entry.dump_id].append(part)
        tables = [assemble(by_entry[task.entry.dump_id], writer, leader.taken) for task in tasks]
    return tables, {captured.oid: captured for captured in large_objects}


def _table_tasks(leader: Leader, contents: Contents) -> list[TableTask]:
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
    return [TableTask(entry=entry, facts=facts[entry.oid], block_bytes=block) for entry in entries]


def _parts(options: CaptureOptions, leader: Leader, task: TableTask) -> list[TablePart]:
    """Return how a table is read. TID ranges bypass the server's ring buffer and evict the users' pages.

    So a table that is large against shared_buffers is read by one plain COPY, unless speed was asked for.
    """
    is_big = task.facts.heap_bytes > leader.facts.shared_buffers_bytes // 4
    if is_big and options.split_big_tables:
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


def _read_globals(job: Capture, leader: Leader) -> CapturedGlobals:
    with job.phase("reading globals"), translated("listing roles"):
        return capture_globals(
            job.tools,
            job.source,
            leader.connection,
            database=catalogs.text(leader.facts.database),
            with_passwords=job.options.role_passwords,
        )


def _refuse_changed_types(job: Capture, leader: Leader) -> None:
    """Raise SourceMoved if a type of a saved column is not what it was under the snapshot.

    Seen from a fresh session: the rows were printed with the types of the present, not of the snapshot.
    """
    with (
        contextlib.closing(connect(job.source, settings=CAPTURE_SETTINGS)) as fresh,
        translated("looking at types"),
    ):
        present = catalogs.shapes(fresh, sorted(leader.locked)).present
    if present != leader.shapes.present:
        raise SourceMoved(
            "a data type (an enum's label, a composite's attribute) or a schema's name changed during the backup",
            hint="the backup begins anew; run it outside of migrations if this repeats",
        )
