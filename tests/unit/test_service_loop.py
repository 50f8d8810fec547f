"""The service's loop and its tables, with several hosts in one process, a clock of our own and a queue in memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from dbos._error import DBOSAwaitedWorkflowCancelledError, DBOSWorkflowCancelledError
from sqlalchemy.engine import Connection

from pgstow.core.errors import StateError
from pgstow.jobs.dispatch import Order, Standing
from pgstow.jobs.engine import _Notes
from pgstow.jobs.presence import Presence, bury, describe_host
from pgstow.jobs.schedule import Schedule
from pgstow.jobs.service import Scheduled, Service, ServiceParts
from pgstow.state.database import StateDatabase, open_state
from pgstow.state.dues import DueKey, Dues
from pgstow.state.hosts import HostRow, Hosts
from pgstow.state.runs import DestinationResult, RunRecord, Runs
from pgstow.state.slots import Slots
from pgstow.state.spool import Spool

NOON = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)
HOURLY = Schedule(cron="0 * * * *", catch_up_s=3 * 3600)


class ClockedState(StateDatabase):
    """A state database whose clock the test sets, and which can be away."""

    time = NOON
    is_away = False

    def now_in(self, connection: Connection) -> datetime:
        return self.time

    def begin(self):
        if self.is_away:
            raise StateError("the state database is away")
        return super().begin()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[ClockedState]:
    opened = open_state(None, {"PGSTOW_STATE_DIR": str(tmp_path)})
    clocked = ClockedState(sa.create_engine(opened.url), opened.where)
    clocked._engine = opened._engine
    yield clocked
    opened.close()


@dataclass
class Queue:
    """A Dispatcher in memory."""

    orders: dict[str, tuple[Order, Standing]] = field(default_factory=dict)
    shape: int = 1

    def submit(self, order: Order) -> None:
        self.orders.setdefault(order.id, (order, Standing(state="queued", host=None, shape=self.shape)))

    def standing(self, orders: Sequence[Order]) -> Mapping[str, Standing]:
        return {order.id: self.orders[order.id][1] for order in orders if order.id in self.orders}

    def withdraw(self, order: Order) -> None:
        self.set(order, "ended")

    def set(self, order: Order, state: str, host: str | None = None) -> None:
        found, standing = self.orders[order.id]
        self.orders[order.id] = (found, replace(standing, state=state, host=host or standing.host))

    def waiting(self) -> list[Order]:
        return [order for order, standing in self.orders.values() if standing.state == "queued"]


@dataclass
class Party:
    """Hosts that share a state database and a queue."""

    state: ClockedState
    folder: Path
    queue: Queue = field(default_factory=Queue)
    notes: list[str] = field(default_factory=list)
    clock_s: float = 1000.0
    schedule: Schedule = HOURLY

    def host(self, name: str, *, shape: int = 1, role: str = "serve") -> tuple[Service, Presence]:
        row = replace(describe_host("serve", shape=shape, dead_after_s=30.0), id=name, role=role, marks={})
        presence = Presence(self.state, row, clock_s=lambda: self.clock_s)
        presence.beat()
        scheduled = Scheduled(
            plan="nightly", database="shop", job="backup", kind="daily", schedule=self.schedule
        )
        parts = ServiceParts(
            state=self.state,
            dispatcher=self.queue,
            presence=presence,
            spool=Spool(self.folder / "spool"),
            scheduled=lambda: [scheduled],
            note=self.notes.append,
            shape=shape,
        )
        return Service(parts), presence

    def beat_for(self, seconds: float, *presences: Presence) -> None:
        """Let time pass in which these hosts say that they are alive."""
        for _ in range(int(seconds / 5)):
            self.clock_s += 5
            self.state.time += timedelta(seconds=5)
            for presence in presences:
                presence.beat()


@pytest.fixture
def party(state: ClockedState, tmp_path: Path) -> Party:
    return Party(state=state, folder=tmp_path)


def take(party: Party, order: Order, *, host: str, run_id: str = "r1") -> None:
    """What a run does when it begins."""
    assert Dues(party.state).take(order.key, run_id=run_id, host=host) is not None
    party.queue.set(order, "started", host="a")


def only(orders: Sequence[Order]) -> Order:
    (order,) = orders
    return order


def test_of_several_hosts_one_hands_out(party: Party) -> None:
    services = [party.host(name)[0] for name in "abc"]
    for service in services:
        service.look()
    assert not party.queue.orders, "nothing was due before the plan was first seen"
    party.state.time += timedelta(hours=2, minutes=5)
    for service in services * 2:
        service.look()
    order = only(party.queue.waiting())
    assert order.key.due == datetime(2026, 11, 20, 14, tzinfo=UTC)
    assert order.attempt == 1
    assert Dues(party.state).open()[0].coalesced == 1


def test_a_due_run_is_taken_once(party: Party) -> None:
    service, _ = party.host("a")
    service.look()
    party.state.time += timedelta(hours=1)
    service.look()
    key = only(party.queue.waiting()).key
    dues = Dues(party.state)
    taken = dues.take(key, run_id="r1", host="x")
    assert taken is not None
    assert taken.runs == ()
    assert dues.take(key, run_id="r2", host="y") is None
    assert not dues.settle(key, host="y"), "only who carries it out may end it"
    assert dues.settle(key, host="x")
    assert dues.take(key, run_id="r3", host="x") is None
    party.state.time += timedelta(minutes=10)
    service.look()
    assert dues.open() == []
    assert len(party.queue.orders) == 1


def test_what_somebody_saw_before_another_settled_it_is_worth_nothing(party: Party) -> None:
    dues = Dues(party.state)
    begin = dues.settled_until("nightly", "shop", "s", NOON)
    early = DueKey(plan="nightly", database="shop", due=NOON + timedelta(hours=1))
    late = replace(early, due=NOON + timedelta(hours=2))
    assert dues.hand_out(late, settled_until=begin)
    assert not dues.hand_out(early, settled_until=begin), "it was coalesced into the later one"
    assert dues.settled_until("nightly", "shop", "s", NOON) == late.due
    dues.set_back("nightly", "shop", settled_until=late.due, to=begin)
    assert not dues.hand_out(late, settled_until=begin), "a due time is handed out once"
    (seen,) = dues.open()
    first, second = dues.queue_again(seen), dues.queue_again(seen)
    assert first is not None
    assert (first.attempt, second) == (2, None)
    assert dues.take(late, run_id="r", host="h") is not None
    assert dues.queue_again(first) is None, "it was taken since"


def test_a_silent_host_is_judged_only_by_who_was_steady(party: Party) -> None:
    """Hosts that all were cut off from the state database do not declare each other dead when it is back."""
    (_, first), (_, second) = party.host("a"), party.host("b")
    party.beat_for(60, first, second)
    party.clock_s += 300
    party.state.time += timedelta(seconds=300)  # away: nobody can say anything
    first.beat()
    assert bury(first, party.state) == []
    party.beat_for(20, first)
    assert bury(first, party.state) == [], "it may have been the database"
    party.beat_for(15, first)
    assert [host.id for host in bury(first, party.state)] == ["b"]
    second.beat()
    assert not any(host.is_dead for host in Hosts(party.state).all()), "it came back"


def test_a_clock_that_was_set_kills_nobody(party: Party) -> None:
    (_, first), (_, second) = party.host("a"), party.host("b")
    party.beat_for(60, first, second)
    party.state.time += timedelta(hours=1)
    assert bury(first, party.state) == []
    first.beat()
    assert bury(first, party.state) == []
    party.beat_for(60, first, second)
    assert bury(first, party.state) == []
    party.beat_for(40, first)
    assert [host.id for host in bury(first, party.state)] == ["b"]


def test_who_died_before_the_clock_was_set_back_is_dead(party: Party) -> None:
    """Its plan would else wait until the time has come again at which it was last heard."""
    (_, first), (_, second) = party.host("a"), party.host("b")
    party.beat_for(60, first, second)
    party.state.time -= timedelta(days=30)
    first.beat()
    party.beat_for(40, first)
    assert [host.id for host in bury(first, party.state)] == ["b"]


def test_a_process_that_certainly_ended_is_not_waited_for(party: Party) -> None:
    _, first = party.host("a")
    row = replace(describe_host("run", shape=1, dead_after_s=30.0), id="gone", pid=2**22 - 3)
    Hosts(party.state).beat(row)
    assert [host.id for host in bury(first, party.state)] == ["gone"]


def test_the_run_of_a_dead_host_begins_again(party: Party) -> None:
    (service, first), (_, second) = party.host("a"), party.host("b")
    run = party.host("run-1", role="run")[1]
    service.look()
    party.state.time += timedelta(hours=1)
    service.look()
    take(party, only(party.queue.waiting()), host="run-1")
    party.beat_for(60, first, second, run)
    service.look()
    assert party.queue.waiting() == []
    party.beat_for(40, first, second)
    service.look()
    again = only(party.queue.waiting())
    assert again.attempt == 2
    taken = Dues(party.state).take(again.key, run_id="r2", host="run-2")
    assert taken is not None
    assert taken.runs == ("r1",), "the new run knows which it takes over"
    assert not Dues(party.state).settle(again.key, host="run-1"), "the old one has lost it"


def test_a_state_database_that_was_restored_from_an_old_copy(party: Party) -> None:
    """What was done since is due again, and runs, although the queue, which is another file, knows it to have ended."""
    service, _ = party.host("a")
    service.look()
    old = Dues(party.state).settled("nightly", "shop")
    assert old is not None
    party.state.time += timedelta(hours=1)
    service.look()
    done = only(party.queue.waiting())
    take(party, done, host="a")
    party.queue.set(done, "ended")
    assert Dues(party.state).settle(done.key, host="a")
    service.look()
    assert party.queue.waiting() == []
    with party.state.begin() as connection:  # as if the copy were back
        connection.execute(sa.text("DELETE FROM dues"))
        connection.execute(sa.text("UPDATE schedules SET settled_until = :old"), {"old": old[0].timestamp()})
    service.look()
    service.look()
    again = only(party.queue.waiting())
    assert (again.key, again.attempt) == (done.key, 2)


def test_an_order_that_ended_without_beginning_is_given_up_in_the_end(party: Party) -> None:
    party.schedule = replace(HOURLY, catch_up_s=6 * 3600)
    service, presence = party.host("a")
    service.look()
    party.state.time += timedelta(hours=1)
    counts = []
    for _ in range(3 * 60):
        service.look()
        for order in party.queue.waiting():
            party.queue.set(order, "ended")
        counts.append(len(party.queue.orders))
        if not Dues(party.state).open():
            break
        party.clock_s += 60
        party.state.time += timedelta(seconds=60)
        presence.beat()
    assert counts[:3] == [1, 2, 3], "the first ones at once"
    assert len(counts) > 100, "the others with pauses: whatever it is may pass"
    assert counts[-1] == 20
    (record,) = Runs(party.state).find()
    assert (record.outcome, record.error_code) == ("failed", "given_up")


def test_a_run_that_kills_its_process_is_given_up_in_the_end(party: Party) -> None:
    service, presence = party.host("a")
    service.look()
    party.state.time += timedelta(hours=1)
    service.look()
    for number in range(10):
        for order in party.queue.waiting():
            take(party, order, host=f"left-{number}", run_id=f"r{number}")
        service.look()
        party.beat_for(5, presence)
    assert len(party.queue.orders) == 5
    assert [one.error_code for one in Runs(party.state).find()] == ["given_up"]


def fail(party: Party, order: Order, *, number: int, pause_s: float | None) -> None:
    """What a run does that fails: it leaves its due time to a later attempt, or settles it."""
    host, dues = f"run-{number}", Dues(party.state)
    taken = dues.take(order.key, run_id=f"r{number}", host=host)
    assert taken is not None
    assert len(taken.runs) == taken.failures == number
    party.queue.set(order, "ended")
    if pause_s is None:
        assert dues.settle(order.key, host=host)
    else:
        not_before = party.state.time + timedelta(seconds=pause_s)
        assert dues.queue_again(taken, not_before=not_before, has_failed=True) is not None


def test_what_failed_is_tried_again_after_its_pause(party: Party) -> None:
    """By any host, as an attempt of its own, more often than what is cut off; and nothing else is handed out meanwhile."""
    party.schedule = replace(HOURLY, catch_up_s=12 * 3600)
    services = [party.host(name) for name in "ab"]
    presences = [presence for _, presence in services]
    services[0][0].look()
    party.state.time += timedelta(minutes=59, seconds=40)
    for number in range(7):
        services[0][0].look()
        order = only(party.queue.waiting())
        assert order.attempt == number + 1
        fail(party, order, number=number, pause_s=60)
        party.beat_for(55, *presences)
        for service, _ in services:
            service.look()
        assert party.queue.waiting() == [], "not before its time"
        party.beat_for(5, *presences)
        services[1][0].look()
    fail(party, only(party.queue.waiting()), number=7, pause_s=None)
    for service, _ in services:
        service.look()
    assert Dues(party.state).open() == []
    assert party.queue.waiting() == []
    assert Runs(party.state).find() == [], "the runs tell of themselves"


def test_what_failed_and_was_not_tried_again_in_its_window_has_failed(party: Party) -> None:
    """The service was away in the pause: that is no due time that nobody saw to."""
    service, presence = party.host("a")
    service.look()
    party.state.time += timedelta(hours=1)
    service.look()
    fail(party, only(party.queue.waiting()), number=0, pause_s=1800)
    party.state.time += timedelta(hours=4)
    presence.beat()
    service.look()
    (record,) = Runs(party.state).find()
    assert (record.outcome, record.error_code) == ("failed", "given_up")


def test_a_plan_that_is_not_in_the_settings_is_left_to_others(party: Party) -> None:
    service, _ = party.host("a")
    service.look()
    party.state.time += timedelta(hours=1)
    service.look()
    party.queue.orders.clear()
    stranger, _ = party.host("b")
    stranger._parts = replace(stranger._parts, scheduled=list)
    stranger.look()
    assert party.queue.orders == {}
    assert len(Dues(party.state).open()) == 1
    service.look()
    assert len(party.queue.waiting()) == 1


def test_what_nobody_could_run_in_its_window_is_missed(party: Party) -> None:
    service, presence = party.host("a")
    service.look()
    party.state.time += timedelta(hours=1)
    service.look()
    party.queue.orders.clear()  # the queue was lost
    party.state.time += timedelta(hours=4)
    presence.beat()
    service.look()
    (record,) = Runs(party.state).find()
    assert record.outcome == "missed"
    assert record.due == datetime(2026, 11, 20, 13, tzinfo=UTC)
    service.look()
    order = only(party.queue.waiting())
    assert order.key.due == datetime(2026, 11, 20, 17, tzinfo=UTC)


def test_a_pause_that_is_longer_than_the_window(party: Party) -> None:
    party.schedule = replace(HOURLY, cron="0 13 * * *")
    service, presence = party.host("a")
    service.look()
    party.state.time += timedelta(days=2, hours=6)
    presence.beat()
    service.look()
    service.look()
    assert party.queue.orders == {}
    (record,) = Runs(party.state).find()
    assert (record.outcome, record.due) == ("missed", datetime(2026, 11, 22, 13, tzinfo=UTC))
    assert "like 2 due times before it" in (record.error or "")


def test_the_newer_shape_takes_over(party: Party) -> None:
    old, old_presence = party.host("old")
    old.look()
    party.state.time += timedelta(hours=1)
    old.look()
    waiting = only(party.queue.waiting())
    party.queue.shape = 2
    new, new_presence = party.host("new", shape=2)
    party.beat_for(60, old_presence, new_presence)
    new.look()
    assert party.queue.waiting() == [waiting], "the old host is there to carry it out"
    party.beat_for(60, new_presence)
    new.look()
    (again,) = party.queue.waiting()
    assert (again.attempt, party.queue.orders[again.id][1].shape) == (2, 2)
    take(party, again, host="new")
    assert Dues(party.state).settle(again.key, host="new")
    old_presence.beat()
    party.state.time += timedelta(hours=1)
    old.look()
    assert party.queue.waiting() == [], "the older one hands out nothing beside a newer one"
    new_presence.beat()
    new.look()
    assert len(party.queue.waiting()) == 1


def test_a_changed_schedule_begins_now(party: Party) -> None:
    service, _ = party.host("a")
    service.look()
    party.state.time += timedelta(minutes=20)
    party.schedule = replace(HOURLY, cron="*/15 * * * *")
    changed, _ = party.host("a")
    changed.look()
    assert party.queue.orders == {}, "12:15 was before"
    party.state.time += timedelta(minutes=10)
    changed.look()
    assert only(party.queue.waiting()).key.due == datetime(2026, 11, 20, 12, 30, tzinfo=UTC)


def test_hosts_that_differ_about_a_schedule_do_not_keep_each_other_from_it(party: Party) -> None:
    """Somebody changed the settings of one host only: each goes by its own, and no due time is lost."""
    first, _ = party.host("a")
    first.look()
    party.schedule = replace(HOURLY, cron="30 * * * *")
    second, _ = party.host("b")
    second.look()
    handed_out: list[str] = []
    for _ in range(3 * 60):
        party.state.time += timedelta(minutes=1)
        for service in (first, second):
            service.look()
        for order in party.queue.waiting():
            handed_out.append(f"{order.key.due:%H:%M}")
            assert Dues(party.state).take(order.key, run_id=order.id, host=order.id) is not None
            party.queue.set(order, "ended")
            assert Dues(party.state).settle(order.key, host=order.id)
    assert handed_out == ["12:30", "13:00", "13:30", "14:00", "14:30", "15:00"]
    assert not Runs(party.state).find(), "none was missed"


def test_who_takes_something_up_while_a_host_looks_is_not_taken_for_dead(
    party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run enters and takes its due time between two questions of a host that is slow, or was stopped there."""
    service, _ = party.host("a")
    service.look()
    party.state.time += timedelta(hours=1)
    service.look()
    order = only(party.queue.waiting())

    def then_somebody_begins(hosts: Hosts) -> list[HostRow]:
        found = real(hosts)
        asked.append(1)
        if len(asked) == 2:  # the first time it was to bury the dead
            party.host("run-1", role="run")
            take(party, order, host="run-1")
        return found

    real = Hosts.all
    asked: list[int] = []
    monkeypatch.setattr(Hosts, "all", then_somebody_begins)
    service.look()
    (one,) = Dues(party.state).open()
    assert (one.state, one.attempt, one.host) == ("running", 1, "run-1")


