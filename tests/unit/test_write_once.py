"""Credentials that may only add: leases, locks, claims, copies and audit entries where nothing is overwritten or removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest

from pgstow.app.prune import prune_repository
from pgstow.assurance.verify import verify
from pgstow.catalog.backups import list_backups
from pgstow.core.errors import RepositoryLocked, StoreDenied, StoreError, StoreUnavailable
from pgstow.core.progress import SilentProgress
from pgstow.repository import LeasedDatabase, LockTimes, Repository
from pgstow.repository.holder import Holder
from pgstow.store.api import ObjectInfo
from pgstow.store.clock import store_now
from pgstow.store.leftovers import remove_old_questions
from pgstow.store.memory import MemoryStore
from pgstow.store.probing import probe_conditional_put
from pgstow.store.retrying import RetryingStore
from pgstow.upkeep.prune_plan import PruneOptions
from support.copying import copy_all, make_target, quick_locks
from support.repositories import (
    WatchedStore,
    copy_text,
    init_repository,
    open_repository,
    save_tree,
    snapshot_of,
)
from support.write_once import WriteOnceStore

SHOP = LeasedDatabase(identity="database 7300 16384", name="shop")

either_order = pytest.mark.parametrize("denies_first", [False, True], ids=["exists", "denied"])


class Clock:
    """The store's time and the machine's."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, tzinfo=UTC)

    def pass_(self, **time: float) -> None:
        self.now += timedelta(**time)

    def seconds(self) -> float:
        return self.now.timestamp()

    def times(self, **changed: float) -> LockTimes:
        return LockTimes(
            settle_s=0,
            blind_settle_s=0,
            clock_s=self.seconds,
            now=lambda: self.now,
            sleep=lambda seconds: self.pass_(seconds=seconds),
            **changed,
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(store: WriteOnceStore, clock: Clock) -> Repository:
    repository = init_repository(store)
    repository.lock_times = clock.times()
    return repository


def opened(store: WriteOnceStore, clock: Clock) -> Repository:
    repository = open_repository(store)
    repository.lock_times = clock.times()
    return repository


def write_once(clock: Clock, *, denies_first: bool = False) -> WriteOnceStore:
    return WriteOnceStore(MemoryStore(now=lambda: clock.now), denies_before_condition=denies_first)


def numbers(store: WriteOnceStore) -> list[int]:
    return sorted(int(info.name.rpartition("/")[2]) for info in store.list("pgstow/leases/"))


def back_up(repository: Repository, number: int) -> None:
    """Write a backup in the order of the application, under lease and lock."""
    run = f"run-{number}"
    with repository.lease(SHOP, run_id=run) as lease, repository.lock() as lock:
        repository.load_index()
        with repository.writer() as writer:
            tree = save_tree(writer, {"toc.dat": [b"PGDMP"], "1.dat": [copy_text(50, number)]})
        lock.confirm()
        lease.claim()
        repository.save_snapshot(
            snapshot_of(tree, [5, 50], run=run, time=datetime(2026, 11, number, tzinfo=UTC))
        )


@either_order
def test_backups_one_after_the_other(clock: Clock, denies_first: bool) -> None:
    store = write_once(clock, denies_first=denies_first)
    made(store, clock)
    for number in range(1, 5):
        back_up(opened(store, clock), number)
        clock.pass_(hours=24)
    repository = opened(store, clock)
    assert [record.id for record in list_backups(repository)] == [f"run-{number}" for number in range(1, 5)]
    assert verify(repository, read_data=True).problems == ()
    assert numbers(store) == list(range(1, 9)), "each was taken and released"
    assert "delete locks" in store.denied


@either_order
def test_a_lease_is_renewed_for_as_long_as_a_run_takes(clock: Clock, denies_first: bool) -> None:
    """Each heartbeat is a number of its own; nobody takes over meanwhile, and the run publishes."""
    store = write_once(clock, denies_first=denies_first)
    repository, other = made(store, clock), opened(store, clock)
    quick = clock.times(refresh_s=0.001)
    with repository.lease(SHOP, run_id="run-1", times=quick) as lease:
        for _ in range(4):
            clock.pass_(minutes=20)
            beaten = lease.number
            while lease.number == beaten:
                lease.check()
            with pytest.raises(RepositoryLocked, match="run-1"), other.lease(SHOP, run_id="run-2"):
                pytest.fail("it is alive")
        lease.claim()
    with other.lease(SHOP, run_id="run-2") as taken:
        assert taken.number > lease.number


def test_who_was_taken_over_neither_renews_nor_publishes(clock: Clock) -> None:
    store = write_once(clock)
    repository, other = made(store, clock), opened(store, clock)
    there = replace(Holder.current(), hostname="db7", boot_id="boot of db7")
    frozen = replace(clock.times(), clock_s=lambda: 0.0)
    with patch.object(Holder, "current", classmethod(lambda _: there)):
        held = repository.lease(SHOP, run_id="run-1", times=frozen)
        lease = held.__enter__()
        lease._renew()
    clock.pass_(minutes=31)
    with other.lease(SHOP, run_id="run-2") as taken:
        with pytest.raises(StoreError):
            lease._renew()
        with pytest.raises(RepositoryLocked, match="taken over by someone else"):
            lease.claim()
        taken.claim()
    held.__exit__(None, None, None)


def test_a_renewal_whose_reply_was_lost_is_still_ours(clock: Clock) -> None:
    store = write_once(clock)
    watched = WatchedStore(store)
    repository = init_repository(watched)
    repository.lock_times = clock.times()
    with repository.lease(SHOP, run_id="run-1") as lease:
        lease._renew()
        last = lease.number

        def lose_reply(method: str, name: str) -> None:
            if method == "put" and name.endswith(f"{last + 1:020d}"):
                store.put(name, lease._content(), if_absent=True)
                raise StoreUnavailable("the reply was lost")

        watched.before = lose_reply
        with pytest.raises(StoreUnavailable):
            lease._renew()
        lease.claim()
        assert lease.number == last + 1


@dataclass
class Between(WriteOnceStore):
    """Does something between a call on leases and its answer, as another thread may; once."""

    act: dict[str, Callable[[], object]] = field(default_factory=dict)

    def _come_between(self, method: str, name: str) -> None:
        if name.startswith("pgstow/leases/") and method in self.act:
            self.act.pop(method)()

    def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
        super().put(name, data, if_absent=if_absent)
        self._come_between("put", name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        found = list(super().list(prefix))
        self._come_between("list", prefix)
        return iter(found)


@pytest.mark.parametrize("first", ["heartbeat", "look"])
def test_a_heartbeat_beside_the_look_before_publishing_is_no_loss(clock: Clock, first: str) -> None:
    """One thread renews, another confirms: what it sees is the number before, or the one after."""
    store = Between(MemoryStore(now=lambda: clock.now))
    repository = made(store, clock)
    with repository.lease(SHOP, run_id="run-1") as lease:
        lease._renew()  # from now on it is known that nobody may overwrite
        if first == "heartbeat":
            store.act["put"] = lease.confirm
            lease._renew()
        else:
            store.act["list"] = lease._renew
            lease.confirm()
        assert not store.act
        assert lease.number == max(numbers(store))
        lease.claim()


@either_order
def test_a_run_that_was_voided_hears_why_it_cannot_publish(clock: Clock, denies_first: bool) -> None:
    store = write_once(clock, denies_first=denies_first)
    repository = made(store, clock)
    with repository.lease(SHOP, run_id="run-1") as lease:
        assert opened(store, clock).void_run("run-1")
        with pytest.raises(RepositoryLocked, match="taken for dead"):
            lease.claim()


def test_objects_by_which_the_store_was_asked_go_when_nobody_uses_them(clock: Clock) -> None:
    store = write_once(clock)
    made(store, clock)  # asks what it can do
    store_now(store)
    others = ["pgstow/clock-of-somebody", "pgstow/audit/clock-" + "a" * 32]
    for name in others:
        store.put(name, b"not ours")
    clock.pass_(hours=30)
    store_now(store)
    assert remove_old_questions(store.inner) == 2

    def names() -> list[str]:
        return [info.name for info in store.list("pgstow/")]

    assert len(names()) == len(others) + 1, "the newest may be in use"
    clock.pass_(hours=30)
    keeper = open_repository(store.inner)
    keeper.lock_times = clock.times()
    prune_repository(keeper, PruneOptions(), SilentProgress(), show=lambda _: None)
    assert sorted(names()) == sorted(others)


def test_who_may_delete_clears_away_what_the_others_left(clock: Clock) -> None:
    store = write_once(clock)
    made(store, clock)
    for number in (1, 2):
        back_up(opened(store, clock), number)
    clock.pass_(hours=1)
    keeper = open_repository(store.inner)
    keeper.lock_times = clock.times()
    prune_repository(keeper, PruneOptions(), SilentProgress(), show=lambda _: None)
    assert numbers(store) == [4], "the highest is the lease"
    assert not list(store.list("locks/"))
    assert verify(opened(store, clock), read_data=True).problems == ()


def test_dead_locks_that_must_stay_are_tried_once(clock: Clock) -> None:
    """A year of runs leaves a thousand; each of them would be asked to go, and refused, in every run."""
    store = write_once(clock)
    repository = made(store, clock)
    for _ in range(5):
        with repository.lock():
            pass
    clock.pass_(hours=1)
    store.denied.clear()
    with opened(store, clock).lock() as lock:
        lock.check()
    assert store.denied == ["delete locks"] * 2, "one of the dead, and its own"


@either_order
def test_the_condition_is_known_to_hold(clock: Clock, denies_first: bool) -> None:
    assert probe_conditional_put(write_once(clock, denies_first=denies_first))


def test_a_put_whose_reply_was_lost_counts_though_it_cannot_be_repeated(clock: Clock) -> None:
    store = write_once(clock)
    tries = iter([True])

    def lose_first_reply(method: str, name: str) -> None:
        if method == "put" and next(tries, False):
            store.put(name, b"data")
            raise StoreUnavailable("the reply was lost")

    patient = RetryingStore(WatchedStore(store, before=lose_first_reply), sleep=lambda _: None)
    patient.put("data/aa", b"data")
    with pytest.raises(StoreDenied):
        patient.put("data/aa", b"other")


def test_a_document_that_is_there_need_not_be_written_again(clock: Clock) -> None:
    repository = made(write_once(clock), clock)
    repository.save_note("pgstow/audit/entry", b"signed")
    repository.save_note("pgstow/audit/entry", b"signed")
    with pytest.raises(StoreDenied):
        repository.save_note("pgstow/audit/entry", b"another")


@pytest.mark.parametrize("shares_key", [True, False], ids=["same-key", "other-key"])
def test_copies_into_it(clock: Clock, shares_key: bool) -> None:
    with quick_locks():
        source = init_repository(MemoryStore())
        for number in (1, 2):
            back_up(source, number)
        target = make_target(WriteOnceStore(), source, shares_key=shares_key)
        assert len(copy_all(source, target).copied) == 2
        assert copy_all(source, open_repository(target.store)).copied == ()
        assert verify(open_repository(target.store), read_data=True).problems == ()
