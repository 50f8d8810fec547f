"""Cutting rows of unknown origin into blobs, so that the same rows give the same blobs next time.

Page boundaries are not known here. Where a blob ends is decided by the row before the end: by its checksum, with a chance
that grows with its length. Rows that were inserted, changed or removed move the ends beside them and no others.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from pgstow.core.errors import ArchiveError
from pgstow.postgres.archive import TABLE_DATA_TRAILER

__all__ = ["RowCutter"]

_USUAL_BYTES = 1 << 20
_LEAST_BYTES = _USUAL_BYTES // 4
_MOST_BYTES = 4 * _USUAL_BYTES
_CHECKSUMS = 1 << 32
_LONGEST_ROW_BYTES = 1 << 30  # the server makes and takes none that is longer


class RowCutter:
    """Takes the data of one table in pieces of any size and gives whole rows, cut where the rows say.

    ``rows`` counts them. ``finish()`` gives the last of them; what ends the data is left out, and must be there.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._waiting = bytearray()  # whole rows of a blob that is not full
        self._begun: list[bytes] = []  # of a row whose end has not come yet
        self._begun_bytes = 0
        self._tail = b""  # the last bytes: they may be what ends the data
        self.rows = 0

    def add(self, piece: bytes) -> Iterator[bytes]:
        """Yield the blobs that are complete with ``piece``."""
        data = self._tail + piece
        keep = min(len(data), len(TABLE_DATA_TRAILER))
        data, self._tail = data[: len(data) - keep], data[len(data) - keep :]
        end = data.rfind(b"\n") + 1
        if not end:
            if data:
                self._begin(data)
            return
        whole = b"".join((*self._begun, data[:end]))
        self._begun, self._begun_bytes = [], 0
        if end < len(data):
            self._begin(data[end:])
        yield from self._cut(whole)

    def _begin(self, data: bytes) -> None:
        self._begun.append(data)
        self._begun_bytes += len(data)
        if self._begun_bytes > _LONGEST_ROW_BYTES:
            raise ArchiveError(
                f"row {self.rows + 1:,} of {self._what} is longer than 1 GiB: these are no rows"
            )

    def finish(self) -> Iterator[bytes]:
        """Yield what is left. Raises ArchiveError unless the data ended as pg_dump ends it."""
        if self._tail != TABLE_DATA_TRAILER or self._begun:
            raise ArchiveError(
                f"the rows of {self._what} are cut off after row {self.rows:,}",
                hint="copy the dump again, or make a new one",
            )
        if self._waiting:
            yield bytes(self._waiting)
            self._waiting.clear()

    def _cut(self, data: bytes) -> Iterator[bytes]:
        """Take whole rows."""
        rows = data.split(b"\n")
        rows.pop()
        self.rows += len(rows)
        start = at = 0
        for row, checksum in zip(rows, map(zlib.crc32, rows), strict=True):
            size = len(row) + 1
            at += size
            filled = len(self._waiting) + at - start
            if filled >= _LEAST_BYTES and (
                checksum * _USUAL_BYTES < size * _CHECKSUMS or filled >= _MOST_BYTES
            ):
                self._waiting += data[start:at]
                yield bytes(self._waiting)
                self._waiting.clear()
                start = at
        self._waiting += data[start:]
