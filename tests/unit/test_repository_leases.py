"""Leases and run claims: who backs up a database, who takes over, and who must not publish any more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest

from pgstow.core.errors import RepositoryLocked, StoreError, StoreUnavailable
from pgstow.repository import Lease, LeasedDatabase, LockTimes, Repository, remove_old_claims
from pgstow.repository.claims import void_run
from pgstow.repository.found_leases import find_lease, lease_folder
from pgstow.repository.holder import Holder
from pgstow.store.memory import MemoryStore
from support.repositories import WatchedStore, init_repository, open_repository

SHOP = LeasedDatabase(identity="database 7300 16384", name="shop")
BOOKS = LeasedDatabase(identity="database 7300 16385", name="books")


class Clock:
    """The store's time and the machine's, moved by the test."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, tzinfo=UTC)
        self.seconds = 1000.0

    def pass_(self, **time: float) -> None:
        step = timedelta(**time)
        self.now += step
        self.seconds += step.total_seconds()

    def sleep(self, seconds: float) -> None:
        self.pass_(seconds=seconds)


class Unconditional(MemoryStore):
    """Ignores the condition, as some imitations of S3 do."""

    def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
        super().put(name, data)


class Refusing(MemoryStore):
    """Says that it knows no condition."""

    def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
        if if_absent:
            raise StoreError("not implemented", http_status=501)
        super().put(name, data)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> WatchedStore:
    return WatchedStore(inner=MemoryStore(now=lambda: clock.now))


def opened(repository: Repository, clock: Clock) -> Repository:
    repository.lock_times = LockTimes(
        settle_s=0,
        blind_settle_s=0,
        clock_s=lambda: clock.seconds,
        now=lambda: clock.now,
        sleep=clock.sleep,
    )
    return repository


@pytest.fixture
def repository(store: WatchedStore, clock: Clock) -> Repository:
    return opened(init_repository(store), clock)


@contextmanager
def host(name: str, **facts: str | None) -> Iterator[None]:
    """Everything in the block is done by a process of another machine."""
    there = replace(Holder.current(), hostname=name, boot_id=f"boot of {name}", **facts)  # type: ignore[arg-type]
    with patch.object(Holder, "current", classmethod(lambda _: there)):
        yield


def leases(store: WatchedStore) -> list[int]:
    return sorted(int(info.name.rpartition("/")[2]) for info in store.list("pgstow/leases/"))


def claims(store: WatchedStore) -> list[str]:
    return sorted(info.name.removeprefix("pgstow/runs/") for info in store.list("pgstow/runs/"))


def test_a_lease_is_held_released_and_taken_again(repository: Repository, store: WatchedStore) -> None:
    for number in (1, 2, 3):
        with repository.lease(SHOP, run_id=f"run-{number}") as lease:
            assert lease.number == number
            lease.confirm()
            assert leases(store) == [number], "lower numbers are gone"
        assert leases(store) == [number], "the highest stays, so that numbers only grow"
    repository.check_locks()


def test_one_run_at_a_time_for_one_database(
    repository: Repository, store: WatchedStore, clock: Clock
) -> None:
    other = opened(open_repository(store), clock)
    with repository.lease(SHOP, run_id="run-1") as lease:
        clock.pass_(minutes=4)
        with pytest.raises(RepositoryLocked) as caught, other.lease(SHOP, run_id="run-2"):
            pytest.fail("both are in")
        with other.lease(BOOKS, run_id="run-3"):
            pass
        lease.confirm()
    message = caught.value.message
    assert message.startswith(
        f"shop is being backed up by {Holder.current()} since 2026-11-20T00:00:00+00:00 "
    )
    assert "run-1" in message
    assert "lease renewed 4 min ago" in message
    assert caught.value.facts == {"run": "run-1", "lease": 1}
    assert "--wait" in (caught.value.hint or "")
    assert claims(store) == []


