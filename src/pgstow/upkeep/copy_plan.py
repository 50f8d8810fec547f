"""What a copy has to bring over: the blobs a snapshot needs and the target lacks, pack by pack."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from borghash import HashTable

from pgstow.core.errors import RepositoryDamaged
from pgstow.repository import (
    BlobId,
    BlobKind,
    DirNode,
    FileNode,
    PackEntry,
    Repository,
    Snapshot,
)

__all__ = ["BlobSet", "CopyPlan", "plan_copy"]

_ENTRY = struct.Struct("<?32sIII")  # is a tree, id, offset, length, plain length


class BlobSet:
    """A set of blobs, about 50 bytes each."""

    def __init__(self) -> None:
        self._tables = {kind: HashTable(key_size=32, value_size=4) for kind in BlobKind}

    def add(self, kind: BlobKind, blob_id: BlobId) -> None:
        """Make the set hold a blob."""
        self._tables[kind][blob_id] = b"\0\0\0\0"

    def has(self, kind: BlobKind, blob_id: BlobId) -> bool:
        """Whether the set holds a blob."""
        return blob_id in self._tables[kind]


class CopyPlan:
    """The blobs to bring over, by the pack that holds them in the source; 45 bytes each."""

    def __init__(self) -> None:
        self._packs: dict[bytes, bytearray] = {}
        self.trees: list[BlobId] = []  # every folder that was looked into
        self.blobs = 0
        self.stored_bytes = 0

    @property
    def pack_ids(self) -> list[bytes]:
        return list(self._packs)

    def entries(self, pack_id: bytes) -> list[PackEntry]:
        """Return what is needed of a pack."""
        return [
            PackEntry(BlobKind.TREE if is_tree else BlobKind.DATA, blob_id, offset, length, plain_length)
            for is_tree, blob_id, offset, length, plain_length in _ENTRY.iter_unpack(self._packs[pack_id])
        ]

    def add(self, pack_id: bytes, entry: PackEntry) -> None:
        """Plan to bring over one blob."""
        self._packs.setdefault(pack_id, bytearray()).extend(
            _ENTRY.pack(entry.kind is BlobKind.TREE, entry.id, entry.offset, entry.length, entry.plain_length)
        )
        self.blobs += 1
        self.stored_bytes += entry.length


def plan_copy(
    source: Repository, target: Repository, snapshot: Snapshot, *, done: BlobSet, planned: BlobSet
) -> CopyPlan:
    """Return what ``target`` lacks of ``snapshot`` and is not ``planned`` yet, which it is from then on.

    Folders in ``done`` are not looked into: all that they need is there. That a folder itself is there says nothing:
    an interrupted copy leaves folders without their files. Raises RepositoryDamaged for what the source has lost.
    """
    plan = CopyPlan()
    seen = BlobSet()
    todo = [snapshot.tree]
    while todo:
        tree_id = todo.pop()
        if seen.has(BlobKind.TREE, tree_id) or done.has(BlobKind.TREE, tree_id):
            continue
        seen.add(BlobKind.TREE, tree_id)
        plan.trees.append(tree_id)
        for kind, blob_id in _needs(source, tree_id, todo):
            if planned.has(kind, blob_id) or target.has_blob(kind, blob_id):
                continue
            planned.add(kind, blob_id)
            _add(plan, source, kind, blob_id)
    return plan


def _needs(source: Repository, tree_id: BlobId, todo: list[BlobId]) -> Iterator[tuple[BlobKind, BlobId]]:
    """Yield a folder and the blobs of its files; put its folders on the list of what to look into."""
    nodes = source.read_tree(tree_id)
    yield BlobKind.TREE, tree_id
    for node in nodes:
        if isinstance(node, DirNode):
            todo.append(node.subtree)
        elif isinstance(node, FileNode):
            for blob_id in node.content:
                yield BlobKind.DATA, blob_id


def _add(plan: CopyPlan, source: Repository, kind: BlobKind, blob_id: BlobId) -> None:
    place = source.locate(kind, blob_id)
    if place is None:
        raise RepositoryDamaged(
            f"{kind.value} blob {blob_id.hex()} is in no index file of {source.store.location}",
            blob=blob_id.hex(),
        )
    plan.add(place.pack_id, PackEntry(kind, blob_id, place.offset, place.length, place.plain_length))
