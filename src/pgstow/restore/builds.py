"""What is done to tables while others still load: indexes, constraints and statistics.

Left to the end, foreign keys would be checked one after the other, by one process each, with all other processors
idle. So whatever depends on tables alone is built as soon as those are filled. A foreign key is set
without looking at the rows and then validated, which several tables may be at once. All else of the post-data
section stays with pg_restore.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pgstow.core.errors import ConnectionFailed, PostgresError, RestoreError
from pgstow.core.schedule import Job
from pgstow.postgres.archive import Section, Toc, TocEntry
from pgstow.postgres.raw import RawSession
from pgstow.postgres.target import qualified, quoted
from pgstow.restore.load_tasks import LoadTask, batches
from pgstow.restore.naming import described

__all__ = ["Analysis", "Build", "Validation", "Work", "build", "plan_jobs", "select_builds", "validate"]

_OF_ONE_TABLE = b"ALTER TABLE ONLY "
_OF_USE_LATER = {b"MATERIALIZED VIEW", b"FUNCTION"}
_KINDS = {b"INDEX", b"CONSTRAINT", b"FK CONSTRAINT"}
# What a build costs against loading the same bytes, roughly as measured.
_COST = {b"INDEX": 0.3, b"CONSTRAINT": 0.25, b"FK CONSTRAINT": 0.3}
_ANALYSIS_COST = 0.02
# What statistics are gathered for besides a table's columns. A table that another one depends on has children, whose
# rows count for its statistics, too.
_FOR_STATISTICS = {b"INDEX", b"CONSTRAINT", b"STATISTICS", b"TABLE ATTACH", b"TABLE"}
# What locks out others can only be done one after the other, so it starts as soon as it can, and what does so for
# a moment only goes before what takes long; what shares its table fills the gaps.
_SETTING, _OWNING, _LOADING, _SHARING = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """An index or constraint, and the dump ids of the tables and builds it needs."""

    entry: TocEntry
    tables: frozenset[int]
    builds: frozenset[int]
    referencing: TocEntry | None = None  # the table of a foreign key that is validated in a job of its own

    @property
    def statement(self) -> bytes:
        """The statement to run; pg_dump's own, but for NOT VALID."""
        statement = self.entry.defn or b""
        return (
            statement if self.referencing is None else statement.rstrip().removesuffix(b";") + b" NOT VALID;"
        )

    @property
    def constraint(self) -> bytes:
        """The name of the foreign key, which follows the table's in the archive."""
        table = self.referencing.tag if self.referencing else b""
        return self.entry.tag.removeprefix(table + b" ")


@dataclass(frozen=True, slots=True)
class Validation:
    """The rows of a foreign key that was set without looking at them."""

    of: Build


@dataclass(frozen=True, slots=True)
class Analysis:
    """The planner's statistics of a table, by its quoted name."""

    qualified: bytes


Work = Sequence[LoadTask] | Build | Validation | Analysis


def select_builds(toc: Toc, post_data: Iterable[TocEntry]) -> list[Build]:
    """Return the entries of ``post_data`` that need nothing but ordinary tables and each other, in archive order.

    Left out: partitioned tables and partitions (indexes are attached, locks spread over all of them), constraints that
    reach into children, what goes into a tablespace of its own, and what calls users' functions, which may look
    at tables that are still empty.
    """
    by_id = toc.by_id()
    partitioning = {one for e in toc.entries if e.desc == b"TABLE ATTACH" for one in e.dependencies}
    found: dict[int, Build] = {}
    for entry in post_data:
        if entry.desc not in _KINDS or entry.tablespace or not entry.defn:
            continue
        if entry.desc != b"INDEX" and not entry.defn.startswith(_OF_ONE_TABLE):
            continue
        needs = [by_id[one] for one in entry.dependencies if one in by_id]
        tables = frozenset(other.dump_id for other in needs if other.desc == b"TABLE")
        builds = frozenset(other.dump_id for other in needs if other.dump_id in found)
        is_simple = all(_is_there(other) or other.dump_id in builds for other in needs)
        if tables and is_simple and not tables & partitioning:
            found[entry.dump_id] = Build(
                entry=entry, tables=tables, builds=builds, referencing=_referencing(entry, needs)
            )
    return list(found.values())


def _referencing(entry: TocEntry, needs: Iterable[TocEntry]) -> TocEntry | None:
    """Return the table of a foreign key whose rows can be looked at later; None where that is not certain."""
    body = (entry.defn or b"").rstrip().removesuffix(b";")
    if entry.desc != b"FK CONSTRAINT" or body.endswith((b" NOT VALID", b" NOT ENFORCED")):
        return None
    candidates = [
        other
        for other in needs
        if other.desc == b"TABLE"
        and other.namespace == entry.namespace
        and entry.tag.startswith(other.tag + b" ")
    ]
    return candidates[0] if len(candidates) == 1 else None


