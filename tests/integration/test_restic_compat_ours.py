"""Repositories that pgstow makes, judged by restic."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgstow.assurance.verify import verify
from pgstow.core.errors import ProcessFailed, RepositoryLocked
from pgstow.core.process import running
from pgstow.repository import BlobKind, DirNode, FileNode
from pgstow.store.local import LocalStore
from support.cheap_keys import with_ordinary_cost
from support.repositories import (
    MOMENT,
    contents,
    copy_text,
    init_repository,
    nasty_files,
    open_repository,
    random_bytes,
    read_files,
    save_backup,
    save_file,
    snapshot_of,
)
from support.restic import Restic

SECOND = {"kept": [copy_text(9000, 1), copy_text(100, 5)], "changed": [copy_text(2000, 6)]}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two snapshots of one source and one of another."""
    folder = tmp_path_factory.mktemp("ours")
    repository = init_repository(LocalStore(folder))
    save_backup(repository, nasty_files(), run="run-1")
    save_backup(repository, SECOND, run="run-2")
    save_backup(repository, {"other": [b"elsewhere"]}, run="run-3", folder="books")
    return folder


@pytest.fixture
def ours(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "repository"))


def by_run(restic: Restic, repository: Path) -> dict[str, str]:
    """Return snapshot ids by run, as restic lists them."""
    listed = restic.json(repository, "snapshots")
    return {tag.removeprefix("run="): each["id"] for each in listed for tag in each["tags"] if "run=" in tag}


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_check_reads_every_byte(restic: Restic, ours: Path) -> None:
    output = restic(ours, "check", "--read-data").decode()
    assert "no errors were found" in output
    assert "warning" not in output.lower()


def test_a_key_of_the_ordinary_cost_opens(restic: Restic, tmp_path: Path) -> None:
    with with_ordinary_cost():
        made = init_repository(LocalStore(tmp_path / "repository"))
    assert restic.json(tmp_path / "repository", "cat", "config")["id"] == made.id
    assert open_repository(LocalStore(tmp_path / "repository")).id == made.id


def test_rewrite_finds_nothing_to_change(newest_restic: Restic, ours: Path) -> None:
    before = by_run(newest_restic, ours)
    output = newest_restic(ours, "rewrite", "--exclude", "nothing-has-this-name").decode()
    assert "no snapshots were modified" in output
    assert by_run(newest_restic, ours) == before


def test_restored_files_are_equal_byte_by_byte(restic: Restic, ours: Path, tmp_path: Path) -> None:
    for run, expected in (("run-1", nasty_files()), ("run-2", SECOND)):
        target = tmp_path / run
        restic(ours, "restore", by_run(restic, ours)[run], "--target", target)
        assert files_below(target / "shop/archive") == contents(expected)


def test_latest_by_path_is_the_newest(restic: Restic, ours: Path, tmp_path: Path) -> None:
    restic(ours, "restore", "latest", "--path", "/books", "--target", tmp_path / "books")
    assert files_below(tmp_path / "books") == {"books/archive/other": b"elsewhere"}


def test_restored_files_are_private_and_dated(restic: Restic, ours: Path, tmp_path: Path) -> None:
    restic(ours, "restore", by_run(restic, ours)["run-2"], "--target", tmp_path / "target")
    status = (tmp_path / "target/shop/archive/kept").stat()
    assert status.st_mode & 0o777 == 0o600
    assert status.st_mtime == MOMENT.timestamp()


def test_dump_writes_single_files(restic: Restic, ours: Path) -> None:
    run = by_run(restic, ours)["run-1"]
    for name in ("large", "empty", "new\nline <angle>&ampersand"):
        assert restic(ours, "dump", run, f"/shop/archive/{name}") == contents(nasty_files())[name]


def test_find_finds_every_name(restic: Restic, ours: Path) -> None:
    found = restic.json(ours, "find", "--snapshot", by_run(restic, ours)["run-1"], "*")
    paths = {match["path"] for each in found for match in each["matches"]}
    assert {f"/shop/archive/{name}" for name in nasty_files()} <= paths


def test_stats_count_what_is_there(restic: Restic, ours: Path) -> None:
    stats = restic.json(ours, "stats", "--mode", "restore-size", by_run(restic, ours)["run-1"])
    assert stats["total_size"] == sum(map(len, contents(nasty_files()).values()))
    raw = restic.json(ours, "stats", "--mode", "raw-data")
    assert raw["total_blob_count"] == len(
        {entry.id for pack in open_repository(LocalStore(ours)).indexed_packs() for entry in pack.entries}
    )


def test_snapshots_show_who_when_and_how_much(newest_restic: Restic, ours: Path) -> None:
    first = newest_restic.json(ours, "snapshots")[0]
    assert first["time"] == "2026-11-20T02:00:00.12Z"
    assert first["hostname"] == "db.example"
    assert first["paths"] in (["/shop"], ["/books"])
    assert first["program_version"] == "pgstow 0.1.0"
    assert first["summary"]["total_files_processed"] in (1, 2, len(nasty_files()))