def test_trouble_is_told_once_and_passes(party: Party) -> None:
    service, _ = party.host("a")
    party.state.is_away = True
    service._look_safely()
    service._look_safely()
    party.state.is_away = False
    service._look_safely()
    assert len(party.notes) == 2
    assert "nothing new begins" in party.notes[0]
    assert party.notes[1] == "that has passed"


def test_ticks_go_on_after_one_that_fails(party: Party) -> None:
    service, _ = party.host("a")
    seen: list[datetime] = []

    def fail(now: datetime) -> None:
        raise RuntimeError("broken rule")

    service._parts = replace(service._parts, on_tick=(fail, seen.append))
    service._tick_safely()
    assert seen == [NOON]
    assert party.notes == ["broken rule"]
    party.state.is_away = True
    service._tick_safely()
    assert len(seen) == 2, "what watches is called also while the state database is away"


def test_ticks_go_on_while_the_state_database_says_nothing(
    party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who tells that nobody can look would be waiting himself; and threads that wait do not pile up."""
    service, _ = party.host("a")
    seen: list[datetime] = []
    service._parts = replace(service._parts, on_tick=(seen.append,))
    monkeypatch.setattr("pgstow.jobs.service._ANSWERS_S", 0.01)
    asked, answers = threading.Semaphore(0), threading.Event()

    def now() -> datetime:
        asked.release()
        answers.wait()
        return NOON

    monkeypatch.setattr(party.state, "now", now)
    service._tick_safely()
    service._tick_safely()
    assert len(seen) == 2
    assert NOON not in seen
    assert service._asking is not None
    answers.set()
    service._asking.join()
    assert asked.acquire(blocking=False)
    assert not asked.acquire(blocking=False), "it was asked once"
    monkeypatch.setattr("pgstow.jobs.service._ANSWERS_S", 60.0)
    service._tick_safely()
    assert seen[2] == NOON


def test_an_order_that_was_withdrawn_is_no_error_of_the_queue() -> None:
    """Another host may withdraw what has just ended, between its two looks; the run itself tells how it ended."""
    told: list[str] = []
    for error in (DBOSWorkflowCancelledError("x"), DBOSAwaitedWorkflowCancelledError("x"), OSError("broken")):
        record = logging.LogRecord("dbos", logging.ERROR, "", 0, "failed", None, (type(error), error, None))
        _Notes(told.append).emit(record)
    assert told == ["queue of runs: failed OSError: broken"]


# -- slots


def test_slots_are_limited_per_resource_and_taken_together(party: Party) -> None:
    for name in ("a", "b", "c"):
        party.host(name)
    slots = Slots(party.state)
    both = {"repository r": 2, "server s": 1}
    assert slots.take("a", both) is None
    assert slots.take("a", both) is None, "asking again changes nothing"
    assert slots.take("b", both) == "server s"
    assert slots.take("b", {"repository r": 2, "server t": 1}) is None
    assert slots.take("c", {"repository r": 2}) == "repository r"
    slots.release("a")
    assert slots.take("c", both) is None


def test_slots_of_the_dead_are_free(party: Party) -> None:
    _, first = party.host("a")
    _, second = party.host("b")
    slots = Slots(party.state)
    assert slots.take("a", {"server s": 1}) is None
    assert slots.take("b", {"server s": 1}) == "server s"
    party.beat_for(60, second)
    bury(second, party.state)
    assert slots.take("b", {"server s": 1}) is None
    first.beat()
    assert slots.take("a", {"server s": 1}) == "server s", "who was taken for dead has lost it"


def test_many_at_once_get_no_more_slots_than_there_are(party: Party) -> None:
    names = [f"host-{number}" for number in range(8)]
    for name in names:
        party.host(name)
    got: list[str] = []

    def try_it(name: str) -> None:
        if Slots(party.state).take(name, {"server s": 3}) is None:
            got.append(name)

    threads = [threading.Thread(target=try_it, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 3


# -- the spool


def record(**changes: object) -> RunRecord:
    base = RunRecord(
        id="r1", plan="nightly", job="backup", kind="daily", database="shop", due=NOON, started=NOON, host="h",
        finished=NOON, outcome="partial", backup_id="r1", size_bytes=5, tables={"public.a": (1, 2)},
        destinations=(DestinationResult(repository="main", snapshot_id="s"),), warnings=("w",),
    )  # fmt: skip
    return replace(base, **changes)


def test_the_spool_keeps_records_whole(party: Party) -> None:
    spool = Spool(party.folder / "spool")
    spool.keep(record())
    spool.keep(record(id="r2", due=None, finished=None, tables={}, destinations=(), warnings=()))
    runs = Runs(party.state)
    party.state.is_away = True
    with pytest.raises(StateError):
        spool.deliver(runs)
    party.state.is_away = False
    assert spool.deliver(runs) == 2
    assert spool.deliver(runs) == 0
    assert runs.get("r1") == record()
    assert runs.get("r2") == record(id="r2", due=None, finished=None, tables={}, destinations=(), warnings=())


def test_a_damaged_record_does_not_stop_the_others(party: Party) -> None:
    spool = Spool(party.folder / "spool")
    spool.keep(record())
    (party.folder / "spool" / "a.json").write_text("{")
    assert spool.deliver(Runs(party.state)) == 1
    assert (party.folder / "spool" / "a.json").exists()


def test_a_record_that_the_database_refuses_does_not_stop_the_others(party: Party) -> None:
    spool, runs = Spool(party.folder / "spool"), Runs(party.state)
    spool.keep(record(id="a", size_bytes=2**70))
    spool.keep(record(id="b", error="odd \0 bytes \udcff"))
    with pytest.raises(StateError, match="set aside"):
        spool.deliver(runs)
    assert [one.error for one in runs.find()] == ["odd \\0 bytes \\udcff"]
    assert spool.deliver(runs) == 0
    assert [path.name for path in (party.folder / "spool").iterdir()] == ["a.refused"]


def test_a_spool_that_cannot_be_written(party: Party) -> None:
    (party.folder / "spool").write_text("in the way")
    with pytest.raises(StateError, match="cannot be kept"):
        Spool(party.folder / "spool").keep(record())


def test_a_record_that_tells_the_end_is_left_alone(party: Party) -> None:
    runs = Runs(party.state)
    runs.save(record(outcome="running"))
    runs.save(record(outcome="abandoned"))
    runs.save(record(outcome="failed"), only_if_running=True)
    assert [one.outcome for one in runs.find()] == ["abandoned"]
    runs.save(record(outcome="done"), only_if_running=True)  # it came back, and had not been dead
    runs.save(record(outcome="partial"), only_if_running=True)
    assert [one.outcome for one in runs.find()] == ["done"]
    assert runs.find(due=NOON + timedelta(seconds=1)) == []
    runs.save(record(id="new", outcome="failed"), only_if_running=True)
    assert {one.id for one in runs.find(due=NOON)} == {"r1", "new"}


def test_hosts_describe_this_process() -> None:
    row = describe_host("run", shape=1, dead_after_s=30.0)
    other = describe_host("run", shape=1, dead_after_s=30.0)
    assert row.id != other.id
    assert isinstance(row, HostRow)
    assert DueKey(plan="p", database=None, due=NOON).__str__() == "p due 2026-11-20T12:00:30Z"
