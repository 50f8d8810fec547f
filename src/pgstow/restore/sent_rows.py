"""What was sent: a digest of every member's rows, taken on their way into COPY."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pgstow.postgres.archive import copy_columns, split_columns
from pgstow.postgres.loading import LoadTable
from pgstow.postgres.row_digests import ContentDigest, DigestKey, RowDigester
from pgstow.restore.load_tasks import LoadTask

__all__ = ["ReadTarget", "SentRows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTarget:
    """What is read back as one: a table, or a partitioned one as a whole, and the members that went into it.

    ``columns`` are in the order in which the first member was sent; with a ``condition``, rows that match it count.
    """

    table: LoadTable
    columns: bytes
    condition: str | None
    members: tuple[LoadTask, ...]

    @property
    def rows(self) -> int:
        return sum(task.record.rows for task in self.members)

    @property
    def size_bytes(self) -> int:
        """The bytes of its rows as text."""
        return sum(task.record.size_bytes for task in self.members)


class SentRows:
    """The digests of what was sent, by member, and of what extensions had in their tables before."""

    def __init__(self, tasks: Sequence[LoadTask]) -> None:
        self._key = DigestKey()
        self.targets = _targets(tasks)
        self._columns = {
            task.entry.dump_id: target.columns for target in self.targets for task in target.members
        }
        self._sent: dict[int, ContentDigest] = {}
        self._before: dict[bytes, ContentDigest] = {}

    @contextlib.contextmanager
    def sending(self, task: LoadTask) -> Iterator[Callable[[bytes], None]]:
        """Give the function that is to be told the rows of one member; what it was told counts if the block ends well.

        A member that is sent again replaces what was rolled back.
        """
        digester = self.digester()
        columns, wanted = _columns(task), self._columns[task.entry.dump_id]
        yield digester.add if columns == wanted else _Reordering(digester, columns, wanted).add
        self._sent[task.entry.dump_id] = digester.digest()

    def digester(self) -> RowDigester:
        """Return a digester whose digests can be held against those of what was sent."""
        return self._key.digester()

    def had_before(self, target: ReadTarget, digest: ContentDigest) -> None:
        """Take down what stood in a table of an extension before anything was loaded."""
        self._before[target.table.qualified] = digest

    def expected(self, target: ReadTarget) -> ContentDigest:
        """Return what the table must hold once all its members were sent."""
        before = self._before.get(target.table.qualified, ContentDigest())
        return sum((self._sent[task.entry.dump_id] for task in target.members), before)


def _targets(tasks: Sequence[LoadTask]) -> list[ReadTarget]:
    members: dict[bytes, list[LoadTask]] = {}
    for task in tasks:
        members.setdefault(task.table.qualified, []).append(task)
    return [
        ReadTarget(
            table=own[0].table,
            columns=_columns(own[0]),
            condition=own[0].condition,
            members=tuple(own),
        )
        for own in members.values()
    ]


def _columns(task: LoadTask) -> bytes:
    return copy_columns(task.entry)[1:-1]


class _Reordering:
    """Tells rows with their values in another order: that of ``wanted``.

    Partitions whose rows go in through their root may have the columns in another order each.
    """

    def __init__(self, digester: RowDigester, columns: bytes, wanted: bytes) -> None:
        there = split_columns(columns)
        self._digester = digester
        self._order = [there.index(name) for name in split_columns(wanted)]
        self._begun = b""  # of a row whose end has not come yet

    def add(self, piece: bytes) -> None:
        *rows, self._begun = (self._begun + piece).split(b"\n")
        for row in rows:
            values = row.split(b"\t")
            self._digester.add(b"\t".join([values[place] for place in self._order]) + b"\n")
