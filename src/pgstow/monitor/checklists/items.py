"""What an item of a checklist says, and what it is judged from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pgstow.monitor.facts import Facts
from pgstow.monitor.standing import DatabaseStanding
from pgstow.monitor.verdict import Verdict

__all__ = ["Canary", "Checklist", "ChecklistFacts", "Item", "Period", "Result", "judged"]


class Period(StrEnum):
    """Which of the checklists."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


class Result(StrEnum):
    """How an item ended."""

    PASS = "pass"  # noqa: S105  no password
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that was looked at. ``code`` is stable; ``subject`` a database or repository; ``look`` shows more."""

    code: str
    title: str
    subject: str | None
    result: Result
    evidence: str
    look: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """Whether alerts arrive: when somebody last acknowledged one that was sent to see that; None: nobody yet."""

    acknowledged: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChecklistFacts:
    """What checklists are judged from. What is None was not to be had.

    ``promotes``: a daily backup also stands for its week and month. ``overdue``: by repository, how many backups
    retention should have let go.
    """

    verdict: Verdict
    contacts: tuple[str, ...] = ()
    promotes: bool = False
    canary: Canary | None = None
    overdue: Mapping[str, int] | None = None

    @property
    def facts(self) -> Facts:
        return self.verdict.facts

    @property
    def now(self) -> datetime:
        return self.verdict.facts.now

    @property
    def standings(self) -> list[DatabaseStanding]:
        return [each.standing for each in self.verdict.databases]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checklist:
    """All items of one checklist. It passes only when each of them does."""

    period: Period
    now: datetime
    items: tuple[Item, ...]

    def count(self, result: Result) -> int:
        """Return how many items ended so."""
        return sum(item.result is result for item in self.items)

    @property
    def result(self) -> Result:
        """A failure first, then what is unknown; a checklist without items tells nothing."""
        if self.count(Result.FAIL):
            return Result.FAIL
        if self.count(Result.UNKNOWN) or not self.items:
            return Result.UNKNOWN
        return Result.PASS


def judged(*, is_good: bool | None) -> Result:
    """Return pass or fail; unknown for None."""
    return Result.UNKNOWN if is_good is None else Result.PASS if is_good else Result.FAIL
