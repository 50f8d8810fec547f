"""What carrying out a plan needs from outside, and how the settings' references become connections and repositories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pgstow.app.opening import open_repository
from pgstow.config.connections import credentials_of
from pgstow.config.references import Reference
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
        return self._conninfo(database.url, database.password)

    def drill_server(self, plan: PlanSettings) -> ConnInfo | None:
        """Return the server on which a plan of drills restores; None: a throwaway one of this machine."""
        drill = plan.drill
        return None if drill.server is None else self._conninfo(drill.server, drill.password)

    def _conninfo(self, url_reference: Reference, password_reference: Reference | None) -> ConnInfo:
        url = url_reference.resolve(self.environ).reveal()
        self.conceal(url)
        conninfo = ConnInfo.parse(url)
        for secret in conninfo.secrets.values():
            self.conceal(secret.reveal())
        if password_reference is None:
            return conninfo
        password = password_reference.resolve(self.environ)
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
        if plan.job == "drill":
            return self._resources_of_drills(plan)
        limits = self.settings.limits
        resources = {f"repository {one.location}": limits.per_repository for one in self.destinations(plan)}
        if database is not None:
            resources[f"server {_place_of(self.source(database))}"] = limits.per_server
        return resources

    def _resources_of_drills(self, plan: PlanSettings) -> dict[str, int]:
        """Return the same for drills: one at a time on a host, and on a server. No backup ever waits for one."""
        server = self.drill_server(plan)
        on_server = {} if server is None else {f"drills on server {_place_of(server)}": 1}
        return {f"drills on {self.hostname}": 1, **on_server}


def _place_of(conninfo: ConnInfo) -> str:
    return (
        " ".join(f"{name}={conninfo.params[name]}" for name in _PLACE if name in conninfo.params) or "local"
    )
