"""From a database or repository of the settings to where it is, and what opens it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from pgstow.config.references import Reference
from pgstow.config.settings import DatabaseSettings, DrillSettings, RepositorySettings
from pgstow.core.errors import UsageError
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo

__all__ = ["connection_of", "credentials_of", "drill_server_of", "environment_of"]


def connection_of(database: DatabaseSettings, environ: Mapping[str, str]) -> ConnInfo:
    """Return the connection parameters of a database, its references resolved now.

    A password of its own wins over one in what the URL's variables hold. Raises UsageError, ProcessFailed, ToolMissing.
    """
    return _connection(database.url, database.password, environ)


def drill_server_of(drill: DrillSettings, environ: Mapping[str, str]) -> ConnInfo | None:
    """Return the server on which a plan of drills restores, as ``connection_of()``; None: a throwaway one."""
    return None if drill.server is None else _connection(drill.server, drill.password, environ)


def _connection(url: Reference, password: Reference | None, environ: Mapping[str, str]) -> ConnInfo:
    text = url.resolve(environ).reveal()
    try:
        conninfo = ConnInfo.parse(text)
    except UsageError as exc:
        raise UsageError(f"{url.where}: {exc}", hint=exc.hint) from exc
    if password is None:
        return conninfo
    secrets = {**conninfo.secrets, "password": password.resolve(environ)}
    return ConnInfo(params=conninfo.params, secrets=MappingProxyType(secrets))


def credentials_of(
    repository: RepositorySettings,
    environ: Mapping[str, str],
    conceal: Callable[[str], None] = lambda _secret: None,
) -> tuple[Secret, Mapping[str, str]]:
    """Return the password of a repository and the environment its store is opened with, references resolved now.

    ``conceal`` is told every secret. Raises UsageError, ProcessFailed, ToolMissing.
    """
    password = repository.password.resolve(environ)
    conceal(password.reveal())
    return password, environment_of(repository, environ, conceal)


def environment_of(
    repository: RepositorySettings, environ: Mapping[str, str], conceal: Callable[[str], None]
) -> Mapping[str, str]:
    """Return the environment that a repository's store is opened with; as ``credentials_of()``."""
    own = {name: each.resolve(environ).reveal() for name, each in repository.environment.items()}
    for name, each in repository.environment.items():
        if not each.is_plain:
            conceal(own[name])
    return {**environ, **own}
