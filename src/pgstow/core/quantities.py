"""Durations and sizes as people write them: 90s, 10m, 24h, 7d; 500K, 10M, 1.5G."""

from __future__ import annotations

import re

from pgstow.core.errors import UsageError

__all__ = ["DURATION_HINT", "SIZE_HINT", "parse_duration", "parse_size"]

DURATION_HINT = "write it like 90s, 10m, 24h or 7d"
SIZE_HINT = "write it like 500K, 10M or 1.5G"

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([smhd]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_S = 10 * 365 * 86400
_KIB = 1024
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(?:([KMGTP])(?:i?B)?|B)?", re.IGNORECASE | re.ASCII)


def parse_duration(text: str) -> float:
    """Return the seconds that ``90``, ``90s``, ``10m``, ``24h`` or ``7d`` stands for; UsageError if it is none."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else None
    if seconds is None or seconds > _LONGEST_S:
        raise UsageError(f"{text!r} is not a duration", hint=DURATION_HINT)
    return seconds


def parse_size(text: str) -> int:
    """Return the bytes that ``512``, ``64K``, ``10M`` or ``1.5GiB`` stands for; UsageError if it is none, or nothing.

    K, M, G, T and P are powers of 1024, however they are written.
    """
    match = _SIZE.fullmatch(text.strip())
    size_bytes = int(float(match[1]) * _KIB ** (" KMGTP".index((match[2] or " ").upper()))) if match else 0
    if size_bytes < 1:
        raise UsageError(f"{text!r} is not a size", hint=SIZE_HINT)
    return size_bytes
