"""Taking over page ranges that are what they were in an earlier backup.

A row version never changes, and is known by its place and the transaction that made it. A page range whose
visible row versions are those of an earlier backup, the *base*, holds the same rows; its blobs are taken over and the
server does not read it. That holds only under conditions, each of which has been shown to give a wrong backup when left
out (docs/reliability.md). Whatever is in doubt is read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from pgstow.capture.bases import Base
from pgstow.capture.conditions import Source, refuse_server, refuse_table
from pgstow.capture.leader import Leader
from pgstow.capture.ranges import PageRange, decode_ranges
from pgstow.catalog.manifest import Manifest, ReuseRecord, TableRecord
from pgstow.core.errors import RepositoryDamaged
from pgstow.postgres.archive import TABLE_DATA_TRAILER
from pgstow.postgres.catalogs import TableFacts
from pgstow.postgres.fingerprints import Fingerprint, Fingerprints, XidWindow
from pgstow.postgres.shapes import Shapes
from pgstow.repository import BlobIds, FileNode

__all__ = ["KnownRange", "KnownTable", "Reuse", "plan_reuse", "same_ranges"]

_XID_WRAP = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRange:
    """A page range of the base and the blobs that hold its rows."""

    range: PageRange
    content: BlobIds

    def is_same(self, found: Fingerprint) -> bool:
        return (self.range.rows, self.range.sum, self.range.xor) == (found.rows, found.sum, found.xor)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTable:
    """A table of the base that stands for the same rows wherever its ranges have the same fingerprints.

    ``is_held`` tells whether blobs, of so many bytes together, are wherever the backup goes.
    """

    is_held: Callable[[BlobIds, int], bool]
    node: FileNode
    index: bytes

    def check(self, pages_per_range: int) -> None:
        """Raise RepositoryDamaged unless the ranges account for every blob and byte of the member, and its trailer."""
        blobs, size_bytes = 1, len(TABLE_DATA_TRAILER)
        length, ranges = decode_ranges(self.index)
        for one in ranges:
            blobs += one.blobs
            size_bytes += one.size_bytes
        if (length, blobs, size_bytes) != (pages_per_range, len(self.node.content), self.node.size_bytes):
            raise RepositoryDamaged(f"the page ranges do not account for {self.node.name}")

    def ranges(self, first: int, count: int) -> Iterator[KnownRange]:
        """Yield ranges ``first`` to ``first + count``, fewer if the base has fewer."""
        content, place = BlobIds.of(self.node.content), 0
        for number, one in enumerate(islice(decode_ranges(self.index)[1], first + count)):
            if number >= first:
                yield KnownRange(range=one, content=content[place : place + one.blobs])
            place += one.blobs


@dataclass(slots=True, kw_only=True)
class Reuse:
    """What may be taken over in this backup, and what became of it.

    ``is_full_read``: everything is read all the same, and compared with what would have been taken over.
    """

    base: Base | None
    refused: str | None
    is_full_read: bool
    window: XidWindow | None = None
    tables: Mapping[int, TableRecord] = field(default_factory=dict)  # of the base, by OID
    shapes: Shapes | None = None  # now
    refusals: dict[int, str] = field(default_factory=dict)  # by OID
    lost: set[int] = field(
        default_factory=set
    )  # tables with ranges whose blobs are not wherever the backup goes
    alarms: list[str] = field(default_factory=list)
    checked_ranges: int = 0
    distrusted: tuple[str, ...] = ()
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _latest: tuple[int, KnownTable] | None = None  # parts of one table come one after the other

    @property
    def base_id(self) -> str | None:
        return self.base.record.id if self.base else None

    def known(self, facts: TableFacts, pages_per_range: int) -> KnownTable | None:
        """Return what the base holds of a table whose ranges can be compared; else None, and why in ``refusals``."""
        record = self.tables.get(facts.oid)
        if self.base is None or record is None or self.refusal(facts) is not None:
            return None
        if record.pages_per_range != pages_per_range or record.ranges is None:
            self.refusals[facts.oid] = "its page ranges have another length than at the base"
            return None
        with self._guard:
            latest = self._latest
        if latest is not None and latest[0] == facts.oid:
            return latest[1]
        try:
            known = _known_table(self.base, record.member, record.ranges, self._holding(self.base, facts.oid))
            known.check(pages_per_range)
        except RepositoryDamaged as exc:
            self.refusals[facts.oid] = f"the base is damaged: {exc.message}"
            return None
        with self._guard:
            self._latest = facts.oid, known
        return known

    def _holding(self, base: Base, oid: int) -> Callable[[BlobIds, int], bool]:
        def is_held(content: BlobIds, size_bytes: int) -> bool:
            is_there = base.is_held(content, size_bytes)
            if not is_there:
                self.lost.add(oid)
            return is_there

        return is_held

    def pages_per_range(self, facts: TableFacts) -> int | None:
        """Return the length of the ranges that the base has of a table."""
        record = self.tables.get(facts.oid)
        return record.pages_per_range if record is not None and self.refusal(facts) is None else None

    def refusal(self, facts: TableFacts) -> str | None:
        """Return why a table that has ranges is read whole; None if its ranges may be compared."""
        if self.base is None:
            return self.refused
        record = self.tables.get(facts.oid)
        if record is None or self.shapes is None:
            return "the base has no page ranges of it: it is new, or was smaller"
        return refuse_table(record, facts, self.shapes) or self.refusals.get(facts.oid)

    def checked(self, ranges: int) -> None:
        """Count ranges that were read and found to be what would have been taken over."""
        with self._guard:
            self.checked_ranges += ranges

    def alarm(self, what: str) -> None:
        """Note that rows differ where nothing should have changed."""
        with self._guard:
            self.alarms.append(what)

    def record(self, *, is_base: bool, alarms: Sequence[str]) -> ReuseRecord:
        """Return what the manifest says. ``alarms`` of an attempt that was given up make this backup's base distrusted."""
        told = tuple(dict.fromkeys((*alarms, *self.alarms)))
        distrusted = {*self.distrusted, *([self.base_id] if self.base_id and told else [])}
        depth = self.base.manifest.reuse.depth + 1 if self.base and not self.is_full_read else 0
        return ReuseRecord(
            is_base=is_base,
            base=self.base_id,
            refused=self.refused,
            depth=depth,
            is_full_read=self.is_full_read,
            checked_ranges=self.checked_ranges,
            alarms=told,
            distrusted=tuple(sorted(distrusted)),
        )


