"""Roles in a throwaway server, so that owners and privileges are restored for real.

They are made from the backup's globals.sql, which pg_dumpall wrote: one statement after the other, names quoted where they are
not plain. Nobody can log in as one of them: they get no password and NOLOGIN, and the server lets in its own superuser alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pgstow.core.errors import ConnectionFailed, PostgresError
from pgstow.postgres import target as target_sql
from pgstow.postgres.archive import Toc, TocEntry
from pgstow.postgres.archive.entries import unquote
from pgstow.postgres.raw import RawSession
from pgstow.restore.naming import text
from pgstow.restore.preflight import needed_roles
from pgstow.restore.selection import is_about_database

__all__ = ["create_globals", "create_missing_roles", "statements_of"]

# A statement ends at a semicolon outside of strings and quoted names; comments stand on lines of their own, and so do the
# backslash commands of newer releases.
_PART = re.compile(
    rb"""[eE]'(?:[^'\\]|''|\\.)*+'|'(?:[^']|'')*+'|"(?:[^"]|"")*+"|--[^\n]*+|(?m:^)\\[^\n]*+|;|[^;'"\-\\eE]++|.""",
    re.DOTALL,
)
_NAME = rb'(?:"(?:[^"]|"")*+"|[^\s;"]++)'
_ALTER_WITH = re.compile(rb"ALTER ROLE (?P<role>%b) WITH (?P<options>.*)" % _NAME, re.DOTALL)
_ALTER = re.compile(rb"ALTER ROLE (?P<role>%b) " % _NAME)
_CREATE = re.compile(rb"CREATE ROLE (?P<role>%b)" % _NAME)
_PASSWORD = re.compile(rb" PASSWORD (?:NULL|'(?:[^']|'')*+')")
_SETTING = re.compile(rb"ALTER ROLE %b SET [^ ]++ TO" % _NAME)
_LOGIN = re.compile(rb"(?<!\S)LOGIN(?!\S)")
_GRANTED_BY = re.compile(rb" GRANTED BY %b\Z" % _NAME)
_IN_DATABASE = re.compile(rb"ALTER ROLE %b IN DATABASE " % _NAME)
_ROLE_IN_DATABASE = re.compile(rb"ALTER ROLE (%b) IN DATABASE " % _NAME)
_TABLESPACE = re.compile(
    rb"(?:CREATE|ALTER) TABLESPACE |(?:GRANT|REVOKE) .* ON TABLESPACE |(?:COMMENT|SECURITY LABEL .*) ON TABLESPACE ",
    re.DOTALL,
)


def statements_of(sql: bytes) -> Iterator[bytes]:
    """Yield the statements of a globals.sql, without their semicolons."""
    statement = b""
    for match in _PART.finditer(sql):
        part = match[0]
        if part == b";":
            yield statement.strip()
            statement = b""
        elif not part.startswith((b"--", b"\\")):
            statement += part


def create_globals(session: RawSession, sql: bytes) -> list[str]:
    """Run what a globals.sql says of roles, memberships and rights on settings; return what could not be done.

    The session's own role, which is the only one that can come in, stays as it is. Tablespaces are left out: everything goes
    into the default one.
    """
    me = session.value(b"SELECT current_user", doing="asking who we are") or b""
    remarks: list[str] = []
    for statement in statements_of(sql):
        problem: str | None = None
        for attempt in _attempts(statement, me):
            problem = _problem(session, attempt)
            if problem is None:
                break
        if problem is not None:
            remarks.append(f"{_shown(session, statement)}: {problem}")
    return remarks


def _problem(session: RawSession, statement: bytes) -> str | None:
    try:
        session.execute(statement, doing="creating roles")
    except ConnectionFailed:
        raise
    except PostgresError as exc:
        return exc.message.removeprefix("creating roles: ")
    return None


def _attempts(statement: bytes, me: bytes) -> list[bytes]:
    """Return what to run for a statement, the second only if the first fails; nothing for what is left out."""
    if statement.startswith(b"SET ") or _TABLESPACE.match(statement) or _IN_DATABASE.match(statement):
        return []  # what is said of roles in databases stands in the archive, too
    if match := _CREATE.match(statement):
        return [] if unquote(match["role"]) == me else [statement]
    if match := _ALTER.match(statement):
        if unquote(match["role"]) == me:
            return []
        if changed := _ALTER_WITH.fullmatch(statement):
            options = _LOGIN.sub(b"NOLOGIN", _PASSWORD.sub(b"", b" " + changed["options"]))
            return [b"ALTER ROLE %b WITH%b" % (changed["role"], options)]
        return [statement]
    # The superuser that made a server may grant what others must be entitled to, and here that is another one.
    without_grantor = _GRANTED_BY.sub(b"", statement)
    return [statement] if without_grantor == statement else [statement, without_grantor]


def _shown(session: RawSession, statement: bytes) -> str:
    """Return a statement for people, without the value of a setting and without a password: both may be secrets."""
    plain = _PASSWORD.sub(b"", statement)
    if setting := _SETTING.match(plain):
        plain = setting[0]
    return " ".join(session.decode(plain).split())[:200]


def create_missing_roles(session: RawSession, toc: Toc, *, beneath: Iterable[TocEntry] = ()) -> list[str]:
    """Create the roles that the archive, and what is made ``beneath`` it, need and the server lacks; return their names."""
    roles = needed_roles([*toc.entries, *beneath])
    wanted = {*roles.owners, *roles.privileges, *roles.others}
    for entry in toc.entries:
        if is_about_database(entry):
            wanted |= {unquote(name) for name in _ROLE_IN_DATABASE.findall(entry.defn or b"")}
    missing = sorted(wanted - target_sql.roles(session).keys())
    for name in missing:
        session.execute(
            b"CREATE ROLE " + target_sql.quoted(session, name), doing=f"creating role {session.decode(name)}"
        )
    return [text(name, toc.encoding) for name in missing]
