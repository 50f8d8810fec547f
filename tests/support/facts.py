"""Facts about backups, made up."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pgstow.catalog.backups import BackupRecord, backups_among
from pgstow.core.errors import StoreUnavailable
from pgstow.monitor.facts import DatabaseFacts, Facts, PlanFacts, RepositoryFacts, TableSize
from pgstow.repository import Snapshot
from pgstow.state.runs import Outcome, RunRecord
from support.policies import NOW, backup_snapshot, daily

__all__ = [
    "AWAY", "NIGHTLY", "facts_of", "one", "records", "repository_facts", "run", "tables",
]  # fmt: skip

NIGHTLY = PlanFacts(
    plan="nightly",
    job="backup",
    kind="daily",
    database="shop",
    repositories=("local", "far"),
    cron="0 2 * * *",
    expected_since=NOW.replace(hour=2),
    next_due=NOW.replace(hour=2) + timedelta(days=1),
)


def records(snapshots: Sequence[Snapshot]) -> tuple[BackupRecord, ...]:
    """Return the backups that these snapshots are, with ids as a repository gives them."""
    return tuple(backups_among(replace(each, id=uuid.uuid4().hex * 2) for each in snapshots))


def repository_facts(name: str, snapshots: Sequence[Snapshot] = (), **more: Any) -> RepositoryFacts:
    return RepositoryFacts(name=name, location=f"/srv/{name}", backups=records(snapshots), **more)


def AWAY(name: str) -> RepositoryFacts:  # noqa: N802  reads as a kind of repository
    """Return a repository that could not be opened."""
    error = StoreUnavailable(f"{name} does not answer")
    return RepositoryFacts(name=name, location=f"/srv/{name}", backups=None, error=error)


def facts_of(
    *repositories: RepositoryFacts,
    plans: Sequence[PlanFacts] = (NIGHTLY,),
    databases: Sequence[DatabaseFacts] = (DatabaseFacts(name="shop", rpo_s=86400.0),),
    runs: Sequence[RunRecord] | None = (),
    **more: Any,
) -> Facts:
    """Return facts at noon; without repositories, two that hold the same ten daily backups."""
    if not repositories:
        nights = daily(10)
        repositories = (repository_facts("local", nights), repository_facts("far", nights))
    return Facts(
        now=NOW,
        databases=tuple(databases),
        repositories={each.name: each for each in repositories},
        plans=tuple(plans),
        runs=None if runs is None else tuple(runs),
        **more,
    )


def run(
    outcome: Outcome = "done", *, ago: timedelta = timedelta(hours=10), job: str = "backup", **more: Any
) -> RunRecord:
    started: datetime = NOW - ago
    kind = "daily" if job == "backup" else job
    values = {"kind": kind, "database": "shop" if job == "backup" else None, "plan": "nightly"} | more
    return RunRecord(
        id=str(uuid.uuid4()),
        job=job,
        due=None,
        started=started,
        finished=started,
        host="h",
        outcome=outcome,
        **values,
    )


def tables(*names: str) -> Mapping[str, TableSize]:
    return {name: TableSize(rows=10, size_bytes=100) for name in names}


def one(time: datetime, **options: Any) -> Snapshot:
    return backup_snapshot(time, **options)
