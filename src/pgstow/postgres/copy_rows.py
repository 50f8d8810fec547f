"""Taking rows of a running COPY from libpq: in C where the extension was built, else in Python.

Both put rows one after the other into a buffer and stop at the same places. The extension needs a third of the
processor time and lets other threads run meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any, cast

from psycopg import pq
from psycopg.pq.abc import PGconn

__all__ = ["TakeRows", "Taken", "row_taker", "rows_are_taken_by"]

# (rows completed, bytes now in the buffer, what libpq said last). What libpq said: how many bytes it gave, 0 when
# nothing more has arrived, less when there is no more.
Taken = tuple[int, int, int]

# Called with buffer, bytes used in it, rows wanted, and the size that the last row is to reach. A buffer that ends up
# full and without a line feed at its end holds the beginning of a row: call again with a longer one.
TakeRows = Callable[[bytearray, int, int, int], Taken]

_take_in_c: Callable[..., Taken] | None = None
with contextlib.suppress(ImportError):  # there was no compiler when pgstow was installed
    from pgstow.postgres import _copy_rows

    _take_in_c = _copy_rows.take


def row_taker(connection: PGconn, *, wait_ms: int, gather_s: float) -> TakeRows:
    """Return the function that takes rows of this connection's COPY.

    Where it is the one in C it waits up to ``wait_ms`` for more to arrive, and ``gather_s`` once something does.
    """
    functions = _addresses()
    if _take_in_c is None or functions is None:
        return partial(_take_in_python, connection)
    address = cast("Any", connection).pgconn_ptr  # which psycopg's protocol class does not mention
    return partial(
        _take_in_c,
        functions,
        address,
        connection.socket,
        connection.ssl_in_use,
        wait_ms,
        round(gather_s * 1e9),
    )


def rows_are_taken_by() -> str:
    """Return "C" or "Python", whichever ``row_taker()`` uses here."""
    return "Python" if _take_in_c is None or _addresses() is None else "C"


@cache
def _addresses() -> tuple[int, int] | None:
    """Return where PQgetlineAsync and PQconsumeInput of the driver's own libpq are; None if they hide."""
    try:
        # looking a name up in the driver's extension module looks in the libraries it was linked with, too
        driver = ctypes.CDLL(sys.modules[pq.PGconn.__module__].__file__)
        functions = (driver.PQgetlineAsync, driver.PQconsumeInput)
    except (OSError, AttributeError, KeyError):
        return None
    get, consume = (ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions)
    return get, consume


def _take_in_python(connection: PGconn, buffer: bytearray, used: int, rows: int, size: int) -> Taken:
    get, taken, length = connection.get_copy_data, 0, 0
    while taken < rows and used < size:
        length, row = get(1)
        if length <= 0:
            break
        taken += 1
        buffer[used : used + length] = row  # which makes the buffer longer if it must be
        used += length
    return taken, used, length
