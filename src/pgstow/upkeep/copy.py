"""Copying snapshots into another repository, without compressing anything again.

Between repositories of one master key whole packs are moved where nearly all of a pack is needed, and sealed blobs
otherwise. Where the keys differ each blob is opened, checked and sealed anew. Order is the target's safety: packs,
then the index, then the snapshot, one snapshot after the other. What an interrupted copy brought over is found in the
target's index by the next one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pgstow.catalog.backups import backup_record
from pgstow.core.errors import RepositoryDamaged, UsageError
from pgstow.core.progress import Progress
from pgstow.repository import (
    BlobKind,
    BlobWriter,
    PackEntry,
    Repository,
    RepositoryLock,
    Snapshot,
    ahead,
    pack_size,
)
from pgstow.upkeep.copy_plan import BlobSet, CopyPlan, plan_copy
from pgstow.upkeep.copy_present import PresentSnapshots, identity_of

__all__ = ["CopiedSnapshot", "CopyFailure", "CopyReport", "copy_snapshots", "refuse_same"]

_THREADS = 4
_LARGEST_MOVED_BYTES = 32 << 20  # each thread holds a pack: larger ones travel blob by blob
_MOST_UNNEEDED = 0.1  # of a pack that is moved whole


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedSnapshot:
    """A snapshot that the target has now; in a dry run, would have."""

    snapshot: Snapshot  # as the source holds it
    new_id: str | None  # its name in the target; None in a dry run
    blobs: int  # that the target lacked
    stored_bytes: int  # what they take


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyFailure:
    """A snapshot that the source cannot give whole; None if not even the snapshot itself can be read."""

    snapshot: Snapshot | None
    message: str
    file: str | None  # in the source


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyReport:
    """What became of every snapshot that was to be copied."""

    is_dry_run: bool
    shares_key: bool
    copied: tuple[CopiedSnapshot, ...]
    present: tuple[Snapshot, ...]  # in the target before, or brought there by someone else meanwhile
    failures: tuple[CopyFailure, ...]
    moved_packs: int
    sent_bytes: int

    @property
    def is_complete(self) -> bool:
        return not self.failures


def refuse_same(source: Repository, target: Repository) -> None:
    """UsageError if both are one repository, by whatever names."""
    if source.id == target.id:
        raise UsageError(
            f"{source.store.location} and {target.store.location} are the same repository, or one is a copy of the"
            " other's files",
            hint="pgstow init makes another one; with --from, one that packs can be moved into",
        )


def copy_snapshots(
    source: Repository,
    target: Repository,
    snapshots: Sequence[Snapshot],
    *,
    target_lock: RepositoryLock,
    damaged: Iterable[RepositoryDamaged] = (),
    dry_run: bool = False,
    progress: Progress,
) -> CopyReport:
    """Bring ``snapshots`` of ``source`` into ``target``; those that the source has lost something of are reported.

    Hold a lock on both. ``damaged`` are snapshots that could not even be read. Every other failure ends the copy.
    """
    refuse_same(source, target)
    progress.phase("reading the indexes")
    lost: list[RepositoryDamaged] = []
    source.load_index(damaged=lost)
    _load_target(target)
    missing = target.lose_missing_packs()
    if missing:
        progress.note(
            f"in the target: packs that its index lists are missing or cut off ({missing}); what of them is needed is sent"
            " again, and pgstow repo repair is due there"
        )
    for exc in lost:
        progress.note(f"in the source: {exc.message}; backups that need what only it lists cannot be copied")
    copying = _Copying(source, target, target_lock, progress, dry_run=dry_run)
    for exc in damaged:
        copying.note_failure(None, exc)
    copying.run(snapshots, has_losses=missing > 0)
    return copying.report()


def _load_target(target: Repository) -> None:
    """Read the target's index; where it is damaged nothing is certain about what is there, and nothing is copied."""
    try:
        target.load_index()
    except RepositoryDamaged as exc:
        raise RepositoryDamaged(
            f"target: {exc.message}", hint="pgstow verify tells what is lost there", **exc.facts
        ) from exc


