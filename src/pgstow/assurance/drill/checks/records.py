"""Making records of checks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pgstow.catalog.assertions import Severity
from pgstow.catalog.drills import CheckOutcome, CheckRecord

__all__ = ["counted", "failed", "listed", "passed", "skipped", "summed_up", "unknown"]

_MOST_RECORDS = 25  # of one code that did not pass; the others are counted
_SHOWN = 5


def passed(
    code: str, message: str, *, subject: str | None = None, severity: Severity = "error"
) -> CheckRecord:
    """It is as it must be."""
    return CheckRecord(code=code, subject=subject, outcome="pass", severity=severity, message=message)


def failed(
    code: str,
    message: str,
    *,
    subject: str | None = None,
    severity: Severity = "error",
    expected: str | None = None,
    found: str | None = None,
) -> CheckRecord:
    """It is not as it must be."""
    return CheckRecord(
        code=code,
        subject=subject,
        outcome="fail",
        severity=severity,
        message=message,
        expected=expected,
        found=found,
    )


def unknown(
    code: str, message: str, *, subject: str | None = None, severity: Severity = "error"
) -> CheckRecord:
    """It could not be found out."""
    return CheckRecord(code=code, subject=subject, outcome="unknown", severity=severity, message=message)


def skipped(code: str, message: str, *, subject: str | None = None) -> CheckRecord:
    """There was nothing to check, or nobody wants it checked."""
    return CheckRecord(code=code, subject=subject, outcome="skipped", message=message)


def summed_up(good: CheckRecord, others: Sequence[CheckRecord]) -> Iterator[CheckRecord]:
    """Yield ``good`` if there are no others, and else those, the worst first; too many are counted."""
    if not others:
        yield good
        return
    worst = sorted(others, key=_rank)
    yield from worst[:_MOST_RECORDS]
    left = worst[_MOST_RECORDS:]
    if left:
        what: CheckOutcome = left[0].outcome
        yield CheckRecord(
            code=good.code,
            outcome=what,
            severity=left[0].severity,
            message=f"and {len(left)} more: {listed(one.subject or one.message for one in left)}",
        )


def _rank(record: CheckRecord) -> tuple[int, int]:
    return ("error", "warning").index(record.severity), ("fail", "unknown", "skipped", "pass").index(
        record.outcome
    )


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def listed(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