def test_names_of_objects_tell_nothing(repository: Repository, store: WatchedStore) -> None:
    with repository.lease(SHOP, run_id="run-1") as lease:
        lease.claim()
        for info in store.list("pgstow/"):
            assert "7300" not in info.name
            assert "shop" not in info.name
            assert b"shop" not in store.get(info.name)


def test_a_run_waits_for_another(repository: Repository, store: WatchedStore, clock: Clock) -> None:
    other = opened(open_repository(store), clock)
    told: list[RepositoryLocked] = []
    with repository.lease(SHOP, run_id="run-1"):
        with (
            pytest.raises(RepositoryLocked),
            other.lease(SHOP, run_id="run-2", wait_s=100, on_wait=told.append),
        ):
            pytest.fail("both are in")
        assert 99 < clock.seconds - 1000 <= 101
        assert 3 < len(told) < 20, "pauses grow"
    held = repository.lease(SHOP, run_id="run-3")
    held.__enter__()

    def release(exc: RepositoryLocked) -> None:
        held.__exit__(None, None, None)

    with other.lease(SHOP, run_id="run-4", wait_s=100, on_wait=release) as lease:
        lease.confirm()


def test_an_early_block_hears_of_a_conflict_before_it_writes(
    repository: Repository, store: WatchedStore, clock: Clock
) -> None:
    other = opened(open_repository(store), clock)
    with repository.lease(SHOP, run_id="run-1"):
        with other.lease(SHOP, run_id="run-2", early=True) as lease:
            with pytest.raises(RepositoryLocked, match="run-1"):
                lease.check()
            with pytest.raises(RepositoryLocked, match="run-1"):
                other.check_locks()
        assert leases(store) == [1]


