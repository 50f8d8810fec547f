"""Looking at a database before it is backed up: may it be, under which name, and what is known of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pgstow.app.backup_request import BackupRequest
from pgstow.capture.destinations import Destinations, OpenDestination
from pgstow.catalog.backups import BackupRecord, check_backup_name, list_backups
from pgstow.catalog.manifest import Warning_
from pgstow.core.errors import CaptureError, PostgresError, RepositoryDamaged
from pgstow.postgres import catalogs
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.session import CAPTURE_SETTINGS, Connection, connect, translated
from pgstow.postgres.tools import ClientTools, pick
from pgstow.repository import LeasedDatabase

__all__ = ["Source", "damage_warnings", "inspect", "looking"]

OLDEST_SERVER = 140000


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The backups there are, and what is said of snapshots that cannot be read: they must not stop a new one."""

    records: Sequence[BackupRecord]
    warnings: tuple[Warning_, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source that has been looked at: it can be backed up under this name."""

    conninfo: ConnInfo
    tools: ClientTools
    name: str
    system_identifier: str | None
    database_oid: int
    known: Mapping[str, Known]  # by destination

    @property
    def leased(self) -> LeasedDatabase:
        """What no two runs may back up at once: the database itself where the server lets us see which it is."""
        known = f"database {self.system_identifier} {self.database_oid}"
        return LeasedDatabase(
            identity=known if self.system_identifier else f"name {self.name}", name=self.name
        )


def _known_backups(destinations: Destinations, one: OpenDestination) -> Known:
    damaged: list[RepositoryDamaged] = []
    records = list_backups(one.repository, damaged=damaged)
    return Known(records=records, warnings=damage_warnings(destinations, one, damaged))


def damage_warnings(
    destinations: Destinations, one: OpenDestination, damaged: Sequence[RepositoryDamaged]
) -> tuple[Warning_, ...]:
    """Return what the manifest says of damage that was met: what it hides is stored again, the backup is whole."""
    return tuple(
        Warning_(
            code="repository",
            message=destinations.said_of(
                one.name, f"{exc.message}; this backup does without (pgstow repo repair)"
            ),
        )
        for exc in damaged
    )


@contextlib.contextmanager
def looking(conninfo: ConnInfo) -> Iterator[Connection]:
    with contextlib.closing(connect(conninfo, settings=CAPTURE_SETTINGS)) as connection:
        yield connection


def inspect(
    connection: Connection,
    request: BackupRequest,
    destinations: Destinations,
    tools: Sequence[ClientTools],
) -> Source:
    version = connection.info.server_version
    if version < OLDEST_SERVER:
        raise PostgresError(
            f"the server is PostgreSQL {version // 10000}; pgstow backs up 14 and newer",
            hint="upgrade the server",
        )
    with translated("looking at the server"):
        facts = catalogs.server_facts(connection)
        database = catalogs.text(facts.database)
        system = catalogs.system_identifier(connection)
    name = check_backup_name(request.name or database)

    def look(one: OpenDestination) -> Known:
        known = _known_backups(destinations, one)
        if not request.new_source:
            _refuse_other_server(name, system, known.records)
        return known

    return Source(
        conninfo=request.source.with_database(database),
        tools=pick(tools, version, needs_tls=connection.pgconn.ssl_in_use),
        name=name,
        system_identifier=system,
        database_oid=facts.database_oid,
        known=destinations.each(look),
    )


def _refuse_other_server(name: str, system: str | None, records: Sequence[BackupRecord]) -> None:
    """A name belongs to one server: staging must not become the newest backup of production."""
    known = [record for record in records if record.name == name and record.system_identifier]
    if known and system is not None and known[-1].system_identifier != system:
        raise CaptureError(
            f"{name} is the name of another server's backups (system identifier {known[-1].system_identifier},"
            f" this server is {system})",
            hint="give this source a --name of its own, or --new-source if the server was replaced",
        )
