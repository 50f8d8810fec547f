"""Named queries on the catalogs of a database that is being backed up.

Every function expects a session with ``CAPTURE_SETTINGS``: text comes back as bytes in the database's own
encoding, so that names of every kind survive; ``decode`` makes them presentable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Any, Literal

from psycopg import errors as pgerrors

from pgstow.core.lsn import Lsn
from pgstow.postgres.session import Connection

__all__ = [
    "LOCALE_PROVIDERS",
    "ServerFacts",
    "TableFacts",
    "TableName",
    "XidHorizon",
    "backend_pid",
    "capturable_tables",
    "clock",
    "current_lsn",
    "database_names",
    "export_snapshot",
    "extensions",
    "flushed_lsn",
    "held_table_locks",
    "lock_tables",
    "lock_waiters",
    "materialized_view_pages",
    "moved_tables",
    "role_names",
    "server_facts",
    "system_identifier",
    "table_facts",
    "unreadable_tables",
    "xid_horizon",
]

LOCALE_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}
_LOCK_BATCH = 500


@dataclass(frozen=True, slots=True)
class TableName:
    """A table's OID and its qualified, quoted name, in the database's encoding."""

    oid: int
    qualified: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFacts:
    """What capture needs to know of one table, as the exported snapshot shows it."""

    oid: int
    qualified: bytes
    schema: bytes
    name: bytes
    filenode: int | None
    is_heap: bool
    heap_bytes: int
    toast_bytes: int
    index_bytes: int | None  # about; None where the server has never counted the pages
    row_estimate: int
    root: tuple[bytes, bytes] | None  # (schema, name) of the partition root
    condition: bytes | None  # of an extension configuration table
    extension_owned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    version_num: int
    version: str
    database: bytes
    database_oid: int
    encoding: str
    collate: bytes
    ctype: bytes
    locale_provider: str
    icu_locale: bytes | None
    is_standby: bool
    postmaster_start: datetime | None
    shared_buffers_bytes: int
    block_bytes: int
    timeline: int | None
    tls: str | None
    via: Literal["socket", "loopback", "network"]
    now: datetime


# User tables whose rows a backup may read. Locking a few that turn out to be excluded does no harm:
# ACCESS SHARE conflicts with nothing but ACCESS EXCLUSIVE.
_CAPTURABLE = """
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
      AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
"""
# Of a table's indexes, as VACUUM or ANALYZE last counted them. What asks for an index's real size takes a lock on it, and would
# wait for whoever rebuilds it.
_INDEX_PAGES = """(
    SELECT coalesce(sum(ic.relpages), 0) FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
    WHERE i.indrelid = c.oid)"""
_QUALIFIED = "pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)"


def capturable_tables(connection: Connection) -> list[TableName]:
    """Return the user tables this role may SELECT from, by OID."""
    rows = connection.execute(
        f"SELECT c.oid, {_QUALIFIED} {_CAPTURABLE}"
        " AND pg_catalog.has_table_privilege(c.oid, 'SELECT')"
        " AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') ORDER BY c.oid"
    )
    return [TableName(oid, qualified) for oid, qualified in rows]


def unreadable_tables(connection: Connection) -> list[bytes]:
    """Return the qualified names of user tables this role may not read."""
    rows = connection.execute(
        f"SELECT {_QUALIFIED} {_CAPTURABLE}"
        " AND NOT (pg_catalog.has_table_privilege(c.oid, 'SELECT')"
        " AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')) ORDER BY 1"
    )
    return [name for (name,) in rows]


def lock_tables(connection: Connection, tables: Sequence[TableName]) -> None:
    """Take ACCESS SHARE on each table, waiting at most the session's lock_timeout.

    LOCK TABLE takes no snapshot, so a transaction may do this before its snapshot is fixed.
    """
    for start in range(0, len(tables), _LOCK_BATCH):
        names = b", ONLY ".join(table.qualified for table in tables[start : start + _LOCK_BATCH])
        connection.execute(b"LOCK TABLE ONLY " + names + b" IN ACCESS SHARE MODE")


def held_table_locks(connection: Connection) -> set[int]:
    """Return the OIDs of relations on which this session holds ACCESS SHARE."""
    rows = connection.execute(
        "SELECT relation FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid()"
        " AND locktype = 'relation' AND mode = 'AccessShareLock' AND granted"
    )
    return {oid for (oid,) in rows}


def export_snapshot(connection: Connection) -> str:
    """Return the name under which other sessions can join this transaction's snapshot."""
    row = connection.execute("SELECT pg_catalog.pg_export_snapshot()").fetchone()
    assert row is not None
    return text(row[0])


