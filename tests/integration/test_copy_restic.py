"""Copies and keys, judged by real restics; folders and S3."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from pgstow.app.keys import add_key, change_password, remove_key
from pgstow.core.errors import ProcessFailed
from pgstow.core.secrets import Secret
from pgstow.repository import Repository
from pgstow.store.local import LocalStore
from pgstow.store.opening import open_retrying_store
from support.copying import assert_copied, copy_all, make_target
from support.repositories import (
    MOMENT,
    contents,
    copy_text,
    init_repository,
    open_repository,
    random_bytes,
    save_backup,
)
from support.restic import PASSWORD, Restic
from support.s3 import S3Bucket

FIRST = {"3456.dat": [copy_text(9000, 1), copy_text(100, 5)], "new\nline <é>": [b"x"], "empty": []}
SECOND = {"3456.dat": [copy_text(9000, 1), copy_text(200, 6)], "large": [random_bytes(3_000_000, 2)]}
THEIRS = {"one": copy_text(3000, 8), "folder/two": random_bytes(2_000_000, 9), "folder/empty": b""}

both_keys = pytest.mark.parametrize("shares_key", [True, False], ids=["same-key", "other-key"])


def make_source(folder: Path) -> Repository:
    repository = init_repository(LocalStore(folder))
    save_backup(repository, FIRST, run="beef-1")
    save_backup(repository, SECOND, run="beef-2", time=MOMENT + timedelta(days=1))
    return repository


def their_files(folder: Path) -> Path:
    for name, data in THEIRS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@both_keys
def test_restic_finds_the_copy_whole_and_nothing_left_to_copy(
    restic: Restic, shares_key: bool, tmp_path: Path
) -> None:
    """Also snapshots of restic's own making, with times in nanoseconds and summaries of its own."""
    source, target = tmp_path / "source", tmp_path / "target"
    make_source(source)
    restic(source, "backup", "--tag", "theirs", their_files(tmp_path / "theirs"))
    repository = open_repository(LocalStore(source))
    made = make_target(LocalStore(target), repository, shares_key=shares_key)
    assert copy_all(repository, made).is_complete
    assert_copied(LocalStore(source), LocalStore(target))

    restic(target, "check", "--read-data")
    listed = restic.json(target, "snapshots")
    assert {each["original"] for each in listed} == {each["id"] for each in restic.json(source, "snapshots")}
    for each in listed:
        out = tmp_path / each["id"]
        restic(target, "restore", each["id"], "--target", out)
        expected = {"beef-1": FIRST, "beef-2": SECOND}
        runs = [tag.removeprefix("run=") for tag in each.get("tags", ()) if "run=" in tag]
        if runs:
            assert files_below(out / "shop/archive") == contents(expected[runs[0]])
        else:
            assert files_below(out / str(tmp_path / "theirs").lstrip("/")) == THEIRS

    before = files_below(target)
    restic.with_environ(RESTIC_FROM_PASSWORD=PASSWORD)(target, "copy", "--from-repo", source)
    assert {name: data for name, data in files_below(target).items() if "locks" not in name} == before


def test_what_restic_copied_is_not_copied_again(restic: Restic, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    repository = make_source(source)
    restic(source, "backup", their_files(tmp_path / "theirs"))
    made = make_target(LocalStore(target), repository, shares_key=False)
    restic.with_environ(RESTIC_FROM_PASSWORD=PASSWORD)(target, "copy", "--from-repo", source)
    report = copy_all(open_repository(LocalStore(source)), made)
    assert (len(report.present), report.copied) == (3, ())


def test_restic_goes_on_in_a_repository_that_shares_the_key(restic: Restic, tmp_path: Path) -> None:
    """Cut in the same way, so that what restic backs up to both is stored as the same blobs."""
    source, target = tmp_path / "source", tmp_path / "target"
    repository = make_source(source)
    make_target(LocalStore(target), repository, shares_key=True)
    files = their_files(tmp_path / "theirs")
    restic(source, "backup", files)
    restic(target, "backup", files)
    (copied,) = (
        each
        for each in copy_all(open_repository(LocalStore(source)), open_repository(LocalStore(target))).copied
        if not each.snapshot.tags
    )
    assert copied.stored_bytes < 20_000  # folders only: times of access may differ
    restic(target, "check", "--read-data")


def test_passwords(restic: Restic, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    repository = make_source(folder)
    new = Restic(restic.binary, restic.version, "battery staple")
    with pytest.raises(ProcessFailed):
        new(folder, "snapshots")
    key_id = add_key(repository, Secret(new.password), hostname="worker", username="tester")
    assert len(new.json(folder, "snapshots")) == 2
    theirs = {each["id"]: each for each in new.json(folder, "key", "list")}
    assert {key[: len(next(iter(theirs)))] for key in (repository.key_id, key_id)} == set(theirs)
    assert [each["hostName"] for each in theirs.values() if each["current"]] == ["worker"]

    (tmp_path / "third").write_text("a third one\n")
    new(folder, "key", "add", "--new-password-file", tmp_path / "third")
    (added,) = {key.id for key in repository.key_files()} - {repository.key_id, key_id}
    assert open_repository(LocalStore(folder), "a third one").key_id == added
    remove_key(repository, added[:12])
    with pytest.raises(ProcessFailed):
        Restic(restic.binary, restic.version, "a third one")(folder, "snapshots")

    session = open_repository(LocalStore(folder), new.password)
    change_password(session, Secret(new.password), Secret("the fourth"), hostname="worker", username="tester")
    with pytest.raises(ProcessFailed):
        new(folder, "snapshots")
    Restic(restic.binary, restic.version, "the fourth")(folder, "check")


def test_damaged_keys_that_may_stop_restic_can_be_removed(newest_restic: Restic, tmp_path: Path) -> None:
    """It refuses a repository when it meets a damaged key before one that opens; in which order is chance."""
    folder = tmp_path / "repository"
    repository = make_source(folder)
    for number in range(5):
        (folder / "keys" / f"{number:064x}").write_bytes(b"torn")
    session = open_repository(LocalStore(folder))
    for key in session.key_files():
        if key.damage:
            remove_key(session, key.id)
    assert len(newest_restic.json(folder, "snapshots")) == 2
    assert [key.id for key in repository.key_files()] == [repository.key_id]


@both_keys
def test_to_s3_and_back(newest_restic: Restic, s3_bucket: S3Bucket, shares_key: bool, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    bucket = open_retrying_store(s3_bucket.location, s3_bucket.environ)
    remote = make_target(bucket, source, shares_key=shares_key)
    copy_all(source, remote)
    restic = newest_restic.with_environ(**s3_bucket.environ)
    restic(s3_bucket.restic_location, "check", "--read-data")
    back = LocalStore(tmp_path / "back")
    copy_all(open_repository(bucket), make_target(back, source, shares_key=shares_key))
    assert_copied(LocalStore(tmp_path / "source"), back)
