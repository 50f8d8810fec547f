"""How a database stands: what there is of it, how old that is, and what each destination lacks. No judgement yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pgstow.catalog.backups import BackupRecord
from pgstow.monitor.facts import AlertFacts, DatabaseFacts, Facts, PlanFacts, RepositoryFacts
from pgstow.monitor.newest_rows import RowMoment
from pgstow.monitor.recovery import RecoveryStanding, recovery_of
from pgstow.monitor.storage import Growth, Sample, growth_of
from pgstow.state.runs import RunRecord

__all__ = [
    "DatabaseStanding",
    "DestinationStanding",
    "KindStanding",
    "TableStanding",
    "age_s",
    "known_databases",
    "longest_gap_s",
    "newest_whole",
    "standing_of",
    "tables_of",
]


_WINDOW = timedelta(days=30)
_SIZES = 14
_COMPARED = 7  # newest backups of a kind that every destination should have


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationStanding:
    """A repository that takes backups of a kind. ``lacks``: of the newest ones; None where it could not be read.

    ``expected_since``: since when it must have one; None where none can be missing from it.
    """

    repository: str
    expected_since: datetime | None
    newest: BackupRecord | None
    lacks: tuple[BackupRecord, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KindStanding:
    """The backups of one kind. ``is_known``: every repository they go to could be read, so that ``newest`` is the newest.

    ``expected_since``: since when there must be one; None where none can be missing.
    ``longest_gap_s`` is the longest time without one in the last 30 days, up to now; None where there are none.
    ``sizes`` are those of the last backups, oldest first, ``growth`` that of all in the last 30 days.
    """

    kind: str
    plans: tuple[PlanFacts, ...]
    newest: BackupRecord | None
    expected_since: datetime | None
    is_known: bool
    last_attempt: RunRecord | None
    longest_gap_s: float | None
    sizes: tuple[int, ...]
    growth: Growth | None
    destinations: tuple[DestinationStanding, ...]

    @property
    def next_due(self) -> datetime | None:
        return min((plan.next_due for plan in self.plans if plan.next_due), default=None)

    @property
    def is_missing(self) -> bool:
        """Whether a backup should be there and is not, as far as is known."""
        since = self.expected_since
        return since is not None and (self.newest is None or self.newest.time < since)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableStanding:
    """A critical table. ``newest`` is the newest backup that holds it; ``is_missing``: the newest whole one does not.

    Both are None where the backups could not be looked into. ``newest_row`` is the newest value of its time column in
    ``newest``: what that backup really reaches to. Damage now would lose what came after ``newest``; where the table is at
    rest nothing may have come.
    """

    table: str
    newest: BackupRecord | None
    is_missing: bool | None
    newest_row: RowMoment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseStanding:
    """A database. ``newest`` is its newest whole backup anywhere: what a loss now would be set back to.

    ``newest_counted`` is the newest that counts for its RPO: of a database with critical tables one of these alone counts, too.
    """

    database: DatabaseFacts
    now: datetime
    newest: BackupRecord | None
    newest_counted: BackupRecord | None
    is_known: bool
    longest_gap_s: float | None
    kinds: tuple[KindStanding, ...]
    tables: tuple[TableStanding, ...]
    recovery: RecoveryStanding
    alerts: tuple[AlertFacts, ...] | None

    @property
    def newest_age_s(self) -> float | None:
        """How old the newest whole backup is; None while there is none."""
        return None if self.newest is None else age_s(self.newest, self.now)

    @property
    def achieved_rpo_s(self) -> float | None:
        """How much work would be lost now; None while there is no backup that counts."""
        return None if self.newest_counted is None else age_s(self.newest_counted, self.now)


def age_s(record: BackupRecord, now: datetime) -> float:
    """Return how long ago the moment was that a backup shows; a clock that is behind makes none younger than now."""
    return max((now - record.time).total_seconds(), 0.0)


def known_databases(repositories: Iterable[RepositoryFacts]) -> list[str]:
    """Return the names of all sources that have backups."""
    return sorted({record.name for each in repositories for record in each.backups or ()})


def standing_of(facts: Facts, database: DatabaseFacts) -> DatabaseStanding:
    """Return how one database stands."""
    holders = list(facts.repositories.values())
    records = _merged(holders, database.name)
    whole = [record for record in records if database.is_whole(record)]
    plans = facts.plans_of(database.name)
    planned = dict.fromkeys(plan.kind for plan in plans)
    found = dict.fromkeys(record.kind for record in records)
    kinds = tuple(_kind(kind, facts, database, records) for kind in {**planned, **found})
    used = {name for plan in plans for name in plan.repositories} or set(facts.repositories)
    return DatabaseStanding(
        database=database,
        now=facts.now,
        newest=whole[-1] if whole else None,
        newest_counted=next((one for one in reversed(records) if database.counts_for_rpo(one)), None),
        is_known=all(facts.repositories[name].is_known for name in used),
        longest_gap_s=longest_gap_s([record.time for record in whole], facts.now),
        kinds=kinds,
        tables=tuple(_table(table, facts, records, whole) for table in database.critical),
        recovery=recovery_of(facts, database, whole[-1] if whole else None),
        alerts=None
        if facts.alerts is None
        else tuple(alert for alert in facts.alerts if alert.database == database.name),
    )


def newest_whole(facts: Facts, database: DatabaseFacts) -> BackupRecord | None:
    """Return the newest whole backup of a database in any repository."""
    records = _merged(facts.repositories.values(), database.name)
    return next((record for record in reversed(records) if database.is_whole(record)), None)


def tables_of(facts: Facts, database: DatabaseFacts) -> tuple[TableStanding, ...]:
    """Return how the critical tables of a database stand."""
    records = _merged(facts.repositories.values(), database.name)
    whole = [record for record in records if database.is_whole(record)]
    return tuple(_table(table, facts, records, whole) for table in database.critical)


def _merged(repositories: Iterable[RepositoryFacts], name: str) -> list[BackupRecord]:
    """Return the sound backups of a source, oldest first, each once however many copies of it there are."""
    found: dict[str, BackupRecord] = {}
    for repository in repositories:
        for record in repository.backups_of(name):
            if not record.is_damaged:
                found.setdefault(record.id, record)
    return sorted(found.values(), key=lambda record: (record.time, record.id))


def _kind(kind: str, facts: Facts, database: DatabaseFacts, records: Sequence[BackupRecord]) -> KindStanding:
    plans = tuple(plan for plan in facts.plans_of(database.name) if plan.kind == kind)
    mine = [record for record in records if record.kind == kind]
    places = _places(plans, facts, database.name, kind)
    compared = mine[-_COMPARED:] if plans else ()  # else nobody said where they should be
    recent = [record for record in mine if facts.now - record.time <= _WINDOW]
    alike = [record for record in mine if record.is_partial == mine[-1].is_partial]
    sized = [(record.time, record.size_bytes) for record in recent if record.size_bytes is not None]
    return KindStanding(
        kind=kind,
        plans=plans,
        newest=mine[-1] if mine else None,
        expected_since=_expected(facts, plans, places, mine[-1] if mine else None),
        is_known=all(facts.repositories[name].is_known for name in places),
        last_attempt=_last_attempt(facts.runs, database.name, kind),
        longest_gap_s=longest_gap_s([record.time for record in mine], facts.now),
        sizes=tuple(record.size_bytes for record in alike if record.size_bytes is not None)[-_SIZES:],
        growth=growth_of([Sample(time=time, used_bytes=size) for time, size in sized]),
        destinations=tuple(
            _destination(facts, plans, facts.repositories[name], compared, database.name, kind)
            for name in places
        ),
    )


def _places(plans: Sequence[PlanFacts], facts: Facts, database: str, kind: str) -> list[str]:
    """Return the repositories that plans send a kind to; without any, those that hold one, or may."""
    planned = dict.fromkeys(name for plan in plans for name in plan.repositories)
    if plans:
        return list(planned)
    return [
        name
        for name, each in facts.repositories.items()
        if not each.is_known or each.backups_of(database, kind)
    ]


def _expected(
    facts: Facts, plans: Sequence[PlanFacts], places: Iterable[str], newest: BackupRecord | None
) -> datetime | None:
    """Return since when there must be a backup by any of the plans, in any of the places."""
    moments = (
        facts.expected_since(plan, name, newest)
        for name in places
        for plan in plans
        if name in plan.repositories
    )
    return max((moment for moment in moments if moment is not None), default=None)


def _destination(
    facts: Facts,
    plans: Sequence[PlanFacts],
    repository: RepositoryFacts,
    compared: Sequence[BackupRecord],
    database: str,
    kind: str,
) -> DestinationStanding:
    held = [record for record in repository.backups_of(database, kind) if not record.is_damaged]
    ids = {record.id for record in held}
    return DestinationStanding(
        repository=repository.name,
        expected_since=_expected(facts, plans, [repository.name], held[-1] if held else None),
        newest=held[-1] if held else None,
        lacks=tuple(record for record in compared if record.id not in ids) if repository.is_known else None,
    )


def _last_attempt(runs: Sequence[RunRecord] | None, database: str, kind: str) -> RunRecord | None:
    return next(
        (run for run in runs or () if run.database == database and run.job == "backup" and run.kind == kind),
        None,
    )


def longest_gap_s(times: Sequence[datetime], now: datetime) -> float | None:
    """Return the longest time between neighbours of ``times``, oldest first, and now, that ended within 30 days."""
    if not times:
        return None
    ends = [*times[1:], now]
    gaps = [
        (end - start).total_seconds() for start, end in zip(times, ends, strict=True) if end >= now - _WINDOW
    ]
    return max(*gaps, 0.0)


def _table(
    table: str, facts: Facts, records: Sequence[BackupRecord], whole: Sequence[BackupRecord]
) -> TableStanding:
    looked_at = [record for record in records if record.id in facts.contents]
    holders = [record for record in looked_at if table in facts.contents[record.id]]
    newest_whole = whole[-1] if whole else None
    is_missing = (
        table not in facts.contents[newest_whole.id]
        if newest_whole is not None and newest_whole.id in facts.contents
        else None
    )
    return TableStanding(
        table=table,
        newest=holders[-1] if holders else None,
        is_missing=is_missing,
        newest_row=facts.contents[holders[-1].id][table].newest_row if holders else None,
    )
