"""Finding and removing what stands in the way: the dead at any time, the living only by force."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest

from pgstow.app.unlock import UnlockReport, confirmation_of, unlock
from pgstow.core.errors import RepositoryLocked, UsageError
from pgstow.repository import LeasedDatabase, LockTimes, Obstacle, Repository
from pgstow.repository.files import FileKind
from pgstow.repository.holder import Holder
from pgstow.store.memory import MemoryStore
from support.repositories import init_repository, open_repository

SHOP = LeasedDatabase(identity="shop", name="shop")


class Machine:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def repository(machine: Machine) -> Repository:
    repository = init_repository(MemoryStore(now=lambda: machine.now))
    repository.lock_times = LockTimes(settle_s=0)
    return repository


def leave(repository: Repository, run_id: str = "run-1", **facts: str) -> ExitStack:
    """Hold an exclusive lock and a lease as another process; what is returned keeps them."""
    stack = ExitStack()
    holder = replace(Holder.current(), **facts)  # type: ignore[arg-type]
    with patch.object(Holder, "current", classmethod(lambda _: holder)):
        stack.enter_context(repository.lease(SHOP, run_id=run_id))
        stack.enter_context(repository.lock(exclusive=True))
    return stack


def leave_restic_lock(repository: Repository) -> None:
    fields = {
        "time": "2026-11-20T00:00:00Z",
        "exclusive": False,
        "hostname": "db7",
        "username": "root",
        "pid": 42,
    }
    repository._files.save(FileKind.LOCK, json.dumps(fields).encode())


def nobody(_: Sequence[Obstacle]) -> str | None:
    pytest.fail("nothing to ask")


def kinds(obstacles: Sequence[Obstacle]) -> list[str]:
    return sorted(obstacle.kind for obstacle in obstacles)


def run(repository: Repository, *, remove_all: bool = False, answer: str | None = None) -> UnlockReport:
    ask = (lambda _: answer) if remove_all else nobody
    return unlock(repository, remove_all=remove_all, ask=ask)


def test_nothing_stands_in_the_way(repository: Repository) -> None:
    assert run(repository) == UnlockReport(removed=[], kept=[])
    with repository.lease(SHOP, run_id="run-1"):
        pass
    assert run(repository, remove_all=True) == UnlockReport(removed=[], kept=[]), "it was released"


def test_what_a_dead_process_of_this_machine_left_is_removed(repository: Repository) -> None:
    theirs = leave(open_repository(repository.store), process_start="1")
    report = run(repository)
    assert kinds(report.removed) == ["lease", "lock"]
    assert report.kept == []
    assert {obstacle.why for obstacle in report.removed} == {"its process has ended"}
    assert run(repository).removed == []
    with repository.lock(exclusive=True):
        pass
    theirs.close()


@pytest.mark.parametrize("minutes", [0, 29, 31])
def test_what_other_machines_hold_is_removed_after_half_an_hour(
    repository: Repository, machine: Machine, minutes: int
) -> None:
    kept = leave(open_repository(repository.store), boot_id="another")
    leave_restic_lock(repository)
    repository.store.put("locks/" + "a" * 64, b"torn")
    repository.store.put("locks/" + "b" * 64, b"")
    machine.now += timedelta(minutes=minutes)
    report = run(repository)
    everything = ["lease", "lock", "lock", "lock", "lock"]
    assert (kinds(report.removed), kinds(report.kept)) == (
        (everything, []) if minutes > 30 else ([], everything)
    )
    assert bool(list(repository.store.list("locks/"))) == (minutes < 30)
    assert {obstacle.age_s for obstacle in [*report.removed, *report.kept]} == {minutes * 60.0}
    kept.close()


@pytest.mark.parametrize("answer", [None, "", "yes", "0000000"])
def test_without_confirmation_nothing_is_removed(repository: Repository, answer: str | None) -> None:
    with leave(open_repository(repository.store), boot_id="another"):
        before = sorted(info.name for info in repository.store.list(""))
        with pytest.raises(UsageError) as caught:
            run(repository, remove_all=True, answer=answer)
        assert f"--confirm {repository.id[:8]}" in (caught.value.hint or "")
        assert sorted(info.name for info in repository.store.list("")) == before


def test_by_force_the_living_lose_theirs_and_cannot_publish(repository: Repository) -> None:
    theirs = open_repository(repository.store)
    with leave(theirs):
        report = run(repository, remove_all=True, answer=confirmation_of(repository))
        assert kinds(report.removed) == ["lease", "lock"]
        assert not any(obstacle.is_dead for obstacle in report.removed)
        lease, lock = theirs._locks
        with pytest.raises(RepositoryLocked):
            lease.confirm()
        with pytest.raises(RepositoryLocked):
            lock.confirm()
    assert [info.name for info in repository.store.list("pgstow/runs/")] == ["pgstow/runs/run-1"]
    with repository.lease(SHOP, run_id="run-2") as lease, repository.lock(exclusive=True):
        assert lease.number == 3


def test_a_lease_that_came_alive_meanwhile_is_kept(repository: Repository) -> None:
    theirs = leave(open_repository(repository.store), process_start="1")
    (dead,) = [obstacle for obstacle in repository.obstacles() if obstacle.kind == "lease"]
    with repository.lease(SHOP, run_id="run-2") as lease:
        assert repository.remove_obstacle(dead, is_forced=False) is False
        lease.confirm()
    theirs.close()
