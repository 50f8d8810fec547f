"""Signals that arrive at awkward moments."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

from pgstow.cli.signals import interruptible
from pgstow.core.errors import Interrupted


def test_a_signal_while_a_thread_is_started_waits_until_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    start_new_thread = threading._start_new_thread  # type: ignore[attr-defined]
    steps = []

    def start_in_the_rain(function: Any, arguments: tuple[Any, ...]) -> Any:
        begun = start_new_thread(function, arguments)
        time.sleep(0.05)  # until the thread has taken itself off the list
        os.kill(os.getpid(), signal.SIGTERM)
        return begun

    monkeypatch.setattr(threading, "_start_new_thread", start_in_the_rain)
    thread = threading.Thread(target=lambda: steps.append("ran"))
    alarm = signal.getsignal(signal.SIGALRM)

    @interruptible()
    def work() -> None:
        thread.start()
        steps.append("started")
        time.sleep(20)
        steps.append("was not interrupted")

    with pytest.raises(Interrupted, match="SIGTERM"):
        work()
    thread.join()
    assert steps == ["ran", "started"]
    assert signal.getsignal(signal.SIGALRM) == alarm
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_signal_is_raised_at_once_elsewhere() -> None:
    @interruptible()
    def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("was not interrupted")

    with pytest.raises(Interrupted, match="SIGINT"):
        work()
