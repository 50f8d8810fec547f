"""Checking a repository against itself.

Order matters beside running backups: snapshots are listed before the index is read and packs after it, so
whatever a listed snapshot needs is indexed, and whatever is indexed is in the listing. Hold a shared lock,
so that nothing is pruned meanwhile.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pgstow.assurance.sample import PackSample
from pgstow.catalog.affected import affected_contents
from pgstow.catalog.backups import DAMAGED, BackupFiles, backup_record
from pgstow.core.errors import RepositoryDamaged
from pgstow.core.progress import Progress, SilentProgress
from pgstow.repository import (
    BlobId,
    BlobIds,
    BlobKind,
    DirNode,
    FileNode,
    PackCheck,
    PackContents,
    Repository,
    Snapshot,
    TreeError,
    ahead,
    decode_tree,
    find_damaged_keys,
    is_canonical,
    pack_name,
    pack_size,
)

__all__ = ["VerifyProblem", "VerifyReport", "verify"]

_MAX_PATHS = 100
_MAX_THREADS = 4

_Blob = tuple[BlobKind, BlobId]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyProblem:
    """One thing that is wrong, and what it reaches.

    ``backups`` are run ids (snapshot ids for snapshots that are not pgstow's); ``paths`` are files and
    folders in them, at most 100; ``contents`` says whose they are: ``schema.table``, ``large object OID``. None are
    reached where the repository holds another, intact copy.
    """

    message: str
    file: str | None
    backups: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    contents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What was checked and everything that is wrong with it."""

    has_read_data: bool
    snapshots: int
    trees: int
    files: int
    packs: int  # checked, by size or by content
    unindexed_packs: int  # left by interrupted runs: no harm, prune removes them
    read_bytes: int
    problems: tuple[VerifyProblem, ...]
    incomplete: tuple[str, ...] = ()  # backups from which a repair left out what was lost

    @property
    def is_sound(self) -> bool:
        return not self.problems


def verify(
    repository: Repository,
    snapshots: Sequence[Snapshot] | None = None,
    *,
    read_data: bool = False,
    sample: PackSample | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check ``snapshots`` (all: None) and what they need; list every problem, never stop at the first.

    Checked are: every index file, and for all snapshots every key file; that packs exist with the size the index implies; that each tree has
    restic's exact encoding, sizes equal to its blobs, and nothing missing. With ``read_data`` also every byte
    of the packs that the snapshots use (of all packs, for all snapshots), or of a ``sample`` of these.
    """
    check = _Verification(repository, progress or SilentProgress())
    check.read_metadata(snapshots)
    check.check_trees()
    check.check_packs(None if snapshots is None else check.used_packs, read_data=read_data, sample=sample)
    return check.report(has_read_data=read_data)


@dataclass(slots=True)
class _Finding:
    message: str
    file: str | None = None
    blobs: frozenset[_Blob] = frozenset()
    pack_id: bytes | None = None  # whose copies of the blobs are damaged; None: whatever copy is read
    backups: list[str] = field(default_factory=list)
    paths: dict[str, None] = field(default_factory=dict)
    contents: dict[str, None] = field(default_factory=dict)


class _Verification:
    def __init__(self, repository: Repository, progress: Progress) -> None:
        self._repository = repository
        self._progress = progress
        self._snapshots: list[Snapshot] = []
        self._findings: list[_Finding] = []
        self._files = 0
        self._packs = 0
        self._unindexed = 0
        self._read_bytes = 0
        self._seen_trees: set[BlobId] = set()
        self._sizes: dict[bytes, int | None] = {}  # by digest of the content list: most files never change
        self.used_packs: set[bytes] = set()

    def read_metadata(self, snapshots: Sequence[Snapshot] | None) -> None:
        """Read snapshots, then the index."""
        self._progress.phase("reading the index")
        damaged: list[RepositoryDamaged] = []
        self._snapshots = list(
            self._repository.snapshots(damaged=damaged) if snapshots is None else snapshots
        )
        self._repository.load_index(damaged=damaged)
        self._note_damaged(damaged)
        if self._repository.config_problem is not None:
            self._findings.append(_Finding(self._repository.config_problem, "config"))
        if snapshots is None:
            for key_id, message in find_damaged_keys(self._repository.store).items():
                self._findings.append(_Finding(message, f"keys/{key_id}"))

    def _note_damaged(self, damaged: Iterable[RepositoryDamaged]) -> None:
        known = {finding.message for finding in self._findings}
        for exc in damaged:
            file = exc.facts.get("file")
            if exc.message not in known:
                self._findings.append(_Finding(exc.message, file if isinstance(file, str) else None))

    def check_trees(self) -> None:
        """Check every folder that the snapshots reach, each distinct one once."""
        self._progress.phase("checking folders")
        todo = [snapshot.tree for snapshot in self._snapshots]
        while todo:
            tree_id = todo.pop()
            if tree_id not in self._seen_trees:
                self._seen_trees.add(tree_id)
                todo += self._check_tree(tree_id)

    def _check_tree(self, tree_id: BlobId) -> list[BlobId]:
        """Check one folder and return its subfolders."""
        subtrees: list[BlobId] = []
        self._use(BlobKind.TREE, tree_id)
        try:
            data = self._repository.read_blob(BlobKind.TREE, tree_id)
            if not is_canonical(data):
                self._found(f"tree {tree_id.hex()} is not encoded as restic does", BlobKind.TREE, tree_id)
            for node in decode_tree(data):
                if isinstance(node, DirNode):
                    subtrees.append(node.subtree)
                elif isinstance(node, FileNode):
                    self._check_file(tree_id, node)
        except (RepositoryDamaged, TreeError) as exc:
            message = exc.message if isinstance(exc, RepositoryDamaged) else f"tree {tree_id.hex()}: {exc}"
            self._found(message, BlobKind.TREE, tree_id)
        return subtrees

    def _check_file(self, tree_id: BlobId, node: FileNode) -> None:
        self._files += 1
        size_bytes = self._content_size(BlobIds.of(node.content))
        if size_bytes is not None and size_bytes != node.size_bytes:
            self._findings.append(
                _Finding(
                    f"file {node.name!r} in tree {tree_id.hex()} has {node.size_bytes} bytes by its node"
                    f" but {size_bytes} by its blobs",
                    blobs=frozenset({(BlobKind.TREE, tree_id)}),
                )
            )

    def _content_size(self, content: BlobIds) -> int | None:
        """Return the length of all blobs of a file, or None if some are missing."""
        digest = hashlib.sha256(content.packed).digest()
        if digest not in self._sizes:
            sizes = [self._use(BlobKind.DATA, blob_id) for blob_id in content]
            missing = {blob_id for blob_id, size in zip(content, sizes, strict=True) if size is None}
            for blob_id in missing:
                self._found(f"data blob {blob_id.hex()} is in no index file", BlobKind.DATA, blob_id)
            self._sizes[digest] = None if missing else sum(size for size in sizes if size is not None)
        return self._sizes[digest]

    def _use(self, kind: BlobKind, blob_id: BlobId) -> int | None:
        """Note the pack a blob is in, and return its plaintext length."""
        pack_id = self._repository.pack_of(kind, blob_id)
        if pack_id is not None:
            self.used_packs.add(pack_id)
        return self._repository.blob_size(kind, blob_id)

    def _found(self, message: str, kind: BlobKind, blob_id: BlobId) -> None:
        self._findings.append(_Finding(message, blobs=frozenset({(kind, blob_id)})))

    def check_packs(self, chosen: set[bytes] | None, *, read_data: bool, sample: PackSample | None) -> None:
        """Compare packs in the store with the index; ``chosen`` limits it (None: all packs)."""
        self._progress.phase("reading packs" if read_data else "checking packs")
        sizes = self._repository.pack_sizes()
        if read_data:
            wanted = sizes.keys() if chosen is None else chosen & sizes.keys()
            taken = (pack for pack in wanted if sample is None or pack in sample)
            self._progress.expect(size_bytes=sum(sizes[pack] for pack in taken))
        indexed: set[bytes] = set()
        damaged: list[RepositoryDamaged] = []
        contents = self._distinct_packs(chosen, indexed, damaged)
        readable = (
            pack
            for pack in contents
            if self._has_right_size(pack, sizes) and read_data and (sample is None or pack.pack_id in sample)
        )
        threads = min(_MAX_THREADS, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads, thread_name_prefix="verify") as executor:
            for result in ahead(executor, self._repository.check_pack, readable, threads + 1):
                self._note_pack(result)
        self._note_damaged(damaged)
        self._unindexed = len(sizes.keys() - indexed - self._recorded()) if chosen is None else 0

    def _recorded(self) -> set[bytes]:
        """Return the packs that a prune has taken out of use and will remove."""
        records = self._repository.holdings().records()
        return {pack.pack_id for record in records for pack in record.packs or ()}

    def _distinct_packs(
        self, chosen: set[bytes] | None, indexed: set[bytes], damaged: list[RepositoryDamaged]
    ) -> Iterator[PackContents]:
        for pack in self._repository.indexed_packs(damaged=damaged):
            if pack.pack_id not in indexed and (chosen is None or pack.pack_id in chosen):
                indexed.add(pack.pack_id)
                yield pack

    def _has_right_size(self, pack: PackContents, sizes: dict[bytes, int]) -> bool:
        """Whether the pack is worth reading; a missing pack and a wrong size are noted."""
        self._packs += 1
        name, actual, implied = pack.pack_id.hex(), sizes.get(pack.pack_id), pack_size(pack.entries)
        if actual == implied:
            return True
        blobs = frozenset((entry.kind, entry.id) for entry in pack.entries)
        if actual is None:
            self._findings.append(_Finding(f"pack {name} is missing", pack_name(name), blobs, pack.pack_id))
            return False
        message = f"pack {name} has {actual} bytes, the index implies {implied}"
        self._findings.append(_Finding(message, pack_name(name), blobs, pack.pack_id))
        return True

    def _note_pack(self, result: PackCheck) -> None:
        self._read_bytes += result.size_bytes
        self._progress.advance(size_bytes=result.size_bytes)
        file = pack_name(result.pack_id.hex())
        self._findings += [_Finding(message, file) for message in result.problems]
        self._findings += [
            _Finding(message, file, frozenset({(entry.kind, entry.id)}), result.pack_id)
            for entry, message in result.damaged
        ]

    def report(self, *, has_read_data: bool) -> VerifyReport:
        """Return what was found, each problem with the backups and files it reaches."""
        reached = self._reaching()
        if reached:
            self._progress.phase("finding what is affected")
            for snapshot in self._snapshots:
                self._attribute(snapshot, reached)
        return VerifyReport(
            has_read_data=has_read_data,
            snapshots=len(self._snapshots),
            trees=len(self._seen_trees),
            files=self._files,
            packs=self._packs,
            unindexed_packs=self._unindexed,
            read_bytes=self._read_bytes,
            problems=tuple(
                VerifyProblem(
                    message=finding.message,
                    file=finding.file,
                    backups=tuple(finding.backups),
                    paths=tuple(finding.paths),
                    contents=tuple(finding.contents),
                )
                for finding in self._findings
            ),
            incomplete=self._incomplete(),
        )

    def _incomplete(self) -> tuple[str, ...]:
        """Return the backups of which a part is all there is: of others a copy brought a whole one back."""
        whole = {_backup_name(each) for each in self._snapshots if DAMAGED not in each.tags}
        damaged = (_backup_name(each) for each in self._snapshots if DAMAGED in each.tags)
        return tuple(each for each in damaged if each not in whole)

    def _reaching(self) -> dict[_Blob, list[_Finding]]:
        """Return the findings about each blob, unless a copy of it is left that nothing was found about."""
        bad: dict[_Blob, set[bytes]] = {}
        for finding in self._findings:
            if finding.pack_id is not None:
                for blob in finding.blobs:
                    bad.setdefault(blob, set()).add(finding.pack_id)
        reached: dict[_Blob, list[_Finding]] = {}
        for finding in self._findings:
            for blob in finding.blobs:
                places = self._repository.places_of(*blob) if finding.pack_id is not None else []
                if all(place.pack_id in bad[blob] for place in places):
                    reached.setdefault(blob, []).append(finding)
        return reached

    def _attribute(self, snapshot: Snapshot, reached: dict[_Blob, list[_Finding]]) -> None:
        """Note in the findings what they reach in one snapshot."""
        backup = _backup_name(snapshot)
        touched: dict[int, set[str]] = {}
        for finding, path in self._touched(snapshot, reached):
            touched.setdefault(id(finding), set()).add(path)
            if backup not in finding.backups:
                finding.backups.append(backup)
            if len(finding.paths) < _MAX_PATHS:
                finding.paths[path] = None
        record = backup_record(snapshot)
        if not touched or record is None:
            return
        files = BackupFiles(self._repository, record)
        for finding in self._findings:
            if id(finding) in touched:
                finding.contents.update(dict.fromkeys(affected_contents(files, touched[id(finding)])))

    def _touched(
        self, snapshot: Snapshot, reached: dict[_Blob, list[_Finding]]
    ) -> Iterator[tuple[_Finding, str]]:
        """Yield findings and the paths of a snapshot that they reach."""
        todo = [("", snapshot.tree)]
        while todo:
            path, tree_id = todo.pop()
            for finding in reached.get((BlobKind.TREE, tree_id), ()):
                yield finding, path or "/"
            try:
                nodes = self._repository.read_tree(tree_id)
            except RepositoryDamaged:
                continue  # noted as a finding of its own
            for node in nodes:
                where = f"{path}/{node.name}"
                if isinstance(node, DirNode):
                    todo.append((where, node.subtree))
                elif isinstance(node, FileNode):
                    for blob_id in node.content:
                        for finding in reached.get((BlobKind.DATA, blob_id), ()):
                            yield finding, where


def _backup_name(snapshot: Snapshot) -> str:
    runs = [tag.removeprefix("run=") for tag in snapshot.tags if tag.startswith("run=")]
    return runs[0] if runs else snapshot.id or snapshot.tree.hex()
