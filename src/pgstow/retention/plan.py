"""What a retention plan says: one decision for each backup, with every reason for it in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from pgstow.retention.facts import BackupFacts

__all__ = ["Decision", "Reason", "ReasonCode", "RetentionPlan"]


class ReasonCode(StrEnum):
    """Why; stable, and part of the JSON contract."""

    RULE = "rule"
    PROMOTED = "promoted"
    NO_RULE = "no_rule"
    NOT_AGED = "not_aged"  # its time is over, but no newer backup was made since
    HELD = "held"
    FLOOR = "floor"
    LAST_WHOLE = "last_whole"
    PROVEN = "proven"
    FAILED = "failed"  # this and what follows: nothing of the database expires
    DAMAGED = "damaged"
    DOUBTFUL = "doubtful"
    FUTURE = "future"
    EXPIRED = "expired"  # this and what follows speak for nothing: why it may go
    RETIRED = "retired"

    @property
    def keeps(self) -> bool:
        return self not in {ReasonCode.EXPIRED, ReasonCode.RETIRED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason. ``until`` is the last day for which it keeps the backup, or kept it; None: no day was set."""

    code: ReasonCode
    text: str
    until: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether a backup is kept. Any single reason that keeps is enough; a dropped backup has none of those."""

    backup: BackupFacts
    reasons: tuple[Reason, ...]

    @property
    def is_kept(self) -> bool:
        return any(reason.code.keeps for reason in self.reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPlan:
    """Decisions by database, the oldest backup first. ``notes`` are sentences a person should read."""

    now: datetime
    decisions: Sequence[Decision]
    notes: Sequence[str] = ()

    @property
    def kept(self) -> list[Decision]:
        return [decision for decision in self.decisions if decision.is_kept]

    @property
    def dropped(self) -> list[Decision]:
        return [decision for decision in self.decisions if not decision.is_kept]
