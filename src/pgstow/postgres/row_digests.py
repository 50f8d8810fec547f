"""Digests of rows as COPY prints them: equal for equal rows in any order, on both ends of a restore.

Each row is hashed with a secret key to 128 bits, and the hashes are summed modulo 2^128. A row that is lost, added, doubled or
changed, or values that change places between rows, give another sum but for one case in 2^127; who does not know the
key cannot make two contents with one sum. Digests can only be compared when they come from one process: the hash is
SipHash-2-4 where the extension was built, else BLAKE2b.
Source: D. Clarke and others, "Incremental Multiset Hash Functions", 2003 (MSet-Add-Hash).
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["ContentDigest", "DigestKey", "RowDigester"]

_ROOM = 2**64

# (key, rows, low half, high half) -> (whole rows, bytes they take, low half, high half)
_AddRows = Callable[[bytes, bytes | memoryview, int, int], tuple[int, int, int, int]]


def _add_rows_in_python(
    key: bytes, rows: bytes | memoryview, low: int, high: int
) -> tuple[int, int, int, int]:
    whole, feed, _rest = bytes(rows).rpartition(b"\n")
    if not feed:
        return 0, 0, low, high
    total = high * _ROOM + low
    each = whole.split(b"\n")
    for row in each:
        total += int.from_bytes(hashlib.blake2b(row, key=key, digest_size=16).digest(), "little")
    return len(each), len(whole) + 1, total % _ROOM, total // _ROOM % _ROOM


_add_rows: _AddRows = _add_rows_in_python
with contextlib.suppress(ImportError):  # there was no compiler when pgstow was installed
    from pgstow.postgres import _row_digests

    _add_rows = _row_digests.add_rows


class DigestKey:
    """The secret of one comparison."""

    def __init__(self) -> None:
        self._bytes = secrets.token_bytes(16)

    def digester(self) -> RowDigester:
        return RowDigester(self._bytes, _add_rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentDigest:
    """How many rows, and the sum of their hashes. Digests of parts add up to that of the whole."""

    rows: int = 0
    total: int = 0

    def __add__(self, other: ContentDigest) -> ContentDigest:
        return ContentDigest(rows=self.rows + other.rows, total=(self.total + other.total) % _ROOM**2)

    def __str__(self) -> str:
        return f"{self.total:032x}"


class RowDigester:
    """Takes rows in pieces, cut anywhere; memory: the longest row."""

    def __init__(self, key: bytes, add_rows: _AddRows = _add_rows) -> None:
        self._key = key
        self._add_rows = add_rows
        self._rows = 0
        self._low = 0
        self._high = 0
        self._begun: list[bytes] = []  # of a row whose end has not come yet

    def add(self, piece: bytes | memoryview) -> None:
        """Take the next piece."""
        if self._begun:
            end = bytes(piece).find(b"\n") + 1
            self._begun.append(bytes(piece[: end or len(piece)]))
            if not end:
                return
            row, self._begun = b"".join(self._begun), []
            self._take(row)
            piece = memoryview(piece)[end:]
        used = self._take(piece)
        if used < len(piece):
            self._begun.append(bytes(piece[used:]))

    def digest(self) -> ContentDigest:
        """Return the digest of all rows. ValueError in the middle of a row."""
        if self._begun:
            raise ValueError("the rows end in the middle of a row")
        return ContentDigest(rows=self._rows, total=self._high * _ROOM + self._low)

    def _take(self, piece: bytes | memoryview) -> int:
        rows, used, self._low, self._high = self._add_rows(self._key, piece, self._low, self._high)
        self._rows += rows
        return used
