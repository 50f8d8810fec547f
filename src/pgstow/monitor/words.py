"""Durations, sizes and moments in the sentences of messages. How a terminal shows them is for the command line."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["duration_words", "moment_words", "size_words"]

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400
_KIB = 1024


def duration_words(seconds: float) -> str:
    """Return ``45 s``, ``12 min``, ``5 h 07 min`` or ``3 d 04 h``."""
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min"
    if whole < 2 * _DAY_S:
        minutes = whole % _HOUR_S // _MINUTE_S
        return f"{whole // _HOUR_S} h" + (f" {minutes:02d} min" if minutes else "")
    hours = whole % _DAY_S // _HOUR_S
    return f"{whole // _DAY_S} d" + (f" {hours:02d} h" if hours else "")


def size_words(size_bytes: float) -> str:
    """Return a size such as ``12.3 MiB``."""
    size, units = float(size_bytes), ["TiB", "GiB", "MiB", "KiB", "B"]
    while abs(size) >= _KIB - 0.05 and len(units) > 1:
        size /= _KIB
        units.pop()
    return f"{size:.0f} B" if units[-1] == "B" else f"{size:.1f} {units[-1]}"


def moment_words(moment: datetime) -> str:
    """Return a moment to the minute, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}Z"
