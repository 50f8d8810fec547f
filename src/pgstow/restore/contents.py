"""After the load: every row that the tables hold against every row that was sent.

Rows are hashed on their way into COPY, and hashed again as COPY gives them back under the settings the backup was read
with. Both are read at the speed of COPY and nothing is kept but one number per table.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import errors as pgerrors

from pgstow.catalog.manifest import Manifest
from pgstow.core.errors import ContentMismatch
from pgstow.core.progress import Progress
from pgstow.postgres import loading
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.copy_out import RowStream
from pgstow.postgres.raw import RawSession, open_raw
from pgstow.postgres.row_digests import ContentDigest, RowDigester
from pgstow.postgres.session import CAPTURE_SETTINGS, postgres_error
from pgstow.restore.naming import split_name, text
from pgstow.restore.report import ComparedTable
from pgstow.restore.request import ArchiveFiles
from pgstow.restore.sent_rows import ReadTarget, SentRows

__all__ = ["Comparison", "Part", "parts_of", "reading_session", "refuse_differences"]

_SHOWN = 10
_MUST_SEE_ALL = "a comparison reads every row: connect as a superuser or a role with BYPASSRLS, or compare nothing (rows are counted in any case)"
_PIECE_BYTES = 1 << 20
_BUFFER_BYTES = 4 << 20
_PART_PAGES = 16384  # 128 MiB: large tables are read by several sessions
_PAGE_BYTES = 8192
_ROW_HEADER_BYTES = 28


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some pages of a target, from ``first`` until before ``end`` (None: all that follow); all of it if ``first`` is None."""

    target: ReadTarget
    first: int | None = None
    end: int | None = None
    of: int = 1  # how many parts the target was cut into


def parts_of(target: ReadTarget) -> list[Part]:
    """Return the parts to read a table in, so that several sessions can read a large one.

    Cut by how many pages its text would fill, which is near enough: the last part goes on to the real end.
    """
    pages = (target.size_bytes + target.rows * _ROW_HEADER_BYTES) // _PAGE_BYTES
    if not target.table.is_plain or target.condition or pages <= _PART_PAGES:
        return [Part(target=target)]
    starts = range(0, pages, _PART_PAGES)
    return [
        Part(
            target=target,
            first=start,
            end=None if start == starts[-1] else start + _PART_PAGES,
            of=len(starts),
        )
        for start in starts
    ]


@dataclass(slots=True)
class _Found:
    """What was read of a table so far."""

    digest: ContentDigest = field(default_factory=ContentDigest)
    parts: int = 0
    seconds: float = 0.0


