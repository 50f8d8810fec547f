"""Expiring: removing the backups that a retention plan drops.

A plan is made from what is in the repository, under a lock, and carried out under the exclusive one, by which it is made anew:
what was shown before counts only as far as it is still what would be done. The exclusive lock also keeps away whoever uses a
backup: a running backup, whose base must stay, a restore, a verify, a copy, and everyone who holds or releases.

Snapshots are removed one by one. What a crash leaves is a plan that was carried out in part: every backup is there or is not,
and the next run goes on. Of a backup with several snapshots (copies that restic made, a repair that died) the one that stands
for it goes last, so that until then it is seen, and judged, as before. Nothing else is removed: marks of holds and proofs
stay as evidence, and what only the removed snapshots needed is left to a prune.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pgstow.catalog.backups import (
    BackupFiles,
    BackupRecord,
    backup_record,
    backups_among,
    load_readable_index,
)
from pgstow.core.errors import BackupNotFound, PgstowError, RepositoryDamaged
from pgstow.core.progress import Progress
from pgstow.repository import Hold, Repository, RepositoryLock, Snapshot
from pgstow.retention import (
    Attempt,
    BackupFacts,
    Decision,
    RetentionPolicies,
    RetentionState,
    facts_of,
    plan_retention,
)
from pgstow.upkeep.survey import REPAIR_HINT

__all__ = ["ExpiryPlan", "PlannedDrops", "expire", "plan_expiry", "take_state"]

_LISTED = 10
_LATER = timedelta(
    hours=1
)  # written together: a repository that was moved says nothing of when backups were made
_BACK = timedelta(days=3)  # longer than a backup takes


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDrops:
    """A plan that was shown earlier: its hash, and the backups that it drops where those are known too."""

    hash: str
    backup_ids: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiryPlan:
    """Decisions about backups, and the snapshots that go with each dropped one, in the order of their removal."""

    repository_id: str
    decisions: Sequence[Decision]
    notes: Sequence[str]
    now: datetime
    snapshots: Mapping[str, Sequence[str]]  # by backup

    @property
    def dropped(self) -> list[Decision]:
        return [decision for decision in self.decisions if not decision.is_kept]

    @property
    def kept(self) -> list[Decision]:
        return [decision for decision in self.decisions if decision.is_kept]

    @property
    def hash(self) -> str:
        """What carrying it out would do, as sixteen hex digits; reasons and what is kept are no part of it."""
        drops = sorted((each.backup.id, sorted(self.snapshots[each.backup.id])) for each in self.dropped)
        return hashlib.sha256(json.dumps([self.repository_id, drops]).encode()).hexdigest()[:16]

    def require(self, planned: PlannedDrops) -> None:
        """Raise PgstowError, saying what differs, unless this does what was planned earlier."""
        if planned.hash == self.hash:
            return
        raise PgstowError(
            f"what would be removed now is not what plan {planned.hash} says; nothing was removed: "
            + self._difference(planned),
            hint="look at pgstow retention plan again, and give its hash",
            planned=planned.hash,
            now=self.hash,
            drops=[decision.backup.id for decision in self.dropped],
        )

    def _difference(self, planned: PlannedDrops) -> str:
        now = {decision.backup.id: decision.backup for decision in self.dropped}
        if planned.backup_ids is None:
            return f"it would now be {_listed(now.values())}"
        known = {decision.backup.id: decision for decision in self.decisions}
        parts = []
        if added := [backup for backup_id, backup in now.items() if backup_id not in planned.backup_ids]:
            parts.append(f"was not planned: {_listed(added)}")
        if kept := [known[each] for each in planned.backup_ids - now.keys() if each in known]:
            backups = _listed(decision.backup for decision in kept)
            parts.append(f"is now kept: {backups} ({_first_reason(kept[0])})")
        if gone := sorted(planned.backup_ids - known.keys()):
            parts.append(f"is no longer there: {', '.join(each[:8] for each in gone[:_LISTED])}")
        return "; ".join(parts) or "the snapshots of a backup are others now"


def plan_expiry(
    repository: Repository,
    lock: RepositoryLock,
    policies: RetentionPolicies,
    progress: Progress,
    *,
    attempts: Mapping[str, Attempt],
    name: str | None = None,
) -> ExpiryPlan:
    """Return what is to be kept and what may go, of the database ``name`` or of all.

    RepositoryDamaged if a snapshot cannot be read: the newest backup, or the last good one, may be behind it.
    """
    progress.phase("reading backups and marks")
    snapshots = _snapshots(repository)
    records = backups_among(snapshots)
    if name is not None and all(record.name != name for record in records):
        raise BackupNotFound(f"there is no backup of {name}", hint="pgstow list shows what there is")
    state = take_state(repository, records, now=repository.holdings().now(lock), attempts=attempts)
    notes = _lost_holds(state.holds, {record.id for record in records})
    retention = plan_retention(state, policies)
    at_stake = {each.backup.name for each in retention.dropped if name in (None, each.backup.name)}
    doubts = _find_clocks_set_back(repository, records, at_stake, retention.now)
    if doubts := doubts | _find_doubts(repository, records, at_stake, progress):
        retention = plan_retention(replace(state, doubts=doubts), policies)
    decisions = [each for each in retention.decisions if name in (None, each.backup.name)]
    return ExpiryPlan(
        repository_id=repository.id,
        decisions=decisions,
        notes=(*retention.notes, *notes),
        now=retention.now,
        snapshots=_by_backup(snapshots, records),
    )


def expire(plan: ExpiryPlan, repository: Repository, lock: RepositoryLock, progress: Progress) -> None:
    """Remove what a plan drops that was made under the same exclusive lock."""
    if not plan.dropped:
        return
    progress.phase("removing backups")
    lock.confirm()
    for decision in plan.dropped:
        for snapshot_id in plan.snapshots[decision.backup.id]:
            repository.check_locks()
            repository.remove_snapshot(snapshot_id)


def _snapshots(repository: Repository) -> list[Snapshot]:
    try:
        return repository.snapshots()
    except RepositoryDamaged as exc:
        facts = {key: value for key, value in exc.facts.items() if value is not None}
        raise RepositoryDamaged(
            f"{exc.message}: which backup that is cannot be told, so nothing expires",
            hint=REPAIR_HINT,
            **facts,
        ) from exc


def take_state(
    repository: Repository,
    records: Sequence[BackupRecord],
    *,
    now: datetime,
    attempts: Mapping[str, Attempt],
) -> RetentionState:
    """Return what a retention plan for these backups depends on, by the marks of a repository."""
    marks = repository.marks()
    ids = {record.id for record in records}
    proofs, doubtful = marks.proofs(ids)
    return RetentionState(
        backups=[facts_of(record) for record in records],
        now=now,
        holds=marks.holds(),
        proofs=proofs,
        doubtful_proofs=doubtful,
        retirements=marks.retirements({record.name for record in records}),
        attempts=attempts,
    )


def _lost_holds(holds: Mapping[str, Sequence[Hold]], ids: set[str]) -> Iterator[str]:
    for backup_id in sorted(holds.keys() - ids):
        yield (
            f"backup {backup_id} is held and is not in the repository:"
            " something removed it that knows nothing of holds, or it never was here;"
            f" pgstow release {backup_id[:8]} ends that hold, and this warning"
        )


def _find_doubts(
    repository: Repository, records: Sequence[BackupRecord], names: set[str], progress: Progress
) -> dict[str, str]:
    """Return what is wrong with the newest backups of databases that would lose one; asks their manifests."""
    newest: dict[tuple[str, bool], BackupRecord] = {}
    for record in records:
        if record.name in names:
            newest[record.name, record.is_partial] = record
    if not newest:
        return {}
    progress.phase("looking at the newest backups")
    load_readable_index(repository, progress.note)
    found: dict[str, str] = {}
    for (name, _), record in newest.items():
        try:
            alarms = BackupFiles(repository, record).manifest.reuse.alarms
        except RepositoryDamaged as exc:
            found[name] = f"its newest backup {record.short_id} cannot be read ({exc.message})"
        else:
            if alarms:
                found[name] = f"its newest backup {record.short_id} raised an alarm ({alarms[0]})"
    return found


def _find_clocks_set_back(
    repository: Repository, records: Sequence[BackupRecord], names: set[str], now: datetime
) -> dict[str, str]:
    """Return of which databases the backup that was written last is days older than another that was written before it.

    Its server's clock was set back, and by their times the newest backups are the oldest: they must not be taken for that.
    Copies are left out, which come in any order.
    """
    if not names:
        return {}
    written = {info.name: info.modified for info in repository.store.list("snapshots/")}
    own: defaultdict[str, list[tuple[datetime, datetime, BackupRecord]]] = defaultdict(list)
    for record in records:
        modified = written.get(f"snapshots/{record.snapshot.id}")
        if (
            record.name in names
            and record.snapshot.original is None
            and modified
            and modified <= now + _LATER
        ):
            own[record.name].append((modified, record.time, record))
    found = {}
    for name, rows in own.items():
        newest_written, _, newest = max(rows, key=lambda row: (row[1], row[2].id))
        last_written, time, last = max(rows, key=lambda row: (row[0], row[2].id))
        if newest.time - time > _BACK and last_written - newest_written > _LATER:
            found[name] = (
                f"the backup that was written last, {last.short_id}, is from {time:%Y-%m-%d},"
                f" before {newest.short_id} from {newest.time:%Y-%m-%d}: was a clock set back?"
            )
    return found


def _by_backup(snapshots: Iterable[Snapshot], records: Iterable[BackupRecord]) -> dict[str, tuple[str, ...]]:
    """Return the snapshots of each backup; the one that stands for it comes last.

    One that says something else of itself than the one that was judged, which only tags given by hand can do, is not the
    same backup: it stays, and is judged by itself when the other is gone.
    """
    judged = {record.id: record for record in records}
    standing = {record.id: record.snapshot.id or "" for record in records}
    found: defaultdict[str, list[str]] = defaultdict(list)
    for snapshot in snapshots:
        record = backup_record(snapshot)
        if record is not None and snapshot.id is not None and _is_same(record, judged[record.id]):
            found[record.id].append(snapshot.id)
    return {
        backup_id: (*sorted(set(ids) - {standing[backup_id]}), standing[backup_id])
        for backup_id, ids in found.items()
    }


def _is_same(one: BackupRecord, other: BackupRecord) -> bool:
    return (one.name, one.kind, one.time, one.is_partial) == (
        other.name,
        other.kind,
        other.time,
        other.is_partial,
    )


def _first_reason(decision: Decision) -> str:
    return next((reason.text for reason in decision.reasons if reason.code.keeps), "")


def _listed(backups: Iterable[BackupFacts]) -> str:
    found = sorted(backups, key=lambda each: each.order)
    if not found:
        return "nothing"
    names = [f"{each.short_id} of {each.name} from {each.time:%Y-%m-%d}" for each in found[:_LISTED]]
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return f"{len(found)} backup{'' if len(found) == 1 else 's'}: {', '.join(names)}{more}"
