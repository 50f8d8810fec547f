"""What a diagnosis says: findings and the report that holds them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pgstow.app.holding import MOST_SKEW_S, clock_text

__all__ = ["DoctorReport", "Finding", "Level", "counted", "some_of", "store_clock_finding"]

_NAMES_SHOWN = 5


class Level(StrEnum):
    """How bad a finding is. Unknown is not ok: what could not be looked at is told as such."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. ``code`` is stable; ``names`` is the whole list behind the text."""

    code: str
    level: Level
    text: str
    remedy: str | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorReport:
    """Everything that was found. A backup would work when nothing is a problem."""

    source: str
    findings: tuple[Finding, ...]

    @property
    def would_work(self) -> bool:
        """Whether nothing that was found stops a backup."""
        return all(finding.level is not Level.PROBLEM for finding in self.findings)

    def count(self, level: Level) -> int:
        """Return how many findings are of one level."""
        return sum(finding.level is level for finding in self.findings)


def store_clock_finding(skew_s: float, *, code: str, near: str) -> Finding:
    """Return whether this machine's clock, ahead of the store's by ``skew_s``, will do; ``near`` is said if so."""
    if abs(skew_s) <= MOST_SKEW_S:
        return Finding(code=code, level=Level.OK, text=near)
    return Finding(
        code=code, level=Level.WARNING, text=clock_text(skew_s), remedy="let NTP set the clocks of both"
    )


def some_of(names: list[str]) -> str:
    """Return the first few names for a sentence."""
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def counted(count: int, noun: str) -> str:
    """Return ``1 table`` or ``1,200 tables``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
