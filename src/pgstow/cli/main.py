"""The console entry point."""

from __future__ import annotations

import contextlib
import gc
import os
import sys

from pgstow.cli.argv import withdraw_secrets
from pgstow.cli.signals import end_at_interrupts
from pgstow.cli.streams import prepare_streams

__all__ = ["main"]

# Threads that read rows would otherwise keep those that compress waiting for 5 ms at every turn.
_SWITCH_INTERVAL_S = 0.0005


def main() -> int:
    """Run the command line and return its exit status."""
    prepare_streams()
    arguments = withdraw_secrets()
    end_at_interrupts()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.disable()  # what is imported stays, so looking through it again and again is lost time
    # Imported only now: loading everything takes a good part of a second, in which a password given as
    # an argument would stand in the process list.
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
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
