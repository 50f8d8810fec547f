"""What a repository is brought that missed backups, and what must stay away from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgstow.app.copy import CatchUp, catch_up
from pgstow.catalog.backups import BackupRecord, backup_record, list_backups
from pgstow.core.errors import UsageError
from pgstow.core.progress import SilentProgress
from pgstow.store.memory import MemoryStore
from pgstow.upkeep.catch_up import plan_catch_up
from support.copying import make_target, quick_locks
from support.repositories import MOMENT, init_repository, save_backup, snapshot_of

_SOME = backup_record(snapshot_of(b"", []))
assert _SOME is not None


def record(day: int, *, kind: str = "daily", name: str = "shop", damaged: bool = False) -> BackupRecord:
    assert _SOME is not None
    return replace(
        _SOME,
        id=f"{name}-{kind}-{day}",
        name=name,
        kind=kind,
        is_damaged=damaged,
        time=MOMENT + timedelta(days=day),
    )


def days(records: list[BackupRecord]) -> list[int]:
    return [(each.time - MOMENT).days for each in records]


ALL = [record(day) for day in range(10)]


def test_newer_than_the_newest_that_is_there() -> None:
    assert days(plan_catch_up(ALL, ALL[:7])) == [7, 8, 9]
    assert plan_catch_up(ALL, ALL[8:]) == []  # what is older has expired there


def test_a_repository_that_has_none_of_a_kind_gets_all_of_it() -> None:
    assert days(plan_catch_up(ALL, [])) == list(range(10))
    weekly = [record(day, kind="weekly") for day in (1, 8)]
    assert plan_catch_up([*ALL, *weekly], ALL) == weekly
    other = [record(3, name="books")]
    assert plan_catch_up([*ALL, *other], ALL) == other


def test_gaps_are_filled_as_far_back_as_was_asked_for() -> None:
    there = [each for each in ALL if each not in (ALL[2], ALL[6])]
    assert plan_catch_up(ALL, there) == []
    assert plan_catch_up(ALL, there, since=ALL[6].time) == [ALL[6]]
    assert plan_catch_up(ALL, there, since=ALL[0].time) == [ALL[2], ALL[6]]


def test_limits() -> None:
    mixed = [*ALL, record(8, kind="weekly"), record(8, name="books"), record(9, damaged=True)]
    assert {each.kind for each in plan_catch_up(mixed, [], kinds=["weekly"])} == {"weekly"}
    assert {each.name for each in plan_catch_up(mixed, [], names=["books"])} == {"books"}
    assert days(plan_catch_up(ALL, [], is_wanted=lambda each: each.time > ALL[7].time)) == [8, 9]
    assert not any(each.is_damaged for each in plan_catch_up(mixed, []))


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)), st.none() | st.integers(0, 10))
def test_it_brings_only_what_is_lacking_and_all_that_is_newer(
    here: set[int], there: set[int], since: int | None
) -> None:
    source, target = [record(day) for day in here], [record(day) for day in there]
    found = days(
        plan_catch_up(source, target, since=None if since is None else MOMENT + timedelta(days=since))
    )
    assert found == sorted(found)
    assert set(found) <= here - there
    assert {day for day in here if day > max(there, default=-1)} <= set(found)
    assert all(day > max(there, default=-1) or (since is not None and day >= since) for day in found)


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with quick_locks():
        yield


def test_a_target_catches_up() -> None:
    source = init_repository(MemoryStore())
    target = make_target(MemoryStore(), source, shares_key=True)
    for day in range(4):
        save_backup(source, {"t": [b"day %d" % day]}, run=f"run-{day}", time=MOMENT + timedelta(days=day))
    save_backup(target, {"t": [b"day 1"]}, run="run-1", time=MOMENT + timedelta(days=1))

    planned = catch_up(source, target, CatchUp(), SilentProgress(), dry_run=True)
    assert [each.snapshot.time.day - MOMENT.day for each in planned.copied] == [2, 3]
    assert len(list_backups(target)) == 1
    assert len(catch_up(source, target, CatchUp(), SilentProgress()).copied) == 2
    assert [each.id for each in list_backups(target)] == ["run-1", "run-2", "run-3"]
    assert catch_up(source, target, CatchUp(), SilentProgress()).copied == ()
    with pytest.raises(UsageError):
        catch_up(source, source, CatchUp(), SilentProgress())
