"""Which row versions does each page range hold? Asked of the server, without reading the rows."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from pgstow.postgres.catalogs import TableFacts
from pgstow.postgres.session import Connection

__all__ = ["Fingerprint", "Fingerprints", "PageBounds", "range_fingerprints"]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Visible row versions of one page range: their number, and two digests of their (ctid, xmin)."""

    rows: int
    sum: int
    xor: int


class Fingerprints:
    """The fingerprints of consecutive page ranges, 24 bytes each: a large table has a hundred thousand."""

    __slots__ = ("_rows", "_sums", "_xors")

    def __init__(self, count: int) -> None:
        self._rows, self._sums, self._xors = (array(code, bytes(8 * count)) for code in "Qqq")

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Fingerprint]:
        return map(Fingerprint, self._rows, self._sums, self._xors)

    def __setitem__(self, place: int, one: Fingerprint) -> None:
        self._rows[place], self._sums[place], self._xors[place] = one.rows, one.sum, one.xor

    @property
    def rows(self) -> int:
        """Return how many row versions there are in all ranges."""
        return sum(self._rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageBounds:
    """Heap pages ``first`` to ``first + pages``; without an upper end when ``is_last``."""

    first: int
    pages: int
    is_last: bool

    def condition(self) -> bytes:
        """Return the SQL condition that selects the rows on these pages (a TID range scan)."""
        upper = b"" if self.is_last else b" AND ctid < '(%d,0)'::tid" % (self.first + self.pages)
        return b"ctid >= '(%d,0)'::tid" % self.first + upper


# A row version is identified by (ctid, xmin). The seed is xmin as a number: age() is relative to the next
# xid, and so is age('3'), whose difference is the raw xmin (minus 3) whatever the epoch; going through
# xmin::text would cost half of the query. OFFSET 0 keeps the hash from being computed twice.
_SELECT = b"""
SELECT bucket, count(*), sum(hash)::text, bit_xor(hash)
FROM (SELECT pg_catalog.width_bucket(ctid, %s::tid[]) AS bucket,
             pg_catalog.hashtidextended(ctid, ((SELECT pg_catalog.age('3'::xid)::int8) - pg_catalog.age(xmin)) & 4294967295) AS hash
      FROM ONLY """
_GROUP = b" OFFSET 0) AS versions GROUP BY bucket"


def range_fingerprints(
    connection: Connection, table: TableFacts, *, pages: int, per_range: int, bounds: PageBounds | None = None
) -> Fingerprints:
    """Return one fingerprint per range of ``per_range`` pages, as this session's snapshot sees the heap table.

    One sequential scan in the server, which goes through its ring buffer and leaves the users' pages cached;
    six to seven times cheaper than reading ordinary rows. With ``bounds`` only those pages are looked at.
    """
    first, last = (bounds.first, bounds.first + bounds.pages) if bounds else (0, max(pages, 1))
    starts = range(first, last, per_range)
    fingerprints = Fingerprints(len(starts))
    array = "{" + ",".join(f'"({page},0)"' for page in starts) + "}"
    where = b" WHERE " + bounds.condition() if bounds else b""
    query = _SELECT + table.qualified.replace(b"%", b"%%") + where + _GROUP
    for bucket, rows, total, xor in connection.execute(query, (array,)):
        fingerprints[bucket - 1] = Fingerprint(rows, _signed(int(total)), xor)
    return fingerprints


def _signed(value: int) -> int:
    """Return ``value`` modulo 2**64 as a signed 64-bit number."""
    value %= 1 << 64
    return value - (1 << 64) if value >= 1 << 63 else value
