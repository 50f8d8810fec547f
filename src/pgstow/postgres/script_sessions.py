"""The sessions in which a script is run: its author's, who is no superuser, and that of a superuser who helps out."""

from __future__ import annotations

import contextlib
from typing import Protocol

import psycopg

from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.raw import RawSession, open_raw

__all__ = ["AUTHOR", "MAINTENANCE", "OUR_NAMES", "ScriptPlace", "ScriptSessions", "shown"]

AUTHOR = "postgres"  # whom statements run as: what has no other owner belongs to him, as on most servers
MAINTENANCE = ("postgres", "template1")
# What a superuser asks must not find operators and functions that the script made, so public is no place to look in, but
# for statements of the script: those name only what they are about.
OUR_NAMES = {"search_path": ""}
_THEIR_NAMES = b"SET search_path = public"
_LOCK_TIMEOUT = "10s"  # a script that holds locks in a transaction of its own must not stop us for good
_NOTHING_GRANTED = "01007"  # privilege_not_granted, a warning
_SHOWN_BYTES = 120


class ScriptPlace(Protocol):
    """The server that a script is run on, as its sessions need it."""

    admin: str  # the superuser's name
    default_database: str | None
    default_encoding: str
    databases: list[str]

    def conninfo(self, database: str, user: str | None = None) -> ConnInfo:
        """Return how somebody, the superuser if no other, connects to a database."""

    def make_database(self, database: str, options: dict[str, str]) -> None:
        """Create an empty database; it stands in ``databases`` then."""


class ScriptSessions:
    """The author's and the superuser's session in the database that the script is in."""

    def __init__(self, server: ScriptPlace, stack: contextlib.ExitStack) -> None:
        self._server = server
        self._stack = stack
        self._author: RawSession | None = None
        self._admin: RawSession | None = None
        self._notices: list[str] = []
        self._database: str | None = None

    @property
    def is_open(self) -> bool:
        return self._author is not None

    @property
    def database(self) -> str:
        r"""Where the script is; one without \connect gets a database when it first needs one."""
        if self._database is None:
            default = self._server.default_database
            if default is not None and default not in self._server.databases:
                self._server.make_database(default, {})
            self._database = default or MAINTENANCE[0]
        return self._database

    def connect(self, database: str) -> None:
        """Go on in another database."""
        for session in (self._author, self._admin):
            if session is not None:
                session.close()
        self._author = self._admin = None
        self._database = database

    def author(self) -> RawSession:
        if self._author is None:
            self._author = self._open(AUTHOR, {})
            self._author.connection.add_notice_handler(
                lambda notice: self._notices.append(notice.sqlstate or "")
            )
        return self._author

    def admin(self) -> RawSession:
        if self._admin is None:
            self._admin = self._open(self._server.admin, {"lock_timeout": _LOCK_TIMEOUT, **OUR_NAMES})
        if self._author is not None:  # names are to be read as they were written
            encoding = self.setting(b"client_encoding")
            if self._admin.connection.pgconn.parameter_status(b"client_encoding") != encoding.encode():
                self._admin.execute(
                    b"SET client_encoding = '%b'" % encoding.encode(), doing="following the script"
                )
        return self._admin

    def run_as_admin(self, text: bytes) -> None:
        """Run one statement of the script, which evaluates nothing, with a superuser's rights."""
        session = self.admin()
        session.execute(_THEIR_NAMES, doing="following the script")
        try:
            session.rows(text, doing=shown(text))
        finally:
            session.execute(b"SET search_path = ''", doing="following the script")

    def _open(self, user: str, settings: dict[str, str]) -> RawSession:
        session = open_raw(
            self._server.conninfo(self.database, user),
            encoding=self._server.default_encoding,
            settings=settings,
        )
        self._stack.callback(session.close)
        return session

    def setting(self, name: bytes) -> str:
        assert self._author is not None
        return (self._author.connection.pgconn.parameter_status(name) or b"").decode()

    @property
    def is_in_transaction(self) -> bool:
        return (
            self._author is not None
            and self._author.connection.pgconn.transaction_status != psycopg.pq.TransactionStatus.IDLE
        )

    def has_granted_nothing(self) -> bool:
        """Whether the last statement was a GRANT that the server did not carry out, and only warned."""
        found = _NOTHING_GRANTED in self._notices
        self._notices.clear()
        return found


def shown(text: bytes) -> str:
    """Return how a statement begins, without any value that it may hold."""
    first = b" ".join(text[: 4 * _SHOWN_BYTES].partition(b"'")[0].split())
    shown = first[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return shown if len(text.split()) <= len(first.split()) else f"{shown} ..."
