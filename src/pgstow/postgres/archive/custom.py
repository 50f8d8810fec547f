"""Writing custom archives from the members of a directory archive.

The sizes of all members are known beforehand, so every entry's offset is right in the first pass: the
archive can go down a pipe and still be restored in parallel once it lies in a file.

Source: PostgreSQL pg_backup_custom.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from pgstow.core.errors import ArchiveError
from pgstow.postgres.archive.toc import CUSTOM_FORMAT, Toc, TocEntry
from pgstow.postgres.archive.writing import encode_integer, encode_toc

__all__ = ["TABLE_DATA_TRAILER", "Sink", "blob_lines", "member_names", "write_custom_archive"]

TABLE_DATA_TRAILER = b"\\.\n\n\n"  # ends the data of a table, in members and custom archives alike

_BLOCK_DATA, _BLOCK_BLOBS = b"\x01", b"\x03"
_POSITION_SET, _NO_DATA = b"\x02", b"\x03"
_CHUNK_BYTES = 1 << 18  # pg_restore holds one chunk in memory
_INTEGER_BYTES = 5
_MAX_LIST_BYTES = 1 << 30
_MAX_OID = (1 << 32) - 1
_MEMBER_NAME = re.compile(r"[0-9]+\.dat|blobs(_[0-9]+)?\.toc")
_BLOB_LINE = re.compile(rb"([1-9][0-9]{0,9}) (blob_[0-9]+\.dat)")


class Sink(Protocol):
    """What can be written to: a file, a pipe, a compressor."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Take all of ``data``."""


OpenMember = Callable[[str], Iterator[bytes]]
MemberSize = Callable[[str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """The data of one entry: the member ``name``, or what that lists, large objects by OID."""

    entry: TocEntry
    name: str
    large_objects: tuple[tuple[int, str], ...] = ()

    @property
    def is_list(self) -> bool:
        return self.entry.desc == b"BLOBS"


def member_names(toc: Toc, open_member: OpenMember, member_size: MemberSize) -> tuple[str, ...]:
    """Return the names of the files with a directory archive's data, lists of large objects included."""
    names: list[str] = []
    for entry in toc.entries:
        if entry.has_data:
            block = _plan(entry, open_member, member_size)
            names += (block.name, *(member for _, member in block.large_objects))
    return tuple(names)


def write_custom_archive(toc: Toc, open_member: OpenMember, member_size: MemberSize, out: Sink) -> None:
    """Write the uncompressed custom archive of a directory archive: header, TOC, data in TOC order.

    ``toc`` names its members (``Toc.as_directory``); ``open_member`` yields the bytes of one and must yield
    as many as ``member_size`` said, else ArchiveError. Nothing is buffered beyond a piece.
    """
    blocks = [_plan(entry, open_member, member_size) for entry in toc.entries if entry.has_data]
    out.write(_encode(toc, blocks, member_size))
    for block in blocks:
        if not block.is_list:
            out.write(_BLOCK_DATA + encode_integer(block.entry.dump_id))
            _write_member(block.name, open_member, member_size, out)
            continue
        out.write(_BLOCK_BLOBS + encode_integer(block.entry.dump_id))
        for oid, member in block.large_objects:
            out.write(encode_integer(oid if oid < 1 << 31 else oid - (1 << 32)))  # an int in pg_dump
            _write_member(member, open_member, member_size, out)
        out.write(encode_integer(0))


def _plan(entry: TocEntry, open_member: OpenMember, member_size: MemberSize) -> _Block:
    name = (entry.file_name or b"").decode("ascii", "backslashreplace")
    if not _MEMBER_NAME.fullmatch(name):
        raise ArchiveError(f"{entry} has data but its member is called {name!r}")
    if entry.desc != b"BLOBS":
        return _Block(entry=entry, name=name)
    if member_size(name) > _MAX_LIST_BYTES:
        raise ArchiveError(f"{name} is too long for a list of large objects")
    return _Block(entry=entry, name=name, large_objects=blob_lines(b"".join(open_member(name)), name))


def blob_lines(listing: bytes, where: str) -> tuple[tuple[int, str], ...]:
    """Return OID and file of each large object in a list of them, called ``where``. Raises ArchiveError."""
    return tuple(_blob_line(line, where) for line in listing.splitlines())


def _blob_line(line: bytes, where: str) -> tuple[int, str]:
    match = _BLOB_LINE.fullmatch(line)
    if match is None:
        raise ArchiveError(f"{where} holds a line that names no large object: {line[:80]!r}")
    oid = int(match[1])
    if oid > _MAX_OID:
        raise ArchiveError(f"{where} holds {oid}, which is no OID")
    return oid, match[2].decode()


def _encode(toc: Toc, blocks: list[_Block], member_size: MemberSize) -> bytes:
    """Return header and TOC with the position of every block."""
    custom = replace(toc, header=replace(toc.header, format=CUSTOM_FORMAT, compression=0))
    position = len(encode_toc(custom, lambda _: _tail(None)))
    positions = {}
    for block in blocks:
        positions[block.entry.dump_id] = position
        position += _block_bytes(block, member_size)
    return encode_toc(custom, lambda entry: _tail(positions.get(entry.dump_id)))


def _tail(position: int | None) -> bytes:
    return _NO_DATA + bytes(8) if position is None else _POSITION_SET + position.to_bytes(8, "little")


def _block_bytes(block: _Block, member_size: MemberSize) -> int:
    header = 1 + _INTEGER_BYTES
    if not block.is_list:
        return header + _framed_bytes(member_size(block.name))
    contents = sum(_INTEGER_BYTES + _framed_bytes(member_size(member)) for _, member in block.large_objects)
    return header + contents + _INTEGER_BYTES


def _framed_bytes(size: int) -> int:
    chunks = -(-size // _CHUNK_BYTES)
    return size + (chunks + 1) * _INTEGER_BYTES


def _write_member(name: str, open_member: OpenMember, member_size: MemberSize, out: Sink) -> None:
    """Write a member as chunks of a known size, whatever pieces it arrives in."""
    left = member_size(name)
    room = 0
    for piece in open_member(name):
        view = memoryview(piece)
        if len(view) > left:
            raise ArchiveError(f"{name} is longer than it was said to be")
        left -= len(view)
        while view:
            if room == 0:
                room = min(_CHUNK_BYTES, left + len(view))
                out.write(encode_integer(room))
            written = view[:room]
            out.write(written)
            room -= len(written)
            view = view[len(written) :]
    if left:
        raise ArchiveError(f"{name} is {left} bytes shorter than it was said to be")
    out.write(encode_integer(0))
