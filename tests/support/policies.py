"""Repositories with a history, and settings that point at them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pgstow.config.references import Reference
from pgstow.config.settings import (
    CriticalTable,
    DatabaseSettings,
    PlanSettings,
    RepositorySettings,
    Settings,
)
from pgstow.jobs.schedule import Schedule
from pgstow.monitor.policy import AlertPolicy
from pgstow.repository import BlobId, Repository, Snapshot, SnapshotSummary
from pgstow.store.local import LocalStore
from support.repositories import init_repository
from support.restic import PASSWORD

__all__ = ["NOW", "add_backups", "backup_snapshot", "daily", "make_repository", "settings_of"]

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def make_repository(folder: Path) -> Repository:
    """Return a repository in a folder whose key costs no time."""
    return init_repository(LocalStore(folder))


def backup_snapshot(
    time: datetime,
    *,
    name: str = "shop",
    kind: str = "daily",
    run: str | None = None,
    size_bytes: int | None = 1_000_000,
    marks: Sequence[str] = (),
) -> Snapshot:
    """Return a snapshot as a backup of that moment leaves it; what it would hold is not there."""
    summary = SnapshotSummary(backup_start=time, backup_end=time, total_bytes_processed=size_bytes or 0)
    return Snapshot(
        time=time,
        tree=BlobId(bytes(32)),
        paths=(f"/{name}",),
        hostname="db.example",
        tags=("pgstow", f"db={name}", f"run={run or uuid.uuid4()}", f"kind={kind}", *marks),
        program_version="pgstow",
        summary=None if size_bytes is None else summary,
    )


def add_backups(snapshots: Sequence[Snapshot], *repositories: Repository) -> None:
    """Put the same backups into each repository."""
    for repository in repositories:
        for snapshot in snapshots:
            repository.save_snapshot(snapshot)


def daily(count: int, *, until: datetime = NOW, **options: object) -> list[Snapshot]:
    """Return that many daily backups at 02:00, the newest on the day of ``until``."""
    newest = until.replace(hour=2, minute=0, second=7)
    times = [newest - timedelta(days=days) for days in reversed(range(count))]
    return [backup_snapshot(time, **options) for time in times]  # type: ignore[arg-type]


def settings_of(
    folders: Mapping[str, Path],
    *,
    plans: Sequence[PlanSettings] | None = None,
    databases: Sequence[str] = ("shop",),
    critical: Sequence[str] = (),
    rpo_s: float | None = None,
    alerts: AlertPolicy | None = None,
) -> Settings:
    """Return settings with these repositories; a daily plan at 02:00 into all of them unless told otherwise."""
    names = tuple(folders)
    nightly = PlanSettings(
        name="nightly",
        kind="daily",
        databases=tuple(databases),
        repositories=names,
        schedule=Schedule(cron="0 2 * * *"),
    )
    return Settings(
        path=Path("pgstow.yaml"),
        databases={
            name: DatabaseSettings(
                name=name,
                url=Reference(where="url", text="postgresql://db.example/shop"),
                critical=tuple(
                    CriticalTable(schema=table.partition(".")[0], name=table.partition(".")[2])
                    for table in critical
                ),
                rpo_s=rpo_s,
            )
            for name in databases
        },
        repositories={
            name: RepositorySettings(
                name=name, location=str(folder), password=Reference(where="password", text=PASSWORD)
            )
            for name, folder in folders.items()
        },
        plans={plan.name: plan for plan in (plans if plans is not None else (nightly,))},
        alerts=alerts or AlertPolicy(),
    )


def with_quota(settings: Settings, name: str, quota_bytes: int) -> Settings:
    """Return the settings with a quota for one repository."""
    limited = replace(settings.repositories[name], quota_bytes=quota_bytes)
    return replace(settings, repositories={**settings.repositories, name: limited})
