"""The console entry point."""

from __future__ import annotations

import sys

from pgstow.cli.argv import withdraw_secrets

__all__ = ["main"]

# Threads that read rows would otherwise keep those that compress waiting for 5 ms at every turn.
_SWITCH_INTERVAL_S = 0.0005


def main() -> int:
    """Run the command line and return its exit status."""
    arguments = withdraw_secrets()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    # Imported only now: loading everything takes a good part of a second, in which a password given as
    # an argument would stand in the process list.
    from pgstow.cli.application import run  # noqa: PLC0415
    from pgstow.core.allocator import keep_freed_memory  # noqa: PLC0415

    keep_freed_memory()
    return run(arguments)
