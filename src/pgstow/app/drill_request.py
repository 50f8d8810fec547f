"""What a drill is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pgstow.catalog.assertions import Assertion
from pgstow.postgres.conninfo import ConnInfo

__all__ = ["DrillRequest", "Strategy"]

# rotate: what was proven longest ago, so that over time every database, kind and age has been restored once.
Strategy = Literal["latest", "random", "oldest", "rotate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillRequest:
    """``backup`` names one (as for restore), or ``strategy`` chooses among those of ``database`` and ``kind``.

    ``server`` is where a database is made for the drill, and dropped after it; None: a throwaway server of this machine.
    """

    backup: str | None = None
    strategy: Strategy = "latest"
    database: str | None = None
    kind: str | None = None
    server: ConnInfo | None = None
    assertions: tuple[Assertion, ...] = ()
    optional_extensions: frozenset[str] = frozenset()
    jobs: int = 2
    rto_target_s: float | None = None
    rpo_target_s: float | None = None
    notes: str | None = None
    plan: str | None = None
    host: str
    username: str
