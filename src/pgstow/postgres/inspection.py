"""Named questions to a server before a backup is made: would it work, and what would it miss?

Every function expects a session from ``inspection_session``: read-only, bounded in time, with names coming
back as bytes in the database's own encoding. Functions raise psycopg's errors; the caller tells what
could not be found out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.session import CAPTURE_SETTINGS, Connection, connect

__all__ = [
    "BlockingLock",
    "Capacity",
    "Privileges",
    "SecuredConnection",
    "SupabaseFacts",
    "blocking_locks",
    "capacity",
    "collation_change",
    "database_size_bytes",
    "foreign_tables",
    "inspection_session",
    "installed_extensions",
    "invalid_indexes",
    "other_databases",
    "privileges",
    "row_secured_tables",
    "secured_connection",
    "server_clock",
    "standby_conflicts",
    "subscriptions",
    "supabase_facts",
    "unlogged_tables",
    "unreadable_large_objects",
    "unreadable_sequences",
    "untrusted_extensions",
]

_QUERY_TIMEOUT_MS = "30000"

_QUALIFIED = "pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)"
# Relations a dump would hold: the user's own, without what extensions bring along themselves.
_USER_RELATIONS = f"""
    SELECT {_QUALIFIED} FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
"""
_NOT_AN_EXTENSIONS = """
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
        AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e')
"""


@contextlib.contextmanager
def inspection_session(conninfo: ConnInfo) -> Iterator[Connection]:
    """Yield a session that cannot change anything and in which no question takes longer than 30 seconds."""
    settings = {
        **CAPTURE_SETTINGS,
        "statement_timeout": _QUERY_TIMEOUT_MS,
        "lock_timeout": _QUERY_TIMEOUT_MS,
        "default_transaction_read_only": "on",
    }
    with contextlib.closing(connect(conninfo, settings=settings)) as session:
        yield session


@dataclass(frozen=True, slots=True, kw_only=True)
class SecuredConnection:
    """How the connection is protected on its way."""

    is_socket: bool
    host: str
    tls_version: str | None  # None: not encrypted
    cipher: str | None
    sslmode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Privileges:
    """What the connection's role may do, by itself and by the roles it is a member of."""

    role: str
    is_superuser: bool
    bypasses_rls: bool
    reads_all_data: bool
    sees_passwords: bool
    connection_limit: int  # -1: none


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The room a backup has in the server's shared tables."""

    relations: int  # that a backup locks
    lock_slots: int
    lock_setting: int  # max_locks_per_transaction
    free_connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockingLock:
    """A lock that makes a backup wait."""

    table: str
    pid: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SupabaseFacts:
    """What only a Supabase project has. None: this role may not look."""

    storage_objects: int | None
    vault_secrets: int | None


def secured_connection(session: Connection) -> SecuredConnection:
    """Return how this session is protected, as this side of it sees it."""
    info, parameters = session.info, session.info.get_parameters()
    version = cipher = None
    if session.pgconn.ssl_in_use:
        # Behind a pooler this row is about the pooler's own connection; the fact that ours is encrypted stands.
        row = _row(
            session,
            "SELECT version, cipher FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid()",
        )
        version, cipher = (_text(row[0]), _text(row[1])) if row and row[0] is not None else ("unknown", None)
    return SecuredConnection(
        is_socket=info.host.startswith(("/", "@")),
        host=info.host,
        tls_version=version,
        cipher=cipher,
        sslmode=parameters.get("sslmode", "prefer"),
    )


def privileges(session: Connection) -> Privileges:
    """Return what the role of this session may do."""
    row = _row(
        session,
        """
        SELECT r.rolname, r.rolsuper, r.rolbypassrls, r.rolconnlimit, pg_catalog.pg_has_role(r.oid, 'pg_read_all_data', 'USAGE'),
               pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT')
        FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
        """,
    )
    assert row is not None  # every session has a role
    return Privileges(
        role=_text(row[0]),
        is_superuser=row[1],
        bypasses_rls=row[1] or row[2],
        connection_limit=row[3],
        reads_all_data=row[1] or row[4],
        sees_passwords=row[5],
    )


