"""Assertions: what a person knows must be true, asked of what came back."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pgstow.assurance.drill.checks.records import failed, passed, skipped, unknown
from pgstow.assurance.drill.checks.restored import Check, Restored
from pgstow.catalog.assertions import Assertion, contradiction
from pgstow.catalog.drills import CheckRecord
from pgstow.catalog.manifest import RecordedValue
from pgstow.core.errors import ConnectionFailed, PostgresError
from pgstow.postgres.encodings import decoded, encoded
from pgstow.postgres.questions import answer
from pgstow.postgres.raw import RawSession

__all__ = ["assertion_checks"]

CODE = "assertion"
_TIMEOUT_S = 300.0
_LOCK_TIMEOUT_S = 30.0
_NOT_THERE = {"42P01", "3F000", "42703", "42883"}  # a table, schema, column or function


def assertion_checks(restored: Restored) -> Iterator[Check]:
    """Yield a check for each assertion."""
    for assertion in restored.context.assertions:
        yield Check(codes=(CODE,), run=partial(_check, assertion), subject=assertion.name)


def _check(assertion: Assertion, restored: Restored, session: RawSession) -> Iterator[CheckRecord]:
    recorded = _recorded(restored, assertion)
    try:
        value = _value(restored, session, assertion)
    except ConnectionFailed:
        raise
    except (PostgresError, UnicodeEncodeError) as exc:
        yield _unanswered(restored, assertion, recorded, exc)
        return
    shown = "NULL" if value is None else value
    why = contradiction(assertion, value)
    if why is not None:
        yield failed(
            CODE,
            f"{why}{_in_the_source(assertion, recorded)}",
            subject=assertion.name,
            severity=assertion.severity,
            expected=_wanted(assertion),
            found=shown,
        )
    elif assertion.same_as_backup:
        yield _compared(assertion, value, recorded)
    else:
        yield passed(CODE, f"it holds: {shown}", subject=assertion.name, severity=assertion.severity)


def _value(restored: Restored, session: RawSession, assertion: Assertion) -> str | None:
    query = encoded(assertion.sql, restored.toc.encoding)
    session.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", doing="beginning to read")
    try:
        value = answer(session, query, timeout_s=_TIMEOUT_S, lock_timeout_s=_LOCK_TIMEOUT_S)
    finally:
        session.execute(b"ROLLBACK", doing="ending to read")
    return None if value is None else decoded(value, restored.toc.encoding)


def _recorded(restored: Restored, assertion: Assertion) -> RecordedValue | None:
    return next((one for one in restored.manifest.recorded if one.name == assertion.name), None)


def _compared(assertion: Assertion, value: str | None, recorded: RecordedValue | None) -> CheckRecord:
    """Return whether the value is that of the backup; unknown where the backup does not say the same thing's."""
    why = None
    if recorded is None:
        why = "the backup did not record it"
    elif recorded.sql != assertion.sql:
        why = "the backup recorded the value of another query under this name"
    elif recorded.error is not None:
        why = f"it had no value when the backup was made: {recorded.error}"
    shown = "NULL" if value is None else value
    if recorded is None or why is not None:
        message = f"it is {shown} here, and what it was in the source is not known: {why}"
        return unknown(CODE, message, subject=assertion.name, severity=assertion.severity)
    if recorded.value != value:
        return failed(
            CODE,
            "it is not what it was when the backup was made",
            subject=assertion.name,
            severity=assertion.severity,
            expected="NULL" if recorded.value is None else recorded.value,
            found=shown,
        )
    return passed(
        CODE,
        f"it is what it was when the backup was made: {shown}",
        subject=assertion.name,
        severity=assertion.severity,
    )


def _in_the_source(assertion: Assertion, recorded: RecordedValue | None) -> str:
    """Return whether it held when the backup was made, as far as that is known."""
    if recorded is None or recorded.sql != assertion.sql:
        return "; whether it held in the source is not known: the backup did not record it"
    if recorded.error is not None:
        return f"; in the source it could not be asked: {recorded.error}"
    if contradiction(assertion, recorded.value) is not None:
        shown = "NULL" if recorded.value is None else recorded.value
        return f"; it was so already when the backup was made ({shown})"
    return "; it held when the backup was made"


def _unanswered(
    restored: Restored,
    assertion: Assertion,
    recorded: RecordedValue | None,
    exc: PostgresError | UnicodeEncodeError,
) -> CheckRecord:
    state = exc.facts.get("sqlstate") if isinstance(exc, PostgresError) else None
    if state in _NOT_THERE and restored.manifest.is_partial:
        message = f"the backup holds a part of the database alone: {exc}"
        return skipped(CODE, message, subject=assertion.name)
    had = recorded is not None and recorded.sql == assertion.sql and recorded.error is None
    message = f"{exc}{'; it had a value when the backup was made' if had else ''}"
    return unknown(CODE, message, subject=assertion.name, severity=assertion.severity)


def _wanted(assertion: Assertion) -> str:
    wanted = []
    if assertion.equals is not None:
        wanted.append(assertion.equals)
    if assertion.is_null:
        wanted.append("NULL")
    if assertion.at_least is not None:
        wanted.append(f"at least {assertion.at_least}")
    if assertion.at_most is not None:
        wanted.append(f"at most {assertion.at_most}")
    return ", ".join(wanted)
