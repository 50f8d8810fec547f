"""The console entry point."""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType

__all__ = ["main"]

# Threads that read rows would otherwise keep those that compress waiting for 5 ms at every turn.
_SWITCH_INTERVAL_S = 0.0005
_INTERRUPTED = 130  # as core.errors.Interrupted says, which is not loaded yet


def main() -> int:
    """Run the command line and return its exit status."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, _say_and_end)
    # Everything is imported only now, so that an early Ctrl-C ends the program with a word. The arguments come first,
    # because loading the rest takes a good part of a second, in which a password would stand in the process list.
    from pgstow.cli.argv import withdraw_secrets  # noqa: PLC0415
    from pgstow.cli.streams import prepare_streams  # noqa: PLC0415

    prepare_streams()
    arguments = withdraw_secrets()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.disable()  # what is imported stays, so looking through it again and again is lost time
    from pgstow.cli.application import run  # noqa: PLC0415
    from pgstow.core.allocator import keep_freed_memory  # noqa: PLC0415

    gc.freeze()
    gc.enable()
    keep_freed_memory()
    status = run(arguments)
    _leave_quickly(status)
    return status


def _leave_quickly(status: int) -> None:
    """Exit without taking the interpreter apart piece by piece: a tenth of a second in which nothing is done.

    Threads that are left are idle by now. Returns if the output cannot be written: the ordinary way deals with it.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return
    os._exit(status)


def _say_and_end(_number: int, _frame: FrameType | None) -> None:
    """End the process at Ctrl-C with a word instead of a traceback, while there is nothing to clean up."""
    try:
        os.write(2, b"error: interrupted by SIGINT\n")
    finally:
        os._exit(_INTERRUPTED)
