"""Verification: nothing wrong in what is whole, and every kind of damage found, named and attributed."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from pgstow.assurance.verify import VerifyReport, verify
from pgstow.core.progress import SilentProgress
from pgstow.core.secrets import Secret
from pgstow.repository import BlobKind, DirNode, FileNode, Repository, encode_tree, pack_name
from pgstow.store.memory import MemoryStore
from support.repositories import (
    MOMENT,
    WatchedStore,
    copy_text,
    init_repository,
    nasty_files,
    open_repository,
    random_bytes,
    save_backup,
    snapshot_of,
)
from support.restic import PASSWORD

SHARED = copy_text(3000, 1)
FILES = {
    "3456.dat": [SHARED, random_bytes(5000, 2)],
    "3457.dat": [copy_text(500, 3), b"\\.\n\n\n"],
    "toc.dat": [b"PGDMP"],
}


@dataclass
class Backups:
    """Two backups that share one blob, in a store the test may damage."""

    store: MemoryStore
    ids: list[str]

    def verify(self, *, read_data: bool = False, only: int | None = None) -> VerifyReport:
        repository = Repository.open(self.store, Secret(PASSWORD))
        snapshots = None
        if only is not None:
            snapshots = [each for each in repository.snapshots() if each.id == self.ids[only]]
        return verify(repository, snapshots, read_data=read_data)

    def place(self, kind: BlobKind, data: bytes) -> tuple[str, int, int]:
        """Return pack name, offset and length of a blob."""
        place = open_repository(self.store)._index.find(kind, hashlib.sha256(data).digest())
        assert place is not None
        return pack_name(place.pack_id.hex()), place.offset, place.length

    def change(self, name: str, change: Callable[[bytearray], object]) -> None:
        data = bytearray(self.store.get(name))
        change(data)
        self.store.put(name, data)


@pytest.fixture
def backups() -> Backups:
    store = MemoryStore()
    repository = init_repository(store)
    first = save_backup(repository, FILES, run="run-1")
    second = save_backup(repository, {"9.dat": [SHARED], "only.dat": [copy_text(100, 9)]}, run="run-2")
    return Backups(store, [first, second])


def flip(position: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[position] ^= 1

    return change


@pytest.mark.parametrize("read_data", [False, True])
def test_a_whole_repository_has_no_problems(backups: Backups, read_data: bool) -> None:
    report = backups.verify(read_data=read_data)
    assert report.problems == ()
    assert report.is_sound
    assert report.has_read_data == read_data
    assert (report.snapshots, report.files, report.trees) == (2, 5, 6)
    assert report.packs == len(list(backups.store.list("data/"))) == 4
    total = sum(info.size_bytes for info in backups.store.list("data/"))
    assert report.read_bytes == (total if read_data else 0)
    assert report.unindexed_packs == 0


def test_hostile_names_and_odd_files_have_no_problems() -> None:
    store = MemoryStore()
    save_backup(init_repository(store), nasty_files())
    assert verify(open_repository(store), read_data=True).problems == ()


def test_an_empty_repository() -> None:
    report = verify(init_repository(MemoryStore()), read_data=True)
    assert (report.problems, report.snapshots, report.packs) == ((), 0, 0)


def test_a_flipped_bit_in_data_is_found_by_reading_only(backups: Backups) -> None:
    name, offset, _ = backups.place(BlobKind.DATA, SHARED)
    backups.change(name, flip(offset + 20))
    assert backups.verify().is_sound
    report = backups.verify(read_data=True)
    assert {problem.file for problem in report.problems} == {name}
    whole, blob = report.problems
    assert "does not match its name" in whole.message
    assert "is damaged" in blob.message
    assert set(blob.backups) == {"run-1", "run-2"}
    assert set(blob.paths) == {"/shop/archive/3456.dat", "/shop/archive/9.dat"}


def test_a_flipped_bit_in_a_pack_header(backups: Backups) -> None:
    name, *_ = backups.place(BlobKind.DATA, SHARED)
    backups.change(name, flip(-10))
    messages = [problem.message for problem in backups.verify(read_data=True).problems]
    assert len(messages) == 2
    assert any("header" in message for message in messages)


def test_a_flipped_bit_in_a_tree(backups: Backups) -> None:
    repository = open_repository(backups.store)
    (root,) = repository.read_tree(repository.snapshots()[0].tree)
    assert isinstance(root, DirNode)
    place = repository._index.find(BlobKind.TREE, root.subtree)
    assert place is not None
    backups.change(pack_name(place.pack_id.hex()), flip(place.offset))
    report = backups.verify()
    (problem,) = report.problems
    assert root.subtree.hex() in problem.message
    assert len(problem.backups) == 1
    assert problem.paths == ("/shop",)


@pytest.mark.parametrize("read_data", [False, True])
def test_a_missing_pack(backups: Backups, read_data: bool) -> None:
    name, *_ = backups.place(BlobKind.DATA, copy_text(100, 9))
    backups.store.delete(name)
    report = backups.verify(read_data=read_data)
    (problem,) = report.problems
    assert "is missing" in problem.message
    assert problem.file == name
    assert (problem.backups, problem.paths) == (("run-2",), ("/shop/archive/only.dat",))


def test_a_truncated_pack_is_seen_without_reading_it(backups: Backups) -> None:
    name, *_ = backups.place(BlobKind.DATA, SHARED)
    backups.change(name, lambda data: data.__delitem__(slice(-7, None)))
    (problem,) = backups.verify().problems
    assert "bytes, the index implies" in problem.message
    assert set(problem.backups) == {"run-1", "run-2"}
    assert len(backups.verify(read_data=True).problems) >= 3


def test_a_damaged_index_file(backups: Backups) -> None:
    infos = list(backups.store.list("index/"))
    backups.change(infos[0].name, flip(5))
    report = backups.verify()
    assert report.problems[0].file == infos[0].name
    unknown = [problem for problem in report.problems if "in no index file" in problem.message]
    assert unknown
    assert all(problem.backups for problem in unknown)
    assert report.unindexed_packs == 2


def test_a_damaged_snapshot(backups: Backups) -> None:
    name = f"snapshots/{backups.ids[0]}"
    backups.change(name, flip(3))
    report = backups.verify()
    assert [problem.file for problem in report.problems] == [name]
    assert report.snapshots == 1


def test_everything_at_once_is_all_listed(backups: Backups) -> None:
    shared, offset, _ = backups.place(BlobKind.DATA, SHARED)
    gone, *_ = backups.place(BlobKind.DATA, copy_text(100, 9))
    backups.change(shared, flip(offset + 20))
    backups.store.delete(gone)
    backups.store.put("snapshots/" + "a" * 64, b"nonsense")
    backups.store.put("index/" + "b" * 64, b"nonsense")
    files = {problem.file for problem in backups.verify(read_data=True).problems}
    assert files == {shared, gone, "snapshots/" + "a" * 64, "index/" + "b" * 64}


def save_odd(store: MemoryStore, make: Callable[[bytes], bytes]) -> None:
    """Save a backup whose folder is encoded by ``make`` from the id of a ten-byte blob."""
    repository = init_repository(store)
    with repository.writer() as writer:
        blob = writer.save(BlobKind.DATA, b"0123456789").id
        tree = writer.save(BlobKind.TREE, make(blob)).id
    repository.save_snapshot(snapshot_of(tree, [10]))


def file_node(blob: bytes, size_bytes: int = 10) -> FileNode:
    return FileNode(name="file", size_bytes=size_bytes, content=[blob, blob], modified=MOMENT)


ODD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "wrong size": (
        lambda blob: encode_tree([file_node(blob, 19)]),
        "19 bytes by its node but 20 by its blobs",
    ),
    "spaces": (
        lambda blob: encode_tree([file_node(blob, 20)]).replace(b'"uid":0', b'"uid": 0'),
        "not encoded as restic does",
    ),
    "no tree": (lambda blob: b'{"nodes":7}', "tree"),
    "unknown blob": (lambda blob: encode_tree([file_node(bytes(32), 20)]), "in no index file"),
    "unknown subtree": (
        lambda blob: encode_tree([DirNode(name="d", subtree=blob, modified=MOMENT)]),
        "in no index file",
    ),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_restic_s_check_does_not_see(odd: str) -> None:
    make, expected = ODD[odd]
    store = MemoryStore()
    save_odd(store, make)
    (problem,) = verify(open_repository(store)).problems
    assert expected in problem.message
    assert problem.backups == ("run-1",)
    assert problem.paths


def test_chosen_backups_only(backups: Backups) -> None:
    name, offset, _ = backups.place(BlobKind.DATA, copy_text(100, 9))
    backups.change(name, flip(offset + 20))
    report = backups.verify(read_data=True, only=0)
    assert report.is_sound
    assert (report.snapshots, report.packs) == (1, 2)
    report = backups.verify(read_data=True, only=1)
    assert {problem.file for problem in report.problems} == {name}
    assert report.packs == 3  # its own two and the one with the shared blob


def test_packs_that_nothing_lists_are_counted_not_blamed(backups: Backups) -> None:
    backups.store.put(pack_name("c" * 64), b"left by an interrupted run")
    report = backups.verify(read_data=True)
    assert (report.is_sound, report.unindexed_packs) == (True, 1)


def test_a_backup_that_appears_meanwhile_is_no_problem(backups: Backups) -> None:
    late = open_repository(backups.store)
    watched = WatchedStore(inner=backups.store)
    numbers = itertools.count()

    def save_another(method: str, name: str) -> None:
        if method == "list":
            number = next(numbers)
            files = {f"late-{number}": [random_bytes(100, number)]}
            save_backup(late, files, run=f"late-{number}", time=MOMENT + timedelta(minutes=number))

    repository = Repository.open(watched, Secret(PASSWORD))
    watched.before = save_another
    assert verify(repository, read_data=True).problems == ()
    assert next(numbers) >= 3


def test_progress_adds_up(backups: Backups) -> None:
    class Counting(SilentProgress):
        expected = 0
        done = 0
        phases: list[str] = []  # noqa: RUF012

        def phase(self, name: str) -> None:
            self.phases.append(name)

        def expect(self, *, rows: int | None = None, size_bytes: int | None = None) -> None:
            self.expected += size_bytes or 0

        def advance(self, *, rows: int = 0, size_bytes: int = 0) -> None:
            self.done += size_bytes

    progress = Counting()
    report = verify(open_repository(backups.store), read_data=True, progress=progress)
    assert progress.done == progress.expected == report.read_bytes > 0
    assert len(progress.phases) == 3
