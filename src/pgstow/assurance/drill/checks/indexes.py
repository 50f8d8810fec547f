"""Indexes: each one of the archive is there and can be used, and their pages are sound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from pgstow.assurance.drill.checks.records import counted, failed, listed, passed, skipped, summed_up, unknown
from pgstow.assurance.drill.checks.restored import Check, Restored
from pgstow.catalog.assertions import Severity
from pgstow.catalog.drills import CheckRecord
from pgstow.core.errors import ConnectionFailed, PostgresError
from pgstow.postgres.amcheck import Amcheck, broken_index, broken_tuples, find_amcheck, install_amcheck
from pgstow.postgres.inventory import BtreeIndex, HeapTable, btree_indexes, heap_tables, index_states
from pgstow.postgres.raw import RawSession
from pgstow.postgres.target import available_extensions

__all__ = [
    "STRUCTURES",
    "Structures",
    "check_indexes",
    "look_at_structures",
    "structure_checks",
    "told_of_structures",
]

STRUCTURES = ("amcheck", "tables")  # the codes of what is found in pages

_MIB = 1 << 20
# Whether every row that must be in an index is, costs as much as building it once more. So that is asked of indexes on
# tables of up to the first size, the smallest first, until so much was read. The order of an index alone costs a tenth.
_WITH_HEAP_BYTES = 64 * _MIB
_WITH_HEAP_BYTES_IN_ALL = 512 * _MIB
_HEAP_BYTES = 256 * _MIB  # tables above it were read whole for the comparison, and are not read a second time
_BATCH_BYTES = 32 * _MIB
_BATCH = 200
_HOW_TO_GET_IT = "drill with a server of the system's packages (postgresql, postgresql-contrib) to have it"


def check_indexes(restored: Restored, session: RawSession) -> Iterator[CheckRecord]:
    """Yield whether every index is there, and valid, ready and live."""
    entries = restored.entries(b"INDEX")
    states = list(index_states(session))
    if not entries and not states:
        yield skipped("indexes", "the backup holds no indexes")
        return
    there = {(one.schema, one.name) for one in states}
    problems = [
        failed("indexes", "the index is missing", subject=restored.qualified(entry))
        for entry in entries
        if (entry.namespace or b"", entry.tag) not in there
    ]
    problems += [
        failed(
            "indexes",
            f"the index on {restored.text(one.table)} is there, but not valid: queries do not use it",
            subject=f"{restored.text(one.schema)}.{restored.text(one.name)}",
        )
        for one in states
        if one.is_usable is False
    ]
    yield from summed_up(
        passed("indexes", f"{counted(len(states), 'index', 'indexes')}, there and valid"), problems
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Structures:
    """What is to be looked at with amcheck; or why it cannot be. ``severity`` is how much that matters."""

    amcheck: Amcheck | None
    why_not: str = ""
    severity: Severity = "error"
    indexes: Sequence[BtreeIndex] = ()
    tables: Sequence[HeapTable] = ()

    @property
    def with_heap(self) -> frozenset[int]:
        """The indexes that are also checked for every row that must be in them."""
        found, so_far = set(), 0
        for index in sorted(self.indexes, key=lambda one: one.table_bytes):
            so_far += index.table_bytes
            if index.table_bytes > _WITH_HEAP_BYTES or so_far > _WITH_HEAP_BYTES_IN_ALL:
                break
            found.add(index.oid)
        return frozenset(found)


def look_at_structures(session: RawSession, *, is_throwaway: bool) -> Structures:
    """Return what there is to look at, having installed amcheck where it is missing and can be."""
    why_not, severity = "", _severity(is_throwaway=is_throwaway)
    amcheck = find_amcheck(session)
    if amcheck is None and b"amcheck" not in available_extensions(session):
        # Indexes of a restore were built minutes ago, of rows that were compared: to have no second opinion of them is no
        # reason to call a backup bad. Servers that come as a Python package have no amcheck.
        return Structures(
            amcheck=None, why_not=f"this server does not have it; {_HOW_TO_GET_IT}", severity="warning"
        )
    if amcheck is None:
        try:
            install_amcheck(session)
        except ConnectionFailed:
            raise
        except PostgresError as exc:
            session.execute(b"ROLLBACK", doing="giving up amcheck")
            why_not = exc.message
        amcheck = find_amcheck(session)
    return Structures(
        amcheck=amcheck,
        why_not=why_not,
        severity=severity,
        indexes=btree_indexes(session),
        tables=heap_tables(session) if amcheck is not None and amcheck.has_heap else (),
    )


def structure_checks(structures: Structures) -> Iterator[Check]:
    """Yield the checks of pages, small ones together, each giving records for what is broken alone."""
    if structures.amcheck is None:
        return
    with_heap = structures.with_heap

    def cost(index: BtreeIndex) -> int:
        return index.size_bytes + (index.table_bytes if index.oid in with_heap else 0)

    batch: list[BtreeIndex] = []
    for index in sorted(structures.indexes, key=cost):
        if batch and (len(batch) >= _BATCH or cost(index) + sum(map(cost, batch)) > _BATCH_BYTES):
            yield _of_indexes(structures.amcheck, batch, with_heap, sum(map(cost, batch)))
            batch = []
        batch.append(index)
    if batch:
        yield _of_indexes(structures.amcheck, batch, with_heap, sum(map(cost, batch)))
    tables = [table for table in structures.tables if table.size_bytes <= _HEAP_BYTES]
    for start in range(0, len(tables), _BATCH):
        some = tables[start : start + _BATCH]
        yield Check(
            codes=("tables",),
            run=partial(_check_tables, structures.amcheck, some),
            cost=sum(table.size_bytes for table in some),
        )


def _of_indexes(amcheck: Amcheck, batch: Sequence[BtreeIndex], with_heap: frozenset[int], cost: int) -> Check:
    return Check(
        codes=("amcheck",),
        run=partial(_check_btrees, amcheck, list(batch), with_heap),
        cost=cost,
        subject=listed(index.name.decode("utf-8", "backslashreplace") for index in batch),
    )


def _check_btrees(
    amcheck: Amcheck,
    indexes: Iterable[BtreeIndex],
    with_heap: frozenset[int],
    restored: Restored,
    session: RawSession,
) -> Iterator[CheckRecord]:
    for index in indexes:
        name = restored.text(index.name)
        try:
            why = broken_index(session, amcheck, index.oid, with_heap=index.oid in with_heap)
        except ConnectionFailed as exc:
            yield unknown(
                "amcheck", f"the server broke down while it looked at this: {exc.message}", subject=name
            )
            raise
        except PostgresError as exc:
            yield unknown("amcheck", exc.message, subject=name, severity=_severity_of(restored, exc))
            continue
        if why is not None:
            yield failed("amcheck", f"the index is broken: {why}", subject=name)


def _check_tables(
    amcheck: Amcheck, tables: Iterable[HeapTable], restored: Restored, session: RawSession
) -> Iterator[CheckRecord]:
    for table in tables:
        name = restored.text(table.name)
        try:
            problems = broken_tuples(session, amcheck, table.oid)
        except ConnectionFailed as exc:
            yield unknown(
                "tables", f"the server broke down while it looked at this: {exc.message}", subject=name
            )
            raise
        except PostgresError as exc:
            yield unknown("tables", exc.message, subject=name, severity=_severity_of(restored, exc))
            continue
        if problems:
            yield failed("tables", f"pages of the table are broken: {'; '.join(problems)}", subject=name)


def _severity(*, is_throwaway: bool) -> Severity:
    """On a server that somebody gave us the right to use amcheck may be missing, and that is no fault of the backup."""
    return "error" if is_throwaway else "warning"


def _severity_of(restored: Restored, exc: PostgresError) -> Severity:
    is_refused = exc.facts.get("sqlstate") == "42501"
    return _severity(is_throwaway=restored.context.is_throwaway) if is_refused else "error"


def told_of_structures(structures: Structures, found: Sequence[CheckRecord]) -> Iterator[CheckRecord]:
    """Yield what was looked at, and what of it is broken, of all the checks that ``structure_checks()`` gave."""
    if structures.amcheck is None:
        for code, what in (("amcheck", "indexes"), ("tables", "tables")):
            message = f"the pages of {what} were not checked with amcheck: {structures.why_not}"
            yield unknown(code, message, severity=structures.severity)
        return
    whole = len(structures.with_heap)
    small = sum(table.size_bytes <= _HEAP_BYTES for table in structures.tables)
    rest = len(structures.indexes) - whole
    in_part = f"; the {rest} on large tables by their structure alone" if rest else ""
    indexes = f"{counted(len(structures.indexes), 'sound B-tree index', 'sound B-tree indexes')}, {whole} of them with every row of their table{in_part}"
    yield from _told("amcheck", found, passed("amcheck", indexes), has_any=bool(structures.indexes))
    left = len(structures.tables) - small
    unseen = (
        f"; {left} above {_HEAP_BYTES // _MIB} MiB were read whole for the comparison and not checked again"
        if left
        else ""
    )
    tables = f"sound pages of {counted(small, 'table or materialized view', 'tables and materialized views')}{unseen}"
    yield from _told("tables", found, passed("tables", tables), has_any=bool(structures.tables))


def _told(
    code: str, found: Sequence[CheckRecord], good: CheckRecord, *, has_any: bool
) -> Iterator[CheckRecord]:
    problems = [one for one in found if one.code == code]
    if has_any or problems:
        yield from summed_up(good, problems)
