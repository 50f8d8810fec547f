"""Repositories that restic made, read, checked and continued by pgstow."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgstow.assurance.verify import verify
from pgstow.core.errors import RepositoryError
from pgstow.repository import BlobKind, DirNode, OtherNode, is_canonical
from pgstow.store.local import LocalStore
from support.repositories import (
    NASTY_NAMES,
    contents,
    copy_text,
    open_repository,
    random_bytes,
    read_files,
    save_backup,
)
from support.restic import Restic

CONTENT = {
    **{name: copy_text(20, seed) for seed, name in enumerate(NASTY_NAMES)},
    "empty": b"",
    "large": copy_text(60_000, 1) + random_bytes(5_000_000, 2),
    "folder/inner": b"deep",
}
SECOND = {"two/only": b"second", "two/large": CONTENT["large"]}


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


@pytest.fixture(scope="module", params=["oldest", "newest"])
def made(
    request: pytest.FixtureRequest, restic_binaries: list[Restic], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A repository with two snapshots, by each restic, and the folder it was made from."""
    restic = restic_binaries[0 if request.param == "oldest" else -1]
    folder = tmp_path_factory.mktemp("theirs")
    source = folder / "source"
    write(source / "one", CONTENT)
    (source / "one/link").symlink_to("with space")
    (source / "one" / os.fsdecode(b"not-utf8-\xff\xfe")).write_bytes(b"latin")
    os.mkfifo(source / "one/fifo")
    os.link(source / "one/large", source / "one/hard")
    os.utime(source / "one/plain.dat", ns=(1, 1_700_000_000_123_456_789))
    write(source, SECOND)
    repository = folder / "repository"
    restic(repository, "init")
    restic(repository, "backup", "--host", "their <host>", "--tag", "a&b", source / "one")
    restic(repository, "backup", source / "two")
    return repository, source


@pytest.fixture
def theirs(made: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "repository"))


def strip(files: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    return {name.removeprefix(f"{folder}/"): data for name, data in files.items()}


def test_snapshots_are_listed(theirs: Path) -> None:
    first, second = open_repository(LocalStore(theirs)).snapshots()
    assert first.hostname == "their <host>"
    assert first.tags == ("a&b",)
    assert first.paths[0].endswith("/one")
    assert second.paths[0].endswith("/two")
    assert datetime.now(UTC) - second.time < timedelta(hours=1)
    assert first.id
    assert (theirs / "snapshots" / first.id).exists()


def test_every_file_reads_equal(made: tuple[Path, Path], theirs: Path) -> None:
    repository = open_repository(LocalStore(theirs))
    first, second = repository.snapshots()
    _, source = made
    expected = {**CONTENT, "hard": CONTENT["large"], os.fsdecode(b"not-utf8-\xff\xfe"): b"latin"}
    assert strip(read_files(repository, first), source / "one") == expected
    assert strip(read_files(repository, second), source) == SECOND


def test_kinds_and_times_of_nodes(made: tuple[Path, Path], theirs: Path) -> None:
    repository = open_repository(LocalStore(theirs))
    tree = repository.snapshots()[0].tree
    for name in (made[1] / "one").parts[1:]:
        (node,) = (node for node in repository.read_tree(tree) if node.name == name)
        assert isinstance(node, DirNode)
        tree = node.subtree
    nodes = {node.name: node for node in repository.read_tree(tree)}
    assert {node.kind for node in nodes.values() if isinstance(node, OtherNode)} == {"symlink", "fifo"}
    assert nodes["plain.dat"].modified == datetime(2023, 11, 14, 22, 13, 20, 123_456, tzinfo=UTC)


def test_every_tree_is_what_we_call_canonical(theirs: Path) -> None:
    repository = open_repository(LocalStore(theirs))
    trees = [e.id for pack in repository.indexed_packs() for e in pack.entries if e.kind is BlobKind.TREE]
    assert len(trees) >= 5
    assert all(is_canonical(repository.read_blob(BlobKind.TREE, tree)) for tree in trees)


def test_verify_finds_nothing(theirs: Path) -> None:
    report = verify(open_repository(LocalStore(theirs)), read_data=True)
    assert report.problems == ()
    assert report.snapshots == 2
    assert report.unindexed_packs == 0
    assert report.read_bytes == sum(f.stat().st_size for f in (theirs / "data").rglob("*") if f.is_file())


def test_our_snapshot_stands_beside_theirs(restic: Restic, theirs: Path, tmp_path: Path) -> None:
    repository = open_repository(LocalStore(theirs))
    files = {"orders.dat": [copy_text(5000, 3), b"\\.\n\n\n"], "empty": []}
    with repository.lock():
        ours = save_backup(repository, files)
    restic(theirs, "check", "--read-data")
    assert len(restic.json(theirs, "snapshots")) == 3
    restic(theirs, "restore", ours, "--target", tmp_path / "target")
    for name, data in contents(files).items():
        assert (tmp_path / "target/shop/archive" / name).read_bytes() == data
    restic(theirs, "prune", "--max-unused", "0")
    again = open_repository(LocalStore(theirs))
    assert verify(again, read_data=True).problems == ()
    assert len(again.snapshots()) == 3


def test_blobs_that_restic_stored_are_not_stored_again(theirs: Path) -> None:
    repository = open_repository(LocalStore(theirs))
    stored = [e for pack in repository.indexed_packs() for e in pack.entries if e.kind is BlobKind.DATA]
    with repository.writer() as writer:
        for entry in stored:
            saved = writer.save(BlobKind.DATA, repository.read_blob(BlobKind.DATA, entry.id))
            assert (saved.id, saved.is_new) == (entry.id, False)


def test_format_1_is_refused_with_the_way_out(newest_restic: Restic, tmp_path: Path) -> None:
    newest_restic(tmp_path / "old", "init", "--repository-version", "1")
    with pytest.raises(RepositoryError, match="format 1") as caught:
        open_repository(LocalStore(tmp_path / "old"))
    assert "upgrade_repo_v2" in (caught.value.hint or "")
    newest_restic(tmp_path / "old", "migrate", "upgrade_repo_v2")
    assert open_repository(LocalStore(tmp_path / "old")).snapshots() == []


def test_an_upgraded_repository_with_uncompressed_blobs_reads(newest_restic: Restic, tmp_path: Path) -> None:
    write(tmp_path / "source", {"file": CONTENT["large"]})
    newest_restic(tmp_path / "old", "init", "--repository-version", "1")
    newest_restic(tmp_path / "old", "backup", tmp_path / "source")
    newest_restic(tmp_path / "old", "migrate", "upgrade_repo_v2")
    repository = open_repository(LocalStore(tmp_path / "old"))
    (snapshot,) = repository.snapshots()
    assert list(read_files(repository, snapshot).values()) == [CONTENT["large"]]
    assert verify(repository, read_data=True).problems == ()


def test_a_key_file_of_someone_else_may_be_damaged(
    newest_restic: Restic, theirs: Path, tmp_path: Path
) -> None:
    added = tmp_path / "added"
    added.write_text("colleague")
    before = set((theirs / "keys").iterdir())
    newest_restic(theirs, "key", "add", "--new-password-file", added)
    (theirs_key,) = set((theirs / "keys").iterdir()) - before
    theirs_key.chmod(0o600)
    theirs_key.write_bytes(theirs_key.read_bytes()[:-20])
    assert len(open_repository(LocalStore(theirs)).snapshots()) == 2
