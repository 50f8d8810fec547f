"""Assertions: what a person knows must be true of a database, as one query with an expected value.

They are asked when a backup is made, under its snapshot, and again of what was restored from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal

__all__ = ["Assertion", "Severity", "contradiction"]

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """A query that gives one value, and what that must be; every condition that is set has to hold.

    ``equals`` is compared as PostgreSQL prints the value, NULL being None where ``is_null`` is set. ``same_as_backup``: what
    the query gave under the snapshot of the backup itself, which is recorded in its manifest.
    A warning that fails does not fail the drill.
    """

    name: str
    sql: str
    equals: str | None = None
    is_null: bool = False
    at_least: Decimal | None = None
    at_most: Decimal | None = None
    same_as_backup: bool = False
    severity: Severity = "error"


def contradiction(assertion: Assertion, value: str | None) -> str | None:
    """Return in words what a value does not fulfil of all but ``same_as_backup``; None: it holds. None is NULL."""
    if assertion.is_null:
        return None if value is None else f"it is {value!r} and not NULL"
    wants_value = (
        assertion.equals is not None or assertion.at_least is not None or assertion.at_most is not None
    )
    if value is None:
        return "it is NULL" if wants_value else None
    if assertion.equals is not None and value != assertion.equals:
        is_spelled_otherwise = _number(value) is not None and _number(value) == _number(assertion.equals)
        how = f"; PostgreSQL prints that number as {value}: write it so" if is_spelled_otherwise else ""
        return f"it is {value!r} and not {assertion.equals!r}{how}"
    if assertion.at_least is None and assertion.at_most is None:
        return None
    number = _number(value)
    if number is None:
        return f"it is {value!r}, which is no number"
    if assertion.at_least is not None and number < assertion.at_least:
        return f"it is {value}, less than {assertion.at_least}"
    if assertion.at_most is not None and number > assertion.at_most:
        return f"it is {value}, more than {assertion.at_most}"
    return None


def _number(value: str) -> Decimal | None:
    """Return the number that ``value`` is; None for what is none, NaN included: it is neither more nor less."""
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return None if number.is_nan() else number
