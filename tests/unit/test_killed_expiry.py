"""An expiry or its prune was killed: when the next one gets the repository."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pgstow.app.retention import RetentionRequest, apply_retention
from pgstow.app.serve import SHORTEST_WAIT_S
from pgstow.core.errors import RepositoryLocked
from pgstow.core.progress import SilentProgress
from pgstow.repository import LockTimes, Repository, RepositoryLock
from pgstow.repository.holder import Holder
from pgstow.store.memory import MemoryStore
from pgstow.upkeep.prune_plan import PruneOptions
from support.repositories import WatchedStore, init_repository


class Clock:
    """The store's time and the machine's: both pass when somebody waits."""

    def __init__(self) -> None:
        self.waited_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.waited_s += seconds

    def now(self) -> datetime:
        return datetime(2026, 11, 20, tzinfo=UTC) + timedelta(seconds=self.waited_s)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def repository(clock: Clock) -> Repository:
    made = init_repository(WatchedStore(inner=MemoryStore(now=clock.now)))
    made.lock_times = LockTimes(settle_s=0, clock_s=lambda: clock.waited_s, now=clock.now, sleep=clock.sleep)
    return made


@pytest.fixture
def killed() -> Holder:
    """A process of this boot that was ended by SIGKILL."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        marks = Holder.current().marks() | {"process_start": None}
        holder = Holder.described(pid=process.pid, hostname="h", username="u", marks=marks)
        os.kill(process.pid, signal.SIGKILL)
    return holder


def leave_lock(repository: Repository, holder: Holder) -> None:
    """Leave the lock of an expiry in the repository."""
    RepositoryLock(repository._files, is_exclusive=True, holder=holder, times=repository.lock_times)._write()


def expire(repository: Repository, *, wait_s: float) -> None:
    applied = apply_retention(
        repository,
        RetentionRequest(),
        SilentProgress(),
        planned=None,
        prune=PruneOptions(),
        wait_s=wait_s,
    )
    assert applied.prune_error is None
    assert applied.prune is not None


def test_on_the_same_machine_its_lock_is_dead_at_once(
    repository: Repository, clock: Clock, killed: Holder
) -> None:
    leave_lock(repository, killed)
    expire(repository, wait_s=0)
    assert clock.waited_s == 0


def test_elsewhere_the_next_one_waits_until_the_lock_is_stale(
    repository: Repository, clock: Clock, killed: Holder
) -> None:
    """A run of the service waits for long enough, and not for longer than it has to."""
    leave_lock(repository, replace(killed, boot_id="of another machine"))
    with pytest.raises(RepositoryLocked):
        expire(repository, wait_s=0)
    with pytest.raises(RepositoryLocked):
        expire(repository, wait_s=1700)
    assert clock.waited_s <= 1800
    expire(repository, wait_s=SHORTEST_WAIT_S)
    assert timedelta(minutes=30) < timedelta(seconds=clock.waited_s) <= timedelta(minutes=31)
