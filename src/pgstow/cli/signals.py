"""Ctrl-C and SIGTERM: the first asks, the second does not."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Literal

from pgstow.core.errors import Interrupted

__all__ = ["Request", "interruptible", "requests"]

Request = Literal["stop", "reload"]

_POSTPONED_S = (
    0.0005  # a thread starts in a tenth of that; the work that is to be interrupted goes on meanwhile
)
_PIPE_BYTES = 4096
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Functions that an exception from outside would leave half done: a thread that two lists know of, a program that
# nobody waits for, a lock that nobody gives back. All of them end soon by themselves.
_INDIVISIBLE = frozenset(
    function.__code__
    for function in (
        threading.Thread.start,
        threading.Condition.__enter__,
        threading.Condition.__exit__,
        subprocess.Popen.__init__,
    )
)
_IMPORTING = "<frozen importlib._bootstrap>"  # a module half loaded is found half loaded by the next who asks


class _Signalled(Interrupted, KeyboardInterrupt):
    """Both, because psycopg cancels a running query on KeyboardInterrupt and on nothing else."""

    def __init__(self, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"interrupted by {name}", signal=name)
        self.number = number


class _Interruption:
    """The first signal: raised in the main thread where that does no harm, and again where nobody can get it."""

    def __init__(self) -> None:
        self.handled = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._unraisable = sys.unraisablehook
        self._postponed: int | None = None

    def arrive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: the second ends the process also while the first waits for its moment."""
        if self._postponed is not None:
            os._exit(Interrupted.exit_code)
        self._interrupt(number, frame)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if _is_indivisible(frame):
            self._postpone(number)
            return
        self._postponed = None
        for each in self.handled:
            signal.signal(each, _end_at_once)
        raise _Signalled(number)

    def lost(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Handle an exception that came up where it cannot go on, as in ``__del__`` or when a weak reference ends.

        In here it could not either: on a busy machine the clock rings before this returns. Source: Python, sys.unraisablehook.
        """
        if isinstance(unraisable.exc_value, _Signalled):
            self._postpone(unraisable.exc_value.number)
        else:
            self._unraisable(unraisable)

    def _postpone(self, number: int) -> None:
        self._postponed = number
        signal.signal(signal.SIGALRM, lambda _number, frame: self._interrupt(number, frame))
        signal.setitimer(signal.ITIMER_REAL, _POSTPONED_S)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first signal that arrives inside the block into Interrupted, raised in the main thread.

    What is under way then cleans up after itself, which may take a moment; a second signal ends the
    process at once with exit status 130. Where an exception would do harm or be lost it comes a moment later, for which
    the alarm clock is used. A signal that was being ignored (nohup, a background job of a
    script) stays ignored.
    """
    interruption = _Interruption()
    before = {number: signal.getsignal(number) for number in (*interruption.handled, signal.SIGALRM)}
    unraisable = sys.unraisablehook
    try:
        sys.unraisablehook = interruption.lost
        for number in interruption.handled:
            signal.signal(number, interruption.arrive)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = unraisable


def _is_indivisible(frame: FrameType | None) -> bool:
    """Whether an exception would arrive inside a function that it would leave half done."""
    while frame is not None:
        code = frame.f_code
        if code in _INDIVISIBLE or code is _Interruption.lost.__code__ or code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def requests(at_second: Callable[[], None]) -> Iterator[Callable[[], Request]]:
    """Turn signals into requests for a service; the block is given a function that waits for the next.

    SIGTERM and Ctrl-C ask it to stop, SIGHUP to read its settings again. The second signal to stop calls
    ``at_second`` and ends the process at once with exit status 130.

    The wait is for a pipe that each signal writes to. A lock or a queue would not do: Python calls the handlers when
    the main thread goes on, and one that a signal finds on its way to sleep sleeps on, for ever.
    Source: CPython Modules/signalmodule.c, trip_signal.
    """
    asked: deque[Request] = deque()
    stops: list[int] = []
    awoken, waking = os.pipe()
    os.set_blocking(waking, False)

    def stop(number: int, _frame: FrameType | None) -> None:
        stops.append(number)
        if len(stops) > 1:
            at_second()
            os._exit(Interrupted.exit_code)
        asked.append("stop")

    def reload(_number: int, _frame: FrameType | None) -> None:
        asked.append("reload")

    def wait() -> Request:
        while not asked:
            os.read(awoken, _PIPE_BYTES)
        return asked.popleft()

    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    woken_before = signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    try:
        yield wait
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken_before)
        os.close(waking)
        os.close(awoken)


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    os._exit(Interrupted.exit_code)
