"""What carrying out a plan needs from outside, and how the settings' references become connections and repositories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pgstow.app.opening import open_repository
from pgstow.config.connections import credentials_of
from pgstow.config.settings import DatabaseSettings, PlanSettings, RepositorySettings, Settings
from pgstow.core.errors import UsageError
from pgstow.core.progress import Progress
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.tools import ClientTools
from pgstow.repository import Repository
from pgstow.state.database import StateDatabase
from pgstow.state.spool import Spool

__all__ = ["PlanParts"]

# What of a connection says which server it leads to.
_PLACE = ("host", "hostaddr", "port", "service")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanParts:
    """``state`` is None while the state database is away; ``host_id`` is this process's there.

    ``conceal`` is given every secret that is resolved, before anything else sees it.
    """

    settings: Settings
    environ: Mapping[str, str]
    tools: Sequence[ClientTools]
    username: str
    hostname: str
    host_id: str
    state: StateDatabase | None
    spool: Spool
    progress: Progress
    conceal: Callable[[str], None]

    def source(self, database: DatabaseSettings) -> ConnInfo:
        """Return how a database is reached."""
        url = database.url.resolve(self.environ).reveal()
        self.conceal(url)
        conninfo = ConnInfo.parse(url)
        for secret in conninfo.secrets.values():
            self.conceal(secret.reveal())
        if database.password is None:
            return conninfo
        password = database.password.resolve(self.environ)
        self.conceal(password.reveal())
        return ConnInfo(params=conninfo.params, secrets={**conninfo.secrets, "password": password})

    def repository(self, settings: RepositorySettings) -> Repository:
        """Return a repository of the settings, open."""
        password, environ = credentials_of(settings, self.environ, self.conceal)
        return open_repository(
            settings.location, password, environ, on_retry=self.progress.note, is_cached=True
        )

    def destinations(self, plan: PlanSettings) -> list[RepositorySettings]:
        """Return the repositories of a plan that take its kind. Raises UsageError when there is none."""
        named = [self.settings.repositories[name] for name in plan.repositories]
        taking = [one for one in named if plan.job != "backup" or one.kinds is None or plan.kind in one.kinds]
        if not taking:
            raise UsageError(f"no repository of plan {plan.name} takes backups of kind {plan.kind}")
        return taking

    def resources(self, plan: PlanSettings, database: DatabaseSettings | None) -> dict[str, int]:
        """Return what a run takes slots of, and how many of each there are."""
        limits = self.settings.limits
        resources = {f"repository {one.location}": limits.per_repository for one in self.destinations(plan)}
        if database is not None:
            params = self.source(database).params
            place = " ".join(f"{name}={params[name]}" for name in _PLACE if name in params)
            resources[f"server {place or 'local'}"] = limits.per_server
        return resources
