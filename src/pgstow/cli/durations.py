"""Durations as people write them: 90s, 10m, 24h, 7d."""

from __future__ import annotations

import re

from pgstow.core.errors import UsageError

__all__ = ["parse_duration"]

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([smhd]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_S = 10 * 365 * 86400


def parse_duration(text: str) -> float:
    """Return the seconds that ``90``, ``90s``, ``10m``, ``24h`` or ``7d`` stands for; UsageError if it is none."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else None
    if seconds is None or seconds > _LONGEST_S:
        raise UsageError(f"{text!r} is not a duration", hint="write it like 90s, 10m, 24h or 7d")
    return seconds
