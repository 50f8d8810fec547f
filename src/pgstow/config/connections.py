"""From a database of the settings to where it is."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pgstow.config.settings import DatabaseSettings
from pgstow.core.errors import UsageError
from pgstow.postgres.conninfo import ConnInfo

__all__ = ["connection_of"]


def connection_of(database: DatabaseSettings, environ: Mapping[str, str]) -> ConnInfo:
    """Return the connection parameters of a database, its references resolved now.

    A password of its own wins over one in what the URL's variables hold. Raises UsageError, ProcessFailed, ToolMissing.
    """
    text = database.url.resolve(environ).reveal()
    try:
        conninfo = ConnInfo.parse(text)
    except UsageError as exc:
        raise UsageError(f"{database.url.where}: {exc}", hint=exc.hint) from exc
    if database.password is None:
        return conninfo
    secrets = {**conninfo.secrets, "password": database.password.resolve(environ)}
    return ConnInfo(params=conninfo.params, secrets=MappingProxyType(secrets))
