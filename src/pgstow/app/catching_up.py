"""Bringing the repositories of a plan the earlier backups of a database that they missed.

After every backup into several repositories, between those that have it: they could be reached just now. What a repository
is to have is decided by what it holds and by the retention of the settings, not by the history of runs: a run may have been
written down nowhere, and a catch-up that failed is made up for by the next one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pgstow.app.copy import CatchUp, catch_up
from pgstow.app.plan_parts import PlanParts
from pgstow.catalog.backups import BackupRecord, backup_record, list_backups
from pgstow.config.settings import DatabaseSettings, Settings
from pgstow.core.errors import Interrupted, PgstowError
from pgstow.monitor.rules.stores import CATCH_UP
from pgstow.repository import Repository
from pgstow.retention import RetentionPolicies
from pgstow.upkeep.catch_up import find_wanted, plan_catch_up
from pgstow.upkeep.copy import CopyFailure

__all__ = ["CaughtUp", "Lacking", "bring", "find_lacking"]

_EVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """What repositories are to be brought: by the name of each, and by that of one that can give them, ids of backups."""

    targets: Mapping[str, Mapping[str, frozenset[str]]]
    warnings: Sequence[str] = ()


@dataclass(slots=True, kw_only=True)
class CaughtUp:
    """What was brought so far: ids of backups by the repository that has them now."""

    brought: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def find_lacking(
    database: DatabaseSettings, reached: Mapping[str, Repository], settings: Settings
) -> Lacking | None:
    """Return what these repositories lack of the backups that others of them have; None where that is nothing.

    Reads snapshots and marks. What cannot be told is a warning, and nothing is brought there.
    """
    if len(reached) < 2:
        return None
    warnings: list[str] = []
    records: dict[str, list[BackupRecord]] = {}
    targets: dict[str, Mapping[str, frozenset[str]]] = {}
    for name, repository in reached.items():
        with _warning_of(name, warnings):
            records[name] = list_backups(repository, damaged=[])
    for name in records:
        with _warning_of(name, warnings):
            if found := _lacked_by(name, database, reached, records, settings):
                targets[name] = found
    return Lacking(targets=targets, warnings=warnings) if targets or warnings else None


def _lacked_by(
    target: str,
    database: DatabaseSettings,
    reached: Mapping[str, Repository],
    records: Mapping[str, Sequence[BackupRecord]],
    settings: Settings,
) -> dict[str, frozenset[str]]:
    """Return by source the ids of what a repository is to have."""
    kinds = set(_kinds_for(target, database, settings))
    planned = {
        source: plan_catch_up(theirs, records[target], names=[database.name], kinds=kinds, since=_EVER)
        for source, theirs in records.items()
        if source != target and kinds
    }
    candidates = {record.id: record for theirs in planned.values() for record in theirs}
    if not candidates:
        return {}
    wanted = find_wanted(
        reached[target],
        records[target],
        candidates.values(),
        RetentionPolicies(default=settings.retention),
        now=datetime.now(UTC),
    )
    found = {
        source: wanted.intersection(record.id for record in theirs) for source, theirs in planned.items()
    }
    return {source: ids for source, ids in found.items() if ids}


def _kinds_for(target: str, database: DatabaseSettings, settings: Settings) -> Iterator[str]:
    """Yield the kinds of backups of a database that some plan makes into a repository."""
    taken = settings.repositories[target].kinds
    for plan in settings.plans.values():
        goes_there = plan.job == "backup" and database.name in plan.databases and target in plan.repositories
        if goes_there and (taken is None or plan.kind in taken):
            yield plan.kind


def bring(
    lacking: Lacking, database: DatabaseSettings, parts: PlanParts, caught: CaughtUp, *, wait_s: float = 0.0
) -> None:
    """Copy what is lacking, and put into ``caught`` what came of it as soon as that is known.

    What cannot be brought is a warning, so is a repository that is locked for ``wait_s``. Raises Interrupted alone.
    """
    caught.warnings += lacking.warnings
    for target, sources in lacking.targets.items():
        left = set[str]().union(*sources.values())
        parts.progress.note(f"{target} lacks {_some(left)} of {database.name} that others have: copying")
        problems: list[str] = []
        try:
            with _warning_of(target, problems):
                _bring_to(target, sources, left, parts, caught, problems, wait_s=wait_s)
        except Interrupted:
            caught.warnings.append(f"{CATCH_UP}{target}: interrupted")
            raise
        if left:  # what one source could not give and another could is no matter
            caught.warnings += problems or [f"{CATCH_UP}{target}: {_some(left)} could not be brought"]
            parts.progress.note(f"{target} still lacks {_some(left)} of {database.name}")


def _bring_to(
    target: str,
    sources: Mapping[str, frozenset[str]],
    left: set[str],
    parts: PlanParts,
    caught: CaughtUp,
    problems: list[str],
    *,
    wait_s: float,
) -> None:
    """Copy from one source after the other, and take from ``left`` what is there in the end."""
    repositories = parts.settings.repositories
    opened = parts.repository(repositories[target])
    for source, ids in sources.items():
        asked = ids & left
        if not asked:
            continue
        with _warning_of(target, problems):
            report = catch_up(
                parts.repository(repositories[source]),
                opened,
                CatchUp(since=_EVER, is_wanted=_one_of(asked)),
                parts.progress,
                wait_s=wait_s,
            )
            problems += [f"{CATCH_UP}{target}: {_failure(source, each)}" for each in report.failures]
        # Also after a failure: some may have been brought before it.
        there = asked.intersection(record.id for record in list_backups(opened, damaged=[]))
        caught.brought.setdefault(target, []).extend(sorted(there))
        left -= there


def _failure(source: str, failure: CopyFailure) -> str:
    record = backup_record(failure.snapshot) if failure.snapshot is not None else None
    return (
        f"{source} cannot give {f'backup {record.short_id}' if record else 'a snapshot'}: {failure.message}"
    )


def _one_of(ids: Collection[str]) -> Callable[[BackupRecord], bool]:
    return lambda record: record.id in ids


def _some(backups: Collection[str]) -> str:
    return f"{len(backups)} earlier backup{'' if len(backups) == 1 else 's'}"


@contextlib.contextmanager
def _warning_of(name: str, warnings: list[str]) -> Iterator[None]:
    """Turn a failure of the block into a warning: the backup that was just made is there, whatever happens here."""
    try:
        yield
    except Interrupted:
        raise
    except PgstowError as exc:
        warnings.append(f"{CATCH_UP}{name}: {exc.message}")
