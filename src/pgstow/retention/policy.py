"""What a retention policy says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["DEFAULT_RULES", "RetentionPolicy", "RetentionRule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRule:
    """How long the backups of one kind are kept.

    ``days`` counts calendar days in the policy's time zone; ``at_least`` backups are kept however old they are (the floor).
    """

    days: int
    at_least: int = 1


DEFAULT_RULES: Mapping[str, RetentionRule] = MappingProxyType(
    {
        "critical": RetentionRule(days=7),
        "daily": RetentionRule(days=30),
        "weekly": RetentionRule(days=90),
        "monthly": RetentionRule(days=365),
        "annual": RetentionRule(days=7 * 365 + 2),
        "pre-deployment": RetentionRule(days=365),
        "dr": RetentionRule(days=365),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """The rules of one repository or database.

    ``rules`` by kind of backup; a kind without a rule never expires. With ``promotes`` a daily backup also stands for its
    week, month and year (grandfather, father, son): the first of each period is kept as long as that kind's rule says.
    ``time_zone`` is an IANA name: days, weeks (from Monday), months and years are those of its calendar.
    """

    rules: Mapping[str, RetentionRule] = field(default_factory=lambda: DEFAULT_RULES)
    promotes: bool = True
    time_zone: str = "UTC"
