"""Which backups are kept and which expire: pure functions of backups, policy and time.

A *rule* says how long the backups of a kind are kept. A backup is *promoted* when it is the first of its week, month or
year: it is then kept as long as a backup of that kind as well. A *floor* keeps the newest backups of a kind however old they
are. A *hold* keeps a backup until somebody releases it. A *proof* says that a backup was restored and found right. A
database is *retired* when it is gone: no new backup is coming, so its floors end. *Frozen* is a database of which nothing
expires at present.
"""

from __future__ import annotations

from pgstow.retention.facts import Attempt, AttemptHistory, BackupFacts, RetentionState, facts_of
from pgstow.retention.plan import Decision, Reason, ReasonCode, RetentionPlan
from pgstow.retention.planner import plan_retention
from pgstow.retention.policy import DEFAULT_RULES, RetentionPolicies, RetentionPolicy, RetentionRule

__all__ = [
    "DEFAULT_RULES",
    "Attempt",
    "AttemptHistory",
    "BackupFacts",
    "Decision",
    "Reason",
    "ReasonCode",
    "RetentionPlan",
    "RetentionPolicies",
    "RetentionPolicy",
    "RetentionRule",
    "RetentionState",
    "facts_of",
    "plan_retention",
]
