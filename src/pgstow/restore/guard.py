"""Everything that must hold before a target is touched.

Nothing here changes the target; whatever is wrong raises TargetRefused (or UsageError, ToolMissing) while
the target is still as it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pgstow.catalog.manifest import Manifest
from pgstow.core.errors import ConnectionFailed, TargetRefused, ToolMissing, UsageError
from pgstow.postgres import target as target_sql
from pgstow.postgres.archive import TocEntry
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.pooler import refuse_transaction_pooler
from pgstow.postgres.raw import RawSession, open_raw
from pgstow.postgres.session import NO_TIMEOUTS, Connection
from pgstow.postgres.tools import ClientTools
from pgstow.restore.data_only import check_tables_are_ready
from pgstow.restore.extensions import without_extensions
from pgstow.restore.foundation import Foundation
from pgstow.restore.naming import described
from pgstow.restore.preflight import Preflight, look_ahead, missing_extensions
from pgstow.restore.report import TargetIdentity
from pgstow.restore.request import ArchiveFiles, RestoreOptions
from pgstow.restore.selection import Selection, select_whole
from pgstow.restore.tables import object_key, select_some

__all__ = ["GUARD_SETTINGS", "Admission", "admit", "maintenance_session", "pick_pg_restore"]

GUARD_SETTINGS = {"search_path": "", "default_transaction_read_only": "off", **NO_TIMEOUTS}
_MAINTENANCE_DATABASES = ("postgres", "template1")
# The newest archive version that the pg_restore of each major release reads.
_READS = {14: (1, 14), 15: (1, 14), 16: (1, 15)}
_READS_SINCE_17 = (1, 16)
_TRANSACTION_TIMEOUT_SINCE = 17  # pg_restore sets it unasked, which older servers refuse


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A target that may be restored into, and how."""

    identity: TargetIdentity
    database: bytes  # in the archive's encoding
    replaces: bool  # --create --clean, and the database is there
    selection: Selection
    beneath: tuple[TocEntry, ...]  # of the foundation's archive
    tools: ClientTools
    memory: target_sql.MemoryFacts
    preflight: Preflight


def admit(
    files: ArchiveFiles,
    target: ConnInfo,
    options: RestoreOptions,
    tools: Sequence[ClientTools],
    foundation: Foundation | None = None,
) -> Admission:
    """Return how to restore into ``target``, having found nothing that speaks against it."""
    options.check()
    encoding = files.toc.encoding
    opening = maintenance_session(target, encoding) if options.create else _session(target, encoding)
    with opening as session:
        facts = target_sql.target_facts(session)
        _check_server(files.manifest, facts)
        refuse_transaction_pooler(
            target if not options.create else target.with_database(session.decode(facts.database))
        )
        chosen_tools = pick_pg_restore(
            tools, files, facts.version_num // 10000, needs_tls=session.connection.pgconn.ssl_in_use
        )
        database = (target.dbname or "").encode(session.codec) if options.create else facts.database
        _check_confirmation_is_meant(options, session.decode(database))
        if options.create:
            oid = _check_creation(session, database, files.manifest, facts, options)
            selection = _select(files, options, existing=frozenset())
        else:
            oid = facts.database_oid
            selection = _select(
                files,
                options,
                existing=target_sql.existing_objects(session) if options.is_selective else frozenset(),
            )
            _check_contents(session, files, facts, selection, options)
        selection = _without_optional(session, files, selection, options)
        beneath = _beneath(session, foundation, options)
        return Admission(
            identity=_identity(session, facts, database, oid),
            database=database,
            replaces=options.create and oid is not None,
            selection=selection,
            beneath=beneath,
            tools=chosen_tools,
            memory=target_sql.memory_facts(session),
            preflight=look_ahead(session, files, selection, facts, options, beneath=beneath),
        )


@contextlib.contextmanager
def _session(target: ConnInfo, encoding: str) -> Iterator[RawSession]:
    with contextlib.closing(open_raw(target, encoding=encoding, settings=GUARD_SETTINGS)) as session:
        yield session


