"""Reading header and TOC from bytes or from a pipe.

Integers are a sign byte and four bytes, least significant first; strings an integer length (-1: NULL) and
their bytes; OIDs and dependencies are decimal strings, dependencies ended by NULL. Only the spelling that
pg_dump itself uses is accepted, so what was read can be written back byte for byte.

Source: PostgreSQL pg_backup_archiver.c, ReadHead and ReadToc.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import IO

from pgstow.core.errors import ArchiveError
from pgstow.postgres.archive.toc import CUSTOM_FORMAT, DIRECTORY_FORMAT, ArchiveHeader, Section, Toc, TocEntry

__all__ = ["MAGIC", "Source", "begin_custom", "read_custom_toc", "read_directory_toc"]

MAGIC = b"PGDMP"
_INTEGER = Struct("<BI")
_OLDEST, _NEWEST = (1, 12), (1, 16)
_MAX_STRING = 1 << 30  # PostgreSQL itself cannot make a longer one
_MAX_INT, _MAX_OID = (1 << 31) - 1, (1 << 32) - 1
_MAX_TOC_BYTES = 1 << 30  # ten million entries; what is compressed may claim any number
_READ_BYTES = 1 << 16
_OFFSET_STATES = {1, 2, 3}  # position unknown, position known, no data
_SECTIONS = {int(section): section for section in Section}


def read_custom_toc(stream: IO[bytes]) -> Toc:
    """Return header and TOC of a custom archive, read from a file or pipe.

    Reads no further than what the pipe has ready when the TOC is complete. Raises ArchiveError.
    """
    read = getattr(stream, "read1", stream.read)  # read() of a buffered pipe would wait for a full buffer
    return begin_custom(lambda: bytes(read(_READ_BYTES)))[0]


def begin_custom(refill: Callable[[], bytes]) -> tuple[Toc, Source]:
    """Return header and TOC of a custom archive, and what goes on reading behind them. Raises ArchiveError.

    ``refill`` gives the next bytes of the archive, none at its end.
    """
    source = Source(b"", refill)
    return _read_toc(source, CUSTOM_FORMAT), source


def read_directory_toc(data: bytes) -> Toc:
    """Return header and TOC of a directory archive from the bytes of its ``toc.dat``. Raises ArchiveError."""
    source = Source(data, lambda: b"")
    toc = _read_toc(source, DIRECTORY_FORMAT)
    if source.remaining():
        raise ArchiveError(f"{source.remaining()} bytes follow the archive's table of contents")
    return toc


class Source:
    """Reads the archive's primitives. Holds no more than was really sent, whatever lengths are claimed."""

    def __init__(self, data: bytes, refill: Callable[[], bytes]) -> None:
        self._data = data
        self._at = 0
        self._refill = refill
        self.received = len(data)
        self.where = "its table of contents"

    def remaining(self) -> int:
        return len(self._data) - self._at

    def at_end(self) -> bool:
        """Whether nothing follows, not even when more is asked for."""
        if not self.remaining():
            self._data, self._at = self._refill(), 0
            self.received += len(self._data)
        return not self.remaining()

    def some(self, size: int) -> bytes:
        """Return at most ``size`` bytes, and at least one."""
        if self.at_end():
            raise ArchiveError(f"the archive ends in the middle of {self.where}")
        return self.take(min(size, self.remaining()))

    def take(self, size: int) -> bytes:
        start = self._at
        end = start + size
        if end > len(self._data):
            self._fill(size)
            start, end = 0, size
        self._at = end
        return self._data[start:end]

    def _fill(self, size: int) -> None:
        pieces = [self._data[self._at :]]
        missing = size - len(pieces[0])
        while missing > 0:
            piece = self._refill()
            if not piece:
                raise ArchiveError(f"the archive ends in the middle of {self.where}")
            pieces.append(piece)
            self.received += len(piece)
            missing -= len(piece)
        self._data = b"".join(pieces)
        self._at = 0

    def byte(self) -> int:
        return self.take(1)[0]

    def integer(self) -> int:
        if self._at + _INTEGER.size > len(self._data):
            self._fill(_INTEGER.size)
        sign: int
        value: int
        sign, value = _INTEGER.unpack_from(self._data, self._at)
        self._at += _INTEGER.size
        if sign == 0 and value <= _MAX_INT:
            return value
        if sign == 1 and 0 < value <= _MAX_INT:
            return -value
        raise ArchiveError(f"the archive holds the sign {sign} and the number {value} where a number belongs")

    def text(self) -> bytes | None:
        size = self.integer()
        if size < 0:
            if size != -1:
                raise ArchiveError(f"the archive holds a string of length {size}")
            return None
        if size > _MAX_STRING:
            raise ArchiveError(f"the archive holds a string of {size} bytes, more than PostgreSQL can make")
        text = self.take(size) if size else b""
        if b"\0" in text:  # where pg_restore would end it
            raise ArchiveError("the archive holds a string with a zero byte, which pg_dump cannot write")
        return text

    def required_text(self, what: str) -> bytes:
        text = self.text()
        if text is None:
            raise ArchiveError(f"the archive holds an entry without {what}")
        return text

    def oid(self) -> int:
        return _decimal(self.required_text("an OID"), "an OID", _MAX_OID)