def capacity(session: Connection) -> Capacity:
    """Return how many relations a backup would lock, and what room the server has.

    Source: PostgreSQL src/backend/storage/lmgr/lock.c, NLOCKENTS
    """
    row = _row(
        session,
        f"""
        SELECT (SELECT count(*) FROM ({_USER_RELATIONS} AND c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S')) relation),
               s.locks::bigint * (s.connections + s.prepared), s.locks,
               s.connections - s.reserved - (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend')
        FROM (SELECT pg_catalog.current_setting('max_locks_per_transaction')::int AS locks,
                     pg_catalog.current_setting('max_connections')::int AS connections,
                     pg_catalog.current_setting('max_prepared_transactions')::int AS prepared,
                     pg_catalog.current_setting('superuser_reserved_connections')::int AS reserved) s
        """,
    )
    assert row is not None
    return Capacity(relations=row[0], lock_slots=row[1], lock_setting=row[2], free_connections=row[3])


def row_secured_tables(session: Connection) -> list[str]:
    """Return tables of which this role would see only some rows."""
    return _names(
        session,
        f"{_USER_RELATIONS} AND c.relkind IN ('r', 'p') AND pg_catalog.row_security_active(c.oid) ORDER BY 1",
    )


def unreadable_sequences(session: Connection) -> list[str]:
    """Return sequences whose value this role may not read."""
    return _names(
        session,
        f"{_USER_RELATIONS} AND c.relkind = 'S' {_NOT_AN_EXTENSIONS}"
        " AND NOT (pg_catalog.has_sequence_privilege(c.oid, 'SELECT') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE'))"
        " ORDER BY 1",
    )


def unreadable_large_objects(session: Connection) -> int:
    """Return how many large objects this role may not read."""
    row = _row(
        session,
        """
        SELECT count(*) FROM pg_catalog.pg_largeobject_metadata m
        WHERE NOT pg_catalog.pg_has_role(m.lomowner, 'USAGE')
          AND pg_catalog.current_setting('lo_compat_privileges') = 'off'
          AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(m.lomacl) a WHERE a.privilege_type = 'SELECT'
                          AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE')))
        """,
    )
    return int(row[0]) if row else 0


def unlogged_tables(session: Connection) -> list[str]:
    """Return unlogged tables: a standby has none of their rows."""
    return _names(session, f"{_USER_RELATIONS} AND c.relkind = 'r' AND c.relpersistence = 'u' ORDER BY 1")


def foreign_tables(session: Connection) -> list[str]:
    """Return foreign tables: a backup holds their definition, their rows are elsewhere."""
    return _names(session, f"{_USER_RELATIONS} AND c.relkind = 'f' {_NOT_AN_EXTENSIONS} ORDER BY 1")


def subscriptions(session: Connection) -> int:
    """Return how many logical replication subscriptions the database has."""
    row = _row(
        session,
        "SELECT count(*) FROM pg_catalog.pg_stat_subscription s WHERE s.subid IN (SELECT oid FROM pg_catalog.pg_subscription"
        " WHERE subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))",
    )
    return int(row[0]) if row else 0


def installed_extensions(session: Connection) -> list[str]:
    """Return the extensions as ``name version``; the built-in procedural language is left out."""
    return _names(
        session,
        "SELECT extname || ' ' || extversion FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql' ORDER BY 1",
    )


def untrusted_extensions(session: Connection) -> list[str]:
    """Return installed extensions that only a superuser of the target can create."""
    return _names(
        session,
        "SELECT e.extname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_available_extension_versions v"
        " ON v.name = e.extname AND v.version = e.extversion WHERE v.superuser AND NOT v.trusted ORDER BY 1",
    )


