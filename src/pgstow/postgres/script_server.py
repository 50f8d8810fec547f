"""Running a script that nobody vouches for, on a throwaway server of our own.

It runs as a role ``postgres`` that is no superuser, so it can neither run programs nor read or write the server's files. A
superuser of another name helps out where pg_dump's statements need one (``script_forms``). Roles that the script names
are made, without any rights.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
from dataclasses import dataclass, field

import psycopg
from psycopg import errors as pgerrors

from pgstow.core.errors import ArchiveError, PostgresError, UsageError
from pgstow.core.progress import Progress
from pgstow.postgres.archive import PieceReader
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.copy_in import CopyIn, FalseAlarm
from pgstow.postgres.raw import RawSession, open_raw
from pgstow.postgres.script_forms import (
    CLUSTER_WIDE,
    CREATE_DATABASE,
    CREATE_ROLE,
    CREATE_SERVER,
    EVENT_TRIGGER,
    GRANT,
    IS_COPY,
    LEFT_OUT,
    NAME_ANY,
    OWNER_TO,
    ROLE_SWITCH,
    SCHEMA_GRANT,
    database_options,
    is_extension,
    is_harmless,
    is_inert,
    may_be_kept,
    plain,
    roles_in,
)
from pgstow.postgres.scripts import Command, SqlScript, Statement
from pgstow.postgres.server import Cluster
from pgstow.postgres.target import DatabaseShape, create_database, quoted, user_objects

__all__ = ["UNSAFE_ENCODINGS", "ScriptServer", "server_settings"]

_SETTINGS = {
    "shared_buffers": "128MB",
    "max_wal_size": "4GB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_locks_per_transaction": "1024",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "log_min_messages": "fatal",
    "timezone": "UTC",
}
_NO_EVENT_TRIGGERS_SINCE = 17
_AUTHOR = "postgres"  # whom statements run as: what has no other owner belongs to him, as on most servers
_MAINTENANCE = ("postgres", "template1")
_STALL_TIMEOUT_S = 900.0
_LOCK_TIMEOUT = "10s"  # a script that holds locks in a transaction of its own must not stop us for good
_SHOWN_BYTES = 120
# What a superuser asks must not find operators and functions that the script made, so public is no place to look in, but
# for statements of the script: those name only what they are about.
_OUR_NAMES = {"search_path": ""}
_MONEY_COLUMNS = (
    b"SELECT 1 FROM pg_catalog.pg_attribute WHERE attrelid >= 16384 AND atttypid IN (790, 791) LIMIT 1"
)
_MONEY_WARNING = "columns of type money: a dump does not tell with which lc_monetary they were written; read as in the C locale"
_THEIR_NAMES = b"SET search_path = public"
# In these a backslash or quote may be the second half of a character, so where strings end cannot be told by bytes.
UNSAFE_ENCODINGS = frozenset({"BIG5", "GB18030", "GBK", "JOHAB", "SHIFT_JIS_2004", "SJIS", "UHC"})
_CONNECT = re.compile(rb"\\connect\s+(?:-reuse-previous=on\s+)?(.+?)\s*")
_RESTRICT = re.compile(rb"\\(un)?restrict\s+([A-Za-z0-9]+)\s*")
_EVENT_TRIGGER_MADE = re.compile(rb"CREATE\s+EVENT\s+TRIGGER\s+(%b)" % NAME_ANY, re.IGNORECASE)
_MISSING_ROLE = re.compile(r'role "(.+)" does not exist', re.DOTALL)
_DENIED = re.compile(r"permission denied for (schema|database) (.+)", re.DOTALL)
_NOTHING_GRANTED = "01007"  # privilege_not_granted, a warning
_MAY_MEAN_SUPERUSER = (
    "a dump that nobody vouches for is run without the rights of a superuser; if you trust it, restore it with psql into a"
    " server of your own and back that up with pgstow backup"
)


def server_settings(major: int) -> dict[str, str]:
    """Return what a server is to be started with: fast, and without event triggers where they can be switched off."""
    return {**_SETTINGS, "event_triggers": "off"} if major >= _NO_EVENT_TRIGGERS_SINCE else dict(_SETTINGS)


@dataclass(slots=True, kw_only=True)
class ScriptServer:
    """A throwaway server on which a script is run; after ``run()`` the databases it made are there to be captured."""

    cluster: Cluster
    progress: Progress
    default_database: str | None  # None: the script says itself which it makes
    default_encoding: str
    admin: str = field(default_factory=lambda: f"pgstow_{secrets.token_hex(8)}")
    warnings: list[str] = field(default_factory=list)
    globals: list[bytes] = field(default_factory=list)  # statements about roles and tablespaces, in order
    databases: list[str] = field(default_factory=list)  # that hold what the script made
    shapes: dict[str, dict[str, str]] = field(default_factory=dict)  # options of CREATE DATABASE, by name
    made_roles: list[str] = field(default_factory=list)
    _known_roles: set[bytes] = field(default_factory=set)
    _late: list[tuple[str, bytes]] = field(default_factory=list)  # needs a superuser who owns it
    _event_triggers: list[tuple[str, bytes]] = field(default_factory=list)
    _lent: list[tuple[str, bytes]] = field(default_factory=list)  # what takes it back
    _is_inert: bool = True  # nothing was made so far that could be called
    _restricted: bytes | None = None
    _sessions: _Sessions = field(init=False)

    def conninfo(self, database: str, user: str | None = None) -> ConnInfo:
        return ConnInfo.parse(self.cluster.conninfo(database, user=user or self.admin))

    def run(self, stream: PieceReader, *, name: str) -> None:
        """Run the whole script. Raises ArchiveError or PostgresError with file and line; the server is of no use then."""
        if not self._known_roles:
            self._take_over()
        script = SqlScript(stream, name=name)
        self._restricted = None
        with contextlib.ExitStack() as stack:
            self._sessions = _Sessions(self, stack)
            for item in script:
                if isinstance(item, Command):
                    self._command(item, name)
                    continue
                try:
                    self._statement(item, script)
                except psycopg.Error as exc:
                    raise _failed(name, item, exc) from exc
                except PostgresError as exc:
                    exc.message = f"{name}, line {item.line:,}: {exc.message}"
                    raise
                self._heed_settings(script, item, name)
        self._finish()

    # -- roles

    def _take_over(self) -> None:
        """Make the superuser another one than the role that dumps are full of."""
        first = open_raw(self.conninfo("postgres", "postgres"), encoding="UTF8", settings={})
        with contextlib.closing(first):
            first.execute(f"CREATE ROLE {self.admin} SUPERUSER LOGIN".encode(), doing="preparing the server")
        second = open_raw(self.conninfo("postgres"), encoding="UTF8", settings={})
        with contextlib.closing(second):
            second.execute(
                f"ALTER ROLE postgres RENAME TO {self.admin}_first; CREATE ROLE {_AUTHOR} LOGIN CREATEDB".encode(),
                doing="preparing the server",
            )
            for database in _MAINTENANCE:
                owner = f"ALTER DATABASE {database} OWNER TO {_AUTHOR}".encode()
                second.execute(owner, doing="preparing the server")
            roles = second.rows(b"SELECT rolname FROM pg_catalog.pg_roles", doing="listing roles")
        self._known_roles = {role[0] or b"" for role in roles}

    def _ensure_roles(self, roles: set[bytes]) -> None:
        """Make roles that a statement names and nobody has; the author may act for each."""
        for role in sorted(roles - self._known_roles):
            admin = self._sessions.admin()
            name = quoted(admin, role)
            admin.execute(
                b"CREATE ROLE %b NOLOGIN; GRANT %b TO %b" % (name, name, _AUTHOR.encode()),
                doing="making a role",
            )
            self._known_roles.add(role)
            self.made_roles.append(admin.decode(role))

    # -- one statement

    def _statement(self, statement: Statement, script: SqlScript) -> None:
        text = statement.text
        if (match := CREATE_ROLE.fullmatch(text)) is not None:
            self._keep(statement)
            self._ensure_roles({plain(match["name"])} - {_AUTHOR.encode()})
        elif CLUSTER_WIDE.fullmatch(text):
            self._keep(statement)
        elif (match := CREATE_DATABASE.fullmatch(text)) is not None:
            self._create_database(plain(match["name"]), database_options(match["options"]))
        elif EVENT_TRIGGER.fullmatch(text):
            self._event_triggers.append((self._sessions.database, text))
        elif LEFT_OUT.fullmatch(text):
            self.warnings.append(f"line {statement.line:,} was left out: {_shown(text)}")
        elif (match := ROLE_SWITCH.fullmatch(text)) is not None:
            self._switch_role(match["role"])
        elif IS_COPY.match(text):
            self._copy(text, script)
        else:
            self._plain(text)

    def _keep(self, statement: Statement) -> None:
        if not may_be_kept(statement.text):
            raise ArchiveError(
                f"line {statement.line:,}: {_shown(statement.text)} is not written as pg_dumpall writes it"
            )
        self.globals.append(statement.text)

    def _plain(self, text: bytes) -> None:
        self._ensure_roles(roles_in(text))
        if SCHEMA_GRANT.fullmatch(text):  # what it says must not be mixed with what we lent
            self._take_back()
        if is_extension(text) and self._is_inert:
            self._sessions.run_as_admin(text)
            return
        self._is_inert = self._is_inert and is_inert(text)
        author = self._sessions.author()
        is_free = not self._sessions.is_in_transaction
        try:
            author.run(text)
        except (pgerrors.UndefinedObject, pgerrors.InsufficientPrivilege) as exc:
            if not is_free or not self._help(text, exc):
                raise
        if self._sessions.has_granted_nothing() and GRANT.fullmatch(text):
            self._late.append((self._sessions.database, text))

    def _help(self, text: bytes, exc: psycopg.Error) -> bool:
        """Do what the author could not; False if that would not be done for anybody."""
        primary, author = exc.diag.message_primary or "", self._sessions.author()
        if (missing := _MISSING_ROLE.fullmatch(primary)) is not None:
            self._ensure_roles({missing[1].encode()})
            author.run(text)
        elif is_harmless(text):
            self._sessions.run_as_admin(text)
        elif GRANT.fullmatch(text):
            self._late.append((self._sessions.database, text))
        elif (match := CREATE_SERVER.fullmatch(text)) is not None:
            self._lend(b"USAGE", b"FOREIGN DATA WRAPPER", match["wrapper"], _AUTHOR.encode())
            author.run(text)
        elif (match := OWNER_TO.fullmatch(text)) is not None:
            self._change_owner(text, match, primary)
        else:
            return False
        return True

    def _change_owner(self, text: bytes, match: re.Match[bytes], primary: str) -> None:
        """The new owner needs the right to create such things, which he need not have had in the source."""
        denied = _DENIED.fullmatch(primary)
        while denied is not None and not denied[2].startswith(("pg_", "information_schema")):
            name = quoted(self._sessions.admin(), denied[2].encode())
            self._lend(b"CREATE", denied[1].upper().encode(), name, match["owner"])
            try:
                self._sessions.author().run(text)
            except pgerrors.InsufficientPrivilege as exc:
                again = _DENIED.fullmatch(exc.diag.message_primary or "")
                denied = again if again is not None and again[0] != denied[0] else None
            else:
                return
        self._late.append((self._sessions.database, text))  # only a superuser can own this

    def _lend(self, right: bytes, kind: bytes, name: bytes, role: bytes) -> None:
        """Give a role a right that is taken back before the script is looked at again as a whole."""
        on = right + b" ON " + kind + b" " + name
        self._sessions.admin().rows(b"GRANT " + on + b" TO " + role, doing="lending a right")
        self._lent.append((self._sessions.database, b"REVOKE " + on + b" FROM " + role))

    def _take_back(self) -> None:
        here = self._sessions.database
        for database, statement in self._lent:
            if database == here:
                self._sessions.admin().rows(statement, doing="taking a right back")
        self._lent = [one for one in self._lent if one[0] != here]

    def _switch_role(self, role: bytes | None) -> None:
        author = self._sessions.author()
        if role is None or role.lower() == b"default":
            author.run(b"RESET ROLE")
            return
        self._ensure_roles({plain(role)} - {_AUTHOR.encode()})
        author.run(b"SET ROLE " + quoted(self._sessions.admin(), plain(role)))

    def _copy(self, text: bytes, script: SqlScript) -> None:
        try:
            copy = CopyIn(
                self._sessions.author().connection,
                text,
                stop=threading.Event(),
                stall_timeout_s=_STALL_TIMEOUT_S,
                is_wary=False,
            )
        except pgerrors.InsufficientPrivilege:  # a table of an extension's: PostGIS has one in every dump
            if any(script.rows()):
                raise
            return
        for piece in script.rows():
            copy.write(piece)
        try:
            self.progress.advance(rows=copy.finish())
        except FalseAlarm as exc:  # which nobody raises who is not wary
            raise ArchiveError("the server spoke in the middle of the rows") from exc

    def _heed_settings(self, script: SqlScript, item: Statement, name: str) -> None:
        """Read on as the server would, whose settings the script may have changed."""
        if not self._sessions.is_open:
            return
        script.standard_strings = self._sessions.setting(b"standard_conforming_strings") != "off"
        encoding = self._sessions.setting(b"client_encoding")
        if encoding in UNSAFE_ENCODINGS:
            raise ArchiveError(
                f"{name}, line {item.line:,}: scripts in the encoding {encoding} cannot be read safely",
                hint="make the dump again with pg_dump --encoding=UTF8, or in the custom format",
            )

    # -- databases

    def _command(self, command: Command, name: str) -> None:
        where = f"{name}, line {command.line:,}"
        restrict = _RESTRICT.fullmatch(command.text)
        if restrict is not None and bool(restrict[1]) == (self._restricted is not None):
            if restrict[1] and restrict[2] != self._restricted:
                raise ArchiveError(f"{where}: the key of \\unrestrict is not that of \\restrict")
            self._restricted = None if restrict[1] else restrict[2]
            return
        connect = _CONNECT.fullmatch(command.text)
        if connect is None or self._restricted is not None:
            raise ArchiveError(
                f"{where}: {_shown(command.text)} is a command to psql, which no dump needs: it could run programs",
                hint="only what pg_dump and pg_dumpall write is understood: \\connect, \\restrict and \\unrestrict",
            )
        database = _database_in(connect[1], where)
        if database not in (*self.databases, *_MAINTENANCE):
            raise ArchiveError(f"{where}: database {database} was not created before")
        self._sessions.connect(database)

    def _create_database(self, name: bytes, options: dict[str, str]) -> None:
        database = name.decode("utf-8", "backslashreplace")
        others = [one for one in self.databases if one not in _MAINTENANCE]
        if others:
            raise ArchiveError(
                f"the dump holds several databases ({', '.join([*others, database])}, ...), and a backup holds one",
                hint="dump each by itself with pg_dump; roles and settings come with pg_dumpall --globals-only",
            )
        if database not in _MAINTENANCE:
            self.make_database(database, options)

    def make_database(self, database: str, options: dict[str, str]) -> None:
        """Create an empty database of the author's; where the server lacks the locale, C takes its place."""
        self.shapes[database] = options
        encoding = options.get("ENCODING", self.default_encoding)
        locale = options.get("LOCALE")
        provider = options.get("LOCALE_PROVIDER", "libc")
        wished = DatabaseShape(
            encoding=encoding,
            collate=options.get("LC_COLLATE") or locale,
            ctype=options.get("LC_CTYPE") or locale,
            provider=provider if provider != "libc" else None,
            locale=(options.get("ICU_LOCALE") or options.get("BUILTIN_LOCALE") or locale)
            if provider != "libc"
            else None,
            owner=_AUTHOR.encode(),
        )
        plain_c = DatabaseShape(encoding=encoding, collate="C", ctype="C", owner=_AUTHOR.encode())
        server = self.conninfo("postgres")
        with contextlib.closing(open_raw(server, encoding="UTF8", settings=_OUR_NAMES)) as session:
            try:
                create_database(
                    session, database.encode(), wished if wished.collate or wished.locale else plain_c
                )
            except PostgresError as exc:
                if not (wished.collate or wished.locale):
                    raise
                self.warnings.append(
                    f"the locale of {database} is not known here, so C was taken: {exc.message}"
                )
                create_database(session, database.encode(), plain_c)
        self.databases.append(database)

    # -- the end

    def _finish(self) -> None:
        """Give what only superusers own to whom it belongs. Nothing of the script is run any more."""
        with contextlib.ExitStack() as stack:
            self._sessions = _Sessions(self, stack)
            self._sessions.connect(_MAINTENANCE[0])
            for database in dict.fromkeys(one for one, _ in self._lent):
                self._sessions.connect(database)
                self._take_back()
            promotion = f"ALTER ROLE {_AUTHOR} SUPERUSER".encode()
            self._sessions.admin().rows(promotion, doing="handing over what the superuser made")
            for database, text in self._late:
                self._sessions.connect(database)
                self._as_superuser(text)
            for database in (*self.databases, *_MAINTENANCE):
                self._sessions.connect(database)
                session = self._sessions.admin()
                handover = f"REASSIGN OWNED BY {self.admin} TO {_AUTHOR}".encode()
                session.rows(handover, doing="handing over what the superuser made")
                if session.rows(_MONEY_COLUMNS, doing="looking for columns of type money"):
                    self.warnings.append(_MONEY_WARNING)
                if database in _MAINTENANCE and user_objects(session)[0]:
                    self.databases.append(database)
            for database, text in self._event_triggers:  # last, so that they see nothing of this
                self._sessions.connect(database)
                self._as_superuser(text)
                if (made := _EVENT_TRIGGER_MADE.match(text)) is not None:
                    owner = b"ALTER EVENT TRIGGER %b OWNER TO %b" % (made[1], _AUTHOR.encode())
                    self._sessions.admin().rows(owner, doing=_shown(owner))

    def _as_superuser(self, text: bytes) -> None:
        """Run a statement; if it makes somebody an owner, as if he were a superuser."""
        match = OWNER_TO.fullmatch(text)
        if match is None or plain(match["owner"]) == _AUTHOR.encode():
            self._sessions.run_as_admin(text)
            return
        self._ensure_roles({plain(match["owner"])})
        session = self._sessions.admin()
        session.rows(b"ALTER ROLE %b SUPERUSER" % match["owner"], doing="lending a superuser's rights")
        self._sessions.run_as_admin(text)
        session.rows(b"ALTER ROLE %b NOSUPERUSER" % match["owner"], doing="taking a superuser's rights back")


