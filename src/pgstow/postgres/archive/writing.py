"""Writing header and TOC: the inverse of reading them.

Source: PostgreSQL pg_backup_archiver.c, WriteHead and WriteToc.
"""

from __future__ import annotations

from collections.abc import Callable

from pgstow.core.errors import ArchiveError
from pgstow.postgres.archive.reading import MAGIC
from pgstow.postgres.archive.toc import DIRECTORY_FORMAT, ArchiveHeader, Toc, TocEntry

__all__ = ["encode_integer", "encode_toc", "write_directory_toc"]

_NULL = b"\x01\x01\x00\x00\x00"  # the length -1


def write_directory_toc(toc: Toc) -> bytes:
    """Return the bytes of the ``toc.dat`` that holds ``toc``: what ``read_directory_toc`` read, if it did."""
    if toc.header.format != DIRECTORY_FORMAT:
        raise ArchiveError("this is the TOC of a custom archive, not of a directory archive")
    return encode_toc(toc, lambda entry: _text(entry.file_name or b""))


def encode_toc(toc: Toc, tail: Callable[[TocEntry], bytes]) -> bytes:
    """Return header and TOC; ``tail`` gives what the archive's format appends to an entry."""
    parts = [_header(toc.header), encode_integer(len(toc.entries))]
    for entry in toc.entries:
        parts.append(_entry(entry, toc.header.version))
        parts.append(tail(entry))
    return b"".join(parts)


def encode_integer(value: int) -> bytes:
    """Return a sign byte and four bytes, least significant first."""
    if value < 0:
        return b"\x01" + (-value).to_bytes(4, "little")
    return b"\x00" + value.to_bytes(4, "little")


def _text(value: bytes | None) -> bytes:
    return _NULL if value is None else encode_integer(len(value)) + value


def _header(header: ArchiveHeader) -> bytes:
    compression = header.compression
    return b"".join(
        (
            MAGIC,
            bytes(header.version),
            bytes((4, 8, header.format)),
            bytes((compression,)) if header.version >= (1, 15, 0) else encode_integer(compression),
            *map(encode_integer, header.created),
            _text(header.dbname),
            _text(header.server_version),
            _text(header.pg_dump_version),
        )
    )


def _entry(entry: TocEntry, version: tuple[int, int, int]) -> bytes:
    return b"".join(
        (
            encode_integer(entry.dump_id),
            encode_integer(int(entry.has_data)),
            _text(b"%d" % entry.catalog_oid),
            _text(b"%d" % entry.oid),
            _text(entry.tag),
            _text(entry.desc),
            encode_integer(entry.section),
            _text(entry.defn),
            _text(entry.drop_stmt),
            _text(entry.copy_stmt),
            _text(entry.namespace),
            _text(entry.tablespace),
            _text(entry.table_am) if version >= (1, 14, 0) else b"",
            encode_integer(entry.relkind) if version >= (1, 16, 0) else b"",
            _text(entry.owner),
            _text(b"true" if entry.with_oids else b"false"),
            *(_text(b"%d" % dump_id) for dump_id in entry.dependencies),
            _NULL,
        )
    )
