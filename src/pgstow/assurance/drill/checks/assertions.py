"""Assertions: what a person knows must be true, asked of what came back."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pgstow.assurance.drill.checks.records import failed, passed, skipped, unknown
from pgstow.assurance.drill.checks.restored import Check, Restored
from pgstow.catalog.assertions import Assertion, Severity, contradiction, is_same_value
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
    """Return whether the value is that of the backup; unknown where the backup does not say.

    A backup that was made before there was this assertion cannot know its value. That is told, and fails no drill: else each
    new assertion would fail the drills of all older backups until the last of them is gone.
    """
    why, severity = "", assertion.severity
    if recorded is None:
        why, severity = _without_record("the backup does not hold what to compare with")
    elif recorded.sql != assertion.sql:
        why, severity = _without_record("the backup holds the value of another query under this name")
    elif recorded.error is not None:
        why = f"it had no value when the backup was made: {recorded.error}"
    shown = "NULL" if value is None else value
    if recorded is None or why:
        return unknown(CODE, f"it is {shown} here; {why}", subject=assertion.name, severity=severity)
    if not is_same_value(recorded.value, value):
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


def _without_record(what: str) -> tuple[str, Severity]:
    how = "backups record it from now on if they are made by a plan or with --checks"
    return f"{what}: it was made before the assertion was written, or without it ({how})", "warning"


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
    if state in _NOT_THERE and restored.left_out:
        message = f"what needs extensions that may be missing was left out: {exc}"
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
