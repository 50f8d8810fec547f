"""All that the loading sessions do as jobs that know what they wait for: loads, builds, statistics, reading back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pgstow.core.schedule import Job
from pgstow.postgres.archive import Toc
from pgstow.restore.builds import Build, Validation
from pgstow.restore.contents import Part, parts_of
from pgstow.restore.load_tasks import LoadTask, batches
from pgstow.restore.sent_rows import ReadTarget

__all__ = ["Analysis", "Reading", "Work", "plan_jobs"]

# What a build costs against loading the same bytes, roughly as measured.
_COST = {b"INDEX": 0.3, b"CONSTRAINT": 0.25, b"FK CONSTRAINT": 0.2}
_ANALYSIS_COST = 0.02
_READING_COST = 0.4
# What statistics are gathered for besides a table's columns. A table that another one depends on has children, whose
# rows count for its statistics, too.
_FOR_STATISTICS = {b"INDEX", b"CONSTRAINT", b"STATISTICS", b"TABLE ATTACH", b"TABLE"}
# What locks out others can only be done one after the other, so it starts as soon as it can, and what does so for
# a moment only goes before what takes long; what shares its table fills the gaps.
_SETTING, _OWNING, _LOADING, _SHARING = range(4)


@dataclass(frozen=True, slots=True)
class Analysis:
    """The planner's statistics of a table, by its quoted name."""

    qualified: bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """Parts of tables that are read back and compared."""

    parts: tuple[Part, ...]


Work = Sequence[LoadTask] | Build | Validation | Analysis | Reading


def plan_jobs(
    toc: Toc, tasks: Sequence[LoadTask], builds: Sequence[Build], targets: Sequence[ReadTarget] = ()
) -> list[Job[Work]]:
    """Return the jobs. Each batch of tables is one.

    A table that this restore made is analyzed once all that is built on it is there; ``targets``, all of them such tables,
    are read back as soon as they are loaded.
    """
    loads = _Loads({(e.namespace, e.tag): e.dump_id for e in toc.entries if e.desc == b"TABLE"})
    for batch in batches(tasks):
        loads.add(batch)
    jobs: list[Job[Work]] = list(loads.jobs)
    built_on: dict[int, set[int]] = {}
    for each in builds:
        for job in _build_jobs(each, loads.needed_by(each), loads.cost_of(each)):
            jobs.append(job)
            for table in each.tables:
                built_on.setdefault(table, set()).add(job.key)
    jobs += _analysis_jobs(toc, builds, loads, built_on)
    jobs += _reading_jobs(targets, loads)
    return jobs


@dataclass(slots=True)
class _Loads:
    """The jobs that fill tables, and what they say about the tables, by dump id."""

    table_ids: dict[tuple[bytes | None, bytes], int]
    jobs: list[Job[Work]] = field(default_factory=list)
    filled_by: dict[int, set[int]] = field(default_factory=dict)  # by table: the jobs that fill it
    sizes: dict[int, int] = field(default_factory=dict)
    ours: dict[int, bytes] = field(default_factory=dict)  # names of the tables that this restore made
    unlisted: set[int] = field(default_factory=set)  # jobs for tables that extensions made: no entries

    def add(self, batch: Sequence[LoadTask]) -> None:
        key = batch[0].entry.dump_id
        size_bytes = sum(task.record.size_bytes for task in batch)
        self.jobs.append(Job(key=key, work=batch, tier=_LOADING, cost=size_bytes))
        for task in batch:
            table = self.table_ids.get((task.entry.namespace, task.entry.tag))
            if table is None:
                self.unlisted.add(key)
                continue
            self.filled_by.setdefault(table, set()).add(key)
            self.sizes[table] = self.sizes.get(table, 0) + task.record.size_bytes
            if task.is_ours:
                self.ours[table] = task.table.qualified

    def needed_by(self, each: Build) -> frozenset[int]:
        """Return the jobs that a build waits for."""
        after = each.builds.union(*(self.filled_by.get(table, ()) for table in each.tables))
        if each.entry.desc == b"FK CONSTRAINT":  # the archive does not say so when it refers to one of these
            after |= self.unlisted
        return after

    def cost_of(self, each: Build) -> float:
        return max(self.sizes.get(table, 0) for table in each.tables) * _COST[each.entry.desc]


