"""Which backup a drill restores: pure functions of the backups there are and of the drills that were made."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pgstow.catalog.backups import CRITICAL, IMPORT, BackupRecord
from pgstow.catalog.drills import DrillRecord
from pgstow.core.errors import BackupNotFound

__all__ = ["Chosen", "Strategy", "Tier", "candidates", "choose"]

# rotate: what was drilled longest ago, so that over time every database, kind and age has been restored once.
Strategy = Literal["latest", "random", "oldest", "rotate"]
Tier = tuple[str, str]  # name of the database, kind of the backup

_NEVER = datetime.min.replace(tzinfo=UTC)
_AGES = 3  # the backups of a tier are the new, the middle and the old ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A backup and how it came to be chosen."""

    backup: BackupRecord
    strategy: Strategy
    seed: str | None = None


def choose(
    records: Iterable[BackupRecord],
    strategy: Strategy,
    *,
    drills: Iterable[DrillRecord] = (),
    database: str | None = None,
    kind: str | None = None,
    seed: str | None = None,
    partial_by_intent: Collection[str] = (),
) -> Chosen:
    """Return the backup that ``strategy`` chooses among its ``candidates()``; BackupNotFound if there is none."""
    records = list(records)
    among = candidates(records, strategy, database=database, kind=kind, partial_by_intent=partial_by_intent)
    if not among:
        others = candidates(records, "rotate", database=database, kind=kind)
        raise BackupNotFound(
            f"no{' whole' if others else ''} backup{_of(database, kind)} can be chosen",
            hint="there are partial ones: name their kind with --kind, or one by its id"
            if others
            else "pgstow list shows what there is",
        )
    match strategy:
        case "latest":
            return Chosen(backup=_latest(among), strategy=strategy)
        case "oldest":
            return Chosen(backup=among[0], strategy=strategy)
        case "random":
            seed = seed or f"{random.SystemRandom().getrandbits(64):016x}"
            chooser = random.Random(seed)  # noqa: S311  whoever knows the seed is to get the same backup
            return Chosen(backup=chooser.choice(among), strategy=strategy, seed=seed)
        case "rotate":
            return Chosen(backup=_rotated(among, drills), strategy=strategy)


def candidates(
    records: Iterable[BackupRecord],
    strategy: Strategy,
    *,
    database: str | None = None,
    kind: str | None = None,
    partial_by_intent: Collection[str] = (),
) -> list[BackupRecord]:
    """Return the backups of ``database`` and ``kind`` that may be chosen, the oldest first.

    Partial ones only when their kind is named, by ``rotate``, which samples every tier, or where the settings leave something out of
    every backup of that database. Those from which a repair left something out never: to restore one, name it.
    """
    among = [
        record
        for record in records
        if not record.is_damaged and database in (None, record.name) and kind in (None, record.kind)
    ]
    if kind is None and strategy != "rotate":
        among = [
            record
            for record in among
            if not record.is_partial or (record.name in partial_by_intent and record.kind != CRITICAL)
        ]
    return sorted(among, key=lambda record: (record.time, record.id))


def _of(database: str | None, kind: str | None) -> str:
    return (f" of {database}" if database else "") + (f" of kind {kind}" if kind else "")


def _latest(among: Sequence[BackupRecord]) -> BackupRecord:
    names = sorted({record.name for record in among})
    if len(names) > 1:
        raise BackupNotFound(
            "latest is ambiguous: the repository holds backups of " + ", ".join(names),
            hint="choose one with --database NAME, or write NAME@latest",
        )
    # The time of a dump from elsewhere may be that of a file, and is no backup that was made since.
    return next((record for record in reversed(among) if record.kind != IMPORT), among[-1])


def _rotated(among: Sequence[BackupRecord], drills: Iterable[DrillRecord]) -> BackupRecord:
    """Return a backup of the tier, and of the age within it, that was drilled longest ago, or never.

    A failed drill counts as well: it has been told, and the next one should not look at the same backup while other tiers wait. An
    interrupted one does not.
    """
    by_tier: defaultdict[Tier, datetime] = defaultdict(lambda: _NEVER)
    by_backup: defaultdict[str, datetime] = defaultdict(lambda: _NEVER)
    for drill in drills:
        if drill.outcome != "interrupted":
            tier = (drill.backup_name, drill.backup_kind)
            by_tier[tier] = max(by_tier[tier], drill.started)
            by_backup[drill.backup_id] = max(by_backup[drill.backup_id], drill.started)
    tiers: defaultdict[Tier, list[BackupRecord]] = defaultdict(list)
    for record in among:
        tiers[record.name, record.kind].append(record)
    # Among tiers never drilled the one with the newest backup comes first: it is what a restore would be made of.
    longest_ago = min(tiers, key=lambda tier: (by_tier[tier], -tiers[tier][-1].time.timestamp(), tier))
    return _of_an_age(tiers[longest_ago], by_backup)


def _of_an_age(mine: Sequence[BackupRecord], by_backup: Mapping[str, datetime]) -> BackupRecord:
    """Return a backup of the third, the newest first, in which nothing was drilled for the longest time."""
    thirds = [
        third
        for number in range(_AGES)
        if (third := mine[len(mine) * number // _AGES : len(mine) * (number + 1) // _AGES])
    ]
    newest_first = reversed(thirds)
    third = min(newest_first, key=lambda third: max(by_backup.get(one.id, _NEVER) for one in third))
    return min(reversed(third), key=lambda one: by_backup.get(one.id, _NEVER))
