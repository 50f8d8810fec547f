"""Retention beside the real restic: what is left is whole to it, and what its own forget does to holds is as documented."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pgstow.app.marking import hold_backup
from pgstow.app.retention import RetentionRequest, apply_retention, plan_retention_only
from pgstow.core.progress import SilentProgress
from pgstow.repository import LockTimes, Repository
from pgstow.retention import RetentionPolicies, RetentionPolicy
from pgstow.store.api import Store
from pgstow.store.local import LocalStore
from pgstow.store.opening import open_retrying_store
from pgstow.upkeep.prune_plan import PruneOptions
from support.dated_backups import backup_id, save_dated
from support.pruning import assert_sound, remove_locks, restored
from support.repositories import WatchedStore, init_repository, open_repository
from support.restic import Restic
from support.s3 import S3Bucket

REQUEST = RetentionRequest(policy=RetentionPolicies(default=RetentionPolicy(promotes=False)))
PRUNE = PruneOptions(grace_s=0, max_unused=0)


class DiedError(BaseException):
    """Not an error that anything may handle: the process is gone."""


def opened(store: Store) -> Repository:
    repository = open_repository(store)
    repository.lock_times = LockTimes(settle_s=0)
    return repository


def fill(store: Store) -> None:
    repository = init_repository(store)
    now = datetime.now(UTC)
    for age in (90, 60, 40, 20, 0):
        save_dated(repository, age, now - timedelta(days=age))


def hold(store: Store, age: int) -> None:
    hold_backup(opened(store), backup_id(age), SilentProgress(), by="me", reason="case", until=None)


def apply(store: Store) -> None:
    apply_retention(opened(store), REQUEST, SilentProgress(), planned=None, prune=PRUNE)


def runs(restic: Restic, repository: Path | str) -> list[int]:
    """Return the backups that restic sees, by number."""
    tags = [tag for each in restic.json(repository, "snapshots") for tag in each.get("tags") or ()]
    return sorted(int(tag[4:12]) for tag in tags if tag.startswith("run="))


def test_restic_finds_the_rest_whole(restic: Restic, tmp_path: Path) -> None:
    folder, source = tmp_path / "repository", tmp_path / "source"
    store = LocalStore(folder)
    fill(store)
    hold(store, 60)
    source.mkdir()
    (source / "theirs").write_bytes(b"restic's own " * 1000)
    restic(folder, "backup", "--tag", "nightly", "--time", "2001-01-01 00:00:00", source)
    before = [each["id"] for each in restic.json(folder, "snapshots", "--tag", "nightly")]
    for _ in range(2):  # the second one removes the packs
        apply(store)
        assert b"no errors were found" in restic(folder, "check", "--read-data")
    assert runs(restic, folder) == [0, 20, 60]
    assert [each["id"] for each in restic.json(folder, "snapshots", "--tag", "nightly")] == before
    assert_sound(store)
    restic(folder, "restore", before[0], "--target", tmp_path / "out")
    assert (tmp_path / "out" / str(source).lstrip("/") / "theirs").stat().st_size == 13_000


def test_restic_finds_what_an_apply_left_that_died_whole(newest_restic: Restic, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    store = LocalStore(folder)
    fill(store)
    expected = restored(store)
    for allowed in (0, 1):
        removed: list[str] = []

        def die(method: str, name: str, removed: list[str] = removed, allowed: int = allowed) -> None:
            if method == "delete" and (name.startswith("snapshots/") or len(removed) > allowed):
                removed.append(name)
                if len(removed) > allowed:
                    raise DiedError

        with contextlib.suppress(DiedError):
            apply(WatchedStore(inner=store, before=die))
        assert len(removed) > allowed
        remove_locks(store)
        assert b"no errors were found" in newest_restic(folder, "check", "--read-data")
        assert restored(store).items() <= expected.items()
    assert runs(newest_restic, folder) == [0, 20, 40, 60]
    apply(store)
    assert runs(newest_restic, folder) == [0, 20]


def test_restic_forget_knows_nothing_of_holds_and_a_plan_says_so(
    newest_restic: Restic, tmp_path: Path
) -> None:
    """The warning in docs/retention.md is true, and what it says is noticed afterwards."""
    folder = tmp_path / "repository"
    store = LocalStore(folder)
    fill(store)
    hold(store, 60)
    newest_restic(folder, "forget", "--keep-last", "1", "--path", "/shop")
    assert runs(newest_restic, folder) == [0]
    (note,) = plan_retention_only(opened(store), REQUEST, SilentProgress()).notes
    assert backup_id(60) in note


def test_in_a_bucket(newest_restic: Restic, s3_bucket: S3Bucket) -> None:
    store = open_retrying_store(s3_bucket.location, s3_bucket.environ)
    fill(store)
    hold(store, 60)
    hold(store, 40)
    for _ in range(2):
        apply(store)
    restic = newest_restic.with_environ(**s3_bucket.environ)
    assert runs(restic, s3_bucket.restic_location) == [0, 20, 40, 60]
    assert b"no errors were found" in restic(s3_bucket.restic_location, "check", "--read-data")
