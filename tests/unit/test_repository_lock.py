"""Locks: who may, who must wait, what is left over, and what is lost."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest

from pgstow.core.errors import RepositoryLocked, StoreError, StoreUnavailable
from pgstow.repository import BlobKind, LockTimes, Repository, RepositoryLock
from pgstow.repository.files import FileKind
from pgstow.repository.holder import Holder
from pgstow.store.memory import MemoryStore
from support.repositories import WatchedStore, init_repository, open_repository


class Clock:
    """The store's time and the machine's, moved by the test."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, tzinfo=UTC)
        self.seconds = 1000.0

    def pass_(self, **time: float) -> None:
        step = timedelta(**time)
        self.now += step
        self.seconds += step.total_seconds()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> WatchedStore:
    return WatchedStore(inner=MemoryStore(now=lambda: clock.now))


@pytest.fixture
def repository(store: WatchedStore) -> Repository:
    return init_repository(store)


@pytest.fixture
def times(clock: Clock) -> LockTimes:
    return LockTimes(settle_s=0, clock_s=lambda: clock.seconds, sleep=lambda _: None)


def locks_of(store: WatchedStore) -> list[str]:
    return [info.name for info in store.list("locks/")]


def test_shared_locks_stand_side_by_side(
    repository: Repository, store: WatchedStore, times: LockTimes
) -> None:
    with repository.lock(times=times) as first, open_repository(store).lock(times=times) as second:
        first.check()
        second.confirm()
        assert len(locks_of(store)) == 2
    assert locks_of(store) == []


@pytest.mark.parametrize(("held", "wanted"), [(True, False), (False, True), (True, True)])
def test_exclusive_means_alone(
    repository: Repository, store: WatchedStore, times: LockTimes, held: bool, wanted: bool
) -> None:
    with repository.lock(exclusive=held, times=times) as holder:
        with (
            pytest.raises(RepositoryLocked) as caught,
            open_repository(store).lock(exclusive=wanted, times=times),
        ):
            pytest.fail("both are in")
        assert locks_of(store) == [f"locks/{holder.id}"]
    assert f"PID {os.getpid()} on " in caught.value.message
    assert " ago" in caught.value.message
    assert ("exclusively" in caught.value.message) == held
    assert "pgstow repo unlock" in (caught.value.hint or "")
    with repository.lock(exclusive=True, times=times):
        pass


