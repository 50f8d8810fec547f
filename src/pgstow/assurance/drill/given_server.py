"""A database of its own on a server that somebody else runs, as the place of a drill: created, closed to others, dropped.

Nothing on that server is touched but databases that were made for drills: their names begin with ``pgstow_drill_``, they belong
to the role that connects, and their comments say so. The session that made one holds a lock on it to its end, so that the
next drill can tell what nobody uses any more.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from psycopg import errors as pgerrors

from pgstow.assurance.drill.place import Place
from pgstow.core.errors import ConnectionFailed, PgstowError, PostgresError, RestoreError, TargetRefused
from pgstow.postgres import drill_databases
from pgstow.postgres import target as target_sql
from pgstow.postgres.archive import TocEntry
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.raw import RawSession, open_raw
from pgstow.postgres.session import connect
from pgstow.restore.database import apply_database_entries, create_like_source
from pgstow.restore.guard import GUARD_SETTINGS, maintenance_session
from pgstow.restore.naming import text
from pgstow.restore.preflight import needed_roles
from pgstow.restore.request import ArchiveFiles, RestoreOptions
from pgstow.restore.selection import PRIVILEGES

__all__ = ["DatabaseOnServer"]

_PREFIX = "pgstow_drill_"
_NAME = re.compile(rb"pgstow_drill_[0-9a-f]{16}")
_TRIES = 5


class DatabaseOnServer(Place):
    """A new database on the server of ``server``, whatever database that names."""

    kind = "database"
    _when_full = "make room on that server, name a larger one with --on URL, or leave --on out and drill on this machine"

    def __init__(
        self,
        files: ArchiveFiles,
        server: ConnInfo,
        *,
        drill_id: str,
        note: Callable[[str], object],
        beneath: Sequence[TocEntry] = (),
    ) -> None:
        super().__init__()
        self._files = files
        self._server = server
        self._drill_id = drill_id
        self._note = note
        self._beneath = beneath  # of another archive, restored before
        self._names: list[bytes] = []  # of databases that we made, or are about to
        self._no_owner = True
        self._no_privileges = True
        self._sessions = contextlib.ExitStack()
        self._session: RawSession | None = None

    def options(self, options: RestoreOptions) -> RestoreOptions:
        return replace(options, no_owner=self._no_owner, no_privileges=self._no_privileges)

    def make(self) -> None:
        # The database that is named here is not looked at: the session goes to one from which others can be made.
        place = self._server.with_database(_PREFIX + "none")
        session = self._sessions.enter_context(maintenance_session(place, self._files.toc.encoding))
        self._session = session
        facts = target_sql.target_facts(session)
        self.server_version_num = facts.version_num
        self.server = f"PostgreSQL {facts.version} on {_host_of(self._server)}"
        source = self._files.manifest.server.system_identifier
        if source is not None and facts.system_identifier == source:
            self.warnings.append(
                "the drill ran on the server that the backup is of: it shows that the backup can be restored, not that it can be"
                " once that server is lost"
            )
        self._drop_abandoned(session)
        self._choose_owners(session, is_superuser=facts.is_superuser)
        name = self._create(session)
        # Marked at once, so that it is recognised from now on, and again because the source's comment took the mark's place.
        drill_databases.mark(session, name, self._drill_id)
        drill_databases.lift_limit(session, name)
        drill_databases.close_to_others(session, name)
        self._apply_settings(session, name)
        drill_databases.mark(session, name, self._drill_id)
        self.is_isolated = drill_databases.is_closed_to_others(session, name)
        self._target = self._server.with_database(name.decode())

    def _create(self, session: RawSession) -> bytes:
        """Create a database under a name that nobody has, and return it."""
        for tries_left in reversed(range(_TRIES)):
            name = f"{_PREFIX}{_random_part()}".encode()
            drill_databases.hold(session, name)
            try:
                self._names.append(name)
                self.warnings += create_like_source(
                    session,
                    name,
                    self._files.manifest,
                    self._files.toc,
                    RestoreOptions(no_owner=True),
                    connection_limit=drill_databases.UNMARKED_LIMIT,
                )
            except PostgresError as exc:
                if exc.facts.get("sqlstate") == pgerrors.InsufficientPrivilege.sqlstate:
                    raise TargetRefused(
                        f"no database can be made on that server: {exc.message}",
                        hint="give the role CREATEDB, or connect as one that has it",
                    ) from exc
                if exc.facts.get("sqlstate") != pgerrors.DuplicateDatabase.sqlstate:
                    raise
                self._names.remove(name)  # it is not ours
                if not tries_left:
                    raise
            else:
                return name
        raise AssertionError("the last try either works or raises")

    def _apply_settings(self, session: RawSession, name: bytes) -> None:
        """Give it the settings of the source's database; a server may refuse some of them."""
        options = RestoreOptions(no_privileges=True)
        try:
            self.warnings += apply_database_entries(
                session,
                name,
                self._files.toc,
                options,
                connect=lambda: connect(self._server.with_database(name.decode())).close(),
            )
        except ConnectionFailed:
            raise
        except RestoreError as exc:
            self.warnings.append(f"settings of the database itself were not restored: {exc.message}")

    def _choose_owners(self, session: RawSession, *, is_superuser: bool) -> None:
        """Find out whether owners and privileges can be restored: roles are never made on a server that is not ours."""
        entries = [*self._beneath, *self._files.toc.entries]
        roles = needed_roles(entries)
        there = target_sql.roles(session).keys()
        missing = {*roles.owners, *roles.privileges} - there
        self._no_owner = bool(roles.owners.keys() - there) or not is_superuser
        self._no_privileges = bool(roles.privileges.keys() - there) or not is_superuser
        if not (self._no_owner or self._no_privileges):
            return
        what = " and ".join(
            word
            for word, is_left_out in (("owners", self._no_owner), ("privileges", self._no_privileges))
            if is_left_out
        )
        if missing:
            named = ", ".join(text(role, self._files.toc.encoding) for role in sorted(missing))
            why = f"the server lacks the roles {named}"
        else:
            why = "the connection's role is not a superuser"
        if roles.owners or any(entry.desc in PRIVILEGES for entry in entries):
            self.warnings.append(f"{what} were not restored: {why}")

    def _drop_abandoned(self, session: RawSession) -> None:
        """Drop what killed drills left on the server: what is ours, says so, and nobody uses."""
        for name in drill_databases.drill_databases(session):
            if not _NAME.fullmatch(name):
                continue
            try:
                if drill_databases.drop_if_abandoned(
                    session, name, prepare=partial(self._drop_subscriptions, session, name)
                ):
                    self._note(f"dropped database {name.decode()}, which a drill that was killed had left")
            except ConnectionFailed:
                raise
            except PostgresError as exc:
                self._note(f"database {name.decode()} of an earlier drill cannot be dropped: {exc.message}")

    @property
    def remains(self) -> str:
        names = ", ".join(name.decode() for name in self._names) or "no database"
        return f"{names} on {_host_of(self._server)}"

    def _remove(self) -> None:
        while self._names:
            self._drop(self._names[-1])
            del self._names[-1]
        self._sessions.close()

    def _drop(self, name: bytes) -> None:
        """Drop it if it is there; over a new connection where the old one is gone."""
        try:
            if self._session is not None:
                self._drop_subscriptions(self._session, name)
                drill_databases.drop_if_there(self._session, name)
                return
        except PgstowError:
            pass  # the connection may be gone, or in the middle of what was interrupted
        place = self._server.with_database(name.decode())
        with maintenance_session(place, self._files.toc.encoding) as session:
            self._drop_subscriptions(session, name)
            drill_databases.drop_if_there(session, name)

    def _drop_subscriptions(self, session: RawSession, name: bytes) -> None:
        """Drop the subscriptions that were restored, which were never enabled: the database can be dropped only then."""
        if not target_sql.subscriptions(session, name):
            return
        place = self._server.with_database(name.decode())
        with contextlib.closing(
            open_raw(place, encoding=self._files.toc.encoding, settings=GUARD_SETTINGS)
        ) as inside:
            drill_databases.drop_subscriptions(inside)


def _host_of(server: ConnInfo) -> str:
    return server.params.get("host") or server.params.get("hostaddr") or "this machine"


def _random_part() -> str:
    return secrets.token_hex(8)
