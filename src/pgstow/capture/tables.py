"""Reading tables: whole, or in parts that several sessions read at once."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

import psycopg
from psycopg import errors as pgerrors

from pgstow.capture.destinations import FanOutWriter
from pgstow.capture.members import MemberWriter, save_file
from pgstow.capture.ranges import (
    MAX_PIECE_BYTES,
    TARGET_RANGE_BYTES,
    PageRange,
    encode_ranges,
    pages_per_range,
    split_ranges,
)
from pgstow.capture.rate import RateLimit
from pgstow.capture.reuse import KnownRange, KnownTable, Reuse, same_ranges
from pgstow.core.errors import CaptureError, SourceMoved
from pgstow.core.progress import Progress
from pgstow.postgres.archive import TABLE_DATA_TRAILER, TocEntry, copy_columns
from pgstow.postgres.catalogs import TableFacts
from pgstow.postgres.copy_out import RowStream
from pgstow.postgres.fingerprints import (
    Fingerprint,
    Fingerprints,
    PageBounds,
    range_fingerprints,
    scan_settings,
)
from pgstow.postgres.session import Connection
from pgstow.repository import BlobIds, BlobKind, FileNode

__all__ = [
    "CapturedPart",
    "CapturedTable",
    "Reused",
    "SessionReader",
    "TablePart",
    "TableTask",
    "assemble",
    "split",
]

_LONG_ROW_BYTES = 1 << 16  # a longer one, at the end of a full piece, costs a copy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TableTask:
    """One TABLE DATA entry: where the rows come from (by OID) and how the archive calls them."""

    entry: TocEntry
    facts: TableFacts
    block_bytes: int
    base_pages_per_range: int | None = None  # what the base has is kept unless far from what would be chosen
    is_big: bool = False  # the server reads it through a ring of buffers, unless it is read by TID ranges

    @property
    def cost_bytes(self) -> int:
        """About how much there is to read."""
        return self.facts.heap_bytes + self.facts.toast_bytes

    @property
    def pages(self) -> int:
        return self.facts.heap_bytes // self.block_bytes

    @property
    def pages_per_range(self) -> int:
        wanted = pages_per_range(
            heap_bytes=self.facts.heap_bytes, toast_bytes=self.facts.toast_bytes, block_bytes=self.block_bytes
        )
        base = self.base_pages_per_range
        return base if base is not None and wanted <= 2 * base <= 4 * wanted else wanted

    @property
    def has_ranges(self) -> bool:
        """Is the table a heap of more than one range, all of whose rows are saved?"""
        return self.facts.is_heap and self.facts.condition is None and self.pages > self.pages_per_range

    def __str__(self) -> str:
        return self.facts.qualified.decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TablePart:
    """What one session reads at a stretch: the whole table (no bounds), or some of its pages."""

    task: TableTask
    number: int = 0
    bounds: PageBounds | None = None

    @property
    def cost_bytes(self) -> int:
        if self.bounds is None:
            return self.task.cost_bytes
        return self.task.cost_bytes * self.bounds.pages // max(self.task.pages, 1)

    @property
    def first_range(self) -> int:
        """The number, within the table, of the part's first page range."""
        return self.bounds.first // self.task.pages_per_range if self.bounds else 0

    def ranges(self, place: int, count: int, *, of: int) -> TablePart:
        """Return the part that is ``count`` page ranges from ``place`` on, of the ``of`` that this one has."""
        per_range = self.task.pages_per_range
        return TablePart(
            task=self.task,
            bounds=PageBounds(
                first=(self.first_range + place) * per_range,
                pages=count * per_range,
                is_last=place + count == of and (self.bounds is None or self.bounds.is_last),
            ),
        )


