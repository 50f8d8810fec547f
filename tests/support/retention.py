"""Retention in tests: backups that are facts alone, and calendars in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pgstow.repository import Hold, Proof, Retirement
from pgstow.retention import (
    Attempt,
    BackupFacts,
    Decision,
    RetentionPlan,
    RetentionPolicies,
    RetentionPolicy,
    RetentionState,
    plan_retention,
)

__all__ = [
    "NOON",
    "attempt",
    "backup",
    "by_id",
    "calendar",
    "dropped",
    "hold",
    "plan",
    "proof",
    "retirement",
    "state",
]

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def backup(backup_id: str, when: datetime | float = 0, **facts: Any) -> BackupFacts:
    """Return a daily backup of ``shop``, made at a time or so many days before NOON."""
    moment = when if isinstance(when, datetime) else NOON - timedelta(days=when)
    return BackupFacts(**{"id": backup_id, "name": "shop", "kind": "daily", "time": moment, **facts})


def hold(backup_id: str, **fields: Any) -> Hold:
    known = {"since": NOON, "by": "anna@host", "reason": "case 7", **fields}
    return Hold(backup_id=backup_id, **known)


def proof(backup_id: str, when: datetime = NOON) -> Proof:
    return Proof(backup_id=backup_id, when=when, what="whole database, every row compared")


def retirement(when: datetime = NOON) -> Retirement:
    return Retirement(name="shop", when=when, by="anna@host", reason="shut down")


def attempt(*, has_succeeded: bool | None, when: datetime = NOON) -> Attempt:
    return Attempt(
        name="shop", when=when, has_succeeded=has_succeeded, error=None if has_succeeded else "disk full"
    )


def state(backups: Iterable[BackupFacts], **fields: Any) -> RetentionState:
    """Return a state at NOON; ``holds`` is a list here."""
    holds: dict[str, list[Hold]] = {}
    for each in fields.pop("holds", []):
        holds.setdefault(each.backup_id, []).append(each)
    return RetentionState(**{"backups": list(backups), "now": NOON, "holds": holds, **fields})


def plan(given: RetentionState, policy: RetentionPolicy | None = None) -> RetentionPlan:
    return plan_retention(given, RetentionPolicies(default=policy or RetentionPolicy()))


def by_id(made: RetentionPlan) -> dict[str, Decision]:
    return {decision.backup.id: decision for decision in made.decisions}


def dropped(made: RetentionPlan) -> list[str]:
    return [decision.backup.id for decision in made.dropped]


def calendar(times: Sequence[datetime], policy: RetentionPolicy, *, until: date) -> list[str]:
    """Return what is kept on the last day, in words, after a plan was applied on every day."""
    kept: list[BackupFacts] = []
    todo = sorted(times, reverse=True)
    made = RetentionPlan(now=NOON, decisions=())
    day = todo[-1]
    while day.date() <= until:
        end = datetime(day.year, day.month, day.day, 23, 59, tzinfo=UTC)
        while todo and todo[-1] <= end:
            moment = todo.pop()
            kept.append(backup(f"{moment:%Y%m%d%H%M}", moment))
        made = plan(replace(state(kept), now=end), policy)
        kept = [decision.backup for decision in made.kept]
        day += timedelta(days=1)
    return [_line(decision, policy) for decision in made.kept]


def _line(decision: Decision, policy: RetentionPolicy) -> str:
    local = decision.backup.time.astimezone(policy.zone)
    reasons = "; ".join(reason.text for reason in decision.reasons if reason.code.keeps)
    return f"{local:%Y-%m-%d %a %H:%M %Z}  {reasons}"
