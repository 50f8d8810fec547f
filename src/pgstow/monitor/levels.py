"""How good or bad something is, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Level", "Reason", "worst"]


class Level(StrEnum):
    """The states of a check. Unknown is worse than a warning: what cannot be seen may be anything."""

    OK = "ok"
    WARNING = "warning"
    UNKNOWN = "unknown"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return list(Level).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One thing that is not as it should be. ``code`` is stable; ``look`` is a command that shows more."""

    level: Level
    code: str
    text: str
    look: str | None = None


def worst(levels: Iterable[Level]) -> Level:
    """Return the worst of the levels; OK without any."""
    return max(levels, key=lambda level: level.rank, default=Level.OK)