def moved_tables(connection: Connection) -> list[TableName]:
    """Return tables whose storage is no longer the one the snapshot shows.

    ``pg_class.relfilenode`` is read under the snapshot, ``pg_relation_filenode`` sees the present. A TRUNCATE
    or rewrite in between reads as an empty table, silently.
    """
    rows = connection.execute(
        f"SELECT c.oid, {_QUALIFIED} {_CAPTURABLE} AND c.relkind = 'r' AND c.relfilenode <> 0"
        " AND c.relfilenode IS DISTINCT FROM pg_catalog.pg_relation_filenode(c.oid) ORDER BY 2"
    )
    return [TableName(oid, qualified) for oid, qualified in rows]


def materialized_view_pages(connection: Connection, oids: Sequence[int]) -> int:
    """Return about how many pages these materialized views take with their indexes, as the server last counted them."""
    row = connection.execute(
        f"""
        SELECT coalesce(sum(c.relpages + coalesce(t.relpages, 0) + {_INDEX_PAGES}), 0)::bigint
        FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_class t ON t.oid = c.reltoastrelid
        WHERE c.oid = ANY(%s::oid[])
        """,
        (list(oids),),
    ).fetchone()
    assert row is not None
    return int(row[0])


def table_facts(connection: Connection, oids: Sequence[int]) -> dict[int, TableFacts]:
    """Return facts of the given tables, by OID."""
    rows = connection.execute(
        f"""
        SELECT c.oid, {_QUALIFIED}, n.nspname, c.relname, pg_catalog.pg_relation_filenode(c.oid)::bigint,
               coalesce(am.amname = 'heap', false), pg_catalog.pg_relation_size(c.oid),
               CASE WHEN c.reltoastrelid = 0 THEN 0 ELSE pg_catalog.pg_relation_size(c.reltoastrelid) END,
               CASE WHEN c.relpages > 0 THEN (pg_catalog.pg_relation_size(c.oid)::numeric / c.relpages * {_INDEX_PAGES})::bigint END,
               greatest(c.reltuples, 0)::bigint, rn.nspname, rc.relname, x.condition, x.oid IS NOT NULL OR d.objid IS NOT NULL
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
        LEFT JOIN pg_catalog.pg_class rc ON c.relispartition AND rc.oid = pg_catalog.pg_partition_root(c.oid)
        LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = rc.relnamespace
        LEFT JOIN (
            SELECT u.oid, max(nullif(u.condition, '')) AS condition
            FROM pg_catalog.pg_extension e, unnest(e.extconfig, e.extcondition) AS u(oid, condition) GROUP BY u.oid
        ) x ON x.oid = c.oid
        LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid
            AND d.objsubid = 0 AND d.deptype = 'e'
        WHERE c.oid = ANY(%s::oid[])
        """,
        (list(oids),),
    )
    return {
        row[0]: TableFacts(
            oid=row[0],
            qualified=row[1],
            schema=row[2],
            name=row[3],
            filenode=row[4],
            is_heap=row[5],
            heap_bytes=row[6],
            toast_bytes=row[7],
            index_bytes=row[8],
            row_estimate=row[9],
            root=(row[10], row[11]) if row[11] is not None else None,
            condition=row[12],
            extension_owned=row[13],
        )
        for row in rows
    }


def server_facts(connection: Connection) -> ServerFacts:
    """Return what the server is and how this session reaches it."""
    version_num = connection.info.server_version
    icu = {True: "daticulocale", False: "NULL"}[150000 <= version_num < 170000]
    icu = "datlocale" if version_num >= 170000 else icu
    provider = "datlocprovider" if version_num >= 150000 else "'c'"
    row = connection.execute(
        f"""
        SELECT pg_catalog.version(), d.datname, d.oid, pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate, d.datctype,
               {provider}::text, {icu}, pg_catalog.pg_is_in_recovery(), pg_catalog.pg_postmaster_start_time(),
               pg_catalog.pg_size_bytes(pg_catalog.current_setting('shared_buffers')),
               pg_catalog.current_setting('block_size')::int, pg_catalog.clock_timestamp()
        FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
        """
    ).fetchone()
    assert row is not None
    return ServerFacts(
        version_num=version_num,
        version=text(row[0]),
        database=row[1],
        database_oid=row[2],
        encoding=text(row[3]),
        collate=row[4],
        ctype=row[5],
        locale_provider=LOCALE_PROVIDERS.get(text(row[6]), text(row[6])),
        icu_locale=row[7],
        is_standby=row[8],
        postmaster_start=row[9],
        shared_buffers_bytes=row[10],
        block_bytes=row[11],
        timeline=_timeline(connection, is_standby=row[8]),
        tls=_tls_version(connection),
        via=_way(connection),
        now=row[12],
    )


def _timeline(connection: Connection, *, is_standby: bool) -> int | None:
    # pg_control lags behind a promotion; the name of the segment being written does not
    if is_standby:
        found = _optional(connection, "SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()")
        return int(found) if found is not None else None
    name = _optional(connection, "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())")
    return int(text(name)[:8], 16) if name is not None else None


def _way(connection: Connection) -> Literal["socket", "loopback", "network"]:
    """Return how this session reaches the server, by the address that libpq really used."""
    address = connection.info.hostaddr
    if not address:
        return "socket"
    try:
        return "loopback" if ip_address(address).is_loopback else "network"
    except ValueError:  # an address with a zone
        return "network"