def test_copy_to_another_repository(restic: Restic, ours: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    secret = tmp_path / "password"
    secret.write_text(restic.password)
    restic(target, "init")
    restic(target, "copy", "--from-repo", ours, "--from-password-file", secret)
    restic(target, "check", "--read-data")
    copied = open_repository(LocalStore(target))
    assert {tuple(snapshot.tags) for snapshot in copied.snapshots()} == {
        tuple(snapshot.tags) for snapshot in open_repository(LocalStore(ours)).snapshots()
    }
    assert verify(copied, read_data=True).problems == ()


def test_forget_and_prune_leave_the_rest_whole(restic: Restic, ours: Path) -> None:
    restic(ours, "forget", by_run(restic, ours)["run-1"])
    restic(ours, "prune", "--max-unused", "0")
    restic(ours, "check", "--read-data")
    repository = open_repository(LocalStore(ours))
    shop, books = sorted(repository.snapshots(), key=lambda snapshot: snapshot.tags, reverse=True)
    assert read_files(repository, shop) == {
        f"/shop/archive/{n}": data for n, data in contents(SECOND).items()
    }
    assert read_files(repository, books) == {"/books/archive/other": b"elsewhere"}
    assert verify(repository, read_data=True).problems == ()


def test_an_index_loaded_before_prune_forgets_what_was_pruned(newest_restic: Restic, ours: Path) -> None:
    repository = open_repository(LocalStore(ours))
    gone = next(n for n in repository.indexed_packs() if n.entries[0].kind is BlobKind.DATA).entries[0]
    newest_restic(ours, "forget", *by_run(newest_restic, ours).values())
    newest_restic(ours, "prune", "--max-unused", "0")
    assert repository.blob_size(gone.kind, gone.id) is not None
    repository.load_index()
    assert repository.blob_size(gone.kind, gone.id) is None


def test_a_password_added_by_restic_opens_it(restic: Restic, ours: Path, tmp_path: Path) -> None:
    added = tmp_path / "added"
    added.write_text("another password")
    restic(ours, "key", "add", "--new-password-file", added)
    assert open_repository(LocalStore(ours), "another password").id == open_repository(LocalStore(ours)).id


def test_tags_can_be_changed(restic: Restic, ours: Path) -> None:
    restic(ours, "tag", "--add", "kept", by_run(restic, ours)["run-2"])
    tags = [snapshot.tags for snapshot in open_repository(LocalStore(ours)).snapshots()]
    assert ("pgstow", "db=shop", "run=run-2", "kept") in tags


def test_blobs_stored_twice_are_accepted(restic: Restic, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "twice")
    repository, other = init_repository(store), open_repository(store)
    pieces = [copy_text(1000, 1), random_bytes(5000, 2), b""]
    for each in (repository, other):  # the second does not know what the first stored
        with each.writer() as writer:
            file = writer.save_tree([save_file(writer, "twice", pieces)])
            tree = writer.save_tree([DirNode(name="shop", subtree=file, modified=MOMENT)])
            assert writer.stats.new_blobs == 5
        each.save_snapshot(snapshot_of(tree, [sum(map(len, pieces))]))
    restic(tmp_path / "twice", "check", "--read-data")
    restic(tmp_path / "twice", "prune", "--max-unused", "0")
    restic(tmp_path / "twice", "check", "--read-data")
    assert restic(tmp_path / "twice", "dump", "latest", "/shop/twice") == b"".join(pieces)


def test_a_tree_too_large_for_a_pack(newest_restic: Restic, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "long")
    repository = init_repository(store)
    with repository.writer() as writer:
        piece = writer.save(BlobKind.DATA, b"0123456789").id
        others = [writer.save(BlobKind.DATA, b"%d" % number).id for number in range(300)]
        content = ([piece] * 299 + others) * 500
        sizes = {piece: 10, **{blob: len(b"%d" % number) for number, blob in enumerate(others)}}
        node = FileNode(
            name="long", size_bytes=sum(sizes[b] for b in content), content=content, modified=MOMENT
        )
        tree = writer.save_tree([node])
    repository.save_snapshot(snapshot_of(tree, [node.size_bytes]))
    assert repository.blob_size(BlobKind.TREE, tree) > 16 << 20  # type: ignore[operator]
    newest_restic(tmp_path / "long", "check")
    assert newest_restic(tmp_path / "long", "ls", "latest").splitlines()[-1] == b"/long"
    expected = (b"0123456789" * 299 + b"".join(b"%d" % number for number in range(300))) * 500
    fresh = open_repository(store)
    assert read_files(fresh, fresh.snapshots()[0]) == {"/long": expected}
    assert verify(fresh).problems == ()


def test_restic_waits_for_our_lock_and_unlock_leaves_it(restic: Restic, ours: Path) -> None:
    repository = open_repository(LocalStore(ours))
    with repository.lock() as lock:
        shown = json.loads(restic(ours, "cat", "lock", lock.id))
        assert shown["exclusive"] is False
        with pytest.raises(ProcessFailed, match="lock"):
            restic(ours, "check")
        restic(ours, "unlock")
        lock.confirm()
        restic(ours, "snapshots")  # shared beside shared
    restic(ours, "check")


def test_we_refuse_while_restic_writes(
    restic: Restic, ours: Path, make_busy: Callable[[Restic, Path], None]
) -> None:
    make_busy(restic, ours)
    repository = open_repository(LocalStore(ours))
    with repository.lock():
        pass
    with pytest.raises(RepositoryLocked, match=r"locked by PID \d+ on"), repository.lock(exclusive=True):
        pytest.fail("restic is still writing")


@pytest.fixture
def make_busy(tmp_path: Path) -> Iterator[Callable[[Restic, Path], None]]:
    """Start a restic backup that waits for its stdin, and wait for its lock."""
    with contextlib.ExitStack() as stack:

        def start(restic: Restic, repository: Path) -> None:
            command: list[str | Path] = [
                restic.binary,
                "--repo",
                repository,
                "--no-cache",
                "backup",
                "--stdin",
            ]
            environ = {"RESTIC_PASSWORD": restic.password, "HOME": str(tmp_path)}
            process = stack.enter_context(running(command, env=environ, stdin=subprocess.PIPE))
            while not list((repository / "locks").glob("*")):
                assert process.poll() is None, process.stderr_tail()
                time.sleep(0.01)

        yield start
