"""Reading the data of a custom archive from beginning to end, without seeking.

After the TOC: a byte that says what follows (1: rows, 3: large objects), the dump id, and the data as chunks, each after its
length, ended by the length 0. Large objects come one after the other behind their OIDs, ended by the OID 0. The
chunks of each are one compressed stream.

Source: PostgreSQL pg_backup_custom.c, compress_io.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pgstow.core.errors import ArchiveError
from pgstow.postgres.archive.codecs import PIECE_BYTES, Codec, decompressed
from pgstow.postgres.archive.reading import Source, begin_custom
from pgstow.postgres.archive.toc import ArchiveHeader, Toc

__all__ = ["CustomArchive"]

_BLOCK_DATA, _BLOCK_BLOBS = 1, 3
_ALGORITHMS: dict[int, Codec | None] = {0: None, 1: "zlib", 2: "lz4", 3: "zstd"}


class CustomArchive:
    """A custom archive, read from ``refill``, which gives its next bytes and none at the end. Raises ArchiveError."""

    format = "custom"

    def __init__(self, refill: Callable[[], bytes]) -> None:
        toc, self._source = begin_custom(refill)
        self._source.where = "its data"
        self._codec = _codec(toc.header)
        self.toc: Toc = toc.as_directory()

    @property
    def compression(self) -> str | None:
        """How the data inside is compressed."""
        return "gzip" if self._codec == "zlib" else self._codec

    def members(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield the data by the name that it has in a directory archive; each is to be read to its end.

        A large object is called ``blob_OID.dat``; the lists of them are not in a custom archive.
        """
        names = {
            entry.dump_id: (entry.file_name or b"").decode() for entry in self.toc.entries if entry.has_data
        }
        while not self._source.at_end():
            kind, dump_id = self._source.byte(), self._source.integer()
            name = names.pop(dump_id, None)
            if name is None:
                raise ArchiveError(
                    f"the archive holds data of entry {dump_id}, which has none or had it before"
                )
            if kind == _BLOCK_DATA:
                yield name, self._data(name)
            elif kind == _BLOCK_BLOBS:
                while oid := self._source.integer():
                    blob = f"blob_{oid if oid > 0 else oid + (1 << 32)}.dat"  # an int in pg_dump
                    yield blob, self._data(blob)
            else:
                raise ArchiveError(f"the archive holds a block of kind {kind} where data of {name} belongs")

    def _data(self, name: str) -> Iterator[bytes]:
        chunks = _chunks(self._source)
        if self._codec is None:
            yield from chunks
            return
        first = next(chunks, None)
        if first is not None:  # an empty large object has no chunk at all, in some releases
            yield from decompressed(self._codec, _again(first, chunks), what=name)


def _again(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _codec(header: ArchiveHeader) -> Codec | None:
    if header.version < (1, 15, 0):
        return "zlib" if header.is_compressed else None
    if header.compression not in _ALGORITHMS:
        raise ArchiveError(
            f"the archive is compressed in a way that is not known (number {header.compression})",
            hint="a newer pgstow may read it",
        )
    return _ALGORITHMS[header.compression]


def _chunks(source: Source) -> Iterator[bytes]:
    while size := source.integer():
        if size < 0:
            raise ArchiveError(f"the archive holds a chunk of {size} bytes")
        while size:
            piece = source.some(min(size, PIECE_BYTES))
            size -= len(piece)
            yield piece
