"""Dropping what is lost, so that everything else is whole again.

Order of writes. Each step leaves the repository no worse than it was, and a repair that is run again after a crash
finds what is left to do:

1. the record of what will be dropped, sealed, in ``pgstow/repairs/TIME/report``; the configuration, if it is lost;
2. blobs that are whole but lie in damaged packs, into new packs that a new index file lists (a crash: duplicates);
3. new folders for snapshots that lost something, and what is left of their tables (a crash: garbage);
4. index files without the bad packs, and with packs that none listed; only then the old index files go. From here on
   no backup takes a lost blob for known. Bad packs stay where they are, unlisted, for a prune to remove;
5. each snapshot that lost something: the new one first, then the old one goes (a crash: both are there, and the next
   repair removes the old one);
6. snapshots that cannot be read or are of no use any more, and key files that no password opens.

Before the first write the index files and packs are listed once more: they must be those that were examined.
Whatever is removed is first copied to ``pgstow/repairs/TIME/``: packs are not, they are only unlisted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from pgstow.catalog.affected import affected_contents
from pgstow.catalog.backups import BackupFiles, backup_record
from pgstow.core.errors import ObjectNotFound, RepositoryError
from pgstow.core.progress import Progress
from pgstow.repository import (
    BlobId,
    BlobIndex,
    BlobKind,
    PackContents,
    Repository,
    Snapshot,
    TreeError,
    find_damaged_keys,
)
from pgstow.upkeep.damage import Damage, find_damage, find_orphans
from pgstow.upkeep.mending import KNOWN_BLOBS, Loss, Losses, Mended, is_hopeless, mended
from pgstow.upkeep.repair_report import BadObject, DroppedSnapshot, MendedSnapshot, PackLoss, RepairReport

__all__ = ["REPAIRS", "repair"]

REPAIRS = "pgstow/repairs"


def repair(
    repository: Repository,
    progress: Progress,
    *,
    read_data: bool = True,
    dry_run: bool = False,
    approve: Callable[[RepairReport], object] = lambda _: None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> RepairReport:
    """Drop what is lost, and return what that was. The caller holds the exclusive lock.

    ``approve`` is shown the plan, if there is something to do, and may raise; nothing was written then. Without
    ``read_data`` only missing packs, wrong sizes and damaged folders are found. A repository without damage is left
    exactly as it is. Afterwards the index in memory is that of the store.
    """
    plan = _plan(repository, progress, read_data=read_data)
    report = _report(repository, plan)
    if dry_run or not report.is_needed:
        repository.load_index(damaged=[])
        return report
    approve(report)
    _refuse_changed(repository, plan.found)
    run = _Run(repository, plan, f"{REPAIRS}/{now():%Y%m%dT%H%M%S.%fZ}")
    report = replace(report, record=run.record)
    run.write_down(report)
    report = replace(report, is_done=True, mended=run.carry_out(progress, report))
    run.write_down(report)
    repository.load_index()
    return report


@dataclass(slots=True, kw_only=True)
class _Plan:
    found: Damage
    bad_keys: dict[str, str]
    losses: dict[str, list[Loss]] = field(default_factory=dict)  # by snapshot
    recreated: set[BlobId] = field(default_factory=set)  # blobs that are lost, but whose content is known
    hopeless: dict[str, str] = field(default_factory=dict)
    unmendable: dict[str, str] = field(default_factory=dict)
    mended: dict[str, Mended] = field(default_factory=dict)  # what each becomes

    def snapshot(self, snapshot_id: str) -> Snapshot:
        return next(each for each in self.found.snapshots if each.id == snapshot_id)


def _plan(repository: Repository, progress: Progress, *, read_data: bool) -> _Plan:
    found = find_damage(repository, progress, read_data=read_data)
    repository.use_index(found.available)
    losses, recreated = _losses(repository, found, progress)
    if losses or recreated or found.bad_index_files:
        find_orphans(repository, found, progress)
        repository.use_index(found.available)
        losses, recreated = _losses(repository, found, progress)
    bad_keys = find_damaged_keys(repository.store)
    bad_keys = find_damaged_keys(repository.store) if bad_keys else {}
    plan = _Plan(found=found, bad_keys=bad_keys, losses=losses, recreated=recreated)
    for snapshot_id, lost in losses.items():
        snapshot = plan.snapshot(snapshot_id)
        why = is_hopeless(snapshot, lost)
        if why is not None:
            plan.hopeless[snapshot_id] = why
            continue
        try:
            plan.mended[snapshot_id] = mended(
                repository, snapshot, lost, save=lambda _, data: hashlib.sha256(data).digest()
            )
        except TreeError as exc:
            plan.unmendable[snapshot_id] = f"{lost[0].path}: {lost[0].why}; {exc}"
    return plan


def _losses(
    repository: Repository, found: Damage, progress: Progress
) -> tuple[dict[str, list[Loss]], set[BlobId]]:
    """Return what each snapshot has lost, and the lost blobs that can be made anew."""
    progress.phase("looking through snapshots")
    losses = Losses(repository)
    each = ((snapshot.id or "", losses.of(snapshot)) for snapshot in found.snapshots)
    return {snapshot_id: lost for snapshot_id, lost in each if lost}, losses.recreated


def _refuse_changed(repository: Repository, found: Damage) -> None:
    """RepositoryError if listings show other files by now: what is believed to be lost may only not have been shown."""
    index_files = {*found.index_files, *found.bad_index_files}
    if index_files != set(repository.index_ids()) or found.sizes != repository.pack_sizes():
        raise RepositoryError(
            "other index files or packs are listed now than when the repair began: nothing was changed",
            hint="somebody writes without a lock, or the store's listings lag behind; when that has passed run the repair again",
        )


# -- what is said of it


def _report(repository: Repository, plan: _Plan) -> RepairReport:
    found = plan.found
    bad = {f"keys/{key_id}": why for key_id, why in plan.bad_keys.items()}
    bad |= found.bad_snapshots
    bad |= {f"index/{index_id}": why for index_id, why in found.bad_index_files.items()}
    return RepairReport(
        is_done=False,
        has_read_data=found.has_read_data,
        config=repository.config_problem,
        bad_objects=tuple(BadObject(file=file, why=why) for file, why in bad.items()),
        packs=tuple(_pack_losses(found)),
        relisted_packs=len(found.orphans),
        recreated_blobs=len(plan.recreated),
        dropped=tuple(_dropped(plan.snapshot(each), why) for each, why in plan.hopeless.items()),
        mended=tuple(
            _mended(repository, plan.snapshot(each), plan.losses[each], what)
            for each, what in plan.mended.items()
        ),
        not_mended=tuple(_dropped(plan.snapshot(each), why) for each, why in plan.unmendable.items()),
    )


def _pack_losses(found: Damage) -> Iterator[PackLoss]:
    for bad in found.bad_packs.values():
        entries, intact = bad.contents.entries, set(bad.intact)
        gone = [entry for entry in entries if entry not in intact]
        elsewhere = sum(found.available.has(entry.kind, entry.id) for entry in gone)
        yield PackLoss(
            pack=bad.id,
            why=bad.why,
            blobs=len(entries),
            saved=len(intact),
            elsewhere=elsewhere,
            lost=len(gone) - elsewhere,
        )


def _dropped(snapshot: Snapshot, why: str) -> DroppedSnapshot:
    record = backup_record(snapshot)
    return DroppedSnapshot(
        snapshot=snapshot.id or "",
        backup_id=record.id if record else None,
        name=record.name if record else snapshot.hostname,
        time=snapshot.time.astimezone(UTC),
        why=why,
    )


def _mended(
    repository: Repository, snapshot: Snapshot, losses: list[Loss], becomes: Mended
) -> MendedSnapshot:
    record = backup_record(snapshot)
    paths = tuple(loss.path for loss in losses)
    return MendedSnapshot(
        snapshot=snapshot.id or "",
        becomes=None,
        backup_id=record.id if record else None,
        name=record.name if record else snapshot.hostname,
        time=snapshot.time.astimezone(UTC),
        lost=affected_contents(BackupFiles(repository, record), paths) if record else (),
        paths=paths,
        salvaged=becomes.salvaged,
    )


# -- carrying it out


@dataclass(frozen=True, slots=True)
class _Run:
    repository: Repository
    plan: _Plan
    folder: str

    @property
    def record(self) -> str:
        return f"{self.folder}/report"

    def write_down(self, report: RepairReport) -> None:
        """Store the report; a second one replaces the first."""
        self.repository.save_note(self.record, json.dumps(report.document(), indent=1).encode())

    def carry_out(self, progress: Progress, report: RepairReport) -> tuple[MendedSnapshot, ...]:
        """Do what the plan says, in the order of the module's docstring; return the snapshots with their new ids."""
        if self.repository.config_problem is not None:
            self._set_aside("config")
            self.repository.save_config()
        progress.phase("saving what is whole")
        self.repository.use_index(self._sound())
        with self.repository.writer() as writer:
            for bad in self.plan.found.bad_packs.values():
                self.repository.move_intact(bad.contents, writer)
            for blob in self.plan.recreated:
                writer.save(BlobKind.DATA, KNOWN_BLOBS[blob])
            writer.flush()
            for snapshot_id, becomes in self.plan.mended.items():
                done = mended(
                    self.repository,
                    self.plan.snapshot(snapshot_id),
                    self.plan.losses[snapshot_id],
                    save=lambda kind, data: writer.save(kind, data).id,
                )
                if done != becomes:  # whose folders would not be there
                    raise RepositoryError(
                        f"snapshot {snapshot_id} is not what it was when the repair was planned",
                        hint="run the repair again; nothing was dropped",
                    )
        progress.phase("writing index files")
        found = self.plan.found
        for index_id in found.bad_index_files:
            self._set_aside(f"index/{index_id}")
        self.repository.replace_index(
            self._relisted(), remove=(*found.tainted_index_files, *found.bad_index_files)
        )
        progress.phase("writing snapshots")
        replaced = tuple(
            replace(each, becomes=self._replace_snapshot(each.snapshot)) for each in report.mended
        )
        for snapshot_id in self.plan.hopeless:
            self._remove_snapshot(snapshot_id)
        for file in found.bad_snapshots:
            self._remove_snapshot(file.rpartition("/")[2])
        for key_id in self.plan.bad_keys:
            self._set_aside(f"keys/{key_id}")
            self.repository.store.delete(f"keys/{key_id}")
        return replaced

    def _sound(self) -> BlobIndex:
        """Return an index of the packs that stay listed: what only bad packs hold is unknown to it."""
        index = BlobIndex()
        for pack in self._listed(self.plan.found.index_files):
            index.add_pack(*pack)
        for pack in self.plan.found.orphans:
            index.add_pack(*pack)
        return index

    def _relisted(self) -> Iterator[PackContents]:
        """Yield the packs that new index files must list: those of the files that go, and those in none."""
        seen: set[bytes] = set()
        for pack in self._listed(self.plan.found.tainted_index_files):
            if pack.pack_id not in seen:
                seen.add(pack.pack_id)
                yield pack
        yield from self.plan.found.orphans

    def _listed(self, index_ids: Iterable[str]) -> Iterator[PackContents]:
        for index_id in index_ids:
            for pack in self.repository.index_file(index_id):
                if pack.pack_id not in self.plan.found.bad_packs:
                    yield pack

    def _replace_snapshot(self, snapshot_id: str) -> str:
        new = self.plan.mended[snapshot_id].snapshot
        same = [each.id for each in self.plan.found.snapshots if replace(each, id=None) == new]
        new_id = same[0] or "" if same else self.repository.save_snapshot(new)
        self._remove_snapshot(snapshot_id)
        return new_id

    def _remove_snapshot(self, snapshot_id: str) -> None:
        self._set_aside(f"snapshots/{snapshot_id}")
        self.repository.remove_snapshot(snapshot_id)

    def _set_aside(self, name: str) -> None:
        """Keep a copy of what will be removed, beside the record."""
        self.repository.check_locks()
        try:
            data = self.repository.store.get(name)
        except ObjectNotFound:
            return
        self.repository.store.put(f"{self.folder}/{name}", data)
