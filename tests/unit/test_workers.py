"""The processes of a service's runs."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

from pgstow.jobs.dispatch import Order
from pgstow.jobs.workers import Workers
from pgstow.state.dues import DueKey
from support.waiting import until

ORDER = Order(key=DueKey(plan="nightly", database="shop", due=datetime(2026, 11, 20, tzinfo=UTC)), attempt=1)


def test_a_second_signal_that_comes_while_the_first_is_seen_to() -> None:
    """It is handled in the thread that it interrupts, wherever that is."""
    workers = Workers(lambda _: ["sleep", "600"], lambda _: None)
    run = threading.Thread(target=workers.carry_out, args=(ORDER,), daemon=True)
    run.start()
    until(workers._under_way, "a process")

    def be_interrupted() -> None:
        with workers._lock:
            workers.kill()

    interrupted = threading.Thread(target=be_interrupted, daemon=True)
    interrupted.start()
    interrupted.join(60)
    assert not interrupted.is_alive()
    run.join(60)
    assert workers.ended == {-9: 1}
    workers.stop(grace_s=0)
    assert workers.carry_out(ORDER) is None, "nothing begins any more"
