"""Assertions: what a person knows must be true of a database, as one query with an expected value.

They are asked when a backup is made, under its snapshot, and again of what was restored from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

__all__ = ["Assertion", "Severity"]

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