class Comparison:
    """What was read back so far, to be held against what was sent. Used by several threads at once."""

    def __init__(
        self,
        sent: SentRows,
        manifest: Manifest,
        *,
        stall_timeout_s: float,
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sent = sent
        self._settings = _reading_settings(manifest)
        self._stall_timeout_s = stall_timeout_s
        self._progress = progress
        self._clock = clock
        self._found: dict[bytes, _Found] = {}
        self._guard = threading.Lock()

    def take_down_what_was_there(self, session: RawSession) -> None:
        """Read what stands in tables of extensions before anything is loaded."""
        never = threading.Event()
        for target in self.sent.targets:
            if target.table.is_extension_owned:
                for _, digest in self._digests(session, [Part(target=target)], never):
                    self.sent.had_before(target, digest)

    def read(self, session: RawSession, parts: Sequence[Part], stop: threading.Event) -> None:
        """Read parts of tables whose rows are all there, and will not change any more."""
        begun = self._clock()
        for part, digest in self._digests(session, parts, stop):
            now = self._clock()
            with self._guard:
                found = self._found.setdefault(part.target.table.qualified, _Found())
                found.digest += digest
                found.parts += 1
                found.seconds += now - begun
            begun = now
            self._progress.advance(rows=digest.rows)

    def _digests(
        self, session: RawSession, parts: Sequence[Part], stop: threading.Event
    ) -> Iterator[tuple[Part, ContentDigest]]:
        buffer = bytearray(_BUFFER_BYTES)
        loading.begin_reading(session, self._settings)
        for part in parts:
            digester = self.sent.digester()
            _read(session, part, digester, buffer, stop, self._stall_timeout_s)
            yield part, digester.digest()
        session.execute(b"COMMIT", doing="ending to read rows back")

    def compared(self, encoding: str) -> list[ComparedTable]:
        """Return how every table compares; what was not read is not equal. ``encoding`` is that of the archive's names."""
        return sorted(
            (self._compared(target, encoding) for target in self.sent.targets),
            key=lambda one: (one.schema, one.name),
        )

    def _compared(self, target: ReadTarget, encoding: str) -> ComparedTable:
        found = self._found.get(target.table.qualified, _Found())
        wanted = self.sent.expected(target)
        schema, name = split_name(target.table.qualified)
        return ComparedTable(
            schema=text(schema, encoding),
            name=text(name, encoding),
            rows=found.digest.rows,
            expected_rows=wanted.rows,
            is_equal=found.parts == len(parts_of(target)) and found.digest == wanted,
            seconds=round(found.seconds, 3),
        )


def refuse_differences(compared: Sequence[ComparedTable]) -> None:
    """Raise ContentMismatch naming the tables that differ, if any does."""
    wrong = [_difference(one) for one in compared if not one.is_equal]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ContentMismatch(
            f"what was restored is not what was saved: {', '.join(wrong[:_SHOWN])}{more}",
            hint="nobody else may write to the target during a restore; run pgstow verify --read-data on the backup",
            tables=wrong,
        )


def _difference(one: ComparedTable) -> str:
    if one.rows != one.expected_rows:
        return f"{one.schema}.{one.name} has {one.rows} rows instead of {one.expected_rows}"
    return f"{one.schema}.{one.name} has other values in some of its {one.rows} rows"


def _reading_settings(manifest: Manifest) -> dict[str, str]:
    """Return what the rows were read under for the backup; the encoding is the session's already."""
    return {
        name: manifest.settings.get(name, value)
        for name, value in CAPTURE_SETTINGS.items()
        if name != "client_encoding"
    }


def _read(
    session: RawSession,
    part: Part,
    digester: RowDigester,
    buffer: bytearray,
    stop: threading.Event,
    stall_timeout_s: float,
) -> None:
    name = session.decode(part.target.table.qualified)
    try:
        rows = RowStream(
            session.connection,
            _statement(part, session.codec),
            buffer=buffer,
            stop=stop,
            stall_timeout_s=stall_timeout_s,
        )
        for piece in rows.pieces(None, _PIECE_BYTES):
            digester.add(piece.data)
    except psycopg.Error as exc:
        error = postgres_error(f"reading {name} back", exc)
        if isinstance(exc, pgerrors.InsufficientPrivilege):
            error.hint = _MUST_SEE_ALL
        raise error from exc


def _statement(part: Part, codec: str) -> bytes:
    target = part.target
    if target.table.is_plain and target.condition is None and part.first is None and target.columns:
        return b"COPY %s (%s) TO STDOUT" % (target.table.qualified, target.columns)  # cheaper than a query
    rows = b"SELECT %s FROM %s%s" % (
        target.columns,
        b"ONLY " if target.table.is_plain else b"",
        target.table.qualified,
    )
    if target.condition is not None:  # WHERE and all, as an extension wrote it or LoadTask says
        rows += b" " + target.condition.encode(codec)
    if part.first is not None:
        rows += b" WHERE ctid >= '(%d,0)'" % part.first
        if part.end is not None:
            rows += b" AND ctid < '(%d,0)'" % part.end
    return b"COPY (" + rows + b") TO STDOUT"


def reading_session(files: ArchiveFiles, target: ConnInfo) -> RawSession:
    """Return a session that reads rows as they were read for the backup."""
    return open_raw(target, encoding=files.toc.encoding, settings=_reading_settings(files.manifest))
