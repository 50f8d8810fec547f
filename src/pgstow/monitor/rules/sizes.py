"""Rules about sizes: of whole backups, as their repositories say, and of their tables, as the history says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pgstow.catalog.backups import BackupRecord
from pgstow.monitor.facts import Facts
from pgstow.monitor.findings import Finding, Severity, fingerprint
from pgstow.monitor.rules.common import Judgement, everything_of, moment, names, size, some
from pgstow.monitor.usual import LEAST_COMPARED, MOST_COMPARED, is_unusual, usual_size
from pgstow.state.runs import RunRecord

__all__ = ["size_changed", "tables_changed"]


def size_changed(facts: Facts) -> Judgement:
    """The newest backup of a kind differs by more than a share from the median of those before it."""
    is_known = all(each.is_known for each in facts.repositories.values())
    for database in facts.databases:
        if not is_known:  # the newest backup may be one that cannot be seen
            yield from (everything_of(rule, f"{database.name}/") for rule in ("size_grew", "size_shrank"))
        for kind, records in sorted(_by_kind(facts, database.name).items()):
            subject = f"{database.name}/{kind}"
            *before, newest = records
            if newest.size_bytes is None:
                yield fingerprint("size_grew", subject)
                yield fingerprint("size_shrank", subject)
                yield _size_unknown(newest, subject)
                continue
            usual = usual_size([each.size_bytes for each in before if each.size_bytes is not None])
            if usual is not None and is_unusual(newest.size_bytes, usual, facts.policy):
                yield _changed(newest, newest.size_bytes, usual, subject)


def _by_kind(facts: Facts, database: str) -> dict[str, list[BackupRecord]]:
    """Return every sound backup of a database once, wherever it is, oldest first, by kind; partial ones apart."""
    found = {
        record.id: record
        for each in facts.repositories.values()
        for record in each.backups_of(database)
        if not record.is_damaged
    }
    kinds: dict[str, list[BackupRecord]] = {}
    for record in sorted(found.values(), key=lambda record: (record.time, record.id)):
        kinds.setdefault(f"{record.kind} partial" if record.is_partial else record.kind, []).append(record)
    return kinds


def _changed(newest: BackupRecord, size_bytes: int, usual: float, subject: str) -> Finding:
    change = size_bytes - usual
    share = f"{change / usual:+.0%}" if usual else "from nothing"
    has_grown = change > 0
    return Finding(
        rule="size_grew" if has_grown else "size_shrank",
        subject=subject,
        severity=Severity.WARNING if has_grown else Severity.CRITICAL,
        message=f"the newest {newest.kind} backup of {newest.name} has {size(size_bytes)}, {share} of the usual "
        f"{size(usual)} (median of those before it)",
        hint=f"pgstow show {newest.short_id} shows its tables; "
        + (
            "expected growth becomes the usual by itself, pgstow alerts ack ends the reminders"
            if has_grown
            else "if rows were lost, the backups before it still hold them: keep them with pgstow hold"
        ),
        since=newest.time,
        facts={"backup": newest.id, "size_bytes": size_bytes, "usual_bytes": round(usual)},
    )


def _size_unknown(newest: BackupRecord, subject: str) -> Finding:
    return Finding(
        rule="size_unknown",
        subject=subject,
        severity=Severity.WARNING,
        message=f"the size of the newest {newest.kind} backup of {newest.name}, {newest.short_id}, cannot be told: "
        "its snapshot has no summary",
        hint="restic's rewrite and copy drop it; pgstow verify checks the backup itself",
        since=newest.time,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _TableChange:
    """A table's rows and bytes in the newest run, beside the medians of those before."""

    table: str
    rows: int
    size_bytes: int
    usual_rows: float
    usual_bytes: float
    is_critical: bool

    def __str__(self) -> str:
        return f"{self.table} ({self.usual_rows:,.0f} to {self.rows:,} rows)"


