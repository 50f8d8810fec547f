"""Opening connections with settings of our own, and turning driver errors into ours, once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import psycopg
from psycopg import errors as pgerrors

from pgstow.core.errors import ConnectionFailed, PostgresError
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.silence import WatchedConnection

__all__ = [
    "APPLICATION_NAME",
    "CAPTURE_SETTINGS",
    "NO_TIMEOUTS",
    "Connection",
    "connect",
    "postgres_error",
    "translated",
]

Connection = WatchedConnection

APPLICATION_NAME = "pgstow"

# A default of the role or database must not cut short what a person asked for; our own watchdogs bound every wait.
NO_TIMEOUTS: Mapping[str, str] = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
}

# What a session that reads data runs with. A default of the role or database must not change a byte of
# the backup.
CAPTURE_SETTINGS: Mapping[str, str] = {
    "client_encoding": "SQL_ASCII",  # no conversion: the bytes are the database's own encoding
    "search_path": "",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "xmlbinary": "base64",
    "lc_monetary": "C",
    "row_security": "off",
    **NO_TIMEOUTS,
    "synchronize_seqscans": "off",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "default_transaction_isolation": "read committed",
    "quote_all_identifiers": "off",
}

_CONNECTION_DEFAULTS = {
    "connect_timeout": "20",
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "application_name": APPLICATION_NAME,
}
_LIFT_TRIES = 5


def connect(
    conninfo: ConnInfo, *, settings: Mapping[str, str] | None = None, autocommit: bool = True
) -> Connection:
    """Return a connection with ``settings`` in force (those this server knows).

    Raises ConnectionFailed. The caller closes it.
    """
    try:
        connection = WatchedConnection.connect(
            conninfo.with_defaults(**_CONNECTION_DEFAULTS).connect_string(),
            autocommit=autocommit,
            prepare_threshold=None,
        )
    except psycopg.Error as exc:
        raise _connection_failed(conninfo, exc) from exc
    try:
        pid = _apply(connection, settings) if settings else connection.pgconn.backend_pid
        connection.watch(conninfo, pid)
    except BaseException:
        connection.close()
        raise
    return connection


def _apply(connection: Connection, settings: Mapping[str, str]) -> int:
    """Put settings in force and return the server's process, of which a pooler tells its clients another number.

    Until that is done, names mean what the database's owner has set: every one of them says where it is from.
    """
    names, values = list(settings), list(settings.values())
    with translated("applying session settings"):
        if "statement_timeout" in settings:
            _lift_timeout(connection)
        row = connection.execute(
            "SELECT pg_catalog.pg_backend_pid(), pg_catalog.count(pg_catalog.set_config(s.name, given.value, false))"
            # unnest() of several arrays is the server's own whatever the search_path: ROWS FROM in the grammar
            " FROM unnest(%s::pg_catalog.text[], %s::pg_catalog.text[]) AS given(name, value)"
            " JOIN pg_catalog.pg_settings s ON pg_catalog.lower(s.name) OPERATOR(pg_catalog.=) given.name",
            (names, values),
        ).fetchone()
    return int(row[0]) if row is not None else 0


def _lift_timeout(connection: Connection) -> None:
    """Make sure that a role's default does not end the statements that replace it, this one among them."""
    for is_last in (*[False] * _LIFT_TRIES, True):
        try:
            connection.execute("SET statement_timeout = 0")
        except psycopg.errors.QueryCanceled:
            if is_last:
                raise
            connection.rollback()
        else:
            return


def _connection_failed(conninfo: ConnInfo, exc: psycopg.Error) -> ConnectionFailed:
    text = " ".join(str(exc).split())
    for secret in conninfo.secrets.values():
        text = text.replace(secret.reveal(), "***")
    hint = "check host, port, database, user and that the server accepts connections from here"
    if "password" in text:
        hint = "give the password by pgpass, PGPASSWORD or a service file"
    elif "certificate" in text or "SSL" in text:
        hint = "check sslmode, sslrootcert and the client certificate"
    elif "local user with ID" in text:  # of a container, often; libpq takes the role's name from it
        hint = "say which role: user=NAME in the connection string, or PGUSER"
    elif "does not exist" in text:
        hint = "check the database and role names"
    return ConnectionFailed(f"cannot connect to {conninfo}: {text}", hint=hint)


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn driver errors inside the block into PostgresError, with SQLSTATE and the server's own hint."""
    try:
        yield
    except psycopg.Error as exc:
        raise postgres_error(doing, exc) from exc


def postgres_error(doing: str, exc: psycopg.Error) -> PostgresError:
    """Return our error for ``exc``, which happened while ``doing``."""
    primary = exc.diag.message_primary or " ".join(str(exc).split()) or type(exc).__name__
    detail = f" ({exc.diag.message_detail})" if exc.diag.message_detail else ""
    kind = PostgresError
    if isinstance(exc, (pgerrors.AdminShutdown, pgerrors.CrashShutdown)) or exc.sqlstate is None:
        kind = ConnectionFailed
    return kind(f"{doing}: {primary}{detail}", hint=exc.diag.message_hint, sqlstate=exc.sqlstate)
