"""Ctrl-C and SIGTERM: the first asks, the second does not."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Literal

from pgstow.core.errors import Interrupted

__all__ = ["Request", "end_at_interrupts", "interruptible", "requests"]

Request = Literal["stop", "reload"]

_POSTPONED_S = (
    0.0005  # a thread starts in a tenth of that; the work that is to be interrupted goes on meanwhile
)
_PIPE_BYTES = 4096
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Signalled(Interrupted, KeyboardInterrupt):
    """Both, because psycopg cancels a running query on KeyboardInterrupt and on nothing else."""


def end_at_interrupts() -> None:
    """Let Ctrl-C end the process with a word instead of a traceback, while there is nothing to clean up."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, _say_and_end)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first signal that arrives inside the block into Interrupted, raised in the main thread.

    What is under way then cleans up after itself, which may take a moment; a second signal ends the
    process at once with exit status 130. While the main thread starts another one it is postponed, for which the
    alarm clock is used. A signal that was being ignored (nohup, a background job of a
    script) stays ignored.
    """
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    alarm = signal.getsignal(signal.SIGALRM)
    handled = [number for number, handler in before.items() if handler != signal.SIG_IGN]

    def interrupt(number: int, frame: FrameType | None) -> None:
        if _is_starting_a_thread(frame):
            signal.signal(signal.SIGALRM, lambda _number, then: interrupt(number, then))
            signal.setitimer(signal.ITIMER_REAL, _POSTPONED_S)
            return
        for each in handled:
            signal.signal(each, _end_at_once)
        raise _Signalled(f"interrupted by {signal.Signals(number).name}", signal=signal.Signals(number).name)

    for number in handled:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        for number in handled:
            signal.signal(number, before[number])


def _is_starting_a_thread(frame: FrameType | None) -> bool:
    """Whether an exception would arrive inside ``Thread.start()``, whose records would be left half changed then.

    The new thread and the one that starts it both remove it from a list; the second of them fails with a KeyError.
    Source: CPython Lib/threading.py, Thread.start.
    """
    while frame is not None:
        if frame.f_code is threading.Thread.start.__code__:
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


def _say_and_end(_number: int, _frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"error: interrupted by SIGINT\n")
    os._exit(Interrupted.exit_code)


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    os._exit(Interrupted.exit_code)
