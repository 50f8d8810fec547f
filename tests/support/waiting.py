"""Waiting for what happens in its own time, on a machine that may have much else to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["PATIENCE_S", "until"]

PATIENCE_S = 180.0  # nothing is wrong before that; what is right takes as long as it takes
_POLL_S = 0.02


def until(happened: Callable[[], Any], what: Callable[[], str] | str, patience_s: float = PATIENCE_S) -> Any:
    """Wait until ``happened()`` is true, and return what it returned."""
    deadline_s = time.monotonic() + patience_s
    while time.monotonic() < deadline_s:
        if result := happened():
            return result
        time.sleep(_POLL_S)
    raise AssertionError(f"did not happen: {what if isinstance(what, str) else what()}")
