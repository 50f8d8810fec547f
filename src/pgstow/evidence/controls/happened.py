"""When backups were made, by what is there now and by the history of runs: retention removes the ones, time the others."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from pgstow.catalog.backups import CRITICAL
from pgstow.evidence.facts import DatabaseFacts, EvidenceFacts, PlanFacts

__all__ = ["backups_for_rpo", "backups_of_plan", "first_known", "verifications"]

_PUBLISHED = ("done", "partial")


def backups_of_plan(facts: EvidenceFacts, plan: PlanFacts, database: str) -> list[datetime]:
    """Return the moments that backups of a plan's kind show, as far as anything tells, in order."""
    moments = {
        one.time
        for one in facts.backups
        if one.database == database and one.kind == plan.kind and not one.is_damaged
    }
    return sorted(moments | set(_runs(facts, database, kind=plan.kind)))


def backups_for_rpo(facts: EvidenceFacts, database: DatabaseFacts) -> list[datetime]:
    """Return the moments of backups that limit what would be lost, in order."""
    moments = {
        one.time
        for one in facts.backups
        if one.database == database.name and one.counts_for_rpo and not one.is_damaged
    }
    runs = _runs(facts, database.name, critical=bool(database.critical))
    return sorted(moments | set(runs))


def _runs(
    facts: EvidenceFacts, database: str, *, kind: str | None = None, critical: bool = True
) -> Iterator[datetime]:
    """Yield when runs that published a backup began; the moment that it shows is shortly after."""
    for run in facts.runs or ():
        if run.job != "backup" or run.database != database or run.outcome not in _PUBLISHED:
            continue
        if (run.kind == kind if kind is not None else critical or run.kind != CRITICAL) and run.stored_in:
            yield run.started


def first_known(facts: EvidenceFacts, database: str, kind: str | None = None) -> datetime | None:
    """Return since when there is any sign of a database, or of one kind of its backups; None where there is none."""
    signs = [
        tier.oldest
        for tier in facts.tiers
        if tier.database == database and (kind is None or tier.kind == kind)
    ]
    signs += [
        run.started
        for run in facts.runs or ()
        if run.job == "backup" and run.database == database and (kind is None or run.kind == kind)
    ]
    signs += [
        plan.known_since
        for plan in facts.plans
        if plan.known_since is not None
        and database in plan.databases
        and (plan.kind == kind if kind is not None else plan.job == "backup")
    ]
    return min(signs, default=None)


def verifications(facts: EvidenceFacts, repository: str) -> list[datetime]:
    """Return when a repository was verified and found sound."""
    return [
        run.finished or run.started
        for run in facts.runs or ()
        if run.job == "verify" and run.outcome in _PUBLISHED and repository in run.stored_in
    ]
