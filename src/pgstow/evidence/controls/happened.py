"""When backups were made, by what is there now and by the history of runs: retention removes the ones, time the others."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from pgstow.catalog.backups import CRITICAL, IMPORT
from pgstow.evidence.controls.gaps import Shown
from pgstow.evidence.facts import DatabaseFacts, EvidenceFacts, PlanFacts, RepositoryFacts, RunFacts

__all__ = [
    "backups_for_rpo",
    "backups_of_plan",
    "first_known",
    "repository_known",
    "verifications",
    "whole_backups_in",
]

_PUBLISHED = ("done", "partial")


def backups_of_plan(facts: EvidenceFacts, plan: PlanFacts, database: str) -> list[datetime]:
    """Return the moments that backups of a plan's kind show, as far as anything tells, in order."""
    moments = {
        one.time
        for one in facts.backups
        if one.database == database and one.kind == plan.kind and not one.is_damaged
    }
    return sorted(moments | {run.started for run in _expired(facts, database) if run.kind == plan.kind})


def backups_for_rpo(facts: EvidenceFacts, database: DatabaseFacts) -> list[Shown]:
    """Return the backups that limit what would be lost, by the moments they show.

    One counts from when its run had ended, as far as the history tells; else from the moment it shows.
    """
    ended = {run.backup_id: run.finished for run in facts.runs or () if run.finished is not None}
    shown = {
        Shown(moment=one.time, there=max(one.time, ended.get(one.id, one.time)))
        for one in facts.backups
        if one.database == database.name and one.counts_for_rpo and not one.is_damaged
    }
    shown |= {
        Shown(moment=run.started, there=run.finished or run.started)
        for run in _expired(facts, database.name)
        if database.critical or run.kind != CRITICAL
    }
    return sorted(shown)


def whole_backups_in(facts: EvidenceFacts, database: DatabaseFacts, repository: str) -> list[datetime]:
    """Return the moments of whole backups that are, or were until they expired, in a repository, in order."""
    moments = {
        one.time
        for one in facts.backups
        if one.database == database.name
        and one.is_whole
        and not one.is_damaged
        and repository in one.repositories
    }
    moments |= {
        run.started
        for run in _expired(facts, database.name)
        if run.kind not in (CRITICAL, IMPORT) and repository in run.stored_in
    }
    return sorted(moments)


def _runs(facts: EvidenceFacts, database: str) -> Iterator[RunFacts]:
    """Yield the runs that published a backup; the moment that it shows is shortly after its beginning."""
    for run in facts.runs or ():
        if run.job == "backup" and run.database == database and run.outcome in _PUBLISHED and run.stored_in:
            yield run


def _expired(facts: EvidenceFacts, database: str) -> Iterator[RunFacts]:
    """Yield the runs whose backups are not there any more: of the others the backups themselves tell."""
    there = {one.id for one in facts.backups}
    return (run for run in _runs(facts, database) if run.backup_id not in there)


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
    signs += [
        drill.started
        for drill in facts.drills
        if drill.database == database and (kind is None or drill.kind == kind)
    ]
    if kind is None:
        signs += [
            entry.at
            for entry in facts.audit_entries
            if entry.action == "backup" and database in entry.subjects
        ]
    return min(signs, default=None)


def repository_known(facts: EvidenceFacts, repository: RepositoryFacts) -> datetime | None:
    """Return since when there is any sign of a repository; None where there is none.

    What the state database remembers alone may be younger: it can have been lost and made anew.
    """
    signs = [repository.known_since] if repository.known_since is not None else []
    signs += [tier.oldest for tier in facts.tiers if tier.repository == repository.name]
    signs += [entry.at for entry in facts.audit_entries if entry.repository == repository.name]
    signs += [run.started for run in facts.runs or () if repository.name in run.stored_in]
    return min(signs, default=None)


def verifications(facts: EvidenceFacts, repository: str) -> list[datetime]:
    """Return when a repository was verified and found sound."""
    return [
        run.finished or run.started
        for run in facts.runs or ()
        if run.job == "verify" and run.outcome in _PUBLISHED and repository in run.stored_in
    ]