@dataclass(frozen=True, slots=True)
class Reused:
    """What was taken over from the base instead of being read."""

    ranges: int = 0
    rows: int = 0
    size_bytes: int = 0

    def __add__(self, other: Reused) -> Reused:
        return Reused(self.ranges + other.ranges, self.rows + other.rows, self.size_bytes + other.size_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedPart:
    part: TablePart
    content: BlobIds
    size_bytes: int
    rows: int
    ranges: bytes  # encoded
    reused: Reused
    new_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedTable:
    task: TableTask
    node: FileNode
    ranges_node: FileNode | None
    rows: int
    read_by: str
    reused: Reused
    new_bytes: int
    reuse_refused: str | None
    seconds: float


def split(task: TableTask, parts: int) -> list[TablePart]:
    """Return the table in at most ``parts`` parts of whole page ranges, the last one open-ended."""
    per_part = -(-task.pages // (task.pages_per_range * parts)) * task.pages_per_range
    starts = list(range(0, task.pages, per_part))
    if not task.has_ranges or len(starts) < 2:
        return [TablePart(task=task)]
    return [
        TablePart(
            task=task,
            number=number,
            bounds=PageBounds(
                first=first, pages=min(per_part, task.pages - first), is_last=number == len(starts) - 1
            ),
        )
        for number, first in enumerate(starts)
    ]


def assemble(
    parts: Sequence[CapturedPart], writer: FanOutWriter, modified: datetime, reuse: Reuse
) -> CapturedTable:
    """Return the member made of all parts of one table, with its trailer and page-range index saved."""
    parts = sorted(parts, key=lambda done: done.part.number)
    task = parts[0].part.task
    reused = sum((done.reused for done in parts), Reused())
    trailer = writer.save(BlobKind.DATA, TABLE_DATA_TRAILER)
    index = (
        encode_ranges(task.pages_per_range, b"".join(done.ranges for done in parts))
        if task.has_ranges
        else None
    )
    read_by = "copy" if parts[0].part.bounds is None else "tid-ranges"
    return CapturedTable(
        task=task,
        node=FileNode(
            name=f"{task.entry.dump_id}.dat",
            size_bytes=sum(done.size_bytes for done in parts) + len(TABLE_DATA_TRAILER),
            content=BlobIds(b"".join((*(done.content.packed for done in parts), trailer.id))),
            modified=modified,
        ),
        ranges_node=save_file(writer, str(task.entry.dump_id), index, modified) if index else None,
        rows=sum(done.rows for done in parts),
        read_by="copy-condition" if task.facts.condition is not None else read_by,
        reused=reused,
        new_bytes=sum(done.new_bytes for done in parts),
        reuse_refused=_why_all_was_read(task, reused, reuse),
        seconds=sum(done.seconds for done in parts),
    )


def _why_all_was_read(task: TableTask, reused: Reused, reuse: Reuse) -> str | None:
    """Return why nothing of a table was taken over; None where something was, or nothing could be."""
    if not task.has_ranges or reused.ranges:
        return None
    refused = reuse.refusal(task.facts)
    if refused is not None or reuse.is_full_read:
        return refused
    what = "more than half of its page ranges" if task.is_big else "every page range"
    gone = ", or is missing where the backup goes" if task.facts.oid in reuse.lost else ""
    return f"{what} changed{gone}"


class SessionReader:
    """Reads through one session that has joined the exported snapshot (or exported it)."""

    def __init__(
        self,
        connection: Connection,
        writer: FanOutWriter,
        pool: Executor,
        *,
        limit: RateLimit,
        progress: Progress,
        stop: threading.Event,
        stall_timeout_s: float,
        reuse: Reuse,
    ) -> None:
        self._reuse = reuse
        self.connection = connection
        self.writer = writer
        self._pool = pool
        self._buffer = bytearray(MAX_PIECE_BYTES + _LONG_ROW_BYTES)
        self._limit = limit
        self._progress = progress
        self._stop = stop
        self._stall_timeout_s = stall_timeout_s

    def fingerprints(self, part: TablePart, *, lock: bool) -> Fingerprints:
        """Return what the server says of each page range of one part. ``lock`` is as in ``read_part()``."""
        task = part.task
        one_by_one = not task.is_big or part.bounds is not None
        with self.connection.transaction():
            self.connection.execute(scan_settings(by_tid=one_by_one))
            if lock:
                self.connection.execute(lock_statement(task.facts))
            return range_fingerprints(
                self.connection,
                task.facts,
                pages=task.pages,
                per_range=task.pages_per_range,
                bounds=part.bounds,
                one_by_one=one_by_one,
                window=self._reuse.window,
            )

    def read_part(self, part: TablePart, prints: Fingerprints | None, *, lock: bool) -> CapturedPart:
        """Save one part of a table and return its record; a table that has ranges is cut where ``prints`` says.

        With ``lock`` the session takes ACCESS SHARE first, without waiting: psycopg's LockNotAvailable says
        that an exclusive lock is queued, and the transaction is as it was before.
        """
        begun = time.monotonic()
        member = self.member()
        reused = Reused()
        if prints is None:
            rows, ranges = self._read_whole(self._stream(part, lock=lock), member), b""
        else:
            known = self._reuse.known(part.task.facts, part.task.pages_per_range)
            same = same_ranges(known, prints, part.first_range) if known else bytes(len(prints))
            if known and self._is_worthwhile(part, same):
                rows, ranges, reused = self._read_changes(part, prints, same, known, member, lock=lock)
            else:
                rows, ranges = self._read_ranges(self._stream(part, lock=lock), part, prints, member)
                if known and self._reuse.is_full_read:
                    self._compare(part, same, known, member.complete(), ranges)
        return CapturedPart(
            part=part,
            content=member.complete(),
            size_bytes=member.size_bytes,
            rows=rows,
            ranges=ranges,
            reused=reused,
            new_bytes=member.new_bytes,
            seconds=time.monotonic() - begun,
        )

    def _is_worthwhile(self, part: TablePart, same: bytes) -> bool:
        """Are the changed ranges to be read by themselves? Of a big table TID ranges should stay the smaller part."""
        if self._reuse.is_full_read or not any(same):
            return False
        return not part.task.is_big or 2 * sum(same) >= len(same)

    def _read_changes(
        self,
        part: TablePart,
        prints: Fingerprints,
        same: bytes,
        known: KnownTable,
        member: MemberWriter,
        *,
        lock: bool,
    ) -> tuple[int, bytes, Reused]:
        """Take over the ranges that are the same, and read the others in runs; then read one of the same to be sure."""
        ranges, rows, reused = bytearray(), 0, Reused()
        there = known.ranges(part.first_range, len(prints))
        to_check: KnownRange | None = None
        places_alike = [place for place, is_same in enumerate(same) if is_same]
        checked = secrets.choice([place for place in places_alike if prints[place].rows] or places_alike)
        for is_same, places in groupby(range(len(prints)), key=same.__getitem__):
            run = list(places)
            if is_same:
                for place, one in zip(run, there, strict=False):
                    member.take_over(one.content, one.range.size_bytes)
                    self._progress.advance(rows=one.range.rows, size_bytes=one.range.size_bytes)
                    ranges += one.range.encode()
                    rows += one.range.rows
                    reused += Reused(1, one.range.rows, one.range.size_bytes)
                    if place == checked:
                        to_check = one
            else:
                for _ in zip(run, there, strict=False):
                    pass
                read, encoded = self._read_run(part, prints, run[0], len(run), member, lock=lock)
                lock = False  # it is held until the session ends
                ranges += encoded
                rows += read
        again = self.member()
        self._read_run(part, prints, checked, 1, again, lock=lock)
        is_equal = to_check is not None and again.complete() == to_check.content
        self._judge(part, checked, is_equal=is_equal)
        return rows, bytes(ranges), reused

    def _read_run(
        self,
        part: TablePart,
        prints: Fingerprints,
        place: int,
        count: int,
        member: MemberWriter,
        *,
        lock: bool,
    ) -> tuple[int, bytes]:
        piece = part.ranges(place, count, of=len(prints))
        stream = self._stream(piece, lock=lock)
        return self._read_ranges(stream, piece, prints, member, places=range(place, place + count))

    def _compare(
        self, part: TablePart, same: bytes, known: KnownTable, content: BlobIds, ranges: bytes
    ) -> None:
        """Compare what was read with what would have been taken over."""
        blobs = 0
        there = known.ranges(part.first_range, len(same))
        for place, one in enumerate(split_ranges(ranges)):
            base = next(there, None)
            if same[place] and base is not None:
                self._judge(part, place, is_equal=content[blobs : blobs + one.blobs] == base.content)
            blobs += one.blobs

    def _judge(self, part: TablePart, place: int, *, is_equal: bool) -> None:
        if is_equal:
            self._reuse.checked(1)
        else:
            first = (part.first_range + place) * part.task.pages_per_range
            self._reuse.alarm(
                f"{part.task}: rows on pages from {first} on differ although no version of them did"
            )

    def member(self) -> MemberWriter:
        """Return a new member that is sealed by this session's pool."""
        return MemberWriter(self.writer, self._pool)

    def take_over(self, content: BlobIds, size_bytes: int) -> None:
        """Count what the repository has and the server need not send."""
        self.writer.count_known(len(content), size_bytes)
        self._progress.advance(rows=0, size_bytes=size_bytes)

    def keep(self, member: MemberWriter, data: bytes, rows: int) -> None:
        """Add data to a member, tell the progress, and stay below the rate limit."""
        member.add(data)
        self._progress.advance(rows=rows, size_bytes=len(data))
        self._limit.spend(len(data))

    def _stream(self, part: TablePart, *, lock: bool) -> RowStream:
        """Begin to read. All statements are one message, one round trip: with thousands of tables that counts."""
        statements = [copy_statement(part)]
        if lock:
            statements = [
                b"SAVEPOINT pgstow",
                lock_statement(part.task.facts),
                b"RELEASE SAVEPOINT pgstow",
                *statements,
            ]
        if part.task.has_ranges or part.task.facts.condition is not None:
            statements.insert(0, scan_settings(by_tid=part.bounds is not None))
        try:
            return RowStream(
                self.connection,
                b"; ".join(statements),
                buffer=self._buffer,
                stop=self._stop,
                stall_timeout_s=self._stall_timeout_s,
            )
        except pgerrors.LockNotAvailable as exc:
            if not lock:
                raise
            try:
                self.connection.execute("ROLLBACK TO SAVEPOINT pgstow; RELEASE SAVEPOINT pgstow")
            except psycopg.Error:  # the table was locked, and an index is not to be had
                raise SourceMoved(
                    f"an index of {part.task} is locked exclusively",
                    hint="the backup begins anew; run it outside of REINDEX and migrations if this repeats",
                ) from exc
            raise

    def _read_whole(self, stream: RowStream, member: MemberWriter) -> int:
        rows = 0
        for piece in stream.pieces(None, TARGET_RANGE_BYTES):
            self.keep(member, piece.data, piece.rows)
            rows += piece.rows
        return rows

    def _read_ranges(
        self,
        stream: RowStream,
        part: TablePart,
        prints: Fingerprints,
        member: MemberWriter,
        *,
        places: range | None = None,
    ) -> tuple[int, bytes]:
        """Read heap pages in physical order and cut the rows where the server said that page ranges end."""
        ranges, rows, expected = bytearray(), 0, 0
        for place in places if places is not None else range(len(prints)):
            found = self._read_range(stream, prints[place], member)
            ranges += found.encode()
            rows += found.rows
            expected += prints[place].rows
        left = stream.finish()
        if left or rows != expected:
            raise CaptureError(
                f"{part.task} gave {rows + left} rows where its pages hold {expected}",
                hint="the server contradicts itself under one snapshot; check the table with amcheck",
            )
        return rows, bytes(ranges)

    def _read_range(self, stream: RowStream, wanted: Fingerprint, member: MemberWriter) -> PageRange:
        blobs, size, rows = member.blobs, member.size_bytes, 0
        for piece in stream.pieces(wanted.rows, MAX_PIECE_BYTES):
            self.keep(member, piece.data, piece.rows)
            rows += piece.rows
        return PageRange(
            rows=rows,
            sum=wanted.sum,
            xor=wanted.xor,
            size_bytes=member.size_bytes - size,
            blobs=member.blobs - blobs,
        )


def lock_statement(facts: TableFacts) -> bytes:
    """Return the statement that locks one table without waiting."""
    return b"LOCK TABLE ONLY " + facts.qualified + b" IN ACCESS SHARE MODE NOWAIT"


def copy_statement(part: TablePart) -> bytes:
    """Return the COPY that yields exactly the rows pg_dump would, in the heap's physical order.

    The source is the table itself, found by OID; the archive entry may name the partition root instead. The
    columns are the entry's.
    """
    facts, columns = part.task.facts, copy_columns(part.task.entry)
    if facts.condition is None and part.bounds is None:
        return b"COPY " + facts.qualified + b" " + columns + b" TO STDOUT"
    selected = columns.strip()[1:-1]
    if part.bounds is not None:
        source, condition = b"ONLY " + facts.qualified, b"WHERE " + part.bounds.condition()
    else:
        source, condition = facts.qualified, facts.condition or b""
    return b"COPY (SELECT " + selected + b" FROM " + source + b" " + condition + b") TO STDOUT"
