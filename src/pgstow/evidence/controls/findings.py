"""What a control finds, and how that makes its result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from pgstow.evidence.facts import EvidenceFacts

__all__ = ["Control", "Finding", "Result", "day", "listed", "result_of", "share", "since_when", "unknown"]

_SHOWN = 5


class Result(StrEnum):
    """What a control comes to. ``WAIVED``: it fails, and somebody has accepted that until a day."""

    PASS = "pass"  # noqa: S105  no password
    FAIL = "fail"
    UNKNOWN = "unknown"
    WAIVED = "waived"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the facts show of one subject. ``missing`` says what it would take to know what is unknown.

    ``drills`` names the drills that this rests on. ``is_attested``: a person says so, and nothing was measured.
    """

    subject: str
    result: Result
    text: str
    missing: str | None = None
    drills: tuple[str, ...] = ()
    is_attested: bool = False

    def __post_init__(self) -> None:
        assert self.result is not Result.WAIVED  # that is said of a control, never of what was found
        assert (self.missing is not None) == (self.result is Result.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """Something that has to hold, and how it is judged: a pure function of the facts.

    ``actions`` are the entries of the audit trail that show people and plans at it.
    """

    code: str
    title: str
    demand: str
    looked_at: str
    judge: Callable[[EvidenceFacts], Sequence[Finding]]
    actions: frozenset[str] = frozenset()


def result_of(findings: Iterable[Finding]) -> Result:
    """Return the worst: one failure fails, one thing unknown leaves all of it unknown, and nothing looked at is unknown."""
    results = {finding.result for finding in findings}
    for result in (Result.FAIL, Result.UNKNOWN, Result.PASS):
        if result in results:
            return result
    return Result.UNKNOWN


def unknown(subject: str, text: str, missing: str, drills: tuple[str, ...] = ()) -> Finding:
    """Return that something is not known, and what it would take to know it."""
    return Finding(subject=subject, result=Result.UNKNOWN, text=text, missing=missing, drills=drills)


def day(moment: datetime) -> str:
    """Return the day of a moment, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d}"


def since_when(begin: datetime, period_begin: datetime) -> str:
    """Return since when there was something to judge, if that is not the whole period."""
    return f"; first known on {day(begin)}" if begin > period_begin else ""


def listed(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def share(count: int, of: int, noun: str) -> str:
    """Return ``3 of 4 backups``."""
    return f"{count} of {of} {noun}{'' if of == 1 else 's'}"