@contextlib.contextmanager
def maintenance_session(target: ConnInfo, encoding: str) -> Iterator[RawSession]:
    """Connect to the target's server, but to a database from which the target can be created or dropped."""
    if target.dbname is None:
        raise UsageError(
            "--create needs the name of the database to create",
            hint="add it to the target's URL, or dbname=NAME beside service=NAME",
        )
    session = None
    failures: list[ConnectionFailed] = []
    for name in _MAINTENANCE_DATABASES:
        try:
            session = open_raw(target.with_database(name), encoding=encoding, settings=GUARD_SETTINGS)
            break
        except ConnectionFailed as exc:
            failures.append(exc)
    if session is None:
        raise failures[0]
    with contextlib.closing(session):
        yield session


def _identity(
    session: RawSession, facts: target_sql.TargetFacts, database: bytes, oid: int | None
) -> TargetIdentity:
    connection: Connection = session.connection
    return TargetIdentity(
        host=connection.info.host,
        port=connection.info.port,
        database=session.decode(database),
        database_oid=oid,
        system_identifier=facts.system_identifier,
        server_version=facts.version,
        server_version_num=facts.version_num,
        user=session.decode(facts.user),
        is_superuser=facts.is_superuser,
    )


def _select(
    files: ArchiveFiles,
    options: RestoreOptions,
    existing: frozenset[target_sql.ObjectKey] | set[target_sql.ObjectKey],
) -> Selection:
    if options.is_selective:
        return select_some(files.toc, options, existing)
    return select_whole(files.toc, options, holds_chosen_tables=bool(files.manifest.selection.tables))


def _without_optional(
    session: RawSession, files: ArchiveFiles, selection: Selection, options: RestoreOptions
) -> Selection:
    """Return the selection without what needs an extension that the server lacks and that may be missing."""
    if not options.optional_extensions:
        return selection
    missing = missing_extensions(session, selection.entries, encoding=files.toc.encoding)
    return without_extensions(files.toc, selection, options.optional_extensions.intersection(missing))


def _beneath(
    session: RawSession, foundation: Foundation | None, options: RestoreOptions
) -> tuple[TocEntry, ...]:
    if foundation is None:
        return ()
    missing = missing_extensions(session, foundation.entries, encoding=foundation.toc.encoding)
    there = set[target_sql.ObjectKey]() if options.create else target_sql.existing_objects(session)
    entries = foundation.without_extensions(options.optional_extensions.intersection(missing))
    return tuple(entry for entry in entries if object_key(entry) not in there)


# -- the server


def _check_server(manifest: Manifest, facts: target_sql.TargetFacts) -> None:
    if facts.is_standby:
        raise TargetRefused(
            "the target is a standby: nothing can be written to it", hint="connect to the primary server"
        )
    source_major, target_major = manifest.server.version_num // 10000, facts.version_num // 10000
    if target_major < source_major:
        raise TargetRefused(
            f"the target runs PostgreSQL {target_major}, older than the {source_major} that the backup is from",
            hint=f"restore into PostgreSQL {source_major} or newer",
            source_major=source_major,
            target_major=target_major,
        )


def pick_pg_restore(
    tools: Sequence[ClientTools], files: ArchiveFiles, server_major: int, *, needs_tls: bool = False
) -> ClientTools:
    """Return the release of pg_restore to use: the server's own, else the next newer, else the next older."""
    version = files.toc.header.version[:2]
    usable = [
        tool
        for tool in tools
        if _READS.get(tool.version[0], _READS_SINCE_17) >= version
        and not (tool.version[0] >= _TRANSACTION_TIMEOUT_SINCE > server_major)
        and (tool.has_tls or not needs_tls)
    ]
    if usable:
        return min(
            usable,
            key=lambda tool: (
                tool.version[0] < server_major,
                abs(tool.version[0] - server_major),
                -tool.version[1],
            ),
        )
    made_by = (files.toc.header.pg_dump_version or b"").decode(errors="backslashreplace")
    raise ToolMissing(
        f"no pg_restore{' with TLS' if needs_tls else ''} was found that reads an archive of pg_dump {made_by} and speaks to"
        f" PostgreSQL {server_major}",
        hint=f"install the package postgresql-client-{server_major} (Debian, Ubuntu) or put its folder on the PATH",
        found=[str(tool.bin_dir) for tool in tools],
    )


# -- what is there already


def _check_confirmation_is_meant(options: RestoreOptions, database: str) -> None:
    if options.confirm is not None and options.confirm != database:
        raise TargetRefused(
            f"the confirmation names {options.confirm}, but the target is database {database}",
            hint="check which database the target's URL leads to",
        )


