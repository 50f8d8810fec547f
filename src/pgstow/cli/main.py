"""The console entry point."""

from __future__ import annotations

from pgstow.cli.argv import withdraw_secrets

__all__ = ["main"]


def main() -> int:
    """Run the command line and return its exit status."""
    arguments = withdraw_secrets()
    # Imported only now: loading everything takes a good part of a second, in which a password given as
    # an argument would stand in the process list.
    from pgstow.cli.application import run  # noqa: PLC0415

    return run(arguments)
