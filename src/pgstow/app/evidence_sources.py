"""What an evidence report is judged by, source by source: request, settings, repositories, state database, stores, secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pgstow import __version__
from pgstow.app.checklist import overdue_backups
from pgstow.app.evidence_history import (
    channel_facts,
    gone_facts,
    known_since,
    past_runs,
    plan_facts,
)
from pgstow.app.evidence_repositories import (
    Insides,
    backup_facts,
    is_release_known,
    read_repository,
    repository_facts,
    tier_facts,
)
from pgstow.app.evidence_request import EvidenceRequest
from pgstow.app.evidence_secrets import known_secrets, search_for_secrets, secret_facts
from pgstow.app.evidence_stores import lock_facts, store_facts
from pgstow.app.evidence_trails import GatheredTrails
from pgstow.app.observation import History, database_facts
from pgstow.config.settings import Settings
from pgstow.evidence import facts as evidence
from pgstow.evidence.controls import RULES
from pgstow.evidence.period import Period
from pgstow.postgres.tools import ClientTools, known_outdated

__all__ = ["Sources", "head_facts", "promised_facts", "tool_facts"]

_YEAR = timedelta(days=366)


def head_facts(request: EvidenceRequest, settings: Settings, now: datetime) -> dict[str, Any]:
    """Return what a report is about, by the names of its facts."""
    period = request.period
    return {
        "rules": RULES,
        "pgstow": __version__,
        "made": now,
        "host": request.host,
        "by": request.by,
        "period": evidence.PeriodFacts(name=period.name, begin=period.begin, end=period.end),
        "excluded_databases": request.excluded_databases,
        "contacts": len(settings.alerts.contacts),
        "waivers": tuple(
            evidence.WaiverFacts(control=each.control, until=each.until, reason=each.reason, by=each.by)
            for each in settings.waivers
        ),
    }


def promised_facts(settings: Settings) -> dict[str, Any]:
    """Return what the settings promise, by the names of the facts."""
    databases = [database_facts(each) for each in settings.databases.values()]
    return {
        "policy": _policy_facts(settings),
        "databases": tuple(
            evidence.DatabaseFacts(
                name=each.name,
                rpo_s=each.rpo_s,
                rto_s=settings.databases[each.name].rto_s,
                is_partial=each.is_partial,
                critical=each.critical,
            )
            for each in databases
        ),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where facts are taken from. What methods return is by the names of the facts."""

    settings: Settings
    environ: Mapping[str, str]
    now: datetime
    note: Callable[[str], None]
    conceal: Callable[[str], None]

    def read(self, period: Period) -> list[Insides]:
        """Return what is in every repository."""
        until = min(period.end, self.now)
        since = min(until - _YEAR, period.begin - timedelta(seconds=self.settings.alerts.drill_within_s))
        return [
            read_repository(each, self.environ, drills_since=since, note=self.note, conceal=self.conceal)
            for each in self.settings.repositories.values()
        ]

    def history(
        self, history: History, period: Period, read: Sequence[Insides], trails: GatheredTrails
    ) -> dict[str, Any]:
        """Return what happened, by the state database, and what is there of it."""
        settings, until = self.settings, min(period.end, self.now)
        known = known_since(settings, history, self.now)
        seen_until = min(period.end + _late(settings), self.now)
        runs = past_runs(history, period.begin, seen_until)
        databases = [database_facts(each) for each in settings.databases.values()]
        overdue = self._overdue(history, read)
        return {
            "plans": tuple(plan_facts(settings, known, period, until)),
            "repositories": tuple(
                repository_facts(
                    each, known_since=known.get(f"repository {each.name}"), overdue=overdue.get(each.name)
                )
                for each in read
            ),
            "backups": tuple(
                backup_facts(read, databases, begin=period.begin, until=seen_until, note=self.note)
            ),
            "tiers": tuple(tier_facts(read, settings.databases)),
            "gone": tuple(
                gone_facts(settings, runs.runs or (), _complete(read), trails.let_go, now=self.now)
            ),
            "runs": runs.runs,
            "runs_since": runs.since,
            "runs_error": runs.error,
            "channels": channel_facts(settings, history, known, begin=period.begin, until=until),
        }

    def _overdue(self, history: History, read: Sequence[Insides]) -> Mapping[str, int]:
        whole = [each for each in read if each.error is None and not each.unreadable]
        readable = [self.settings.repositories[each.name] for each in whole]
        return overdue_backups(
            readable, self.settings, history, self.environ, self.now, self.note, self.conceal
        )

    def stores(
        self,
        read: Sequence[Insides],
        trails: GatheredTrails,
        repositories: Sequence[evidence.RepositoryFacts],
        *,
        probes_deletion: bool,
    ) -> dict[str, Any]:
        """Return what the stores themselves tell."""
        asked = {
            each.name: {
                **store_facts(each, probes_deletion=probes_deletion),
                "keys_removed": trails.keys_removed.get(each.name),
            }
            for each in read
        }
        return {
            "repositories": tuple(each.model_copy(update=asked[each.name]) for each in repositories),
            "locks": tuple(lock_facts(read, self.settings, before=self.now)),
        }

    def secrets(self, records: Sequence[tuple[str, bytes]], logs: Sequence[Path]) -> dict[str, Any]:
        """Return how secrets are kept, and where they were found in plain text."""
        known = known_secrets(self.settings, self.environ, self.conceal)
        return {
            "secrets": secret_facts(self.settings, known),
            "searches": tuple(
                search_for_secrets(known, self.settings, self.environ, records=records, logs=logs)
            ),
        }


def _policy_facts(settings: Settings) -> evidence.PolicyFacts:
    return evidence.PolicyFacts(
        grace_s=settings.alerts.grace_s,
        verify_within_s=settings.alerts.verify_within_s,
        drill_within_s=settings.alerts.drill_within_s,
        canary_within_s=settings.alerts.canary_within_s,
    )


def _late(settings: Settings) -> timedelta:
    """Return how long after the end of a period what was due in it may come."""
    jitters = (each.schedule.jitter_s for each in settings.plans.values() if each.schedule is not None)
    return timedelta(seconds=settings.alerts.grace_s + max(jitters, default=0.0))


def _complete(read: Sequence[Insides]) -> dict[str, set[str]]:
    """Return the ids of the backups in each repository whose list is whole."""
    return {
        each.name: {record.id for record in each.records}
        for each in read
        if each.error is None and not each.unreadable
    }


def tool_facts(tool: ClientTools) -> evidence.ToolFacts:
    return evidence.ToolFacts(
        name=f"client programs in {tool.bin_dir}",
        version=tool.text,
        outdated=known_outdated(tool.version),
        is_release_known=is_release_known(tool.version[0]),
    )
