"""What the service asks of the queue that hands its runs to workers, on this host or another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from pgstow.state.dues import DueKey

__all__ = ["SHAPE", "Dispatcher", "Order", "Standing"]

# Grows when a run that an older pgstow began cannot be carried on by this one: hosts of the older shape then end what
# they queued, and new runs go to the newer hosts.
SHAPE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One attempt at one due run. Its id is the same wherever it is asked for."""

    key: DueKey
    attempt: int

    @property
    def id(self) -> str:
        return f"{self.key.plan}/{self.key.database or ''}/{self.key.due:%Y%m%dT%H%M%SZ}/{self.attempt}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where an order stands: ``host`` works on a started one, hosts of ``shape`` may start a queued one."""

    state: Literal["queued", "started", "ended"]
    host: str | None
    shape: int


class Dispatcher(Protocol):
    """A durable queue that all hosts share. Every method may wait until its database is back."""

    def submit(self, order: Order) -> None:
        """Queue an order; one that was queued before, by whichever host, is left as it is."""

    def standing(self, orders: Sequence[Order]) -> Mapping[str, Standing]:
        """Return where orders stand, by id; those that were never queued are missing."""

    def withdraw(self, order: Order) -> None:
        """End an order that nobody will carry out any more."""

    def forget(self, *, before: datetime, most: int) -> int:
        """Remove ended orders that were queued before that moment, at most so many; return how many there were."""
