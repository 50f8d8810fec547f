"""What the service removes of its own, and what it keeps."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgstow.config.keeping import forget_copies, keep_settings
from pgstow.core.errors import StateError
from pgstow.jobs.cleaning import Cleaning
from pgstow.jobs.dispatch import Order
from pgstow.jobs.engine import Engine
from pgstow.state.database import StateDatabase, open_state
from pgstow.state.dues import DueKey, Dues
from pgstow.state.runs import RunRecord, Runs
from support.settings_files import SMALL
from support.waiting import until

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDatabase]:
    opened = open_state(None, {"PGSTOW_STATE_DIR": str(tmp_path / "state")})
    yield opened
    opened.close()


class NoQueue:
    """A Dispatcher that is only cleaned."""

    def __init__(self) -> None:
        self.asked: list[tuple[datetime, int]] = []

    def submit(self, order: Order) -> None: ...

    def standing(self, orders: object) -> dict[str, object]:
        return {}

    def withdraw(self, order: Order) -> None: ...

    def forget(self, *, before: datetime, most: int) -> int:
        self.asked.append((before, most))
        return 0


def run(number: int, *, days_ago: float, database: str = "shop", kind: str = "daily") -> RunRecord:
    started = NOW - timedelta(days=days_ago)
    return RunRecord(
        id=f"{database}-{kind}-{number}", plan="nightly", job="backup", kind=kind, database=database, due=started,
        started=started, host="h", finished=started, outcome="done",
    )  # fmt: skip


def hand_out(dues: Dues, days_ago: float, *, is_settled: bool, plan: str = "nightly") -> DueKey:
    key = DueKey(plan=plan, database="shop", due=NOW - timedelta(days=days_ago))
    since = dues.settled_until(plan, "shop", "s", key.due)
    assert dues.hand_out(key, settled_until=since, is_missed=is_settled)
    return key


def test_old_runs_go_and_the_newest_of_each_stay(state: StateDatabase) -> None:
    runs = Runs(state)
    for number in range(6):
        runs.save(run(number, days_ago=500 - number))
    runs.save(run(6, days_ago=1))
    runs.save(run(0, days_ago=900, database="quiet"))
    runs.save(run(0, days_ago=900, kind="monthly"))
    before = NOW - timedelta(days=400)
    assert runs.forget(before=before, newest_kept=3, most=2) == 2, "so many at once"
    assert {one.id for one in runs.find(database="shop", kind="daily")} == {
        f"shop-daily-{number}" for number in (2, 3, 4, 5, 6)
    }, "the oldest first"
    assert runs.forget(before=before, newest_kept=3, most=10) == 2
    assert runs.forget(before=before, newest_kept=3, most=10) == 0
    left = {one.id for one in runs.find()}
    assert left == {"shop-daily-4", "shop-daily-5", "shop-daily-6", "quiet-daily-0", "shop-monthly-0"}
    assert runs.forget(before=NOW, newest_kept=0, most=10) == 5, "age alone decides about those above"


def test_settled_due_times_go_open_ones_stay_longer(state: StateDatabase) -> None:
    dues, queue, copies = Dues(state), NoQueue(), []
    dead = hand_out(dues, 450, is_settled=False, plan="gone")
    old_open = hand_out(dues, 300, is_settled=False)
    old, young = (hand_out(dues, days, is_settled=True) for days in (90, 5))
    Cleaning(state, queue, lambda: copies.append(1))(NOW)
    assert [dues.get(key) is not None for key in (dead, old_open, old, young)] == [False, True, False, True]
    assert [one.key for one in dues.open()] == [old_open]
    assert queue.asked == [(NOW - timedelta(days=7), 1000)]
    assert copies == [1]


def test_copies_of_settings_that_nobody_uses(tmp_path: Path) -> None:
    path, folder = tmp_path / "pgstow.yaml", tmp_path / "state"
    copies = []
    for number in range(3):
        path.write_text(f"{SMALL}# {number}\n")
        copies.append(keep_settings(path, folder)[1])
    (folder / "other.yaml").touch()
    for copy in (copies[0], copies[2], folder / "other.yaml"):
        os.utime(copy, (0, 0))
    forget_copies(folder, copies[2])
    assert [copy.exists() for copy in copies] == [False, True, True]
    assert (folder / "other.yaml").exists()
    assert copies[2].stat().st_mtime > 0, "it says that it is in use, to the others that share the folder"
    copies[2].unlink()
    with pytest.raises(StateError, match="old copies of the settings"):
        forget_copies(folder, copies[2])


def test_ended_orders_go(state: StateDatabase) -> None:
    """In the real queue: what ended goes once it is old, what waits or was ended just now stays."""
    carried_out: list[str] = []
    engine = Engine(
        state,
        host_id="h",
        workers=1,
        carry_out=lambda order: carried_out.append(order.id),
        note=lambda _: None,
    )
    orders = [
        Order(key=DueKey(plan="p", database=None, due=NOW + timedelta(hours=n)), attempt=1) for n in range(3)
    ]
    later = datetime.now(UTC) + timedelta(minutes=1)
    with engine.working():
        for order in orders:
            engine.submit(order)
        engine.withdraw(orders[2])

        def have_ended() -> bool:
            found = engine.standing(orders).values()
            return [one.state for one in found] == ["ended"] * 3

        until(have_ended, "the end of all orders")
        assert engine.forget(before=later - timedelta(days=1), most=10) == 0
        assert engine.forget(before=later, most=2) == 2
        assert len(engine.standing(orders)) == 1
        assert engine.forget(before=later, most=2) == 1
        assert engine.forget(before=later, most=2) == 0


def test_who_stops_takes_nothing_from_the_queue(state: StateDatabase) -> None:
    """What runs may take ten minutes to end: the orders that come meanwhile are for other hosts."""
    engine = Engine(state, host_id="h", workers=1, carry_out=lambda _: None, note=lambda _: None)
    first, second = (
        Order(key=DueKey(plan="p", database=None, due=NOW + timedelta(hours=n)), attempt=1) for n in range(2)
    )
    with engine.working():
        engine.submit(first)
        until(lambda: engine.standing([first])[first.id].state == "ended", "the end of an order")
        engine.take_no_more()
        engine.submit(second)
        time.sleep(2.5)  # twice the time in which the first would have been taken
        assert engine.standing([second])[second.id].state == "queued"
