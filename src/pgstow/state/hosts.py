"""Processes that take part, and which of them are alive.

Each writes down the time of the database's clock again and again. One that has been silent for longer than it promised
may be declared dead by another; whoever was declared dead and comes back is alive again, but has lost what it held.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from pgstow.state.database import StateDatabase
from pgstow.state.schema import METADATA, Moment

__all__ = ["HOSTS", "HostRow", "Hosts", "Role"]

Role = Literal["serve", "run"]
_KEPT = timedelta(days=1)

HOSTS = sa.Table(
    "hosts",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("shape", sa.Integer, nullable=False),
    sa.Column("hostname", sa.String, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("marks", sa.JSON, nullable=False),
    sa.Column("started", Moment, nullable=False),
    sa.Column("beat", Moment, nullable=False),
    sa.Column("dead_after_s", sa.Double, nullable=False),
    sa.Column("is_dead", sa.Boolean, nullable=False),
    sa.Column("run", sa.String),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRow:
    """One process. ``marks`` tell it from others with its pid; ``shape`` is that of the workflows it understands.

    ``run`` is the id of the run that it carries out.
    """

    id: str
    role: Role
    shape: int
    hostname: str
    pid: int
    marks: Mapping[str, str | None]
    dead_after_s: float
    started: datetime | None = None
    beat: datetime | None = None
    is_dead: bool = False
    run: str | None = None

    def is_silent(self, now: datetime, *, patience: float = 1) -> bool:
        """Whether it has said nothing for longer than it promised, so many times as long with ``patience``.

        So far ahead of ``now`` it spoke before the clock was set back, and has not since.
        """
        return self.beat is None or abs((now - self.beat).total_seconds()) > patience * self.dead_after_s


class Hosts:
    """The processes in a state database."""

    def __init__(self, state: StateDatabase) -> None:
        self._state = state

    def beat(self, host: HostRow) -> datetime:
        """Say that a process is alive, and return when, by the database's clock.

        Its first beat enters it, and one that was declared dead is alive again.
        """
        with self._state.begin() as connection:
            now = self._state.now_in(connection)
            mine = sa.update(HOSTS).where(HOSTS.c.id == host.id)
            if not connection.execute(mine.values(beat=now, is_dead=False)).rowcount:
                connection.execute(
                    sa.insert(HOSTS).values(
                        id=host.id,
                        role=host.role,
                        shape=host.shape,
                        hostname=host.hostname,
                        pid=host.pid,
                        marks=dict(host.marks),
                        started=now,
                        beat=now,
                        dead_after_s=host.dead_after_s,
                        is_dead=False,
                    )
                )
        return now

    def begins(self, host_id: str, run_id: str) -> None:
        """Say which run a process carries out from now on."""
        with self._state.begin() as connection:
            connection.execute(sa.update(HOSTS).where(HOSTS.c.id == host_id).values(run=run_id))

    def leave(self, host_id: str) -> None:
        """Forget a process that ends: what it holds is free."""
        with self._state.begin() as connection:
            connection.execute(sa.delete(HOSTS).where(HOSTS.c.id == host_id))

    def all(self) -> list[HostRow]:
        """Return every process that did not leave, the dead of the last day among them."""
        with self._state.begin() as connection:
            return [_host(row) for row in connection.execute(sa.select(HOSTS).order_by(HOSTS.c.started))]

    def declare_dead(self, host: HostRow) -> bool:
        """Declare a process dead, unless it was heard of since ``host`` was read; return whether that was done."""
        silent = sa.update(HOSTS).where(HOSTS.c.id == host.id, HOSTS.c.beat == host.beat)
        with self._state.begin() as connection:
            return bool(connection.execute(silent.values(is_dead=True)).rowcount)

    def forget_old(self, now: datetime) -> None:
        """Remove the dead of long ago."""
        with self._state.begin() as connection:
            connection.execute(sa.delete(HOSTS).where(HOSTS.c.is_dead, HOSTS.c.beat < now - _KEPT))


def _host(row: sa.Row[Any]) -> HostRow:
    return HostRow(**row._mapping)  # noqa: SLF001  SQLAlchemy's documented name for it
