"""What a repository holds, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pgstow.catalog.backups import BackupRecord, list_backups
from pgstow.core.progress import Progress
from pgstow.repository import BlobId, DirNode, FileNode, Node, Repository
from pgstow.upkeep.prune_plan import PackCount
from pgstow.upkeep.survey import Place, take_survey

__all__ = ["RepositoryStats", "SourceStats", "repository_stats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStats:
    """The backups of one source."""

    name: str
    backups: int
    size_bytes: int  # plain, of all its backups together


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryStats:
    """Numbers of a repository. ``logical_bytes`` is what restoring every snapshot would write."""

    snapshots: int
    sources: tuple[SourceStats, ...]
    other_snapshots: int  # restic's own
    logical_bytes: int
    packs: PackCount  # all that are in the store
    blobs: int  # that a snapshot needs
    used_bytes: int
    unused_bytes: int  # in packs that an index lists, though no snapshot needs it
    waiting: PackCount  # taken out of use by a prune
    orphans: PackCount
    index_files: int
    index_bytes: int
    objects: int
    objects_bytes: int

    @property
    def deduplication(self) -> float | None:
        """How many times the stored bytes the logical ones are; None while nothing is stored."""
        return self.logical_bytes / self.packs.size_bytes if self.packs.size_bytes else None


@dataclass(slots=True)
class _FolderSizes:
    """Plain sizes of folders, each distinct one looked at once."""

    own: dict[BlobId, tuple[int, tuple[BlobId, ...]]] = field(default_factory=dict)
    whole: dict[BlobId, int] = field(default_factory=dict)

    def see(self, tree: BlobId, nodes: Sequence[Node]) -> None:
        size_bytes = sum(node.size_bytes for node in nodes if isinstance(node, FileNode))
        self.own[tree] = size_bytes, tuple(node.subtree for node in nodes if isinstance(node, DirNode))

    def of(self, tree: BlobId) -> int:
        """Return the size of everything below a folder."""
        todo = [tree]
        while todo:
            size_bytes, subtrees = self.own[todo[-1]]
            missing = [subtree for subtree in subtrees if subtree not in self.whole]
            if missing:
                todo += missing
            else:
                self.whole[todo.pop()] = size_bytes + sum(self.whole[subtree] for subtree in subtrees)
        return self.whole[tree]


def repository_stats(repository: Repository, progress: Progress) -> RepositoryStats:
    """Count what a repository holds; hold a lock. RepositoryDamaged where it is unknown what is needed.

    Beside running backups their unfinished packs count as orphans.
    """
    sizes = _FolderSizes()
    survey = take_survey(repository, progress, seen=sizes.see)
    by_snapshot = {snapshot.id: sizes.of(snapshot.tree) for snapshot in survey.snapshots}
    records = list_backups(repository)
    indexed = survey.of(Place.INDEXED)
    progress.phase("counting objects")
    objects = [info.size_bytes for info in repository.store.list("")]
    return RepositoryStats(
        snapshots=len(survey.snapshots),
        sources=_sources(records, by_snapshot),
        other_snapshots=sum("pgstow" not in snapshot.tags for snapshot in survey.snapshots),
        logical_bytes=sum(by_snapshot.values()),
        packs=PackCount.of([pack for pack in survey.packs.values() if pack.stored_bytes is not None]),
        blobs=survey.used_blobs,
        used_bytes=sum(pack.kept_bytes for pack in survey.packs.values()),
        unused_bytes=sum(pack.unused_bytes for pack in indexed),
        waiting=PackCount.of([pack for pack in survey.of(Place.RECORDED) if not pack.kept_blobs]),
        orphans=PackCount.of([pack for pack in survey.of(Place.ORPHAN) if not pack.kept_blobs]),
        index_files=len(survey.index_files),
        index_bytes=survey.index_bytes,
        objects=len(objects),
        objects_bytes=sum(objects),
    )


def _sources(records: Sequence[BackupRecord], sizes: dict[str | None, int]) -> tuple[SourceStats, ...]:
    found: dict[str, list[BackupRecord]] = {}
    for record in records:
        found.setdefault(record.name, []).append(record)
    return tuple(
        SourceStats(
            name=name,
            backups=len(backups),
            size_bytes=sum(sizes.get(backup.snapshot.id, 0) for backup in backups),
        )
        for name, backups in sorted(found.items())
    )