def tables_changed(facts: Facts) -> Judgement:
    """Tables of the newest run hold far fewer or far more than usual: a TRUNCATE that cascaded looks like this.

    A table that is empty or gone counts whatever its bytes were.
    """
    if facts.runs is None:
        yield everything_of("tables_shrank")
        yield everything_of("tables_grew")
    for database in facts.databases:
        critical = frozenset(database.critical)
        for kind, runs in sorted(_runs_by_kind(facts, database.name).items()):
            newest, *before = runs
            if len(before) < LEAST_COMPARED:
                continue
            changes = list(_changes(newest, before[:MOST_COMPARED], critical))
            shrunk = [each for each in changes if _shrank(each, facts)]
            grown = [each for each in changes if _grew(each, facts)]
            subject = f"{database.name}/{kind}"
            if shrunk:
                yield _tables_shrank(newest, shrunk, subject)
            if grown:
                yield _tables_grew(newest, grown, subject)


def _runs_by_kind(facts: Facts, database: str) -> dict[str, list[RunRecord]]:
    """Return the runs that published and say what was in their tables, newest first, by kind."""
    kinds: dict[str, list[RunRecord]] = {}
    for run in facts.runs or ():
        if (
            (run.job, run.database) == ("backup", database)
            and run.outcome in ("done", "partial")
            and run.tables
        ):
            kinds.setdefault(run.kind, []).append(run)
    return kinds


def _changes(
    newest: RunRecord, before: Sequence[RunRecord], critical: frozenset[str]
) -> Iterator[_TableChange]:
    for table in sorted({*newest.tables, *before[0].tables}):
        known = [run.tables[table] for run in before if table in run.tables]
        if len(known) < LEAST_COMPARED:
            continue
        rows, size_bytes = newest.tables.get(table, (0, 0))
        yield _TableChange(
            table=table,
            rows=rows,
            size_bytes=size_bytes,
            usual_rows=median(each[0] for each in known),
            usual_bytes=median(each[1] for each in known),
            is_critical=table in critical,
        )


def _shrank(change: _TableChange, facts: Facts) -> bool:
    policy = facts.policy
    lost = change.usual_rows - change.rows
    if change.usual_rows <= 0 or lost <= policy.size_change * change.usual_rows:
        return False
    if change.is_critical or lost >= policy.rows_floor:
        return True
    return change.usual_bytes - change.size_bytes >= policy.size_floor_bytes


def _grew(change: _TableChange, facts: Facts) -> bool:
    more = change.size_bytes - change.usual_bytes
    return more >= facts.policy.size_floor_bytes and more > facts.policy.size_change * change.usual_bytes


def _tables_shrank(newest: RunRecord, shrunk: Sequence[_TableChange], subject: str) -> Finding:
    worst = sorted(shrunk, key=lambda each: (each.rows / each.usual_rows, -each.usual_rows))
    emptied = sum(not each.rows for each in shrunk)
    return Finding(
        rule="tables_shrank",
        subject=subject,
        severity=Severity.CRITICAL
        if emptied or any(each.is_critical for each in shrunk)
        else Severity.WARNING,
        message=f"{some(len(shrunk), 'table')} of {newest.database} lost rows"
        f"{f', {emptied} of them all' if emptied else ''}: {names([str(each) for each in worst])}",
        hint=f"if nobody meant it, the backups before {moment(newest.started)} still hold the rows: keep them with "
        "pgstow hold, and bring tables back with pgstow restore --table",
        since=newest.started,
        extent=len(shrunk),
        facts=_facts(newest, worst),
    )


def _tables_grew(newest: RunRecord, grown: Sequence[_TableChange], subject: str) -> Finding:
    most = sorted(grown, key=lambda each: each.usual_bytes - each.size_bytes)
    return Finding(
        rule="tables_grew",
        subject=subject,
        severity=Severity.WARNING,
        message=f"{some(len(grown), 'table')} of {newest.database} grew: {names([str(each) for each in most])}",
        hint="look what writes there; expected growth becomes the usual by itself",
        since=newest.started,
        extent=len(grown),
        facts=_facts(newest, most),
    )


def _facts(newest: RunRecord, changes: Sequence[_TableChange]) -> Mapping[str, str | list[str] | None]:
    return {"run": newest.id, "backup": newest.backup_id, "tables": [each.table for each in changes[:100]]}
