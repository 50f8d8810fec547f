"""Settings of a small team, as objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pgstow.config.references import Reference
from pgstow.config.settings import DatabaseSettings, PlanSettings, RepositorySettings, Settings
from pgstow.jobs.schedule import Schedule


def team_settings(**changes: Any) -> Settings:
    """Return two plans, a bucket and secrets in a file and in variables."""
    database = DatabaseSettings(name="shop", url=Reference(where="url", text="${SHOP_URL}"))
    repository = RepositorySettings(
        name="offsite",
        location="s3://bucket/backups",
        password=Reference(where="password", file=Path("/etc/pgstow/secrets/repository-password")),
        environment={"AWS_SECRET_ACCESS_KEY": Reference(where="environment", text="${AWS_KEY}")},
    )
    both: dict[str, Any] = {"databases": ("shop",), "repositories": ("offsite",)}
    plans = [
        PlanSettings(name="nightly", kind="daily", schedule=Schedule(cron="0 2 * * *"), **both),
        PlanSettings(
            name="weekly",
            kind="weekly",
            schedule=Schedule(cron="30 2 * * SUN", time_zone="Europe/Berlin"),
            **both,
        ),
        PlanSettings(name="pre-deployment", kind="pre-deployment", **both),
    ]
    given: dict[str, Any] = {
        "path": Path("/etc/pgstow/pgstow.yaml"),
        "databases": {"shop": database},
        "repositories": {"offsite": repository},
        "plans": {plan.name: plan for plan in plans},
    }
    return Settings(**{**given, **changes})
