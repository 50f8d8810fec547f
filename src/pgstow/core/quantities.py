"""Durations and sizes as people write them (90s, 10m, 24h, 7d; 500K, 10M, 1.5G) and as they read them."""

from __future__ import annotations

import re

from pgstow.core.errors import UsageError

__all__ = [
    "DURATION_HINT",
    "SIZE_HINT",
    "duration_text",
    "parse_duration",
    "parse_size",
    "size_text",
]

DURATION_HINT = "write it like 90s, 10m, 24h or 7d"
SIZE_HINT = "write it like 500K, 10M or 1.5G"

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([smhd]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_S = 10 * 365 * 86400
_KIB = 1024
_MINUTE_S, _HOUR_S = 60, 3600
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


def size_text(size_bytes: int | None) -> str:
    """Return a size such as ``12.3 MiB``; ``-`` when it is unknown."""
    if size_bytes is None:
        return "-"
    if abs(size_bytes) < _KIB:
        return f"{size_bytes} B"
    size, units = size_bytes / _KIB, ["TiB", "GiB", "MiB", "KiB"]
    while abs(size) >= 999.95 and len(units) > 1:  # what no longer prints in three digits
        size /= _KIB
        units.pop()
    return f"{size:.1f} {units[-1]}"


def duration_text(seconds: float) -> str:
    """Return a duration such as ``0.42 s``, ``12.3 s``, ``4 min 05 s`` or ``2 h 03 min``."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S:02d} s"
    return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02d} min"