def _is_there(entry: TocEntry) -> bool:
    """Whether an entry is of use before rows are loaded."""
    return entry.section is Section.PRE_DATA and entry.desc not in _OF_USE_LATER


def plan_jobs(toc: Toc, tasks: Sequence[LoadTask], builds: Sequence[Build]) -> list[Job[Work]]:
    """Return all that is to be done as jobs that know what they wait for. Each batch of tables is one job.

    A table that this restore made is analyzed once all that is built on it is there.
    """
    table_ids = {(e.namespace, e.tag): e.dump_id for e in toc.entries if e.desc == b"TABLE"}
    built_now = {each.entry.dump_id for each in builds}
    analyzed_later = {
        one
        for e in toc.entries
        if e.desc in _FOR_STATISTICS and e.dump_id not in built_now
        for one in e.dependencies
    }
    loads: dict[int, set[int]] = {}  # by table: the jobs that fill it
    sizes: dict[int, int] = {}
    names: dict[int, bytes] = {}
    unlisted: set[int] = set()  # the jobs that fill tables which are no entries: extensions made them
    built_on: dict[int, set[int]] = {}
    jobs: list[Job[Work]] = []
    for batch in batches(tasks):
        key = batch[0].entry.dump_id
        jobs.append(
            Job(key=key, work=batch, tier=_LOADING, cost=sum(task.record.size_bytes for task in batch))
        )
        for task in batch:
            table = table_ids.get((task.entry.namespace, task.entry.tag))
            if table is None:
                unlisted.add(key)
            else:
                loads.setdefault(table, set()).add(key)
                sizes[table] = sizes.get(table, 0) + task.record.size_bytes
                if task.is_ours and table not in analyzed_later:
                    names[table] = task.table.qualified
    for each in builds:
        after = each.builds.union(*(loads.get(table, ()) for table in each.tables))
        if each.entry.desc == b"FK CONSTRAINT":  # the archive does not say so when it refers to one of these
            after |= unlisted
        cost = max(sizes.get(table, 0) for table in each.tables) * _COST[each.entry.desc]
        for job in _build_jobs(each, after, cost):
            jobs.append(job)
            for table in each.tables:
                built_on.setdefault(table, set()).add(job.key)
    for table, name in names.items():
        jobs.append(
            Job(
                key=_analysis_key(table),
                work=Analysis(name),
                cost=sizes[table] * _ANALYSIS_COST,
                tier=_SHARING,
                after=frozenset(loads[table] | built_on.get(table, set())),
                owns=frozenset({table}),
            )
        )
    return jobs


def _build_jobs(each: Build, after: frozenset[int], cost: float) -> Iterator[Job[Work]]:
    key = each.entry.dump_id
    if each.entry.desc == b"INDEX":
        if b"\nALTER TABLE " in (each.entry.defn or b""):  # CLUSTER ON and REPLICA IDENTITY lock out others
            yield Job(key=key, work=each, cost=cost, tier=_OWNING, after=after, owns=each.tables)
        else:
            yield Job(key=key, work=each, cost=cost, tier=_SHARING, after=after, shares=each.tables)
    elif each.referencing is None:
        yield Job(key=key, work=each, cost=cost, tier=_OWNING, after=after, owns=each.tables)
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


# Archives number their entries from 1 on; what is no entry gets a number below.
def _validation_key(dump_id: int) -> int:
    return -2 * dump_id


def _analysis_key(dump_id: int) -> int:
    return -2 * dump_id - 1


def build(session: RawSession, one: Build, encoding: str) -> None:
    """Build an index or set a constraint. Raises RestoreError naming it, ConnectionFailed."""
    _run(session, one, one.statement, encoding)


def validate(session: RawSession, one: Validation, encoding: str) -> None:
    """Check the rows of a foreign key. Raises RestoreError naming it, ConnectionFailed."""
    assert one.of.referencing is not None
    table = qualified(session, one.of.entry.namespace or b"", one.of.referencing.tag)
    constraint = quoted(session, one.of.constraint)
    statement = b"ALTER TABLE ONLY " + table + b" VALIDATE CONSTRAINT " + constraint
    _run(session, one.of, statement, encoding)


def _run(session: RawSession, one: Build, statement: bytes, encoding: str) -> None:
    what = described(one.entry, encoding)
    try:
        session.execute(statement, doing=f"restoring {what}")
    except ConnectionFailed:
        raise
    except PostgresError as exc:
        raise RestoreError(exc.message, hint=exc.hint, object=what, **exc.facts) from exc
