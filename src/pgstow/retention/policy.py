"""What a retention policy says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from zoneinfo import ZoneInfo

from pgstow.core.errors import UsageError

__all__ = ["DEFAULT_RULES", "LADDER", "RetentionPolicies", "RetentionPolicy", "RetentionRule"]

LADDER = ("daily", "weekly", "monthly", "annual")
"""The kinds that stand for a period of the calendar, the shortest first: sons, fathers, grandfathers."""

_MOST_DAYS = 36_525  # a hundred years; who wants more leaves the rule out


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRule:
    """How long the backups of one kind are kept.

    ``days`` counts calendar days in the policy's time zone; ``at_least`` backups are kept however old they are (the floor).
    UsageError for numbers that cannot be meant.
    """

    days: int
    at_least: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.days <= _MOST_DAYS:
            raise UsageError(
                f"backups cannot be kept for {self.days} days",
                hint=f"0 to {_MOST_DAYS}; a kind without a rule never expires",
            )
        if self.at_least < 1:
            raise UsageError(
                f"at_least cannot be {self.at_least}: the last backup of a kind is always kept",
                hint="pgstow retire NAME ends that for a database that is gone",
            )


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
    week, month and year (grandfather, father, son), a weekly one for its month and year, a monthly one for its year: the
    first of each period is kept as long as that kind's rule says. ``time_zone`` is an IANA name: days, weeks (from
    Monday), months and years are those of its calendar. UsageError if there is no such zone.
    """

    rules: Mapping[str, RetentionRule] = field(default_factory=lambda: DEFAULT_RULES)
    promotes: bool = True
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        _ = self.zone

    @property
    def zone(self) -> ZoneInfo:
        """The time zone itself."""
        try:
            return ZoneInfo(self.time_zone)
        except (
            KeyError,
            ValueError,
            OSError,
        ) as exc:  # unknown; not a name at all; the name of a group of zones
            raise UsageError(
                f"there is no time zone {self.time_zone!r}",
                hint="write it like UTC, Europe/Berlin or America/New_York",
            ) from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicies:
    """The policy of each database: its own where it has one, else the default."""

    default: RetentionPolicy = field(default_factory=RetentionPolicy)
    by_name: Mapping[str, RetentionPolicy] = field(default_factory=dict)

    def of(self, name: str) -> RetentionPolicy:
        """Return the policy of the database ``name``."""
        return self.by_name.get(name, self.default)
