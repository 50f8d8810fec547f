"""Opening the state database: SQLite on one machine, PostgreSQL for a fleet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, make_url

from pgstow.core.errors import StateError, UsageError
from pgstow.core.folders import make_private_folder
from pgstow.core.secrets import Secret
from pgstow.state.columns import add_missing_columns
from pgstow.state.folder import state_folder
from pgstow.state.schema import METADATA

__all__ = ["StateDatabase", "is_state_kept_here", "open_state", "state_folder"]

_SCHEMA = "pgstow"
_FILE = "state.db"
_CREATION_LOCK = 0x7067_7374_6F77  # "pgstow": an advisory lock's number
_BUSY_S = 30.0


class StateDatabase:
    """One engine; every block of ``begin()`` is a transaction. Failures are StateError, everywhere."""

    def __init__(self, engine: sa.Engine, where: str) -> None:
        self._engine = engine
        self.where = where

    @property
    def is_shared(self) -> bool:
        """Whether other hosts may use the same database."""
        return self._engine.dialect.name == "postgresql"

    @property
    def url(self) -> URL:
        """The address with its password, for another library's engine; its ``str()`` hides the password."""
        return self._engine.url

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        """Give a connection in a transaction, committed at the end of the block."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as exc:
            raise StateError(
                f"the state database {self.where} failed: {_first_line(exc)}",
                hint="backups do not depend on it: pgstow backup works without",
            ) from exc

    def now(self) -> datetime:
        """Return the time by the database's clock, which all hosts share."""
        with self.begin() as connection:
            return self.now_in(connection)

    def now_in(self, connection: Connection) -> datetime:
        """Return the same, asked for inside a transaction."""
        if not self.is_shared:
            return datetime.now(UTC)
        moment: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return moment.astimezone(UTC)

    @contextlib.contextmanager
    def alone(self, lock: int) -> Iterator[Connection]:
        """Give a transaction beside which no other one with the same ``lock`` runs, on any host."""
        with self.begin() as connection:
            if self.is_shared:  # SQLite lets only one transaction write anyway
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock)))
            yield connection

    def close(self) -> None:
        self._engine.dispose()


def open_state(url: Secret | None, environ: Mapping[str, str]) -> StateDatabase:
    """Return the state database, with its tables and their columns, also if an older version made them; None is SQLite in ``state_folder()``.

    Raises UsageError for an address that cannot be one, StateError when it cannot be had.
    """
    if url is None:
        folder = state_folder(environ)
        try:
            make_private_folder(folder)
        except OSError as exc:
            raise StateError(f"the state folder {folder} cannot be made: {exc.strerror}") from exc
        database = _open_sqlite(folder / _FILE)
    else:
        database = _open_postgresql(url)
    with database.begin() as connection:
        _create(connection, is_shared=database.is_shared)
    return database


def is_state_kept_here(environ: Mapping[str, str]) -> bool:
    """Whether ``state_folder()`` has a state database."""
    return (state_folder(environ) / _FILE).exists()


def _open_sqlite(path: Path) -> StateDatabase:
    engine = sa.create_engine(URL.create("sqlite", database=str(path)), connect_args={"timeout": _BUSY_S})

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: sa.engine.interfaces.DBAPIConnection, _record: object) -> None:
        connection.isolation_level = None  # we begin transactions, not the driver
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.cursor().execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # a later upgrade of a read lock could not wait

    return StateDatabase(engine, str(path))


def _open_postgresql(secret: Secret) -> StateDatabase:
    try:
        url = make_url(secret.reveal())
    except (sa.exc.ArgumentError, ValueError):  # from None: what it was read from may hold a password
        raise UsageError(
            "the address of the state database is not a URL",
            hint="postgresql://USER:PASSWORD@HOST:PORT/DATABASE; in a password %, :, /, ? and @ are written as %25, %3A, ...",
        ) from None
    if (
        "@" in f"{url.host or ''}{url.database or ''}"
    ):  # the rest of a password, which would be told as a place
        raise UsageError(
            "the password in the address of the state database has an @ in it", hint="write it as %40"
        )
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise UsageError(
            "the state database must be PostgreSQL", hint="write postgresql://..., or leave state out"
        )
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        connect_args={
            "application_name": "pgstow",
            "connect_timeout": 10,
            "tcp_user_timeout": 30_000,  # ms: a server that fell silent is away
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "options": f"-c search_path={_SCHEMA}",
        },
    )
    return StateDatabase(engine, f"{url.host or 'local'}/{url.database or ''}")


def _create(connection: Connection, *, is_shared: bool) -> None:
    if is_shared:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION_LOCK)))
        connection.execute(sa.schema.CreateSchema(_SCHEMA, if_not_exists=True))
    METADATA.create_all(connection)
    add_missing_columns(connection, METADATA)


def _first_line(exc: sa.exc.SQLAlchemyError) -> str:
    cause = getattr(exc, "orig", None) or exc
    return str(cause).strip().split("\n", 1)[0]
