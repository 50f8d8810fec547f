"""Making the target database, with what the archive says about the database itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from psycopg import errors as pgerrors

from pgstow.catalog.manifest import Manifest
from pgstow.core.errors import ConnectionFailed, PostgresError, RestoreError
from pgstow.postgres import target as target_sql
from pgstow.postgres.archive import Toc
from pgstow.postgres.raw import RawSession
from pgstow.postgres.target import DatabaseShape
from pgstow.restore.naming import described, rename_database, split_statements
from pgstow.restore.request import RestoreOptions
from pgstow.restore.selection import PRIVILEGES, is_about_database

__all__ = ["apply_database_entries", "create_like_source"]

# What the server says when it does not know a locale, or was built without its provider.
_LOCALE_ERRORS = {
    pgerrors.WrongObjectType.sqlstate,  # invalid LC_COLLATE locale name
    pgerrors.InvalidParameterValue.sqlstate,
    pgerrors.InvalidObjectDefinition.sqlstate,
    pgerrors.FeatureNotSupported.sqlstate,
    pgerrors.UndefinedObject.sqlstate,
}

# A setting of the database, or of a role in it; its value may be a secret.
_SETTING = re.compile(rb"""\AALTER (?:DATABASE|ROLE) .* SET (?P<name>"?[A-Za-z_][\w.$]*"?) TO """, re.DOTALL)


def create_like_source(
    session: RawSession,
    name: bytes,
    manifest: Manifest,
    toc: Toc,
    options: RestoreOptions,
    *,
    connection_limit: int | None = None,
) -> list[str]:
    """Create the database with encoding and locale of the source; return what had to differ.

    Where the server does not know the locale its own default is taken, and C when that does not fit the
    encoding: rows are the same, only the order of sorting is not.
    """
    wished = _wished(session, manifest, toc, options)
    fallbacks = [
        wished,
        DatabaseShape(encoding=wished.encoding, owner=wished.owner, tablespace=wished.tablespace),
        DatabaseShape(
            encoding=wished.encoding,
            collate="C",
            ctype="C",
            provider="libc",
            owner=wished.owner,
            tablespace=wished.tablespace,
        ),
    ]
    for number, shape in enumerate(fallbacks):
        try:
            target_sql.create_database(session, name, replace(shape, connection_limit=connection_limit))
        except PostgresError as exc:
            if exc.facts.get("sqlstate") not in _LOCALE_ERRORS or shape is fallbacks[-1]:
                raise
            continue
        if number == 0:
            return []
        server = manifest.server
        taken = "the server's default" if number == 1 else "C"
        return [
            (
                f"the target's server does not have the locale {server.icu_locale or server.collate} ({wished.provider}) of the source;"
                f" {taken} was taken: text may sort differently"
            )
        ]
    raise AssertionError("the last fallback either works or raises")


def _wished(session: RawSession, manifest: Manifest, toc: Toc, options: RestoreOptions) -> DatabaseShape:
    server = manifest.server
    entry = next((entry for entry in toc.entries if entry.desc == b"DATABASE"), None)
    there = target_sql.tablespaces(session)
    return DatabaseShape(
        encoding=server.encoding,
        collate=server.collate,
        ctype=server.ctype,
        provider=server.locale_provider,
        locale=server.icu_locale,
        owner=entry.owner if entry and entry.owner and not options.no_owner else None,
        tablespace=entry.tablespace if entry and entry.tablespace and entry.tablespace in there else None,
    )


def apply_database_entries(
    session: RawSession,
    name: bytes,
    toc: Toc,
    options: RestoreOptions,
    *,
    connect: Callable[[], object],
) -> list[str]:
    """Give the new database what the archive says of the database itself, whatever its name is now.

    Before anything else, as pg_restore does: tables may depend on settings. Returns which settings the server refused, and
    which it took but then let nobody in: ``connect`` opens a session on the database, and closes it. Raises RestoreError.
    """
    encoding = toc.encoding
    quoted_name = target_sql.quoted(session, name)
    refused: list[str] = []
    for entry in toc.entries:
        if not is_about_database(entry) or entry.desc == b"DATABASE" or not entry.defn:
            continue
        if options.no_privileges and entry.desc in PRIVILEGES:
            continue
        what = described(entry, encoding)
        for statement in split_statements(rename_database(entry.defn, quoted_name)):
            setting = _SETTING.search(statement)
            try:
                session.execute(statement, doing=f"restoring {what}")
            except ConnectionFailed:
                raise
            except PostgresError as exc:
                if setting is None:
                    raise RestoreError(exc.message, hint=exc.hint, object=what) from exc
                reason = exc.message.removeprefix(f"restoring {what}: ")
                refused.append(
                    f"the setting {session.decode(setting['name'])} of the database was not restored: {reason}; set it with"
                    " ALTER DATABASE where that is mended (pgstow show has its configuration)"
                )
    return [*refused, *_let_in(session, name, connect)]


def _let_in(session: RawSession, name: bytes, connect: Callable[[], object]) -> Iterator[str]:
    """Take back libraries that every session is to load and that the server does not have; yield what was taken back."""
    try:
        connect()
    except ConnectionFailed:
        found = target_sql.preloaded_libraries(session, name)
        if not found:
            raise
        for role, setting, value in found:
            target_sql.reset_setting(session, name, role, setting)
            yield (
                f"the setting {session.decode(setting)} of the database was not kept, as nobody could connect with it:"
                f" {session.decode(value)}; install these libraries on the server, then set it again with ALTER DATABASE"
            )
        connect()
