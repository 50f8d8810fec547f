"""Limits on how much runs at the same time, over all hosts: so many runs per server and per repository.

A slot belongs to a process, and ends with it: those of a process that left or was declared dead are free. All that a
run needs are taken at once or not at all, so that no two runs wait for each other.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from pgstow.state.database import StateDatabase
from pgstow.state.hosts import HOSTS
from pgstow.state.schema import METADATA

__all__ = ["Slots"]

_LOCK = 0x7067_7374_6F78  # an advisory lock's number

_SLOTS = sa.Table(
    "slots",
    METADATA,
    sa.Column("resource", sa.String, primary_key=True),
    sa.Column("host", sa.String, primary_key=True),
)


class Slots:
    """The slots in a state database."""

    def __init__(self, state: StateDatabase) -> None:
        self._state = state

    def take(self, host_id: str, limits: Mapping[str, int]) -> str | None:
        """Take a slot of every resource in ``limits``; or none, and return the first that has none left."""
        living = sa.select(HOSTS.c.id).where(~HOSTS.c.is_dead)
        with self._state.alone(_LOCK) as connection:
            connection.execute(sa.delete(_SLOTS).where(_SLOTS.c.host.not_in(living)))
            for resource, limit in sorted(limits.items()):
                others = sa.select(sa.func.count()).where(
                    _SLOTS.c.resource == resource, _SLOTS.c.host != host_id
                )
                if connection.execute(others).scalar_one() >= limit:
                    return resource
            connection.execute(sa.delete(_SLOTS).where(_SLOTS.c.host == host_id))
            rows = [{"resource": resource, "host": host_id} for resource in sorted(limits)]
            if rows:
                connection.execute(sa.insert(_SLOTS), rows)
        return None

    def release(self, host_id: str) -> None:
        with self._state.begin() as connection:
            connection.execute(sa.delete(_SLOTS).where(_SLOTS.c.host == host_id))
