"""After the load: every row that the tables hold against every row that was sent.

Rows are hashed on their way into COPY, and hashed again as COPY gives them back under the settings the backup was read
with. Both are read at the speed of COPY and nothing is kept but one number per table.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import psycopg

from pgstow.core.errors import ContentMismatch
from pgstow.core.progress import Progress
from pgstow.postgres import loading
from pgstow.postgres.archive import copy_columns, split_columns
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.copy_out import RowStream
from pgstow.postgres.loading import LoadTable
from pgstow.postgres.raw import RawSession, open_raw
from pgstow.postgres.row_digests import ContentDigest, DigestKey, RowDigester
from pgstow.postgres.session import CAPTURE_SETTINGS, postgres_error
from pgstow.restore.load_tasks import LoadTask
from pgstow.restore.request import ArchiveFiles
from pgstow.restore.workers import Workers

__all__ = ["ComparedTable", "SentRows", "compare_contents"]

_SHOWN = 10
_PIECE_BYTES = 1 << 20
_BUFFER_BYTES = 4 << 20
_PART_PAGES = 16384  # 128 MiB: large tables are read by several sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedTable:
    """One table of the target, or a partitioned one as a whole, and whether its rows are those that were sent."""

    name: str
    rows: int
    is_equal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What is read back as one: a table, its columns in the order in which they were sent, and the rows that count."""

    table: LoadTable
    columns: bytes
    condition: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Some pages of a target, or all of it."""

    target: _Target
    pages: tuple[int, int] | None = None


class SentRows:
    """The digests of what was sent, by member, and of what extensions had in their tables before."""

    def __init__(self, tasks: Sequence[LoadTask]) -> None:
        self._key = DigestKey()
        self._targets = _targets(tasks)
        self._columns = {
            task.entry.dump_id: one.columns for one, members in self._targets for task in members
        }
        self._sent: dict[int, ContentDigest] = {}
        self._before: dict[bytes, ContentDigest] = {}

    @contextlib.contextmanager
    def sending(self, task: LoadTask) -> Iterator[Callable[[bytes], None]]:
        """Give the function that is to be told the rows of one member; what it was told counts if the block ends well.

        A member that is sent again replaces what was rolled back.
        """
        digester = self._key.digester()
        columns, wanted = _columns(task), self._columns[task.entry.dump_id]
        yield digester.add if columns == wanted else _Reordering(digester, columns, wanted).add
        self._sent[task.entry.dump_id] = digester.digest()

    def had_before(self, session: RawSession, *, stall_timeout_s: float) -> None:
        """Take down what stands in tables of extensions before anything is loaded."""
        for target, _ in self._targets:
            if target.table.is_extension_owned:
                part, never = _Part(target=target), threading.Event()
                self._before[target.table.qualified] = self.read(session, part, never, stall_timeout_s)

    def targets(self) -> list[_Target]:
        """Return what is to be read back."""
        return [target for target, _ in self._targets]

    def expected(self) -> dict[bytes, ContentDigest]:
        """Return what each target must hold, by its quoted name."""
        return {
            target.table.qualified: sum(
                (self._sent[task.entry.dump_id] for task in members),
                self._before.get(target.table.qualified, ContentDigest()),
            )
            for target, members in self._targets
        }

    def read(
        self, session: RawSession, part: _Part, stop: threading.Event, stall_timeout_s: float
    ) -> ContentDigest:
        """Read back; the session must have the settings the backup was read with."""
        digester = self._key.digester()
        _read(session, part, digester, stop, stall_timeout_s)
        return digester.digest()


def compare_contents(
    files: ArchiveFiles,
    target: ConnInfo,
    sent: SentRows,
    *,
    jobs: int,
    stall_timeout_s: float,
    progress: Progress,
) -> list[ComparedTable]:
    """Read every table and compare it with what was sent; ContentMismatch naming all that differ."""
    found: dict[bytes, ContentDigest] = {}
    guard = threading.Lock()
    with contextlib.closing(reading_session(files, target)) as session:
        parts = list(_parts(session, sent.targets()))
        names = {one.table.qualified: session.decode(one.table.qualified) for one in sent.targets()}

    def work(session: RawSession, part: _Part) -> None:
        digest = sent.read(session, part, workers.stopped, stall_timeout_s)
        name = part.target.table.qualified
        with guard:
            found[name] = found.get(name, ContentDigest()) + digest
        progress.advance(rows=digest.rows)

    with Workers[_Part](jobs, partial(reading_session, files, target)) as workers:
        workers.each(parts, work)
    return _judge(names, sent.expected(), found)


def reading_session(files: ArchiveFiles, target: ConnInfo) -> RawSession:
    """Return a session that reads rows as they were read for the backup."""
    settings = {name: files.manifest.settings.get(name, value) for name, value in CAPTURE_SETTINGS.items()}
    return open_raw(target, encoding=files.toc.encoding, settings=settings)


def _targets(tasks: Sequence[LoadTask]) -> list[tuple[_Target, list[LoadTask]]]:
    """Return what is read back, with the members that go into it."""
    members: dict[bytes, list[LoadTask]] = {}
    for task in tasks:
        members.setdefault(task.table.qualified, []).append(task)
    return [
        (_Target(table=own[0].table, columns=_columns(own[0]), condition=own[0].record.condition), own)
        for own in members.values()
    ]


def _columns(task: LoadTask) -> bytes:
    return copy_columns(task.entry)[1:-1]


class _Reordering:
    """Tells rows with their values in another order: that of ``wanted``.

    Partitions whose rows go in through their root may have the columns in another order each.
    """

    def __init__(self, digester: RowDigester, columns: bytes, wanted: bytes) -> None:
        there = split_columns(columns)
        self._digester = digester
        self._order = [there.index(name) for name in split_columns(wanted)]
        self._begun = b""  # of a row whose end has not come yet

    def add(self, piece: bytes) -> None:
        *rows, self._begun = (self._begun + piece).split(b"\n")
        for row in rows:
            values = row.split(b"\t")
            self._digester.add(b"\t".join([values[place] for place in self._order]) + b"\n")


def _parts(session: RawSession, targets: Sequence[_Target]) -> Iterator[_Part]:
    """Yield the targets, the largest first and cut into parts."""
    sizes = loading.table_pages(session, [target.table.oid for target in targets])
    for target in sorted(targets, key=lambda one: -sizes.get(one.table.oid, 0)):
        pages = sizes.get(target.table.oid, 0)
        if not target.table.is_plain or target.condition or pages <= _PART_PAGES:
            yield _Part(target=target)
            continue
        yield from (
            _Part(target=target, pages=(first, first + _PART_PAGES)) for first in range(0, pages, _PART_PAGES)
        )


def _read(
    session: RawSession, part: _Part, digester: RowDigester, stop: threading.Event, stall_timeout_s: float
) -> None:
    name = session.decode(part.target.table.qualified)
    try:
        rows = RowStream(
            session.connection,
            _statement(part, session.codec),
            buffer=bytearray(_BUFFER_BYTES),
            stop=stop,
            stall_timeout_s=stall_timeout_s,
        )
        for piece in rows.pieces(None, _PIECE_BYTES):
            digester.add(piece.data)
    except psycopg.Error as exc:
        raise postgres_error(f"reading {name} back", exc) from exc


def _statement(part: _Part, codec: str) -> bytes:
    target = part.target
    rows = b"SELECT %s FROM %s%s" % (
        target.columns,
        b"ONLY " if target.table.is_plain else b"",
        target.table.qualified,
    )
    if target.condition is not None:  # as the extension wrote it, WHERE and all
        rows += b" " + target.condition.encode(codec)
    if part.pages is not None:
        rows += b" WHERE ctid >= '(%d,0)' AND ctid < '(%d,0)'" % part.pages
    return b"COPY (" + rows + b") TO STDOUT"


def _judge(
    names: dict[bytes, str], expected: dict[bytes, ContentDigest], found: dict[bytes, ContentDigest]
) -> list[ComparedTable]:
    compared = []
    wrong = []
    for qualified, wanted in sorted(expected.items()):
        name, there = names[qualified], found.get(qualified, ContentDigest())
        compared.append(ComparedTable(name=name, rows=there.rows, is_equal=there == wanted))
        if there.rows != wanted.rows:
            wrong.append(f"{name} has {there.rows} rows instead of {wanted.rows}")
        elif there != wanted:
            wrong.append(f"{name} has other values in some of its {there.rows} rows")
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ContentMismatch(
            f"what was restored is not what was saved: {', '.join(wrong[:_SHOWN])}{more}",
            hint="nobody else may write to the target during a restore; run pgstow verify --read-data on the backup",
            tables=wrong,
        )
    return compared
