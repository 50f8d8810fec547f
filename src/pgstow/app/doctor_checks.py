"""The questions of the doctor that one session on the source can answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from pgstow.app.findings import Finding, Level, counted, some_of
from pgstow.postgres import inspection
from pgstow.postgres.catalogs import unreadable_tables
from pgstow.postgres.session import Connection

__all__ = ["SAFE_MINORS", "SESSION_CHECKS"]

OLDEST_MAJOR = 14
NEWEST_TESTED_MAJOR = 19
NO_LONGER_MAINTAINED = 14  # https://www.postgresql.org/support/versioning/: 14 ended on 2026-11-12

# The first server releases without the holes known in November 2026 (CVE-2026-6460 the latest).
# https://www.postgresql.org/support/security/
SAFE_MINORS: Mapping[int, int] = MappingProxyType({14: 25, 15: 20, 16: 16, 17: 12, 18: 7})

_SLOW_LOCK_S = 5.0


def server_version(session: Connection) -> Iterator[Finding]:
    """Is this a server that pgstow knows, and is it kept up to date?"""
    version_num = session.info.server_version
    major = version_num // 10000
    if major < OLDEST_MAJOR:
        yield Finding(
            code="server_version",
            level=Level.PROBLEM,
            text=f"the server is PostgreSQL {major}; pgstow backs up {OLDEST_MAJOR} and newer",
            remedy="upgrade the server",
        )
    elif major > NEWEST_TESTED_MAJOR:
        yield Finding(
            code="server_version",
            level=Level.UNKNOWN,
            text=f"the server is PostgreSQL {major}, which pgstow was not tested with",
            remedy="restore a backup into a scratch database and compare before relying on it",
        )
    else:
        yield _minor_release(major, version_num % 10000)
    if major == NO_LONGER_MAINTAINED:
        yield Finding(
            code="server_maintained",
            level=Level.WARNING,
            text=f"PostgreSQL {major} no longer gets security releases",
            remedy="plan the upgrade; a backup restores into any newer version",
        )


def _minor_release(major: int, minor: int) -> Finding:
    safe = SAFE_MINORS.get(major)
    if safe is not None and minor < safe:
        return Finding(
            code="server_version",
            level=Level.WARNING,
            text=f"the server is PostgreSQL {major}.{minor}, which has security holes that {major}.{safe} closed",
            remedy=f"update the server to {major}.{safe} or newer",
        )
    return Finding(code="server_version", level=Level.OK, text=f"the server is PostgreSQL {major}.{minor}")


def transport(session: Connection) -> Iterator[Finding]:
    """Is the connection encrypted, and does it know whom it talks to?"""
    found = inspection.secured_connection(session)
    if found.is_socket:
        yield Finding(
            code="tls", level=Level.OK, text="the connection is a local socket and never leaves the machine"
        )
        return
    if found.tls_version is None:
        is_local = found.host in {"localhost", "127.0.0.1", "::1"}
        yield Finding(
            code="tls",
            level=Level.OK if is_local else Level.WARNING,
            text=f"the connection to {found.host} is not encrypted"
            + (", and stays on this machine" if is_local else ""),
            remedy=None if is_local else "use sslmode=verify-full with the server's root certificate",
        )
        return
    cipher = f" with {found.cipher}" if found.cipher else ""
    is_verified = found.sslmode == "verify-full"
    yield Finding(
        code="tls",
        level=Level.OK if is_verified else Level.WARNING,
        text=f"the connection is encrypted, {found.tls_version}{cipher}"
        + ("" if is_verified else f", but sslmode={found.sslmode} does not check who the server is"),
        remedy=None if is_verified else "use sslmode=verify-full with the server's root certificate",
    )


def role(session: Connection) -> Iterator[Finding]:
    """What may the role do, and what of the globals would it miss?"""
    found = inspection.privileges(session)
    if found.is_superuser:
        text = f"role {found.role} is a superuser"
    elif found.reads_all_data:
        text = f"role {found.role} may read all data (pg_read_all_data)"
    else:
        text = f"role {found.role} reads what it was granted, table by table"
    yield Finding(
        code="privileges",
        level=Level.OK if found.reads_all_data else Level.WARNING,
        text=text,
        remedy=None
        if found.reads_all_data
        else f"GRANT pg_read_all_data TO {found.role}, so that tables created later are readable too",
    )
    yield Finding(
        code="globals",
        level=Level.OK if found.sees_passwords else Level.WARNING,
        text="roles, memberships and settings can be saved"
        + (
            ", with password hashes when asked for"
            if found.sees_passwords
            else ", password hashes of roles cannot"
        ),
        remedy=None
        if found.sees_passwords
        else "after a restore to a new server, set the roles' passwords again",
    )


def tables(session: Connection) -> Iterator[Finding]:
    """Can every table be read, and every row of it?"""
    unreadable = [name.decode("utf-8", "backslashreplace") for name in unreadable_tables(session)]
    if unreadable:
        yield Finding(
            code="tables_readable",
            level=Level.PROBLEM,
            text=f"{counted(len(unreadable), 'table')} cannot be read: {some_of(unreadable)}",
            remedy="grant SELECT on them (or pg_read_all_data), or leave them out with --exclude-table",
            names=tuple(unreadable),
        )
    else:
        yield Finding(code="tables_readable", level=Level.OK, text="every table can be read")
    secured = inspection.row_secured_tables(session)
    if secured:
        yield Finding(
            code="row_security",
            level=Level.PROBLEM,
            text=f"row security hides rows of {counted(len(secured), 'table')} from this role: {some_of(secured)}",
            remedy="connect as a role with BYPASSRLS, or as the tables' owner where security is not forced",
            names=tuple(secured),
        )
    else:
        yield Finding(code="row_security", level=Level.OK, text="row security hides nothing from this role")


def sequences_and_large_objects(session: Connection) -> Iterator[Finding]:
    """Can what lives beside the tables be read?"""
    sequences = inspection.unreadable_sequences(session)
    if sequences:
        yield Finding(
            code="sequences_readable",
            level=Level.PROBLEM,
            text=f"the values of {counted(len(sequences), 'sequence')} cannot be read: {some_of(sequences)}",
            remedy="grant SELECT on them (or pg_read_all_data)",
            names=tuple(sequences),
        )
    else:
        yield Finding(code="sequences_readable", level=Level.OK, text="every sequence can be read")
    count = inspection.unreadable_large_objects(session)
    yield Finding(
        code="large_objects_readable",
        level=Level.PROBLEM if count else Level.OK,
        text=f"{counted(count, 'large object')} cannot be read"
        if count
        else "every large object can be read",
        remedy="connect as their owner, or grant SELECT on them" if count else None,
    )


def rows_left_behind(session: Connection) -> Iterator[Finding]:
    """Which rows are by their nature not in a backup?"""
    is_standby, sends_feedback, delay = inspection.standby_conflicts(session)
    unlogged = inspection.unlogged_tables(session)
    if unlogged and is_standby:
        yield Finding(
            code="unlogged_tables",
            level=Level.WARNING,
            text=f"a standby has no rows of unlogged tables: {some_of(unlogged)}",
            remedy="back up the primary if these rows matter",
            names=tuple(unlogged),
        )
    foreign = inspection.foreign_tables(session)
    if foreign:
        yield Finding(
            code="foreign_tables",
            level=Level.WARNING,
            text=f"foreign tables are saved without their rows, which are elsewhere: {some_of(foreign)}",
            remedy="back up the servers they point to",
            names=tuple(foreign),
        )
    if is_standby and not sends_feedback:
        yield Finding(
            code="standby",
            level=Level.WARNING,
            text=f"the server is a standby without hot_standby_feedback; a backup longer than {delay} may be cancelled",
            remedy="set hot_standby_feedback = on, or raise max_standby_streaming_delay",
        )
    elif is_standby:
        yield Finding(
            code="standby",
            level=Level.OK,
            text="the server is a standby that keeps its primary from vacuuming rows in use",
        )
    count = inspection.subscriptions(session)
    if count and not inspection.privileges(session).is_superuser:
        yield Finding(
            code="subscriptions",
            level=Level.WARNING,
            text=f"{counted(count, 'subscription')} cannot be saved: only a superuser may read them",
            remedy="note their definition elsewhere",
        )


def extensions(session: Connection) -> Iterator[Finding]:
    """What must a server offer before this database can be restored there?"""
    installed = inspection.installed_extensions(session)
    if not installed:
        yield Finding(code="extensions", level=Level.OK, text="no extension is needed for a restore")
        return
    untrusted = inspection.untrusted_extensions(session)
    text = f"a restore needs a server that offers {some_of(installed)}"
    if untrusted:
        text += f"; only a superuser there can create {some_of(untrusted)}"
    yield Finding(code="extensions", level=Level.OK, text=text, names=tuple(installed))


def room(session: Connection) -> Iterator[Finding]:
    """Are there locks and connections enough?"""
    found = inspection.capacity(session)
    share = found.relations / found.lock_slots if found.lock_slots else 1.0
    if share > 1:
        level = Level.PROBLEM
    elif share > 0.5:
        level = Level.WARNING
    else:
        level = Level.OK
    yield Finding(
        code="lock_table",
        level=level,
        text=f"a backup locks {counted(found.relations, 'relation')}; the server's lock table has room for about {found.lock_slots:,}",
        remedy=None
        if level is Level.OK
        else f"raise max_locks_per_transaction from {found.lock_setting} to {2 * found.lock_setting * (int(share) + 1)} or more",
    )
    few = 6
    yield Finding(
        code="connections",
        level=Level.OK if found.free_connections >= few else Level.WARNING,
        text=f"the server has {counted(found.free_connections, 'free connection')}",
        remedy=None if found.free_connections >= few else f"a backup with two jobs uses up to {few}",
    )
    for lock in inspection.blocking_locks(session):
        if lock.seconds >= _SLOW_LOCK_S:
            yield Finding(
                code="blocking_lock",
                level=Level.WARNING,
                text=f"process {lock.pid} has locked {lock.table} exclusively for {lock.seconds:.0f} s; a backup would wait for it",
                remedy="let that transaction end first",
            )


def health(session: Connection) -> Iterator[Finding]:
    """Is there damage or drift that a backup would carry along?"""
    invalid = inspection.invalid_indexes(session)
    if invalid:
        yield Finding(
            code="invalid_indexes",
            level=Level.WARNING,
            text=f"indexes that were never finished: {some_of(invalid)}; a restore builds them",
            remedy="REINDEX INDEX CONCURRENTLY or drop them",
            names=tuple(invalid),
        )
    change = inspection.collation_change(session)
    if change is not None:
        yield Finding(
            code="collation",
            level=Level.WARNING,
            text=f"the operating system's collation changed from {change[0]} to {change[1]}; indexes on text may be wrong",
            remedy="REINDEX what is affected, then ALTER DATABASE ... REFRESH COLLATION VERSION",
        )


def surroundings(session: Connection) -> Iterator[Finding]:
    """What is there that this backup does not hold?"""
    others = inspection.other_databases(session)
    if others:
        yield Finding(
            code="other_databases",
            level=Level.WARNING,
            text=f"this backup does not hold {counted(len(others), 'other database')} of the server: {some_of(others)}",
            remedy="pgstow backup --all-databases takes all of them",
            names=tuple(others),
        )
    supabase = inspection.supabase_facts(session)
    if supabase is None:
        return
    count = "" if supabase.storage_objects is None else f"{supabase.storage_objects:,} "
    yield Finding(
        code="supabase_storage",
        level=Level.WARNING,
        text=f"this is a Supabase project: the {count}files in Storage are in no database backup, only their names are",
        remedy="copy the buckets with an S3 client",
    )
    if supabase.vault_secrets != 0:
        count = "" if supabase.vault_secrets is None else f"{supabase.vault_secrets:,} "
        yield Finding(
            code="supabase_vault",
            level=Level.WARNING,
            text=f"the {count}secrets in Vault are encrypted with a root key that is outside the database",
            remedy="save the project's root key, or note the secrets elsewhere",
        )


SESSION_CHECKS: tuple[tuple[str, Callable[[Connection], Iterator[Finding]]], ...] = (
    ("server_version", server_version),
    ("tls", transport),
    ("privileges", role),
    ("tables_readable", tables),
    ("sequences_readable", sequences_and_large_objects),
    ("rows_left_behind", rows_left_behind),
    ("extensions", extensions),
    ("lock_table", room),
    ("health", health),
    ("surroundings", surroundings),
)
