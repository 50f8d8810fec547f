"""Passwords that cost nothing to try.

Deriving a key takes a tenth of a second on purpose, and the tests open thousands of repositories. Keys that tests make are
derived with the same function and less work; restic takes them like any other. Tests that are about the cost ask for
the ordinary one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from pgstow.repository import keys

__all__ = ["make_keys_cheap", "with_ordinary_cost"]

_ORDINARY_N = keys._N
_CHEAP_N = 16


def make_keys_cheap() -> None:
    """Let keys that this process makes from now on cost nothing to try."""
    keys._N = _CHEAP_N


@contextmanager
def with_ordinary_cost() -> Iterator[None]:
    """Make keys as users get them, for the length of a block."""
    with patch.object(keys, "_N", _ORDINARY_N):
        yield