def _tls_version(connection: Connection) -> str | None:
    pgconn = connection.pgconn
    if not pgconn.ssl_in_use:
        return None
    found = _optional(
        connection, "SELECT version FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid()"
    )
    return text(found) if found is not None else "unknown"


def system_identifier(connection: Connection) -> str | None:
    """Return the cluster's system identifier, or None where this role may not see it."""
    found = _optional(connection, "SELECT system_identifier::text FROM pg_catalog.pg_control_system()")
    return text(found) if found is not None else None


def current_lsn(connection: Connection, *, is_standby: bool) -> Lsn | None:
    """Return the insert position, or on a standby the replay position."""
    function = "pg_last_wal_replay_lsn" if is_standby else "pg_current_wal_insert_lsn"
    found = _optional(connection, f"SELECT pg_catalog.{function}()::text")
    return Lsn.parse(text(found)) if found is not None else None


@dataclass(frozen=True, slots=True)
class XidHorizon:
    """Where a snapshot stands among the 64-bit transaction ids: all below ``oldest`` ended, ``next`` was the next."""

    oldest: int
    next: int


def xid_horizon(connection: Connection) -> XidHorizon:
    """Return the horizon of this transaction's snapshot."""
    row = connection.execute(
        "SELECT pg_catalog.pg_snapshot_xmin(s)::text, pg_catalog.pg_snapshot_xmax(s)::text"
        " FROM pg_catalog.pg_current_snapshot() AS s"
    ).fetchone()
    assert row is not None
    return XidHorizon(int(text(row[0])), int(text(row[1])))


def flushed_lsn(connection: Connection) -> Lsn | None:
    """Return up to where the write-ahead log is on the server's disk; None where this cannot be asked."""
    found = _optional(connection, "SELECT pg_catalog.pg_current_wal_flush_lsn()::text")
    return Lsn.parse(text(found)) if found is not None else None


def wake_wal_writer(connection: Connection) -> None:
    """Make the server flush its write-ahead log soon, by the commit of a transaction that did nothing.

    On an idle server the last records, such as those of a page pruned by a reader, may else wait for minutes.
    Source: PostgreSQL src/backend/access/transam/xact.c, RecordTransactionCommit.
    """
    connection.execute("SELECT pg_catalog.pg_current_xact_id()")


def _optional(connection: Connection, query: str) -> Any:  # noqa: ANN401  whatever the column is
    """Return the one value of a query that managed services may forbid; None when they do."""
    try:
        with connection.transaction():
            row = connection.execute(query.encode()).fetchone()
    except (pgerrors.InsufficientPrivilege, pgerrors.UndefinedFunction):
        return None
    return row[0] if row else None


def extensions(connection: Connection) -> list[tuple[str, str, str]]:
    """Return (name, version, schema) of the installed extensions."""
    rows = connection.execute(
        "SELECT e.extname, e.extversion, n.nspname FROM pg_catalog.pg_extension e"
        " JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace ORDER BY 1"
    )
    return [(text(name), text(version), text(schema)) for name, version, schema in rows]


def database_names(connection: Connection) -> list[str]:
    """Return the databases that allow connections, templates left out, as UTF-8 text."""
    rows = connection.execute(
        "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1"
    )
    return [text(name) for (name,) in rows]


def role_names(connection: Connection) -> list[bytes]:
    """Return the roles of the cluster, without the predefined ones."""
    return [
        name
        for (name,) in connection.execute(
            "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname !~ '^pg_' ORDER BY 1"
        )
    ]


def backend_pid(connection: Connection) -> int:
    """Return the process id of the server's end; behind a pooler the driver does not know it."""
    row = connection.execute("SELECT pg_catalog.pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def clock(connection: Connection) -> datetime:
    """Return the server's time now, whenever the transaction began."""
    row = connection.execute("SELECT pg_catalog.clock_timestamp()").fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment


def lock_waiters(connection: Connection, holder_pids: Sequence[int]) -> list[tuple[int, bytes]]:
    """Return (pid, relation name) of sessions that wait for the lock of a table or index which one of the holders has."""
    rows = connection.execute(
        "SELECT DISTINCT w.pid, coalesce(w.relation::regclass::text, w.relation::text) FROM pg_catalog.pg_locks w"
        " WHERE NOT w.granted AND w.locktype = 'relation' AND w.mode = 'AccessExclusiveLock'"
        " AND (w.database, w.relation) IN (SELECT database, relation FROM pg_catalog.pg_locks"
        " WHERE pid = ANY(%s::int[]) AND locktype = 'relation' AND granted)",
        (list(holder_pids),),
    )
    return [(pid, name) for pid, name in rows]


def text(value: bytes | str) -> str:
    """Return ASCII that the catalogs hold (versions, settings, encodings) as a string."""
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
