"""Pruning beside the real restic: it accepts the repository after every step, and its own work between ours is survived."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgstow.core.errors import ProcessFailed
from pgstow.core.process import Process, running
from pgstow.repository import BlobKind
from pgstow.store.local import LocalStore
from pgstow.store.opening import open_retrying_store
from support.pruning import (
    assert_sound,
    objects,
    prune_now,
    remove_locks,
    remove_snapshots,
    restored,
)
from support.repositories import (
    WatchedStore,
    contents,
    copy_text,
    init_repository,
    nasty_files,
    open_repository,
    random_bytes,
    read_files,
    save_backup,
)
from support.restic import Restic
from support.s3 import S3Bucket
from support.waiting import PATIENCE_S


def second_files() -> dict[str, list[bytes]]:
    return {**nasty_files(), "large": [copy_text(20_000, 200), random_bytes(2_000_000, 1)]}


class DiedError(BaseException):
    """Not an error that anything may handle: the process is gone."""


def assert_accepted(restic: Restic, folder: Path) -> None:
    assert b"no errors were found" in restic(folder, "check", "--read-data")


def restored_by_restic(restic: Restic, folder: Path, target: Path) -> dict[str, bytes]:
    restic(folder, "restore", "latest", "--target", target)
    return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def test_restic_accepts_every_step(restic: Restic, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    store = LocalStore(folder)
    repository = init_repository(store)
    first = save_backup(repository, nasty_files(), run="1")
    other = save_backup(repository, {"other": [random_bytes(3_000_000, 9)]}, run="2", folder="books")
    save_backup(repository, second_files(), run="3")
    expected = {f"shop/archive/{name}": data for name, data in contents(second_files()).items()}
    remove_snapshots(store, first, other)
    plan, _ = prune_now(store, grace_s=0, max_unused=0)
    assert plan.unused
    assert plan.repack
    assert_accepted(restic, folder)
    assert restored_by_restic(restic, folder, tmp_path / "one") == expected
    plan, _ = prune_now(store, grace_s=0, max_unused=0)
    assert plan.remove
    assert_accepted(restic, folder)
    assert restored_by_restic(restic, folder, tmp_path / "two") == expected
    assert not prune_now(store, grace_s=0, max_unused=0)[0].has_work


def test_restic_prunes_between_our_phases(restic: Restic, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    store = LocalStore(folder)
    repository = init_repository(store)
    gone = save_backup(repository, nasty_files(), run="1")
    save_backup(repository, second_files(), run="2")
    remove_snapshots(store, gone)
    prune_now(store, max_unused=0)
    recorded = objects(store, "pgstow")
    assert recorded
    restic(folder, "prune", "--max-unused", "0")
    assert objects(store, "pgstow") == recorded, "restic does not touch what it does not know"
    plan, _ = prune_now(store, grace_s=0, max_unused=0)
    assert (len(plan.remove), len(plan.expired_records)) == (0, 1)
    assert objects(store, "pgstow") == set()
    assert_accepted(restic, folder)
    assert_sound(store)


def test_a_repository_that_restic_made(restic: Restic, tmp_path: Path) -> None:
    folder, source = tmp_path / "repository", tmp_path / "source"
    restic(folder, "init")
    source.mkdir()
    for number in range(2):
        (source / f"file {number}").write_bytes(random_bytes(400_000, number))
        (source / "changing").write_bytes(random_bytes(3_000_000, 100 + number))
        restic(folder, "backup", source)
    store = LocalStore(folder)
    repository = open_repository(store)
    first, second = repository.snapshots()
    expected = read_files(repository, second)
    remove_snapshots(store, first.id or "")
    plan, _ = prune_now(store, grace_s=0)
    assert plan.freed_later_bytes > 3_000_000
    prune_now(store, grace_s=0)
    repository = open_repository(store)
    assert read_files(repository, repository.snapshots()[0]) == expected
    restic(folder, "backup", source)  # it goes on with what is left
    assert_accepted(restic, folder)


def test_a_restic_that_ignored_our_lock_gets_its_blobs_back(restic: Restic, tmp_path: Path) -> None:
    """Its lock was removed by force; it refers to blobs that were taken out of use since it read the index."""
    folder = tmp_path / "repository"
    store = LocalStore(folder)
    save_backup(init_repository(store), {"kept": [b"kept"]}, run="1")
    content = random_bytes(400_000, 5)
    with busy(restic, folder, tmp_path) as process:
        process.stdin.write(content)
    (gone,) = (each["id"] for each in restic.json(folder, "snapshots") if each["paths"] == ["/stdin"])
    with busy(restic, folder, tmp_path) as process:
        locks = {name: store.get(name) for name in objects(store, "locks")}
        remove_locks(store)
        remove_snapshots(store, gone)
        plan, _ = prune_now(store)
        for name, lock in locks.items():  # restic 0.14 tries for minutes to remove a lock that is gone
            store.put(name, lock)
        assert BlobKind.DATA in {kind for pack in plan.unused for kind in pack.kinds}
        process.stdin.write(content)
    with pytest.raises(ProcessFailed):
        restic(folder, "check", "--read-data")
    plan, _ = prune_now(store, grace_s=0)
    assert plan.reindex
    assert_accepted(restic, folder)
    assert restic(folder, "dump", "--path", "/stdin", "latest", "stdin") == content


@contextlib.contextmanager
def busy(restic: Restic, folder: Path, home: Path) -> Iterator[Process]:
    """A restic backup of its standard input that has read the index; leaving the block ends its input."""
    command: list[str | Path] = [
        restic.binary, "--repo", folder, "--no-cache", "backup", "--stdin", "--force", "--verbose",
    ]  # fmt: skip
    environ = {"RESTIC_PASSWORD": restic.password, "HOME": str(home)}
    with running(command, env=environ, stdin=subprocess.PIPE) as process:
        said = iter(process.stdout.readline, b"")
        assert any(b"start backup" in line for line in said), process.stderr_tail()
        assert list((folder / "locks").glob("*"))
        yield process
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0, process.stderr_tail()


def test_restic_accepts_what_a_prune_left_that_died(newest_restic: Restic, tmp_path: Path) -> None:
    """All points are tried without restic in the unit tests; here some, one after the other on the same repository."""
    folder = tmp_path / "repository"
    store = LocalStore(folder)
    repository = init_repository(store)
    for number in range(3):
        save_backup(
            repository, {"f": [copy_text(3000, number), copy_text(3000, number + 1)]}, run=f"{number}"
        )
    gone = save_backup(repository, {"f": [copy_text(3000, 3), copy_text(3000, 9)]}, run="gone")
    remove_snapshots(store, gone)
    expected = restored(store)
    before = len(objects(store, "data"))
    for last in ("pgstow/prune/", "index/", "locks/"):
        done: list[str] = []

        def die(method: str, name: str, last: str = last, done: list[str] = done) -> None:
            is_removal = method == "delete" and (name.startswith(last) or done)
            if is_removal or (method == "put" and (name.startswith(last) and last != "locks/")):
                done.append(name)
                raise DiedError

        with contextlib.suppress(DiedError):
            prune_now(WatchedStore(inner=store, before=die), max_unused=0)
        assert done
        remove_locks(store)
        assert_accepted(newest_restic, folder)
        assert restored(store) == expected
    prune_now(store, grace_s=0)
    prune_now(store, grace_s=0)
    assert len(objects(store, "data")) < before
    assert_accepted(newest_restic, folder)
    assert restored(store) == expected


def test_in_a_bucket(newest_restic: Restic, s3_bucket: S3Bucket) -> None:
    store = open_retrying_store(s3_bucket.location, s3_bucket.environ)
    repository = init_repository(store)
    gone = save_backup(repository, {"f": [copy_text(3000, 1), copy_text(3000, 2)]}, run="1")
    save_backup(repository, {"f": [copy_text(3000, 1), copy_text(3000, 3)]}, run="2")
    remove_snapshots(store, gone)
    expected = restored(store)
    plan, _ = prune_now(store, max_unused=0)
    assert plan.recorded
    time.sleep(1.1)  # a bucket tells the time of an object in whole seconds
    assert len(prune_now(store)[0].wait) == len(plan.recorded)
    assert len(prune_now(store, grace_s=0)[0].remove) == len(plan.recorded)
    assert restored(store) == expected
    assert_sound(store)
    restic = newest_restic.with_environ(**s3_bucket.environ)
    assert b"no errors were found" in restic(s3_bucket.restic_location, "check", "--read-data")