class _Copying:
    def __init__(
        self,
        source: Repository,
        target: Repository,
        target_lock: RepositoryLock,
        progress: Progress,
        *,
        dry_run: bool,
    ) -> None:
        self._source = source
        self._target = target
        self._target_lock = target_lock
        self._progress = progress
        self._is_dry_run = dry_run
        self._shares_key = source.shares_key_with(target)
        self._pack_sizes = source.pack_sizes() if self._shares_key else {}
        self._known = PresentSnapshots(target)
        self._done_trees = BlobSet()
        self._planned = BlobSet()
        self._copied: list[CopiedSnapshot] = []
        self._present: list[Snapshot] = []
        self._failures: list[CopyFailure] = []
        self._moved_packs = 0
        self._sent_bytes = 0
        self._counting = threading.Lock()

    def report(self) -> CopyReport:
        return CopyReport(
            is_dry_run=self._is_dry_run,
            shares_key=self._shares_key,
            copied=tuple(self._copied),
            present=tuple(self._present),
            failures=tuple(self._failures),
            moved_packs=self._moved_packs,
            sent_bytes=self._sent_bytes,
        )

    def note_failure(self, snapshot: Snapshot | None, exc: RepositoryDamaged) -> None:
        file = exc.facts.get("file")
        self._failures.append(
            CopyFailure(snapshot=snapshot, message=exc.message, file=file if isinstance(file, str) else None)
        )

    def run(self, snapshots: Sequence[Snapshot], *, has_losses: bool) -> None:
        """Copy one snapshot after the other, so that an interruption keeps those that are finished.

        Where the target ``has_losses``, the snapshots that it has are brought what they lack.
        """
        here = [snapshot for snapshot in snapshots if self._known.has(snapshot)]
        self._present += here
        known = set() if has_losses else {snapshot.id for snapshot in here}
        todo = [snapshot for snapshot in snapshots if snapshot.id not in known]
        with self._target.writer() as writer:
            for number, snapshot in enumerate(todo, 1):
                verb = "planning" if self._is_dry_run else "copying"
                self._progress.phase(f"{verb} {_title(snapshot)} ({number} of {len(todo)})")
                try:
                    self._copy(snapshot, writer)
                except RepositoryDamaged as exc:
                    self._source.check_locks()  # else someone may have pruned what seems to be missing
                    self.note_failure(snapshot, exc)

    def _copy(self, snapshot: Snapshot, writer: BlobWriter) -> None:
        # What was planned for a snapshot that failed never came: only a dry run may count on earlier plans.
        planned = self._planned if self._is_dry_run else BlobSet()
        plan = plan_copy(self._source, self._target, snapshot, done=self._done_trees, planned=planned)
        is_present = self._known.has(snapshot)
        new_id = None
        if not self._is_dry_run:
            content = self._source.copy_of_snapshot(snapshot)
            self._send(plan, writer)
            writer.flush()
            new_id = None if is_present else self._publish(snapshot, content)
        for tree_id in plan.trees:
            self._done_trees.add(BlobKind.TREE, tree_id)
        if is_present:
            return
        if new_id is None and not self._is_dry_run:
            self._present.append(snapshot)
            return
        self._copied.append(
            CopiedSnapshot(snapshot=snapshot, new_id=new_id, blobs=plan.blobs, stored_bytes=plan.stored_bytes)
        )

    def _publish(self, snapshot: Snapshot, content: bytes) -> str | None:
        """Let the copy appear and return its id; None if someone else's copy of it appeared meanwhile."""
        self._source.check_locks()
        self._target_lock.confirm()
        self._known.refresh()
        if self._known.has(snapshot):
            return None
        mine = identity_of(snapshot)
        return self._target.save_copied_snapshot(
            content, identity=mine, is_same=lambda other: identity_of(other) == mine
        )

    def _send(self, plan: CopyPlan, writer: BlobWriter) -> None:
        self._progress.expect(size_bytes=plan.stored_bytes)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="copy") as executor:
            work = ahead(
                executor,
                lambda pack_id: self._send_pack(pack_id, plan.entries(pack_id), writer),
                plan.pack_ids,
                _THREADS + 1,
            )
            for _ in work:
                pass

    def _send_pack(self, pack_id: bytes, entries: list[PackEntry], writer: BlobWriter) -> None:
        self._source.check_locks()
        if self._is_worth_moving(pack_id, entries) and self._move(pack_id, entries, writer):
            return
        for blob in self._source.stored_blobs(pack_id, entries):
            if self._shares_key:
                writer.save_sealed(blob.kind, blob.id, blob.sealed, blob.plain_length)
            else:
                writer.save_body(blob.kind, blob.id, blob.body, blob.plain_length)
            self._count(len(blob.sealed))

    def _is_worth_moving(self, pack_id: bytes, entries: list[PackEntry]) -> bool:
        size_bytes = self._pack_sizes.get(pack_id, 0)
        unneeded_bytes = size_bytes - pack_size(entries)
        return 0 < size_bytes <= _LARGEST_MOVED_BYTES and unneeded_bytes <= size_bytes * _MOST_UNNEEDED

    def _move(self, pack_id: bytes, entries: list[PackEntry], writer: BlobWriter) -> bool:
        """Move a pack byte for byte; False if it is not what the index says, or mixes data and trees."""
        try:
            contents, data = self._source.read_pack(pack_id)
        except RepositoryDamaged:
            return False  # each blob that is whole can still be saved
        kinds = {entry.kind for entry in contents.entries}
        if len(kinds) > 1 or not set(entries) <= set(contents.entries):
            return False
        writer.save_pack(contents, data)
        with self._counting:
            self._moved_packs += 1
        self._count(len(data))
        return True

    def _count(self, size_bytes: int) -> None:
        with self._counting:
            self._sent_bytes += size_bytes
        self._progress.advance(size_bytes=size_bytes)


def _title(snapshot: Snapshot) -> str:
    record = backup_record(snapshot)
    return (
        f"backup {record}" if record else f"snapshot {(snapshot.id or '')[:8]} of {', '.join(snapshot.paths)}"
    )
