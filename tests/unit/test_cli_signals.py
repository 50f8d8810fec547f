"""Signals that arrive at awkward moments."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pgstow.app.auditing import Access, Who
from pgstow.audit.journal import Journal
from pgstow.audit.trail import FOLDER
from pgstow.cli import command
from pgstow.cli.output import Outcome, Output
from pgstow.cli.signals import interruptible, requests
from pgstow.core.errors import Interrupted
from support.repositories import WatchedStore, init_repository


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


def test_a_service_hears_a_signal_that_does_not_wake_its_main_thread() -> None:
    """Another thread gets it here; one that finds the main thread on its way to sleep does the same to it."""
    heard, was_missed = threading.Event(), threading.Event()

    def send_and_watch() -> None:
        for number in (signal.SIGHUP, signal.SIGTERM):
            time.sleep(0.05)  # until the main thread waits
            signal.pthread_kill(threading.get_ident(), number)
            if not heard.wait(20):
                was_missed.set()
                os.kill(os.getpid(), signal.SIGHUP)  # which the main thread gets, so that the test ends
            heard.clear()

    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)}
    asked = []
    with requests(at_second=lambda: None) as wait:
        sender = threading.Thread(target=send_and_watch)
        sender.start()
        for _ in range(2):
            asked.append(wait())
            heard.set()
        sender.join()
    assert not was_missed.is_set()
    assert asked == ["reload", "stop"]
    assert {number: signal.getsignal(number) for number in before} == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_service_hears_every_signal_that_came_before_it_listens() -> None:
    with requests(at_second=lambda: None) as wait:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert [wait(), wait()] == ["reload", "stop"]


def test_a_signal_while_the_audit_entry_is_sent_ends_the_wait_alone(tmp_path: Path) -> None:
    """The work is done and told by then: the exit status stays what it was, and the entry waits on this machine."""
    store = WatchedStore()
    repository = init_repository(store)
    goes_on, sending = threading.Event(), threading.Event()

    def hang(method: str, name: str) -> None:
        if method == "put" and name.startswith(FOLDER):
            sending.set()
            goes_on.wait(60)

    store.before = hang
    who = Who(host="db1", user="anna")
    access = Access("restore", who=who, journal=Journal(tmp_path / "audit"), patience_s=3600)

    def interrupt() -> None:
        assert sending.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    def work() -> Outcome:
        access.opened(repository, {})
        return Outcome(document={}, view=[])

    output = Output(command="restore", stdout=io.StringIO(), stderr=(stderr := io.StringIO()))
    killer = threading.Thread(target=interrupt)
    killer.start()
    assert command._conduct(output, work, None, access) == 0
    killer.join()
    goes_on.set()
    assert "waits here for the next command" in stderr.getvalue()
    assert "error" not in stderr.getvalue()
