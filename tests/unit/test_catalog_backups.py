"""Naming backups and finding them again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pgstow.catalog.backups import (
    BackupRecord,
    backups_among,
    check_backup_name,
    list_backups,
    resolve,
    snapshot_path,
)
from pgstow.core.errors import BackupNotFound, UsageError
from pgstow.repository import Repository, Snapshot
from support.backups import memory_repository

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def add(
    repository: Repository, run: str, name: str, hours: int, *extra: str, tags: tuple[str, ...] = ("pgstow",)
) -> None:
    repository.save_snapshot(
        Snapshot(
            time=NOON + timedelta(hours=hours),
            tree=bytes(32),
            paths=(f"/{name}",),
            hostname=name,
            username="u",
            tags=(*tags, f"db={name}", f"run={run}", *extra),
            program_version="pgstow",
        )
    )


@pytest.fixture
def records() -> list[BackupRecord]:
    repository = memory_repository()
    add(repository, "aaaa1111-0", "shop", 0)
    add(repository, "aaaa2222-0", "shop", 2, "kind=weekly", "label=v=2")
    add(repository, "bbbb3333-0", "ledger", 1)
    add(repository, "cccc4444-0", "shop", 3, "partial", "kind=critical")
    add(repository, "dddd5555-0", "foreign", 4, tags=("someone-elses",))
    return list_backups(repository)


def test_list_is_ours_alone_oldest_first(records: list[BackupRecord]) -> None:
    assert [record.id[:4] for record in records] == ["aaaa", "bbbb", "aaaa", "cccc"]
    weekly = records[2]
    assert (weekly.kind, weekly.label, weekly.is_partial) == ("weekly", "v=2", False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shop@latest", "aaaa2222-0"),
        ("ledger@latest", "bbbb3333-0"),
        ("shop@2026-11-20T13:59", "aaaa1111-0"),
        ("shop@2026-11-20T15:00+01:00", "aaaa2222-0"),
        ("bbbb", "bbbb3333-0"),
        ("cccc4444-0", "cccc4444-0"),
    ],
)
def test_what_names_a_backup(records: list[BackupRecord], text: str, expected: str) -> None:
    assert resolve(records, text).id == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("latest", "ambiguous"),
        ("aaaa", "2 backup ids"),
        ("eeee", "no backup matches"),
        ("shop@2026-11-20T11:00", "no backup matches"),
        ("nobody@latest", "no backup matches"),
        ("aaa", "no backup matches"),  # too short to be an id
    ],
)
def test_what_names_none_or_several(records: list[BackupRecord], text: str, says: str) -> None:
    with pytest.raises(BackupNotFound, match=says):
        resolve(records, text)


def test_bad_time_is_a_usage_error(records: list[BackupRecord]) -> None:
    with pytest.raises(UsageError, match="not a time"):
        resolve(records, "shop@yesterday")


def test_an_imported_dump_is_the_latest_only_where_nothing_else_is() -> None:
    repository = memory_repository()
    add(repository, "aaaa1111-0", "shop", 0)
    add(repository, "bbbb2222-0", "shop", 5, "kind=import")
    add(repository, "cccc3333-0", "shop", -50, "kind=import")
    found = {
        text: resolve(list_backups(repository), text).id for text in ("latest", "shop@2026-11-19", "bbbb")
    }
    assert found == {"latest": "aaaa1111-0", "shop@2026-11-19": "cccc3333-0", "bbbb": "bbbb2222-0"}


def test_copy_of_a_snapshot_is_the_same_backup() -> None:
    repository = memory_repository()
    add(repository, "aaaa1111-0", "shop", 0)
    add(repository, "aaaa1111-0", "shop", 0, "added-by-restic-tag")
    assert len(list_backups(repository)) == 1


@pytest.mark.parametrize("is_first", [True, False])
def test_a_whole_copy_stands_before_what_a_repair_left(is_first: bool) -> None:
    """A copy brought it back; but of a snapshot whose repair died halfway, what the repair made of it stands."""
    whole = Snapshot(
        time=NOON,
        tree=bytes(32),
        paths=("/shop",),
        hostname="shop",
        username="u",
        tags=("pgstow", "db=shop", "run=aaaa1111-0"),
        program_version="pgstow",
        id="a" * 64,
        original="c" * 64,
    )
    left = replace(whole, tags=(*whole.tags, "damaged"), id="b" * 64)
    mended = replace(left, original=whole.id)

    def shown(*snapshots: Snapshot) -> str | None:
        (record,) = backups_among(snapshots if is_first else reversed(snapshots))
        return record.snapshot.id

    assert shown(whole, left) == whole.id
    assert shown(whole, mended) == mended.id


@pytest.mark.parametrize("name", ["", "a/b", "a,b", "a\nb", ".hidden", "x" * 101, "a b"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(UsageError):
        check_backup_name(name)


def test_a_kind_that_cannot_be_is_not_called_a_name() -> None:
    with pytest.raises(UsageError, match="cannot be a backup kind") as refused:
        check_backup_name("a,b", what="kind")
    assert "--name" not in str(refused.value.hint)


def test_paths_tell_kinds_and_partial_backups_apart() -> None:
    assert snapshot_path("shop", "daily", is_partial=False) == "shop"
    assert snapshot_path("shop", "dr", is_partial=False) == "shop (dr)"
    assert snapshot_path("shop", "daily", is_partial=True) == "shop (partial)"
    assert snapshot_path("shop", "critical", is_partial=True) == "shop (critical, partial)"