def test_of_many_at_the_same_moment_one_is_in(
    store: WatchedStore, repository: Repository, clock: Clock
) -> None:
    gate, held = threading.Barrier(6), []
    with repository.lease(SHOP, run_id="earlier"):
        pass

    def take(number: int) -> None:
        mine = opened(open_repository(store), clock)
        gate.wait()
        try:
            with mine.lease(SHOP, run_id=f"run-{number}") as lease:
                held.append(lease.number)
                gate.wait()
                lease.confirm()
        except RepositoryLocked:
            gate.wait()

    threads = [threading.Thread(target=take, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1


# -- the dead


def test_the_lease_of_a_dead_process_here_is_taken_over_at_once(
    repository: Repository, store: WatchedStore
) -> None:
    gone = replace(Holder.current(), process_start="1")
    with patch.object(Holder, "current", classmethod(lambda _: gone)):
        dead = repository.lease(SHOP, run_id="run-1")
        dead.__enter__()
    with repository.lease(SHOP, run_id="run-2") as lease:
        assert lease.number == 2
    assert claims(store) == ["run-1"], "the dead run is voided"


def test_a_lease_from_elsewhere_counts_for_half_an_hour_of_the_store_s_time(
    repository: Repository, store: WatchedStore, clock: Clock
) -> None:
    other = opened(open_repository(store), clock)
    with host("db7"):
        zombie = repository.lease(SHOP, run_id="run-1")
        lease = zombie.__enter__()
        lease.check()
    clock.pass_(minutes=30)
    with pytest.raises(RepositoryLocked, match="on db7 by"), other.lease(SHOP, run_id="run-2"):
        pytest.fail("it may still be alive")
    clock.pass_(seconds=1)
    with other.lease(SHOP, run_id="run-2") as taken:
        assert taken.number == 2
        taken.claim()
        with pytest.raises(RepositoryLocked, match="could not be renewed for 30 minutes"):
            lease.claim()
        with pytest.raises(RepositoryLocked):
            repository.check_locks()
        zombie.__exit__(None, None, None)
        taken.confirm()
        assert leases(store) == [2], "what the late one leaves stands in nobody's way"
    assert claims(store) == ["run-1", "run-2"]


def test_the_machine_s_own_time_of_day_decides_nothing(
    repository: Repository, store: WatchedStore, clock: Clock
) -> None:
    """Ten minutes apart, in both directions, and a whole day."""
    for number, apart in enumerate((timedelta(minutes=10), timedelta(minutes=-10), timedelta(days=1))):
        wrong = opened(open_repository(store), clock)
        wrong.lock_times = replace(wrong.lock_times, now=lambda apart=apart: clock.now + apart)
        with host("db7"), wrong.lease(SHOP, run_id=f"run-{number}"), wrong.lock() as lock:
            assert lock.skew_s == pytest.approx(apart.total_seconds())
            clock.pass_(minutes=29)
            with pytest.raises(RepositoryLocked), repository.lease(SHOP, run_id="other"):
                pytest.fail("it is alive")
            with pytest.raises(RepositoryLocked), repository.lock(exclusive=True):
                pytest.fail("it is alive")
        with host("db7"), repository.lease(SHOP, run_id=f"right-{number}"), repository.lock(exclusive=True):
            clock.pass_(minutes=29)
            with pytest.raises(RepositoryLocked), wrong.lease(SHOP, run_id="other"):
                pytest.fail("it is alive, whatever the other's clock says")
            with pytest.raises(RepositoryLocked), wrong.lock():
                pytest.fail("it is alive, whatever the other's clock says")


@pytest.mark.parametrize("kind", [MemoryStore, Unconditional, Refusing])
def test_who_was_voided_cannot_publish_even_if_its_clock_stands_still(
    kind: Callable[..., MemoryStore], clock: Clock
) -> None:
    """The process believes that no time has passed, and its look at the lease was before it was stopped."""
    store = WatchedStore(inner=kind(now=lambda: clock.now))
    repository = opened(init_repository(store, sleep=clock.sleep), clock)
    other = opened(open_repository(store), clock)
    frozen = replace(repository.lock_times, clock_s=lambda: 0.0)
    with host("db7"), repository.lease(SHOP, run_id="run-1", times=frozen) as lease:
        lease.confirm()
        clock.pass_(minutes=31)
        with other.lease(SHOP, run_id="run-2") as taken:
            with (
                patch.object(Lease, "confirm", Lease.check),
                pytest.raises(RepositoryLocked, match="taken for dead and its lease taken over by PID"),
            ):
                lease.claim()
            with pytest.raises(RepositoryLocked, match="was taken over by someone else"):
                lease.confirm()
            taken.claim()


def test_a_claim_that_was_made_before_is_left_alone(
    repository: Repository, store: WatchedStore, clock: Clock
) -> None:
    with host("db7"), repository.lease(SHOP, run_id="run-1") as lease:
        lease.claim()
        claim = store.get("pgstow/runs/run-1")
        clock.pass_(minutes=31)
        with opened(open_repository(store), clock).lease(SHOP, run_id="run-2") as taken:
            taken.claim()
            assert store.get("pgstow/runs/run-1") == claim


def test_a_run_claims_once(repository: Repository) -> None:
    with repository.lease(SHOP, run_id="run-1") as lease:
        lease.claim()
    with (
        repository.lease(SHOP, run_id="run-1") as lease,
        pytest.raises(RepositoryLocked, match="another process publishes the run run-1"),
    ):
        lease.claim()


def test_a_number_that_was_removed_again_does_not_count(
    repository: Repository, store: WatchedStore, clock: Clock
) -> None:
    """Stopped between looking and creating, while two others came and went."""
    other = opened(open_repository(store), clock)
    with repository.lease(SHOP, run_id="run-1"):
        pass
    passed = iter([True])

    def stop(method: str, name: str) -> None:
        if method == "put" and name.endswith("00002") and next(passed, False):
            for number in (2, 3):
                with other.lease(SHOP, run_id=f"run-{number}"):
                    pass

    store.before = stop
    with repository.lease(SHOP, run_id="run-late") as lease:
        assert lease.number == 4
        assert leases(store) == [4]


# -- renewing


def test_the_holder_renews_its_own_object(repository: Repository, store: WatchedStore, clock: Clock) -> None:
    quick = replace(repository.lock_times, refresh_s=0.01)
    with repository.lease(SHOP, run_id="run-1", times=quick) as lease:
        clock.pass_(minutes=20)
        while next(iter(store.list("pgstow/leases/"))).modified != clock.now:
            lease.check()
        assert leases(store) == [1]


def test_who_is_stopped_between_the_look_and_the_renewal_has_not_renewed(
    repository: Repository, store: WatchedStore, clock: Clock
) -> None:
    quick = replace(repository.lock_times, refresh_s=0.01)
    renewed = threading.Event()
    with repository.lease(SHOP, run_id="run-1", times=quick) as lease:

        def stop(method: str, name: str) -> None:
            if method == "put" and not renewed.is_set():
                clock.pass_(hours=1)
                renewed.set()

        store.before = stop
        assert renewed.wait(30)
        lease._thread.join(30)
        with pytest.raises(RepositoryLocked, match="could not be renewed for 60 minutes"):
            lease.check()


def test_a_renewal_that_fails_is_tried_again(repository: Repository, store: WatchedStore) -> None:
    failures = iter([True, True])
    tried = threading.Event()

    def fail_twice(method: str, name: str) -> None:
        if method == "put":
            if next(failures, False):
                raise StoreUnavailable("gone")
            tried.set()

    quick = replace(repository.lock_times, refresh_s=0.01, retry_s=0.01)
    with repository.lease(SHOP, run_id="run-1", times=quick) as lease:
        store.before = fail_twice
        assert tried.wait(30)
        lease.check()


def test_a_removed_lease_is_lost(repository: Repository, store: WatchedStore) -> None:
    with repository.lease(SHOP, run_id="run-1") as lease:
        for info in store.list("pgstow/leases/"):
            store.delete(info.name)
        with pytest.raises(RepositoryLocked, match="taken over by someone else"):
            lease.claim()
    assert claims(store) == []
    assert leases(store) == []


def test_a_release_that_fails_does_not_fail_the_work(repository: Repository, store: WatchedStore) -> None:
    def fail(method: str, name: str) -> None:
        if method == "put":
            raise StoreError("refused")

    with repository.lease(SHOP, run_id="run-1"):
        store.before = fail


# -- stores that promise less


@pytest.mark.parametrize("kind", [Unconditional, Refusing])
def test_a_store_without_conditions_is_noticed(kind: Callable[..., MemoryStore], clock: Clock) -> None:
    store = WatchedStore(inner=kind(now=lambda: clock.now))
    repository = opened(init_repository(store, sleep=clock.sleep), clock)
    repository.lock_times = replace(repository.lock_times, blind_settle_s=7)
    with repository.lease(SHOP, run_id="run-1") as lease:
        assert clock.seconds == 1012, "five of them for init"
        lease.claim()
        assert clock.seconds == 1019
        with pytest.raises(RepositoryLocked, match="run-1"), repository.lease(SHOP, run_id="run-2"):
            pytest.fail("both are in")
    assert leases(store) == [1]


def test_of_two_that_write_at_once_without_conditions_the_last_stands(clock: Clock) -> None:
    store = WatchedStore(inner=Unconditional(now=lambda: clock.now))
    repository = opened(init_repository(store, sleep=clock.sleep), clock)
    other = opened(open_repository(store), clock)
    winner: list[int] = []

    def other_writes(_: float) -> None:
        if not winner:
            winner.append(0)
            store.delete(f"{lease_folder(repository.id, SHOP)}{1:020d}")  # as if it had not been seen
            held = other.lease(SHOP, run_id="run-2")
            winner[0] = held.__enter__().number
            winner.append(held)  # type: ignore[arg-type]

    slow = replace(repository.lock_times, sleep=other_writes)
    with (
        pytest.raises(RepositoryLocked, match="run-2"),
        repository.lease(SHOP, run_id="run-1", times=slow),
    ):
        pytest.fail("both are in")
    assert winner[0] == 1


def test_a_slow_put_without_conditions_is_noticed_before_publishing(clock: Clock) -> None:
    store = WatchedStore(inner=Unconditional(now=lambda: clock.now))
    repository = opened(init_repository(store, sleep=clock.sleep), clock)
    with repository.lease(SHOP, run_id="run-1") as lease:
        name = f"{lease_folder(repository.id, SHOP)}{1:020d}"
        store.delete(name)  # as the other saw it
        with opened(open_repository(store), clock).lease(SHOP, run_id="run-2") as other:
            assert lease.number == other.number == 1
            with pytest.raises(RepositoryLocked, match="taken over by someone else"):
                lease.claim()
            other.claim()
    assert claims(store) == ["run-2"]


def test_an_unreadable_lease_counts_until_it_is_old(
    repository: Repository, store: WatchedStore, clock: Clock
) -> None:
    folder = lease_folder(repository.id, SHOP)
    store.put(f"{folder}{7:020d}", b"torn")
    with (
        pytest.raises(RepositoryLocked, match="a holder whose lease cannot be read"),
        repository.lease(SHOP, run_id="run-1"),
    ):
        pytest.fail("somebody may hold it")
    clock.pass_(minutes=31)
    with repository.lease(SHOP, run_id="run-1") as lease:
        assert lease.number == 8


# -- claims of long ago


def test_old_claims_are_removed_by_the_store_s_time(
    repository: Repository, store: WatchedStore, clock: Clock
) -> None:
    assert remove_old_claims(store) == 0
    assert void_run(repository._files, "run-old", by="somebody")
    clock.pass_(days=6)
    assert void_run(repository._files, "run-new", by="somebody")
    clock.pass_(days=1, seconds=1)
    assert remove_old_claims(store) == 1
    assert claims(store) == ["run-new"]
    assert find_lease(repository._files, lease_folder(repository.id, SHOP)) is None


def test_a_lease_that_could_not_be_released_is_no_obstacle_to_its_own_process(
    repository: Repository, store: WatchedStore, clock: Clock
) -> None:
    def away(method: str, name: str) -> None:
        if method == "put" and name.startswith("pgstow/leases/"):
            raise StoreUnavailable("away")

    with repository.lease(SHOP, run_id="first") as lease:
        lease.check()
        store.before = away
    store.before = lambda _method, _name: None
    with repository.lease(SHOP, run_id="second") as lease:
        assert lease.number == 2
        with (
            pytest.raises(RepositoryLocked, match="is being backed up"),
            repository.lease(SHOP, run_id="third"),
        ):
            pytest.fail("the second run is alive")
    assert claims(store) == ["first"], "it was voided before it was taken over"


def test_a_run_that_was_given_up_is_superseded(
    repository: Repository, store: WatchedStore, clock: Clock
) -> None:
    """However alive its holder seems; runs that were not given up are not touched, and the old one never publishes."""
    with host("first"):
        first = opened(open_repository(store), clock)
        old = first.lease(SHOP, run_id="old")
        held = old.__enter__()
    with host("second"):
        second = opened(open_repository(store), clock)
        with pytest.raises(RepositoryLocked), second.lease(SHOP, run_id="new", supersedes=["another"]):
            pass
        with second.lease(SHOP, run_id="new", supersedes=["old"]) as lease:
            with pytest.raises(RepositoryLocked):
                held.claim()
            lease.claim()
    old.__exit__(None, None, None)


def test_a_run_is_voided_once_and_only_before_it_may_publish(repository: Repository) -> None:
    assert repository.void_run("cut-off")
    assert not repository.void_run("cut-off")
    with pytest.raises(RepositoryLocked), repository.lease(SHOP, run_id="cut-off") as lease:
        lease.claim()
    with repository.lease(SHOP, run_id="faster") as lease:
        lease.claim()
    assert not repository.void_run("faster")
