"""Page ranges of a table and the index that records them.

The index of one table is ``ranges/DUMPID`` in the backup, little-endian, streamed:

    header   magic "PGSTOWR1", pages per range uint32, number of ranges uint32
    range    rows uint64, sum int64, xor int64, bytes uint64, blobs uint32

Range *i* covers heap pages [i * pages_per_range, (i + 1) * pages_per_range); the last one is open-ended.
``sum`` (modulo 2**64) and ``xor`` run over one 64-bit hash of (ctid, xmin) per visible row version.
``blobs`` says how many of the member's blobs, in order, hold the range's rows; the trailer comes after all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pgstow.core.errors import RepositoryDamaged

__all__ = [
    "MAX_PIECE_BYTES",
    "PageRange",
    "decode_ranges",
    "encode_ranges",
    "pages_per_range",
    "split_ranges",
]

TARGET_RANGE_BYTES = 1 << 20
MAX_PIECE_BYTES = 4 << 20  # of one blob; restic's mount stalls on much larger ones
MAX_PAGES_PER_RANGE = 512
MANY_RANGES = 1 << 16  # beyond it ranges grow, so that a huge table's file list stays small

_MAGIC = b"PGSTOWR1"
_HEADER = struct.Struct("<8sII")
_RANGE = struct.Struct("<QqqQI")


@dataclass(frozen=True, slots=True)
class PageRange:
    rows: int
    sum: int
    xor: int
    size_bytes: int
    blobs: int

    def encode(self) -> bytes:
        """Return the range as it stands in the index."""
        return _RANGE.pack(self.rows, self.sum, self.xor, self.size_bytes, self.blobs)


def pages_per_range(*, heap_bytes: int, toast_bytes: int, block_bytes: int) -> int:
    """Return how many heap pages make a range of about 1 MiB of rows; a power of two.

    Powers of two keep the boundaries where they were while a table grows.
    """
    pages = heap_bytes // block_bytes
    if pages == 0:
        return 1
    per_page = block_bytes * (1 + toast_bytes / heap_bytes)
    wanted = 1
    while wanted * 2 * per_page <= TARGET_RANGE_BYTES:
        wanted *= 2
    while pages // wanted > MANY_RANGES and wanted < MAX_PAGES_PER_RANGE:
        wanted *= 2
    return wanted


def encode_ranges(pages: int, ranges: bytes) -> bytes:
    """Return the index of one table whose ranges, encoded one after the other, are ``ranges``."""
    return _HEADER.pack(_MAGIC, pages, len(ranges) // _RANGE.size) + ranges


def decode_ranges(data: bytes) -> tuple[int, Iterator[PageRange]]:
    """Return pages per range and the ranges; RepositoryDamaged if ``data`` is not an index."""
    if len(data) < _HEADER.size:
        raise RepositoryDamaged("a page-range index is shorter than its header")
    magic, pages, count = _HEADER.unpack_from(data)
    if magic != _MAGIC or len(data) != _HEADER.size + count * _RANGE.size:
        raise RepositoryDamaged("a page-range index is malformed")
    return pages, split_ranges(memoryview(data)[_HEADER.size :])


def split_ranges(ranges: bytes | memoryview) -> Iterator[PageRange]:
    """Yield ranges that were encoded one after the other."""
    return (PageRange(*fields) for fields in _RANGE.iter_unpack(ranges))