def invalid_indexes(session: Connection) -> list[str]:
    """Return indexes that a failed CREATE INDEX CONCURRENTLY left behind: a restore would build them anew."""
    return _names(
        session,
        f"{_USER_RELATIONS} AND c.oid IN (SELECT indexrelid FROM pg_catalog.pg_index WHERE NOT indisvalid)"
        " AND c.relkind = 'i' ORDER BY 1",
    )


def blocking_locks(session: Connection) -> list[BlockingLock]:
    """Return ACCESS EXCLUSIVE locks that others hold on user tables now, with their transaction's age."""
    rows = session.execute(
        f"""
        SELECT {_QUALIFIED}, l.pid, coalesce(extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start), 0)::float8
        FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
        WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted AND c.relkind IN ('r', 'p')
          AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
          AND n.nspname !~ '^pg_' AND l.pid <> pg_catalog.pg_backend_pid() ORDER BY 1
        """
    )
    return [BlockingLock(table=_text(name), pid=pid or 0, seconds=seconds) for name, pid, seconds in rows]


def other_databases(session: Connection) -> list[str]:
    """Return the other databases of the server that hold something of a user's."""
    return _names(
        session,
        "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate"
        " AND datname NOT IN (pg_catalog.current_database(), 'postgres') ORDER BY 1",
    )


def database_size_bytes(session: Connection) -> int:
    """Return what the database takes on the server's disk."""
    row = _row(session, "SELECT pg_catalog.pg_database_size(pg_catalog.current_database())")
    assert row is not None
    return int(row[0])


def server_clock(session: Connection) -> datetime:
    """Return the server's idea of now."""
    row = _row(session, "SELECT pg_catalog.clock_timestamp()")
    assert row is not None
    moment: datetime = row[0]
    return moment


def standby_conflicts(session: Connection) -> tuple[bool, bool, str]:
    """Return (is a standby, sends feedback to its primary, max_standby_streaming_delay)."""
    row = _row(
        session,
        "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('hot_standby_feedback') = 'on',"
        " pg_catalog.current_setting('max_standby_streaming_delay')",
    )
    assert row is not None
    return row[0], row[1], _text(row[2])


def collation_change(session: Connection) -> tuple[str, str] | None:
    """Return (recorded, actual) versions of the database's collation where they differ; None otherwise.

    The server has kept that record since version 15.
    """
    if session.info.server_version < 150000:
        return None
    row = _row(
        session,
        "SELECT datcollversion, pg_catalog.pg_database_collation_actual_version(oid) FROM pg_catalog.pg_database"
        " WHERE datname = pg_catalog.current_database()",
    )
    if row is None or row[0] is None or row[0] == row[1]:
        return None
    return _text(row[0]), _text(row[1] or b"unknown")


def supabase_facts(session: Connection) -> SupabaseFacts | None:
    """Return what a Supabase project keeps outside its database; None for any other server."""
    row = _row(
        session,
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'supabase_admin')",
    )
    if row is None or not row[0]:
        return None
    return SupabaseFacts(
        storage_objects=_count(session, "storage", "objects"),
        vault_secrets=_count(session, "vault", "secrets"),
    )


def _count(session: Connection, schema: str, table: str) -> int | None:
    """Return the rows of a table; 0 when there is no such table, None when this role may not count them."""
    allowed = _row(
        session,
        "SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')"
        " AND NOT pg_catalog.row_security_active(c.oid)"
        " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = %s",
        (schema, table),
    )
    if allowed is None:
        return 0
    row = _row(session, f"SELECT count(*) FROM {schema}.{table}") if allowed[0] else None
    return int(row[0]) if row else None


def _row(
    session: Connection, query: str, parameters: tuple[str, ...] | None = None
) -> tuple[Any, ...] | None:
    return session.execute(query.encode(), parameters).fetchone()


def _names(session: Connection, query: str) -> list[str]:
    return [_text(name) for (name,) in session.execute(query.encode())]


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