class _Sessions:
    """The author's and the superuser's session in the database that the script is in."""

    def __init__(self, server: ScriptServer, stack: contextlib.ExitStack) -> None:
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
            self._database = default or _MAINTENANCE[0]
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
            self._author = self._open(_AUTHOR, {})
            self._author.connection.add_notice_handler(
                lambda notice: self._notices.append(notice.sqlstate or "")
            )
        return self._author

    def admin(self) -> RawSession:
        if self._admin is None:
            self._admin = self._open(self._server.admin, {"lock_timeout": _LOCK_TIMEOUT, **_OUR_NAMES})
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
            session.rows(text, doing=_shown(text))
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


def _database_in(text: bytes, where: str) -> str:
    r"""Return the database that \connect names, as a word, a quoted one or a connection string."""
    word = text.decode("utf-8", "backslashreplace")
    if word.startswith('"') and word.endswith('"'):
        word = word[1:-1].replace('""', '"')
    if "=" in word:
        try:
            return ConnInfo.parse(word).dbname or ""
        except UsageError as exc:
            raise ArchiveError(f"{where}: {word} names no database") from exc
    return word


def _failed(name: str, item: Statement, exc: psycopg.Error) -> PostgresError:
    primary = exc.diag.message_primary or " ".join(str(exc).split())
    hint = exc.diag.message_hint
    if isinstance(exc, pgerrors.InsufficientPrivilege):
        hint = _MAY_MEAN_SUPERUSER
    return PostgresError(
        f"{name}, line {item.line:,}, statement {item.number:,}: {primary} in {_shown(item.text)}",
        hint=hint,
        sqlstate=exc.sqlstate,
    )


def _shown(text: bytes) -> str:
    """Return how a statement begins, without any value that it may hold."""
    first = b" ".join(text[: 4 * _SHOWN_BYTES].partition(b"'")[0].split())
    shown = first[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return shown if len(text.split()) <= len(first.split()) else f"{shown} ..."
