"""Indexes and constraints that are built while other tables still load.

Foreign keys are checked one after the other where they share a table, and by one process each. Left to the end
they leave all other processors idle, so whatever depends on tables alone is built as soon as those are
filled. All else of the post-data section stays with pg_restore.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pgstow.core.errors import ConnectionFailed, PostgresError, RestoreError
from pgstow.core.schedule import Job
from pgstow.postgres.archive import Section, Toc, TocEntry
from pgstow.postgres.raw import RawSession
from pgstow.restore.load_tasks import LoadTask, batches
from pgstow.restore.naming import described

__all__ = ["Build", "build", "plan_jobs", "select_builds"]

_KINDS = {b"INDEX", b"CONSTRAINT", b"FK CONSTRAINT"}
# What a build costs against loading the same bytes, roughly as measured.
_COST = {b"INDEX": 0.3, b"CONSTRAINT": 0.25, b"FK CONSTRAINT": 0.3}
# What locks out others can only be done one after the other, so it starts as soon as it can; what shares its
# table fills the gaps.
_OWNING, _LOADING, _SHARING = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """An index or constraint, and the dump ids of the tables and builds it needs."""

    entry: TocEntry
    tables: frozenset[int]
    builds: frozenset[int]


def select_builds(toc: Toc, post_data: Iterable[TocEntry]) -> list[Build]:
    """Return the entries of ``post_data`` that need nothing but ordinary tables and each other, in archive order.

    Left out: partitioned tables and partitions (indexes are attached, locks spread over all of them), and what
    goes into a tablespace of its own.
    """
    by_id = toc.by_id()
    partitioning = {one for e in toc.entries if e.desc == b"TABLE ATTACH" for one in e.dependencies}
    found: dict[int, Build] = {}
    for entry in post_data:
        if entry.desc not in _KINDS or entry.tablespace or not entry.defn:
            continue
        needs = [by_id[one] for one in entry.dependencies if one in by_id]
        tables = frozenset(other.dump_id for other in needs if other.desc == b"TABLE")
        builds = frozenset(other.dump_id for other in needs if other.dump_id in found)
        is_simple = all(_is_there(other) or other.dump_id in builds for other in needs)
        if tables and is_simple and not tables & partitioning:
            found[entry.dump_id] = Build(entry=entry, tables=tables, builds=builds)
    return list(found.values())


def _is_there(entry: TocEntry) -> bool:
    """Whether an entry is in place before rows are loaded; materialized views have no rows until the end."""
    return entry.section is Section.PRE_DATA and entry.desc != b"MATERIALIZED VIEW"


def plan_jobs(
    toc: Toc, tasks: Sequence[LoadTask], builds: Sequence[Build]
) -> list[Job[Sequence[LoadTask] | Build]]:
    """Return loads and builds as jobs that know what they wait for. Each batch of tables is one job."""
    table_ids = {(e.namespace, e.tag): e.dump_id for e in toc.entries if e.desc == b"TABLE"}
    loads: dict[int, set[int]] = {}  # by table: the jobs that fill it
    sizes: dict[int, int] = {}
    jobs: list[Job[Sequence[LoadTask] | Build]] = []
    for batch in batches(tasks):
        key = batch[0].entry.dump_id
        jobs.append(
            Job(key=key, work=batch, tier=_LOADING, cost=sum(task.record.size_bytes for task in batch))
        )
        for task in batch:
            table = table_ids.get((task.entry.namespace, task.entry.tag))
            if table is not None:
                loads.setdefault(table, set()).add(key)
                sizes[table] = sizes.get(table, 0) + task.record.size_bytes
    for each in builds:
        after = frozenset().union(each.builds, *(loads.get(table, ()) for table in each.tables))
        size_bytes = max(sizes.get(table, 0) for table in each.tables)
        is_index = each.entry.desc == b"INDEX"
        jobs.append(
            Job(
                key=each.entry.dump_id,
                work=each,
                cost=size_bytes * _COST[each.entry.desc],
                tier=_SHARING if is_index else _OWNING,
                after=after,
                shares=each.tables if is_index else frozenset(),
                owns=frozenset() if is_index else each.tables,
            )
        )
    return jobs


def build(session: RawSession, one: Build, encoding: str) -> None:
    """Build an index or set a constraint. Raises RestoreError naming it, ConnectionFailed."""
    what = described(one.entry, encoding)
    try:
        session.execute(one.entry.defn or b"", doing=f"restoring {what}")
    except ConnectionFailed:
        raise
    except PostgresError as exc:
        raise RestoreError(exc.message, hint=exc.hint, object=what, **exc.facts) from exc
