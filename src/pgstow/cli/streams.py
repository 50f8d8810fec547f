"""Standard streams as the rest may rely on them: there, and able to take every character.

This module imports next to nothing, because every millisecond before passwords are withdrawn counts.
"""

from __future__ import annotations

import io
import os
import sys

__all__ = ["prepare_streams"]


def prepare_streams() -> None:
    """Give standard input, output and error a descriptor each, before a file or a socket could take their numbers.

    Whoever started the program may have closed them (``>&-``, some supervisors). Closed input reads as empty. Writing
    to closed output fails, and is told as a failure, for the result arrives nowhere; messages for closed error are dropped.
    What the encoding of an old locale has no character for is written as an escape: names in databases are in any script.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        if not _is_open(number):
            os.open(os.devnull, flags)  # the lowest number that is free, which is this one
            os.set_inheritable(number, True)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(errors="backslashreplace")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