def _require_confirmation(options: RestoreOptions, reason: str, database: str, *, with_clean: bool) -> None:
    """TargetRefused for ``reason``, unless the user asked for it and typed the database's name."""
    if options.confirm == database and (options.clean or not with_clean):
        return
    clean = "--clean " if with_clean else ""
    raise TargetRefused(reason, hint=f"nothing was touched; to go ahead add {clean}--confirm {database}")


def _is_own_source(manifest: Manifest, facts: target_sql.TargetFacts, oid: int) -> bool:
    server = manifest.server
    if server.system_identifier is None or facts.system_identifier is None:
        return False
    return (server.system_identifier, server.database_oid) == (facts.system_identifier, oid)


def _check_creation(
    session: RawSession,
    database: bytes,
    manifest: Manifest,
    facts: target_sql.TargetFacts,
    options: RestoreOptions,
) -> int | None:
    """Return the OID of the database that will be replaced, None if there is none."""
    oid = target_sql.database_oid(session, database)
    if oid is None:
        return None
    name = session.decode(database)
    reason = f"database {name} exists already"
    if _is_own_source(manifest, facts, oid):
        reason += " and is the one that the backup was made of"
    _require_confirmation(options, reason, name, with_clean=True)
    if database == facts.database:
        raise TargetRefused(f"database {name} cannot be replaced: it is the one used to create others")
    _refuse_subscriptions(session, name, target_sql.subscriptions(session, database), done="dropped")
    if options.disconnect_others:
        return oid
    _refuse_beside_restore(session, database)
    others = target_sql.other_sessions(session, database)
    if others:
        raise TargetRefused(
            f"{others} other session{'s are' if others > 1 else ' is'} connected to database {name}",
            hint="stop the applications that use it, then try again",
            sessions=others,
        )
    return oid


def _refuse_subscriptions(session: RawSession, name: str, found: Sequence[bytes], *, done: str) -> None:
    """TargetRefused for subscriptions: PostgreSQL drops one neither with its database nor in a transaction with others."""
    if found:
        raise TargetRefused(
            f"database {name} cannot be {done} while it has the subscription{'s' if len(found) > 1 else ''}"
            f" {', '.join(session.decode(one) for one in found)}",
            hint="nothing was touched; drop them first, in that database (DROP SUBSCRIPTION; where the publisher is gone, after"
            " ALTER SUBSCRIPTION ... DISABLE and SET (slot_name = NONE))",
        )


def _refuse_beside_restore(session: RawSession, database: bytes) -> None:
    """TargetRefused while another restore defines objects in the database, perhaps one whose pgstow was killed.

    What the two do would mix.
    """
    count = target_sql.restoring_sessions(session, database)
    if count:
        raise TargetRefused(
            f"a restore is still at work in database {session.decode(database)}",
            hint="wait until it has ended; of one that was killed pg_restore goes on, where it was started: end that, or its"
            " sessions, whose application_name begins with pgstow pg_restore",
            sessions=count,
        )


def _check_contents(
    session: RawSession,
    files: ArchiveFiles,
    facts: target_sql.TargetFacts,
    selection: Selection,
    options: RestoreOptions,
) -> None:
    name = session.decode(facts.database)
    if options.data_only:
        check_tables_are_ready(session, files, selection)
    elif options.is_selective:
        _check_conflicts(files, selection, options, name)
    else:
        _refuse_beside_restore(session, facts.database)
        count, examples = target_sql.user_objects(session)
        if count:
            shown = ", ".join(examples) + (", ..." if count > len(examples) else "")
            reason = (
                f"database {name} is not empty: it holds {count} object{'s' if count > 1 else ''} ({shown})"
            )
            _require_confirmation(options, reason, name, with_clean=True)
    if _is_own_source(files.manifest, facts, facts.database_oid):
        reason = f"database {name} is the one that the backup was made of"
        _require_confirmation(options, reason, name, with_clean=False)
    if options.clean:
        ours = {entry.tag for entry in selection.entries if entry.desc == b"SUBSCRIPTION"}
        there = target_sql.subscriptions(session, None, with_slot_alone=True)
        _refuse_subscriptions(session, name, [one for one in there if one in ours], done="cleaned")


def _check_conflicts(
    files: ArchiveFiles, selection: Selection, options: RestoreOptions, database: str
) -> None:
    if selection.conflicts:
        encoding = files.toc.encoding
        names = [described(entry, encoding) for entry in selection.conflicts]
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        _require_confirmation(options, f"database {database} has {shown} already", database, with_clean=True)