def _decimal(text: bytes, what: str, largest: int) -> int:
    """Return a number that is spelled in decimal, as pg_dump spells it."""
    is_plain = text.isdigit() and len(text) <= len(str(largest)) and (text[:1] != b"0" or text == b"0")
    if not is_plain or int(text) > largest:
        raise ArchiveError(f"the archive holds {text[:40]!r} where {what} belongs")
    return int(text)


def _read_toc(source: Source, archive_format: int) -> Toc:
    header = _read_header(source, archive_format)
    count = source.integer()
    if count < 0:
        raise ArchiveError(f"the archive claims {count} entries")
    entries = []
    seen = set()
    for _ in range(count):
        entry = _read_entry(source, header)
        if entry.dump_id in seen:
            raise ArchiveError(f"the archive holds two entries with the id {entry.dump_id}")
        seen.add(entry.dump_id)
        entries.append(entry)
        if source.received > _MAX_TOC_BYTES:
            raise ArchiveError("the archive's table of contents is longer than any that pg_dump makes")
    return Toc(header=header, entries=tuple(entries))


def _read_header(source: Source, archive_format: int) -> ArchiveHeader:
    if source.take(len(MAGIC)) != MAGIC:
        raise ArchiveError("this is not a pg_dump archive: it does not begin with PGDMP")
    major, minor, revision = source.take(3)
    if not _OLDEST <= (major, minor) <= _NEWEST:
        is_newer = (major, minor) > _NEWEST
        raise ArchiveError(
            f"the archive has version {major}.{minor}-{revision}; versions 1.12 to 1.16 can be read",
            hint="a newer pgstow may read it" if is_newer else "make it again with a newer pg_dump",
        )
    int_size, offset_size, found_format = source.take(3)
    if (int_size, offset_size) != (4, 8):
        raise ArchiveError(
            f"the archive has integers of {int_size} and offsets of {offset_size} bytes; 4 and 8 can be read",
            hint="make it again with pg_dump on a 64-bit machine",
        )
    if found_format != archive_format:
        raise ArchiveError(f"the archive has the format number {found_format}, not {archive_format}")
    compression = source.byte() if (major, minor) >= (1, 15) else source.integer()
    second, minute, hour, day, month, year, is_dst = (source.integer() for _ in range(7))
    return ArchiveHeader(
        version=(major, minor, revision),
        format=found_format,
        compression=compression,
        created=(second, minute, hour, day, month, year, is_dst),
        dbname=source.text(),
        server_version=source.text(),
        pg_dump_version=source.text(),
    )


def _read_entry(source: Source, header: ArchiveHeader) -> TocEntry:
    text = source.text
    dump_id = source.integer()
    if dump_id <= 0:
        raise ArchiveError(f"the archive holds an entry with the id {dump_id}")
    return TocEntry(  # evaluated in this order, which is the order in the archive
        dump_id=dump_id,
        has_data=_read_flag(source),
        catalog_oid=source.oid(),
        oid=source.oid(),
        tag=source.required_text("a tag"),
        desc=source.required_text("a description"),
        section=_read_section(source),
        defn=text(),
        drop_stmt=text(),
        copy_stmt=text(),
        namespace=text(),
        tablespace=text(),
        table_am=text() if header.version >= (1, 14, 0) else None,
        relkind=source.integer() if header.version >= (1, 16, 0) else 0,
        owner=text(),
        with_oids=_read_with_oids(source),
        dependencies=_read_dependencies(source),
        file_name=_read_tail(source, header),
    )


def _read_flag(source: Source) -> bool:
    value = source.integer()
    if value not in (0, 1):
        raise ArchiveError(f"the archive holds an entry whose data flag is {value}")
    return value == 1


def _read_section(source: Source) -> Section:
    value = source.integer()
    section = _SECTIONS.get(value)
    if section is None:
        raise ArchiveError(f"the archive holds an entry in section {value}, which is none")
    return section


def _read_with_oids(source: Source) -> bool:
    value = source.text()
    if value not in (b"true", b"false"):
        raise ArchiveError("the archive holds an entry that does not say whether it has OIDs")
    return value == b"true"


def _read_dependencies(source: Source) -> tuple[int, ...]:
    found = []
    while (item := source.text()) is not None:
        found.append(_decimal(item, "a dependency", _MAX_INT))
    return tuple(found)


def _read_tail(source: Source, header: ArchiveHeader) -> bytes | None:
    if header.format == DIRECTORY_FORMAT:
        return source.required_text("a file name")
    state = source.byte()
    if state not in _OFFSET_STATES:
        raise ArchiveError(f"the archive holds an entry with the data state {state}")
    source.take(8)  # the position of its data, unknown while the archive is being written to a pipe
    return None
