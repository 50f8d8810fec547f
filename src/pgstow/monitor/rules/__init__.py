"""The rules: from facts to findings, without looking at anything but the facts.

A rule yields what is wrong and the fingerprint of what it could not tell. What it yields neither of is in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pgstow.monitor.facts import Facts
from pgstow.monitor.findings import Evaluation, Finding
from pgstow.monitor.rules.backups import (
    backup_failed,
    backup_missing,
    critical_table_missing,
    destination_failed,
    reuse_alarm,
    rpo_exceeded,
    unprotected,
)
from pgstow.monitor.rules.common import Judgement
from pgstow.monitor.rules.drills import (
    drill_failed,
    drill_missing,
    rto_at_risk,
    rto_exceeded,
    table_rpo_exceeded,
)
from pgstow.monitor.rules.jobs import history_unreadable, retention_failed, verify_failed
from pgstow.monitor.rules.sizes import size_changed, tables_changed
from pgstow.monitor.rules.stores import catch_up_pending, clock_skew, repository_unreachable, storage_low
from pgstow.monitor.rules.telling import (
    ChannelFacts,
    PingFacts,
    TellingFacts,
    canary_unacknowledged,
    channel_failed,
    ping_failed,
)

__all__ = [
    "RULES",
    "ChannelFacts",
    "Patience",
    "PingFacts",
    "TellingFacts",
    "evaluate",
    "evaluate_telling",
    "patience_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """When a finding becomes an alert, and when an alert is over.

    It opens when it was seen ``sightings`` times, or for ``seconds``; it closes after it was not seen ``clean`` times.
    """

    sightings: int = 1
    seconds: float = 0.0
    clean: int = 1


_PASSING = Patience(sightings=2, seconds=300.0)  # what a hiccup of a network looks like as well
_HOVERING = Patience(clean=2)  # what moves around its threshold

# Every rule there is: docs/alerts.md has a section for each.
RULES: Mapping[str, Patience] = MappingProxyType(
    {
        "backup_failed": Patience(),
        "destination_failed": Patience(),
        "upload_failed": Patience(),
        "backup_missing": Patience(),
        "unprotected": Patience(),
        "rpo_exceeded": Patience(),
        "table_rpo_exceeded": Patience(),
        "rto_exceeded": Patience(),
        "rto_at_risk": _HOVERING,
        "drill_failed": Patience(),
        "drill_missing": Patience(),
        "critical_table_missing": Patience(),
        "tables_unknown": _PASSING,
        "reuse_alarm": Patience(),
        "size_grew": Patience(),
        "size_shrank": Patience(),
        "size_unknown": Patience(),
        "tables_shrank": Patience(),
        "tables_grew": Patience(),
        "repository_unreachable": _PASSING,
        "snapshots_unreadable": Patience(),
        "storage_low": _HOVERING,
        "storage_unknown": _PASSING,
        "catch_up_pending": Patience(),
        "clock_skew": _HOVERING,
        "history_unreadable": _PASSING,
        "retention_failed": Patience(),
        "retention_missing": Patience(),
        "verify_failed": Patience(),
        "verify_missing": Patience(),
        "verify_overdue": Patience(),
        "channel_failed": Patience(),
        "canary_unacknowledged": Patience(),
        "ping_failed": _PASSING,
    }
)

_OF_BACKUPS: tuple[Callable[[Facts], Judgement], ...] = (
    backup_failed,
    destination_failed,
    backup_missing,
    unprotected,
    rpo_exceeded,
    table_rpo_exceeded,
    rto_exceeded,
    rto_at_risk,
    drill_failed,
    drill_missing,
    critical_table_missing,
    reuse_alarm,
    size_changed,
    tables_changed,
    repository_unreachable,
    storage_low,
    catch_up_pending,
    clock_skew,
    history_unreadable,
    retention_failed,
    verify_failed,
)
_OF_TELLING: tuple[Callable[[TellingFacts], Judgement], ...] = (
    channel_failed,
    canary_unacknowledged,
    ping_failed,
)


def patience_of(rule: str) -> Patience:
    """Return a rule's patience; one that is gone has none."""
    return RULES.get(rule, Patience())


def evaluate(facts: Facts, telling: TellingFacts) -> Evaluation:
    """Return what is wrong and what cannot be told."""
    return _evaluation(
        judged
        for judgements in (
            *(rule(facts) for rule in _OF_BACKUPS),
            *(rule(telling) for rule in _OF_TELLING),
        )
        for judged in judgements
    )


def evaluate_telling(telling: TellingFacts) -> Evaluation:
    """Return what is wrong with the channels and pings alone."""
    return _evaluation(judged for rule in _OF_TELLING for judged in rule(telling))


def _evaluation(judged: Iterable[Finding | str]) -> Evaluation:
    findings: dict[str, Finding] = {}
    undecided: set[str] = set()
    for each in judged:
        if isinstance(each, str):
            undecided.add(each)
        else:
            findings.setdefault(each.fingerprint, each)
    return Evaluation(findings=tuple(findings.values()), undecided=frozenset(undecided - findings.keys()))