def _analysis_jobs(
    toc: Toc, builds: Sequence[Build], loads: _Loads, built_on: dict[int, set[int]]
) -> Iterator[Job[Work]]:
    """Yield a job for each table of ours whose statistics depend on nothing that is made later."""
    built_now = {each.entry.dump_id for each in builds}
    later = {
        one
        for e in toc.entries
        if e.desc in _FOR_STATISTICS and e.dump_id not in built_now
        for one in e.dependencies
    }
    for table, name in loads.ours.items():
        if table not in later:
            yield Job(
                key=_analysis_key(table),
                work=Analysis(name),
                cost=loads.sizes[table] * _ANALYSIS_COST,
                tier=_SHARING,
                after=frozenset(loads.filled_by[table] | built_on.get(table, set())),
                owns=frozenset({table}),
            )


def _build_jobs(each: Build, after: frozenset[int], cost: float) -> Iterator[Job[Work]]:
    key = each.entry.dump_id
    if each.entry.desc == b"INDEX":
        if b"\nALTER TABLE " in (each.entry.defn or b""):  # CLUSTER ON and REPLICA IDENTITY lock out others
            yield Job(
                key=key, work=each, cost=cost, tier=_OWNING, after=after, owns=_with_readers(each.tables)
            )
        else:
            yield Job(key=key, work=each, cost=cost, tier=_SHARING, after=after, shares=each.tables)
    elif each.referencing is None:
        # Other constraints lock out even those who read.
        owns = each.tables if each.entry.desc == b"FK CONSTRAINT" else _with_readers(each.tables)
        yield Job(key=key, work=each, cost=cost, tier=_OWNING, after=after, owns=owns)
    else:
        own = frozenset({each.referencing.dump_id})
        yield Job(key=key, work=each, cost=0, tier=_SETTING, after=after, owns=each.tables)
        yield Job(
            key=_validation_key(key),
            work=Validation(each),
            cost=cost,
            tier=_OWNING,
            after=frozenset({key}),
            owns=own,
            shares=each.tables - own,
        )


def _reading_jobs(targets: Sequence[ReadTarget], loads: _Loads) -> Iterator[Job[Work]]:
    """Yield the jobs that read tables back: large ones in parts, small ones together, as they were loaded."""
    small: dict[int, list[tuple[int, Part]]] = {}
    for target in targets:
        (task,) = target.members
        table = loads.table_ids[task.entry.namespace, task.entry.tag]
        (load,) = loads.filled_by[table]
        parts = parts_of(target)
        if len(parts) == 1:
            small.setdefault(load, []).append((table, parts[0]))
            continue
        for number, part in enumerate(parts):
            yield _reading_job(_reading_key(table, number), [(table, part)], load)
    for load, together in small.items():
        yield _reading_job(_reading_key(together[0][0], 0), together, load)


def _reading_job(key: int, parts: Sequence[tuple[int, Part]], load: int) -> Job[Work]:
    return Job(
        key=key,
        work=Reading(tuple(part for _, part in parts)),
        cost=sum(part.target.size_bytes / part.of for _, part in parts) * _READING_COST,
        tier=_SHARING,
        after=frozenset({load}),
        shares=frozenset(_readers_of(table) for table, _ in parts),
    )


# Archives number their tables from 1 on. Who reads a table shares it with those who build on it, but for the few who lock
# out even readers; so the reading of each table counts as something of its own that can be shared and owned.
def _readers_of(table: int) -> int:
    return -table


def _with_readers(tables: frozenset[int]) -> frozenset[int]:
    return tables | {_readers_of(table) for table in tables}


# Archives number their entries from 1 on; what is no entry gets a number below.
def _validation_key(dump_id: int) -> int:
    return -2 * dump_id


def _analysis_key(dump_id: int) -> int:
    return -2 * dump_id - 1


def _reading_key(table: int, number: int) -> int:
    return -(table << 40) - number