def plan_reuse(
    base: Base | None,
    source: Source,
    *,
    full_read: bool,
    full_read_every: int,
    distrusted: tuple[str, ...],
) -> Reuse:
    """Return what may be taken over from ``base``, judged by server and tables; the ranges are judged later."""
    if base is None:
        return Reuse(
            base=None,
            refused="no backup of this database can be a base",
            is_full_read=True,
            distrusted=distrusted,
        )
    refused = refuse_server(base.manifest, source)
    if refused is not None:
        return Reuse(base=None, refused=refused, is_full_read=True, distrusted=distrusted)
    is_due = base.manifest.reuse.depth + 1 >= full_read_every
    tables = {record.oid: record for record in base.manifest.tables if record.ranges is not None}
    return Reuse(
        base=base,
        refused=None,
        is_full_read=full_read or is_due,
        window=_window(base.manifest, source.leader),
        tables=tables,
        shapes=source.leader.shapes,
        distrusted=distrusted,
    )


def _window(base: Manifest, leader: Leader) -> XidWindow | None:
    """Return the raw transaction ids that may stand for two transactions, once the counter has gone round."""
    if leader.horizon.next < _XID_WRAP or base.server.oldest_xid is None:
        return None
    return XidWindow(base.server.oldest_xid % _XID_WRAP, leader.horizon.next - base.server.oldest_xid)


def _known_table(base: Base, member: str, ranges: str, is_held: Callable[[BlobIds, int], bool]) -> KnownTable:
    node = base.member(member)
    if node is None:
        raise RepositoryDamaged(f"{member} is missing")
    return KnownTable(is_held=is_held, node=node, index=base.read(ranges))


def same_ranges(known: KnownTable, prints: Fingerprints, first: int) -> bytes:
    """Return 1 for each range that the base holds as it is now, 0 for those that must be read.

    A range whose blobs the index of a repository no longer lists, or lists with other sizes, must be read.
    """
    there = known.ranges(first, len(prints))
    same = bytearray(len(prints))
    for place, (found, one) in enumerate(zip(prints, there, strict=False)):
        if place not in prints.young and one.is_same(found):
            same[place] = known.is_held(one.content, one.range.size_bytes)
    return bytes(same)
