"""Telling the C library to keep memory that Python frees.

Blobs are megabytes that come and go by the thousand. By default glibc gives each back to the kernel and asks
for it again, page by page: a third of the time spent on reading a repository, measured. Kept memory is used
by the next blob, so the peak does not grow.
"""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

# Source: glibc malloc.h. The sizes are well above any blob that is handled as one piece of table data.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_MIB = 1 << 20
_OPTIONS = {
    _M_ARENA_MAX: 1,  # threads share what is kept; large allocations are rare enough not to queue for it
    _M_TRIM_THRESHOLD: 64 * _MIB,
    _M_TOP_PAD: 4 * _MIB,
    _M_MMAP_THRESHOLD: 32 * _MIB,
}


def keep_freed_memory() -> None:
    """Have this process keep freed memory for its next use; does nothing where the C library is not glibc.

    To be called once, by a program before it starts threads. Best effort: only speed depends on it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for option, value in _OPTIONS.items():
        mallopt(option, value)
