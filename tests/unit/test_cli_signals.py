"""Signals that arrive at awkward moments."""

from __future__ import annotations

import importlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any, cast

import pytest

from pgstow.app.auditing import Access, Who
from pgstow.audit.journal import Journal
from pgstow.audit.trail import FOLDER
from pgstow.cli import command, signals
from pgstow.cli.output import Outcome, Output
from pgstow.cli.signals import interruptible, requests
from pgstow.core.errors import Interrupted
from support.repositories import WatchedStore, init_repository


@pytest.fixture(autouse=True)
def postponed_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that waits comes when the work has gone on, also where that is slow to get a processor."""
    monkeypatch.setattr(signals, "_POSTPONED_S", 0.2)


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


def test_a_signal_waits_until_a_lock_has_an_owner_who_gives_it_back() -> None:
    condition = threading.Condition(cast("threading.Lock", _LockInTheRain()))
    steps = []

    @interruptible()
    def work() -> None:
        with condition:
            steps.append("locked")
            time.sleep(20)
        steps.append("was not interrupted")

    with pytest.raises(Interrupted):
        work()
    assert steps == ["locked"]
    assert condition.acquire(blocking=False)


class _LockInTheRain:
    """A lock whose new owner gets a signal before it can know that it has it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def __enter__(self) -> bool:
        taken = self._lock.acquire()
        os.kill(os.getpid(), signal.SIGINT)
        return taken

    def __exit__(self, *_exc: object) -> None:
        self._lock.release()


def test_a_second_signal_ends_the_process_also_while_the_first_waits() -> None:
    """What it waits for may be a program or a module on a disk that does not answer."""
    program = """if True:
        import os, signal, threading
        from pgstow.cli.signals import interruptible

        class Stuck:
            acquire = release = lambda self: None

            def __enter__(self):
                os.kill(os.getpid(), signal.SIGINT)
                print("waits", flush=True)
                os.kill(os.getpid(), signal.SIGTERM)
                print("goes on", flush=True)

        with interruptible(), threading.Condition(Stuck()):
            pass
    """
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "waits\n", "")


def test_a_signal_waits_until_a_program_that_is_started_can_be_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    execute_child = subprocess.Popen._execute_child  # type: ignore[attr-defined]
    started = []

    def start_in_the_rain(self: subprocess.Popen[bytes], *arguments: Any) -> None:
        execute_child(self, *arguments)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(subprocess.Popen, "_execute_child", start_in_the_rain)

    @interruptible()
    def work() -> None:
        with subprocess.Popen(["sleep", "0.2"]) as process:
            started.append(process)
            time.sleep(20)

    with pytest.raises(Interrupted):
        work()
    assert started[0].returncode == 0


def test_a_signal_while_a_module_is_loaded_waits_until_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loaded_in_the_rain.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nis_whole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    @interruptible()
    def work() -> None:
        importlib.import_module("loaded_in_the_rain")
        time.sleep(20)

    with pytest.raises(Interrupted):
        work()
    assert sys.modules.pop("loaded_in_the_rain").is_whole


@pytest.mark.parametrize("ending", ["of a weak reference", "of an object"])
def test_a_signal_where_nobody_can_get_its_exception_comes_again(
    ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def in_the_rain(*_arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    class Thing:
        if ending == "of an object":
            __del__ = in_the_rain

    @interruptible()
    def work() -> None:
        thing = Thing()
        noticing = weakref.ref(thing, in_the_rain) if ending == "of a weak reference" else None
        del thing
        time.sleep(20)
        del noticing

    hook = sys.unraisablehook
    with pytest.raises(Interrupted, match="SIGINT"):
        work()
    assert sys.unraisablehook is hook
    assert capsys.readouterr().err == ""


def test_a_clock_that_rings_before_the_loss_is_dealt_with_does_not_lose_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_clock, rung = signal.setitimer, []

    def ring_at_once(which: int, seconds: float) -> Any:
        if seconds and not rung:
            rung.append(seconds)
            os.kill(os.getpid(), signal.SIGALRM)
            return None
        return set_clock(which, seconds)

    monkeypatch.setattr(signal, "setitimer", ring_at_once)

    class Thing:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    @interruptible()
    def work() -> None:
        Thing()
        time.sleep(20)

    with pytest.raises(Interrupted):
        work()
    assert rung
    assert capsys.readouterr().err == ""


def test_other_exceptions_that_nobody_can_get_are_told_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))

    class Thing:
        def __del__(self) -> None:
            raise RuntimeError

    with interruptible():
        Thing()
    assert told == [RuntimeError]


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
