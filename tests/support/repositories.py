"""Repositories with content, and stores that misbehave on purpose."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pgstow.core.secrets import Secret
from pgstow.repository import (
    BlobId,
    BlobKind,
    BlobWriter,
    DirNode,
    FileNode,
    Repository,
    RepositoryKin,
    Snapshot,
    SnapshotSummary,
)
from pgstow.store.api import ObjectInfo, Store
from pgstow.store.memory import MemoryStore
from support.restic import PASSWORD

MOMENT = datetime(2026, 11, 20, 2, 0, 0, 120_000, tzinfo=UTC)

NASTY_NAMES = (
    "plain.dat",
    "with space",
    "new\nline",
    "carriage\rreturn",
    "tab\there",
    "bell\a\b\f\v\x1b",
    'double"quote',
    "single'quote",
    "back\\slash",
    "\\u0041 looks escaped",
    "<angle>&ampersand",
    "new\nline <angle>&ampersand",
    "line\u2028separator\u2029paragraph",
    "delete\x7f",
    "c1\x85control",
    "no-break\u00a0space",
    "soft\u00adhyphen",
    "ünïcödé",
    "日本語",
    "combining e\u0301",
    "\U0001f600 smile",
    "\ue000private use",
    "zero\u200bwidth",
    "-dash",
    "*glob?[x]",
    "Z",
    "a",
    "é",
)


def init_repository(
    store: Store,
    password: str = PASSWORD,
    *,
    kin: RepositoryKin | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Repository:
    """Make a repository."""
    return Repository.init(
        store, Secret(password), hostname="worker", username="tester", kin=kin, sleep=sleep
    )


def open_repository(store: Store, password: str = PASSWORD) -> Repository:
    repository = Repository.open(store, Secret(password))
    repository.load_index()
    return repository


@functools.cache
def copy_text(rows: int, seed: int) -> bytes:
    """Return rows as COPY would write them: compressible, and different for every seed."""
    generator = random.Random(seed)
    return b"".join(
        b"%d\tcustomer %d\t2026-11-%02d 10:00:00+00\t%d.%02d\t\\N\n"
        % (row, generator.randrange(10**6), row % 28 + 1, generator.randrange(1000), row % 100)
        for row in range(rows)
    )


def random_bytes(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def save_file(writer: BlobWriter, name: str, pieces: list[bytes]) -> FileNode:
    content = [writer.save(BlobKind.DATA, piece).id for piece in pieces]
    return FileNode(name=name, size_bytes=sum(map(len, pieces)), content=content, modified=MOMENT)


def save_tree(writer: BlobWriter, files: dict[str, list[bytes]], folder: str = "shop") -> BlobId:
    """Save ``files`` (name: blobs) in /FOLDER/archive and return the root tree."""
    archive = writer.save_tree([save_file(writer, name, pieces) for name, pieces in files.items()])
    inner = writer.save_tree([DirNode(name="archive", subtree=archive, modified=MOMENT)])
    return writer.save_tree([DirNode(name=folder, subtree=inner, modified=MOMENT)])


def snapshot_of(
    tree: BlobId,
    sizes: Iterable[int],
    *,
    run: str = "run-1",
    time: datetime = MOMENT,
    folder: str = "shop",
) -> Snapshot:
    """Return a snapshot as a backup makes it; ``sizes`` are those of its files."""
    sizes = list(sizes)
    summary = SnapshotSummary(
        backup_start=time,
        backup_end=time,
        files_new=len(sizes),
        total_files_processed=len(sizes),
        total_bytes_processed=sum(sizes),
    )
    return Snapshot(
        time=time,
        tree=tree,
        paths=(f"/{folder}",),
        hostname="db.example",
        username="tester",
        tags=("pgstow", f"db={folder}", f"run={run}"),
        program_version="pgstow 0.1.0",
        summary=summary,
    )


def save_backup(
    repository: Repository,
    files: dict[str, list[bytes]],
    *,
    run: str = "run-1",
    folder: str = "shop",
    time: datetime = MOMENT,
) -> str:
    """Save ``files`` as one snapshot and return its id."""
    with repository.writer() as writer:
        tree = save_tree(writer, files, folder)
    sizes = map(len, contents(files).values())
    return repository.save_snapshot(snapshot_of(tree, sizes, run=run, folder=folder, time=time))


def nasty_files() -> dict[str, list[bytes]]:
    """Return files with hostile names, empty, repeated, incompressible and large content."""
    shared = copy_text(9000, 1)
    files = {name: [copy_text(50, seed), shared] for seed, name in enumerate(NASTY_NAMES, 100)}
    files["empty"] = []
    files["one-byte"] = [b"x"]
    files["incompressible"] = [random_bytes(300_000, 7), b"trailer"]
    files["repeated"] = [shared, shared, b"\\.\n\n\n", shared]
    files["large"] = [copy_text(20_000, seed) for seed in range(200, 215)]
    return files


def contents(files: dict[str, list[bytes]]) -> dict[str, bytes]:
    return {name: b"".join(pieces) for name, pieces in files.items()}


def read_files(repository: Repository, snapshot: Snapshot) -> dict[str, bytes]:
    """Return every file of a snapshot by its path, read through the streaming reader."""
    found: dict[str, bytes] = {}
    todo = [("", snapshot.tree)]
    while todo:
        path, tree = todo.pop()
        for node in repository.read_tree(tree):
            if isinstance(node, DirNode):
                todo.append((f"{path}/{node.name}", node.subtree))
            elif isinstance(node, FileNode):
                found[f"{path}/{node.name}"] = b"".join(repository.stream(node.content))
    return found


@dataclass
class WatchedStore:
    """A store that records what is asked of it and lets a test step in before each call."""

    inner: Store = field(default_factory=MemoryStore)
    before: Callable[[str, str], None] = lambda method, name: None
    calls: list[tuple[str, str]] = field(default_factory=list)

    def _note(self, method: str, name: str) -> None:
        self.calls.append((method, name))
        self.before(method, name)

    def names(self, method: str) -> list[str]:
        return [name for called, name in self.calls if called == method]

    @property
    def location(self) -> str:
        return self.inner.location

    def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
        self._note("put", name)
        self.inner.put(name, data, if_absent=if_absent)

    def get(self, name: str) -> bytes:
        self._note("get", name)
        return self.inner.get(name)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        self._note("get_range", name)
        return self.inner.get_range(name, offset, length)

    def stat(self, name: str) -> ObjectInfo:
        self._note("stat", name)
        return self.inner.stat(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._note("list", prefix)
        return self.inner.list(prefix)

    def delete(self, name: str) -> None:
        self._note("delete", name)
        self.inner.delete(name)

    def remove_stale_temporaries(self) -> int:
        return self.inner.remove_stale_temporaries()
