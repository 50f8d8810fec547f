"""Durations as options take them."""

from __future__ import annotations

from pgstow.core.quantities import parse_duration

__all__ = ["parse_duration"]
