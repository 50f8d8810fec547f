"""A dump on standard input."""

from __future__ import annotations

import sys
from typing import IO

from pgstow.core.errors import UsageError

__all__ = ["piped_dump"]


def piped_dump() -> IO[bytes]:
    """Return standard input. Raises UsageError for a terminal, on which nobody types a dump."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            "there is no dump on standard input", hint="pg_dump -Fc shop | pgstow import - (or drill -)"
        )
    return sys.stdin.buffer