def test_of_two_exclusive_locks_at_the_same_moment_at_most_one_is_held(
    repository: Repository, store: WatchedStore, times: LockTimes
) -> None:
    gate = threading.Barrier(2)
    held: list[int] = []

    def meet(_: float) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            gate.wait()

    together = replace(times, sleep=meet)

    def take(number: int) -> None:
        try:
            with repository.lock(exclusive=True, times=together):
                held.append(number)
        except RepositoryLocked:  # perhaps at the first look already: the other need not wait then
            gate.abort()

    threads = [threading.Thread(target=take, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) <= 1
    assert locks_of(store) == []


def test_the_lock_file_is_restic_s(repository: Repository, times: LockTimes) -> None:
    with repository.lock(exclusive=True, times=times) as lock:
        fields = json.loads(repository._files.load(FileKind.LOCK, lock.id))
    assert list(fields)[:5] == ["time", "exclusive", "hostname", "username", "pid"]
    assert fields["exclusive"] is True
    assert fields["pid"] == os.getpid()


def test_the_host_name_in_locks_is_never_the_plain_one() -> None:
    me = Holder.current()
    other_container = replace(me, pid_namespace="pid:[4026532999]")
    assert me.lock_hostname.startswith(f"{me.hostname}-")
    assert other_container.lock_hostname != me.lock_hostname
    assert replace(me, boot_id="another").lock_hostname != me.lock_hostname


def test_the_body_s_exception_releases_the_lock(
    repository: Repository, store: WatchedStore, times: LockTimes
) -> None:
    with pytest.raises(KeyError), repository.lock(times=times):
        raise KeyError
    assert locks_of(store) == []
    repository.check_locks()


# -- what others left behind


def leave_lock(repository: Repository, times: LockTimes, holder: Holder) -> None:
    """Write an exclusive lock as a process that then died would have left it."""
    RepositoryLock(repository._files, is_exclusive=True, holder=holder, times=times)._write()


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_lock_of_a_dead_process_here_is_removed_at_once(
    repository: Repository, store: WatchedStore, times: LockTimes
) -> None:
    leave_lock(repository, times, replace(Holder.current(), pid=dead_pid()))
    with repository.lock(times=times) as lock:
        assert locks_of(store) == [f"locks/{lock.id}"]


def test_a_lock_whose_pid_belongs_to_another_process_now_is_removed(
    repository: Repository, store: WatchedStore, times: LockTimes
) -> None:
    leave_lock(repository, times, replace(Holder.current(), process_start="1"))
    with repository.lock(times=times):
        assert len(locks_of(store)) == 1


@pytest.mark.parametrize(
    "elsewhere", [{"boot_id": "another"}, {"pid_namespace": "pid:[1]"}, {"boot_id": None}]
)
def test_a_lock_from_elsewhere_counts_for_half_an_hour_of_the_store_s_time(
    repository: Repository,
    store: WatchedStore,
    times: LockTimes,
    clock: Clock,
    elsewhere: dict[str, str | None],
) -> None:
    holder = replace(Holder.current(), pid=dead_pid(), **elsewhere)  # type: ignore[arg-type]
    leave_lock(repository, times, holder)
    clock.pass_(minutes=30)
    with pytest.raises(RepositoryLocked), repository.lock(times=times):
        pytest.fail("it may still be alive")
    assert len(locks_of(store)) == 1
    clock.pass_(seconds=1)
    with repository.lock(times=times) as lock:
        assert locks_of(store) == [f"locks/{lock.id}"]


def test_locks_of_restic_are_never_removed(
    repository: Repository, store: WatchedStore, times: LockTimes, clock: Clock
) -> None:
    fields = {
        "time": "2020-01-01T00:00:00Z",
        "exclusive": True,
        "hostname": Holder.current().hostname,
        "username": "root",
        "pid": dead_pid(),
    }
    repository._files.save(FileKind.LOCK, json.dumps(fields).encode())
    clock.pass_(days=1)
    with pytest.raises(RepositoryLocked, match="by root"), repository.lock(times=times):
        pytest.fail("it is restic's")
    assert len(locks_of(store)) == 1


def test_a_torn_lock_file_is_named(repository: Repository, store: WatchedStore, times: LockTimes) -> None:
    store.put("locks/" + "a" * 64, b"torn")
    with pytest.raises(RepositoryLocked, match="locks/aaaa") as caught, repository.lock(times=times):
        pytest.fail("it may be exclusive")
    assert "pgstow repo unlock --all" in (caught.value.hint or "")
    assert len(locks_of(store)) == 1


def test_an_empty_lock_file_is_nobody_s(
    repository: Repository, store: WatchedStore, times: LockTimes
) -> None:
    store.put("locks/" + "a" * 64, b"")
    with repository.lock(exclusive=True, times=times):
        pass


def test_a_lock_file_that_is_completed_meanwhile_is_waited_for(
    repository: Repository, store: WatchedStore, times: LockTimes
) -> None:
    name = "locks/" + "a" * 64
    store.put(name, b"torn")
    waiting = replace(times, sleep=lambda _: store.delete(name))
    with repository.lock(times=waiting):
        pass


# -- refreshing


def test_refreshing_writes_a_new_file_and_removes_the_old(
    repository: Repository, store: WatchedStore, times: LockTimes
) -> None:
    with repository.lock(times=replace(times, refresh_s=0.01)) as lock:
        first = lock.id
        while len([name for name in store.names("delete") if name.startswith("locks/")]) < 3:
            lock.check()
        assert lock.id != first
    assert locks_of(store) == []
    puts = [name for name in store.names("put") if name.startswith("locks/")]
    deletes = [name for name in store.names("delete") if name.startswith("locks/")]
    assert puts == deletes
    order = [
        (method, name) for method, name in store.calls if name in puts[:2] and method in ("put", "delete")
    ]
    assert order[:3] == [("put", puts[0]), ("put", puts[1]), ("delete", puts[0])]


def test_an_early_block_begins_before_the_lock_is_settled(
    repository: Repository, store: WatchedStore, times: LockTimes
) -> None:
    settling, inside = threading.Event(), threading.Event()

    def settle(seconds: float) -> None:
        settling.set()
        assert inside.wait(30)

    with repository.lock(early=True, times=replace(times, sleep=settle)) as lock:
        assert settling.wait(30)
        assert locks_of(store) == [f"locks/{lock.id}"]
        inside.set()
        lock.check()
    assert locks_of(store) == []


def test_an_early_block_hears_of_a_conflict_before_it_writes(
    repository: Repository, store: WatchedStore, times: LockTimes
) -> None:
    inside = threading.Event()

    def settle(seconds: float) -> None:
        assert inside.wait(30)

    there = replace(Holder.current(), hostname="elsewhere", boot_id="another boot")
    with (
        patch.object(Holder, "current", classmethod(lambda _: there)),
        repository.lock(exclusive=True, times=times) as other,
    ):
        theirs = f"locks/{other.id}"
        content = store.get(theirs)
    store.calls.clear()

    def write() -> None:
        with repository.lock(early=True, times=replace(times, sleep=settle)), repository.writer() as writer:
            store.put(theirs, content)
            inside.set()
            writer.save(BlobKind.DATA, b"never stored")

    with pytest.raises(RepositoryLocked, match="locked exclusively"):
        write()
    assert {name.partition("/")[0] for name in store.names("put")} == {"locks"}
    assert locks_of(store) == [theirs]


def test_a_lock_that_could_not_be_removed_is_no_obstacle_to_its_own_process(
    repository: Repository, store: WatchedStore, times: LockTimes
) -> None:
    def away(method: str, name: str) -> None:
        if method == "delete":
            raise StoreUnavailable("away")

    with repository.lock(exclusive=True, times=times):
        store.before = away
    store.before = lambda _method, _name: None
    assert len(locks_of(store)) == 1
    with repository.lock(exclusive=True, times=times) as lock:
        assert locks_of(store) == [f"locks/{lock.id}"], "the one left behind was removed"
        with (
            pytest.raises(RepositoryLocked, match="locked exclusively"),
            repository.lock(times=times),
        ):
            pytest.fail("this one is held")


def test_a_lock_whose_writing_was_not_confirmed_is_no_obstacle_to_its_own_process(
    repository: Repository, store: WatchedStore, times: LockTimes
) -> None:
    def put(name: str, data: bytes) -> None:
        store.inner.put(name, data)
        raise StoreUnavailable("no reply")

    with (
        patch.object(WatchedStore, "put", lambda _self, name, data, **_given: put(name, data)),
        pytest.raises(StoreUnavailable, match="no reply"),
        repository.lock(exclusive=True, times=times),
    ):
        pytest.fail("nobody said that it is ours")
    assert len(locks_of(store)) == 1
    with repository.lock(exclusive=True, times=times) as lock:
        assert locks_of(store) == [f"locks/{lock.id}"]


def test_without_a_refresh_the_lock_expires(repository: Repository, times: LockTimes, clock: Clock) -> None:
    with repository.lock(times=times) as lock:
        clock.pass_(minutes=22, seconds=29)
        lock.check()
        clock.pass_(seconds=2)
        for _ in range(2):
            with pytest.raises(RepositoryLocked, match="could not be renewed for"):
                lock.check()
        with pytest.raises(RepositoryLocked):
            repository.check_locks()


def test_a_machine_that_slept_does_not_revive_its_lock(
    repository: Repository, store: WatchedStore, times: LockTimes, clock: Clock
) -> None:
    with repository.lock(times=replace(times, refresh_s=0.05)) as lock:
        store.calls.clear()
        clock.pass_(hours=2)
        lock._thread.join()
        with pytest.raises(RepositoryLocked):
            lock.check()
        assert store.names("put") == []


def test_who_is_stopped_between_the_look_and_the_refresh_has_not_refreshed(
    repository: Repository, store: WatchedStore, times: LockTimes, clock: Clock
) -> None:
    stopped = threading.Event()

    def stop(method: str, name: str) -> None:
        if method == "put" and not stopped.is_set():
            clock.pass_(hours=1)
            stopped.set()

    with repository.lock(times=replace(times, refresh_s=0.01)) as lock:
        store.before = stop
        assert stopped.wait(30)
        lock._thread.join(30)
        with pytest.raises(RepositoryLocked, match="could not be renewed for 60 minutes"):
            lock.check()


def test_a_lock_that_was_removed_is_lost(
    repository: Repository, store: WatchedStore, times: LockTimes
) -> None:
    with repository.lock(times=times) as lock:
        store.delete(f"locks/{lock.id}")
        lock.check()  # nobody has looked yet
        with pytest.raises(RepositoryLocked, match="removed by someone else"):
            lock.confirm()
        with pytest.raises(RepositoryLocked, match="removed by someone else"):
            lock.check()


def test_the_refresher_notices_a_removed_lock(
    repository: Repository, store: WatchedStore, times: LockTimes
) -> None:
    with repository.lock(times=replace(times, refresh_s=0.01)) as lock:
        while lock._thread.is_alive():
            for name in locks_of(store):
                store.delete(name)
        with pytest.raises(RepositoryLocked, match="removed by someone else"):
            lock.check()


def test_an_old_file_that_could_not_be_removed_is_removed_later(
    repository: Repository, store: WatchedStore, times: LockTimes
) -> None:
    def refuse_deletes(method: str, name: str) -> None:
        if method == "delete" and name.startswith("locks/"):
            raise StoreUnavailable("gone")

    with repository.lock(times=replace(times, refresh_s=0.01)) as lock:
        store.before = refuse_deletes
        while len(locks_of(store)) < 3:
            lock.check()
        store.before = lambda _method, _name: None
        lock.check()
    assert not locks_of(store)


def test_a_refresh_that_fails_is_tried_again(
    repository: Repository, store: WatchedStore, times: LockTimes
) -> None:
    failures = iter([True, True])

    def fail_twice(method: str, name: str) -> None:
        if method == "put" and name.startswith("locks/") and next(failures, False):
            raise StoreUnavailable("gone")

    with repository.lock(times=replace(times, refresh_s=0.01, retry_s=0.01)) as lock:
        store.before = fail_twice
        first = lock.id
        while lock.id == first:
            lock.check()


def test_a_release_that_fails_does_not_fail_the_work(
    repository: Repository, store: WatchedStore, times: LockTimes
) -> None:
    def fail(method: str, name: str) -> None:
        if method == "delete":
            raise StoreError("refused")

    with repository.lock(times=times):
        store.before = fail
    assert len(locks_of(store)) == 1
