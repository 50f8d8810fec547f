"""Assertions: what a person knows must be true of a database, as one query with an expected value.

They are asked when a backup is made, under its snapshot, and again of what was restored from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal

__all__ = ["Assertion", "Severity", "contradiction", "is_same_value"]

Severity = Literal["error", "warning"]

_NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?|[Ii]nf(?:inity)?)", re.ASCII
)
_BOOLEANS = {"true": "t", "false": "f"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """A query that gives one value, and what that must be; every condition that is set has to hold.

    ``equals`` is compared as ``is_same_value()`` does. ``same_as_backup``: what the query gave under the snapshot of the backup
    itself, which is recorded in its manifest.
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
    if assertion.equals is not None and not is_same_value(value, assertion.equals):
        return f"it is {value!r} and not {assertion.equals!r}"
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


def is_same_value(value: str | None, other: str | None) -> bool:
    """Whether two values are one: numbers by what they are worth, all else as PostgreSQL prints it. None is NULL.

    0 and 0.00 are the same then, and true is what PostgreSQL prints as t: a person writes the one, PostgreSQL the other.
    """
    if value is None or other is None:
        return value is other
    if value == other or _BOOLEANS.get(value, value) == _BOOLEANS.get(other, other):
        return True
    one, two = _number(value), _number(other)
    return one is not None and one == two


def _number(value: str) -> Decimal | None:
    """Return the number that ``value`` is; None for what is none, NaN included: it is neither more nor less."""
    if not _NUMBER.fullmatch(value):
        return None
    try:
        return Decimal(value)
    except InvalidOperation:
        return None
