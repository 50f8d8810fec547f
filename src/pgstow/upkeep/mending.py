"""Snapshots that refer to lost data: what of each is lost, and the same snapshot without it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pgstow.catalog.backups import DAMAGED, backup_record
from pgstow.core.errors import RepositoryDamaged
from pgstow.postgres.archive import TABLE_DATA_TRAILER
from pgstow.repository import (
    BlobId,
    BlobIds,
    BlobKind,
    DirNode,
    FileNode,
    Repository,
    Snapshot,
    TreeError,
    decode_tree,
    without_nodes,
)
from pgstow.upkeep.repair_report import SalvagedTable
from pgstow.upkeep.salvage import Save, salvage_tables

__all__ = ["KNOWN_BLOBS", "Loss", "Losses", "Mended", "is_hopeless", "mended"]

# Blobs whose content is known by their id. The end of a table's data is one blob for all tables of all backups: with it lost,
# none of them would be whole.
KNOWN_BLOBS = {hashlib.sha256(TABLE_DATA_TRAILER).digest(): TABLE_DATA_TRAILER}

_NEEDED = ("manifest.json", "archive", "archive/toc.dat")  # without one of these a backup cannot be restored


@dataclass(frozen=True, slots=True)
class Loss:
    """A file or folder of a snapshot that cannot be read, and the bytes of files that go with it."""

    path: str  # begins with a slash; "/" is the snapshot's whole content
    why: str


class Losses:
    """Finds what is lost in snapshots; folders that several share are looked at once."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._whole_trees: set[BlobId] = set()
        self._whole_files: set[bytes] = set()  # by digest of the content list
        self.recreated: set[BlobId] = set()  # of KNOWN_BLOBS: lost, and needed

    def of(self, snapshot: Snapshot) -> list[Loss]:
        """Return what of a snapshot the repository's present index, and packs behind it, cannot give."""
        return list(self._in_tree(snapshot.tree, ""))

    def _in_tree(self, tree_id: BlobId, path: str) -> Iterator[Loss]:
        if tree_id in self._whole_trees:
            return
        try:
            nodes = decode_tree(self._repository.read_blob(BlobKind.TREE, tree_id))
        except RepositoryDamaged as exc:
            yield Loss(path or "/", exc.message)
            return
        except TreeError as exc:
            yield Loss(path or "/", f"tree {tree_id.hex()}: {exc}")
            return
        found: list[Loss] = []
        for node in nodes:
            where = f"{path}/{node.name}"
            if isinstance(node, DirNode):
                found += self._in_tree(node.subtree, where)
            elif isinstance(node, FileNode) and (why := self._in_file(node)):
                found.append(Loss(where, why))
        if not found:
            self._whole_trees.add(tree_id)
        yield from found

    def _in_file(self, node: FileNode) -> str | None:
        content = BlobIds.of(node.content)
        digest = hashlib.sha256(content.packed).digest()
        if digest not in self._whole_files:
            for blob in content:
                if self._repository.blob_size(BlobKind.DATA, blob) is not None:
                    continue
                if blob in KNOWN_BLOBS:
                    self.recreated.add(blob)
                else:
                    return f"data blob {blob.hex()} is lost"
            self._whole_files.add(digest)
        return None


def is_hopeless(snapshot: Snapshot, losses: list[Loss]) -> str | None:
    """Return why nothing of a snapshot is worth keeping; None if the rest of it is."""
    for loss in losses:
        inner = loss.path.lstrip("/").partition("/")[2]
        if loss.path == "/" or (backup_record(snapshot) is not None and inner in ("", *_NEEDED)):
            return f"{loss.path}: {loss.why}"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """What a snapshot becomes, and what is left of its lost tables."""

    snapshot: Snapshot
    salvaged: tuple[SalvagedTable, ...]


def mended(repository: Repository, snapshot: Snapshot, losses: list[Loss], save: Save) -> Mended:
    """Return ``snapshot`` without what is lost, tagged as damaged; ``save`` stores its new folders and blobs.

    TreeError for a tree whose encoding is not restic's.
    """
    lost = {loss.path for loss in losses}
    salvage = salvage_tables(repository, snapshot, lost, save)
    added = {salvage.path: salvage.folder} if salvage is not None else {}
    tree, files, size_bytes = _without(repository, snapshot.tree, "", lost, added, save)
    if salvage is not None:
        files, size_bytes = files - len(salvage.tables), size_bytes - salvage.size_bytes
    summary = snapshot.summary
    if summary is not None:
        summary = replace(
            summary,
            total_files_processed=max(0, summary.total_files_processed - files),
            total_bytes_processed=max(0, summary.total_bytes_processed - size_bytes),
        )
    tags = snapshot.tags if DAMAGED in snapshot.tags else (*snapshot.tags, DAMAGED)
    original = snapshot.original or snapshot.id
    new = replace(snapshot, tree=tree, tags=tags, original=original, summary=summary, id=None)
    return Mended(snapshot=new, salvaged=salvage.tables if salvage is not None else ())


def _without(
    repository: Repository,
    tree_id: BlobId,
    path: str,
    lost: set[str],
    added: Mapping[str, DirNode],
    save: Save,
) -> tuple[BlobId, int, int]:
    """Return a tree without the lost paths, and how many files and bytes are known to have gone.

    ``added`` folders, by the path they come into, take the place of those of their name.
    """
    new_here = [added[path]] if path in added else []
    if not any(one.startswith(f"{path}/") for one in lost):
        return tree_id, 0, 0
    data = repository.read_blob(BlobKind.TREE, tree_id)
    drop: set[str] = set()
    new_folders: dict[str, BlobId] = {}
    files = size_bytes = 0
    for node in decode_tree(data):
        where = f"{path}/{node.name}"
        if node.name in {each.name for each in new_here}:
            drop.add(node.name)
        elif where in lost:
            drop.add(node.name)
            if isinstance(node, FileNode):
                files, size_bytes = files + 1, size_bytes + node.size_bytes
        elif isinstance(node, DirNode):
            new, fewer_files, fewer_bytes = _without(repository, node.subtree, where, lost, added, save)
            files, size_bytes = files + fewer_files, size_bytes + fewer_bytes
            if new != node.subtree:
                new_folders[node.name] = new
    new_tree = without_nodes(data, drop=drop, replace=new_folders, add=new_here)
    return save(BlobKind.TREE, new_tree), files, size_bytes
