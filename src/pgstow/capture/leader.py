"""Lock, then look: one moment in which no table can move.

The order is what makes a backup right. LOCK TABLE comes before the snapshot, so nothing can be truncated
or rewritten in between and read as an empty table; what the snapshot shows beyond the first listing is
locked too, and then every table's storage must still be the one the snapshot shows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import errors as pgerrors

from pgstow.capture.chosen import chosen_only
from pgstow.core.errors import SourceMoved
from pgstow.core.lsn import Lsn
from pgstow.postgres import catalogs
from pgstow.postgres.catalogs import ServerFacts, TableName, XidHorizon
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.session import CAPTURE_SETTINGS, Connection, connect, translated
from pgstow.postgres.shapes import Shapes, read_shapes

__all__ = ["Leader", "no_checkpoint", "taking_lead"]

Checkpoint = Callable[[str], None]


def no_checkpoint(step: str) -> None:
    """Do nothing at ``step``; tests pass a function here to change the database at a chosen point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """The session that holds the locks, and the moment it stands for."""

    connection: Connection
    pid: int  # of the server's process
    snapshot: str
    taken: datetime
    lsn: Lsn | None
    horizon: XidHorizon
    facts: ServerFacts
    locked: frozenset[int]
    shapes: Shapes

    def let_go(self) -> None:
        """Release every lock, and the snapshot: the rows are read, and nobody need wait for what is asked after that."""
        with translated("releasing locks"):
            self.connection.execute("COMMIT")


@contextlib.contextmanager
def taking_lead(
    conninfo: ConnInfo,
    *,
    lock_timeout_s: float,
    checkpoint: Checkpoint = no_checkpoint,
    chosen: Sequence[str] = (),
) -> Iterator[Leader]:
    """Hold ACCESS SHARE on every readable table, and an exported snapshot, for the length of the block.

    If tables are ``chosen`` by name it is these and their partitions alone; MissingTable if one is not there. Raises SourceMoved when a table changed or could not be locked in time: nothing is held then, and trying
    again may work.
    """
    settings = {**CAPTURE_SETTINGS, "lock_timeout": f"{lock_timeout_s * 1000:.0f}"}
    connection = connect(conninfo, settings=settings)
    try:
        with translated("looking at the server"):
            facts = catalogs.server_facts(connection)
        tables = chosen_only(chosen, facts.encoding) if chosen else catalogs.capturable_tables
        with translated("listing tables"):
            expected = tables(connection)
        checkpoint("tables listed")
        yield _lock_then_look(connection, facts, expected, tables, checkpoint)
    finally:
        connection.close()  # ends the transaction and releases every lock


def _lock_then_look(
    connection: Connection,
    facts: ServerFacts,
    expected: list[TableName],
    tables: Callable[[Connection], list[TableName]],
    checkpoint: Checkpoint,
) -> Leader:
    with _moving_source(), translated("locking tables"):
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        catalogs.lock_tables(connection, expected)  # takes no snapshot yet
    checkpoint("tables locked")
    with _moving_source(), translated("exporting the snapshot"):
        snapshot = catalogs.export_snapshot(connection)
        taken = catalogs.clock(connection)
        checkpoint("snapshot exported")
        lsn = catalogs.current_lsn(connection, is_standby=facts.is_standby)
        present = tables(connection)
        known = set(expected)
        newcomers = [table for table in present if table not in known]
        catalogs.lock_tables(connection, newcomers)
        checkpoint("newcomers locked")
        _refuse_moved(connection, present)
        oids = [table.oid for table in present]
        return Leader(
            connection=connection,
            pid=catalogs.backend_pid(connection),
            snapshot=snapshot,
            taken=taken,
            lsn=lsn,
            horizon=catalogs.xid_horizon(connection),
            facts=facts,
            locked=frozenset(oids),
            shapes=read_shapes(connection, oids),
        )


def _refuse_moved(connection: Connection, present: list[TableName]) -> None:
    held = catalogs.held_table_locks(connection)
    unlocked = [table.qualified for table in present if table.oid not in held]
    oids = {table.oid for table in present}
    moved = [table.qualified for table in catalogs.moved_tables(connection) if table.oid in oids]
    if unlocked or moved:
        names = [catalogs.text(name) for name in unlocked or moved]
        raise SourceMoved(
            f"{names[0]} was replaced, truncated or rewritten while the backup began",
            hint="the backup begins anew; run it outside of migrations if this repeats",
            tables=names[:20],
        )


@contextlib.contextmanager
def _moving_source() -> Iterator[None]:
    """Turn what concurrent DDL does to our statements into SourceMoved."""
    try:
        yield
    except Exception as exc:
        cause = exc.__cause__
        if isinstance(cause, (pgerrors.LockNotAvailable, pgerrors.DeadlockDetected)):
            raise SourceMoved(
                f"tables could not be locked: {exc}",
                hint="another session holds or waits for an exclusive lock",
            ) from exc
        if isinstance(cause, (pgerrors.UndefinedTable, pgerrors.InvalidSchemaName, pgerrors.WrongObjectType)):
            raise SourceMoved(f"a table disappeared while the backup began: {exc}") from exc
        raise
