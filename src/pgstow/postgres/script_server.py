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
    COPY_ROWS,
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
from pgstow.postgres.script_sessions import AUTHOR, MAINTENANCE, OUR_NAMES, ScriptSessions, shown
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
_STALL_TIMEOUT_S = 900.0
_MONEY_COLUMNS = (
    b"SELECT 1 FROM pg_catalog.pg_attribute WHERE attrelid >= 16384 AND atttypid IN (790, 791) LIMIT 1"
)
# A table that an extension has given to pg_dump to save, of an owner whom no script can be.
_TABLE_OF_EXTENSION = b"""
    SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_extension e ON c.oid = ANY (e.extconfig)
    JOIN pg_catalog.pg_roles me ON me.rolname = current_user AND me.oid = e.extowner AND me.oid = c.relowner
    WHERE c.oid = pg_catalog.to_regclass($1::text) AND c.relkind = 'r'
      AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)"""
_MONEY_WARNING = "columns of type money: a dump does not tell with which lc_monetary they were written; read as in the C locale"
# In these a backslash or quote may be the second half of a character, so where strings end cannot be told by bytes.
UNSAFE_ENCODINGS = frozenset({"BIG5", "GB18030", "GBK", "JOHAB", "SHIFT_JIS_2004", "SJIS", "UHC"})
_CONNECT = re.compile(rb"\\connect\s+(?:-reuse-previous=on\s+)?(.+?)\s*")
_RESTRICT = re.compile(rb"\\(un)?restrict\s+([A-Za-z0-9]+)\s*")
_EVENT_TRIGGER_MADE = re.compile(rb"CREATE\s+EVENT\s+TRIGGER\s+(%b)" % NAME_ANY, re.IGNORECASE)
_MISSING_ROLE = re.compile(r'role "(.+)" does not exist', re.DOTALL)
_DENIED = re.compile(r"permission denied for (schema|database) (.+)", re.DOTALL)
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
    _sessions: ScriptSessions = field(init=False)

    def conninfo(self, database: str, user: str | None = None) -> ConnInfo:
        return ConnInfo.parse(self.cluster.conninfo(database, user=user or self.admin))

    def run(self, stream: PieceReader, *, name: str) -> None:
        """Run the whole script. Raises ArchiveError or PostgresError with file and line; the server is of no use then."""
        if not self._known_roles:
            self._take_over()
        script = SqlScript(stream, name=name)
        self._restricted = None
        with contextlib.ExitStack() as stack:
            self._sessions = ScriptSessions(self, stack)
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
                f"ALTER ROLE postgres RENAME TO {self.admin}_first; CREATE ROLE {AUTHOR} LOGIN CREATEDB".encode(),
                doing="preparing the server",
            )
            for database in MAINTENANCE:
                owner = f"ALTER DATABASE {database} OWNER TO {AUTHOR}".encode()
                second.execute(owner, doing="preparing the server")
            roles = second.rows(b"SELECT rolname FROM pg_catalog.pg_roles", doing="listing roles")
        self._known_roles = {role[0] or b"" for role in roles}

    def _ensure_roles(self, roles: set[bytes]) -> None:
        """Make roles that a statement names and nobody has; the author may act for each."""
        for role in sorted(roles - self._known_roles):
            admin = self._sessions.admin()
            name = quoted(admin, role)
            admin.execute(
                b"CREATE ROLE %b NOLOGIN; GRANT %b TO %b" % (name, name, AUTHOR.encode()),
                doing="making a role",
            )
            self._known_roles.add(role)
            self.made_roles.append(admin.decode(role))

    # -- one statement

    def _statement(self, statement: Statement, script: SqlScript) -> None:
        text = statement.text
        if (match := CREATE_ROLE.fullmatch(text)) is not None:
            self._keep(statement)
            self._ensure_roles({plain(match["name"])} - {AUTHOR.encode()})
        elif CLUSTER_WIDE.fullmatch(text):
            self._keep(statement)
        elif (match := CREATE_DATABASE.fullmatch(text)) is not None:
            self._create_database(plain(match["name"]), database_options(match["options"]))
        elif EVENT_TRIGGER.fullmatch(text):
            self._event_triggers.append((self._sessions.database, text))
        elif LEFT_OUT.fullmatch(text):
            self.warnings.append(f"line {statement.line:,} was left out: {shown(text)}")
        elif (match := ROLE_SWITCH.fullmatch(text)) is not None:
            self._switch_role(match["role"])
        elif IS_COPY.match(text):
            self._copy(text, script)
        else:
            self._plain(text)

    def _keep(self, statement: Statement) -> None:
        if not may_be_kept(statement.text):
            raise ArchiveError(
                f"line {statement.line:,}: {shown(statement.text)} is not written as pg_dumpall writes it"
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
            self._lend(b"USAGE", b"FOREIGN DATA WRAPPER", match["wrapper"], AUTHOR.encode())
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
        self._ensure_roles({plain(role)} - {AUTHOR.encode()})
        author.run(b"SET ROLE " + quoted(self._sessions.admin(), plain(role)))

    def _copy(self, text: bytes, script: SqlScript) -> None:
        rows = script.rows()
        try:
            copy = _copy_in(self._sessions.author(), text)
        except pgerrors.InsufficientPrivilege:  # a table of an extension's: PostGIS has one in every dump
            first = next(rows, b"")
            if not first:
                return
            if not self._belongs_to_extension(text):
                raise
            copy = _copy_in(self._sessions.admin(), text)
            copy.write(first)
        for piece in rows:
            copy.write(piece)
        try:
            self.progress.advance(rows=copy.finish())
        except FalseAlarm as exc:  # which nobody raises who is not wary
            raise ArchiveError("the server spoke in the middle of the rows") from exc

    def _belongs_to_extension(self, text: bytes) -> bool:
        """Whether rows go into a table that an extension of ours keeps for users, and nothing of the script is run by that.

        The script's author can neither make such a table nor hang anything on it.
        """
        match = COPY_ROWS.fullmatch(text)
        if match is None or self._sessions.is_in_transaction:
            return False
        return bool(
            self._sessions.admin().rows(
                _TABLE_OF_EXTENSION, match["table"], doing="looking whose table it is"
            )
        )

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
                f"{where}: {shown(command.text)} is a command to psql, which no dump needs: it could run programs",
                hint="only what pg_dump and pg_dumpall write is understood: \\connect, \\restrict and \\unrestrict",
            )
        database = _database_in(connect[1], where)
        if database not in (*self.databases, *MAINTENANCE):
            raise ArchiveError(f"{where}: database {database} was not created before")
        self._sessions.connect(database)

    def _create_database(self, name: bytes, options: dict[str, str]) -> None:
        database = name.decode("utf-8", "backslashreplace")
        others = [one for one in self.databases if one not in MAINTENANCE]
        if others:
            raise ArchiveError(
                f"the dump holds several databases ({', '.join([*others, database])}, ...), and a backup holds one",
                hint="dump each by itself with pg_dump; roles and settings come with pg_dumpall --globals-only",
            )
        if database not in MAINTENANCE:
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
            owner=AUTHOR.encode(),
        )
        plain_c = DatabaseShape(encoding=encoding, collate="C", ctype="C", owner=AUTHOR.encode())
        server = self.conninfo("postgres")
        with contextlib.closing(open_raw(server, encoding="UTF8", settings=OUR_NAMES)) as session:
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
            self._sessions = ScriptSessions(self, stack)
            self._sessions.connect(MAINTENANCE[0])
            for database in dict.fromkeys(one for one, _ in self._lent):
                self._sessions.connect(database)
                self._take_back()
            promotion = f"ALTER ROLE {AUTHOR} SUPERUSER".encode()
            self._sessions.admin().rows(promotion, doing="handing over what the superuser made")
            for database, text in self._late:
                self._sessions.connect(database)
                self._as_superuser(text)
            for database in (*self.databases, *MAINTENANCE):
                self._sessions.connect(database)
                session = self._sessions.admin()
                handover = f"REASSIGN OWNED BY {self.admin} TO {AUTHOR}".encode()
                session.rows(handover, doing="handing over what the superuser made")
                if session.rows(_MONEY_COLUMNS, doing="looking for columns of type money"):
                    self.warnings.append(_MONEY_WARNING)
                if database in MAINTENANCE and user_objects(session)[0]:
                    self.databases.append(database)
            for database, text in self._event_triggers:  # last, so that they see nothing of this
                self._sessions.connect(database)
                self._as_superuser(text)
                if (made := _EVENT_TRIGGER_MADE.match(text)) is not None:
                    owner = b"ALTER EVENT TRIGGER %b OWNER TO %b" % (made[1], AUTHOR.encode())
                    self._sessions.admin().rows(owner, doing=shown(owner))

    def _as_superuser(self, text: bytes) -> None:
        """Run a statement; if it makes somebody an owner, as if he were a superuser."""
        match = OWNER_TO.fullmatch(text)
        if match is None or plain(match["owner"]) == AUTHOR.encode():
            self._sessions.run_as_admin(text)
            return
        self._ensure_roles({plain(match["owner"])})
        session = self._sessions.admin()
        session.rows(b"ALTER ROLE %b SUPERUSER" % match["owner"], doing="lending a superuser's rights")
        self._sessions.run_as_admin(text)
        session.rows(b"ALTER ROLE %b NOSUPERUSER" % match["owner"], doing="taking a superuser's rights back")


def _copy_in(session: RawSession, text: bytes) -> CopyIn:
    return CopyIn(
        session.connection,
        text,
        stop=threading.Event(),
        stall_timeout_s=_STALL_TIMEOUT_S,
        is_wary=False,
    )


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
        f"{name}, line {item.line:,}, statement {item.number:,}: {primary} in {shown(item.text)}",
        hint=hint,
        sqlstate=exc.sqlstate,
    )
