"""Writing down what became of a run: in the state database, or on this machine until that is back."""

from __future__ import annotations

from collections.abc import Callable

from pgstow.core.errors import StateError
from pgstow.state.database import StateDatabase
from pgstow.state.runs import RunRecord, Runs
from pgstow.state.spool import Spool

__all__ = ["RunHistory"]


class RunHistory:
    """Saves records, and never fails the run they tell of. ``state`` is None while the database is away."""

    def __init__(self, state: StateDatabase | None, spool: Spool, note: Callable[[str], None]) -> None:
        self._runs = Runs(state) if state is not None else None
        self._spool = spool
        self._note = note

    def deliver(self) -> None:
        """Save what earlier runs had to leave on this machine."""
        if self._runs is not None:
            try:
                self._spool.deliver(self._runs)
            except StateError as exc:
                self._note(exc.message)

    def save(self, record: RunRecord, *, only_if_running: bool = False) -> None:
        """Save a record, or keep it here and say so."""
        try:
            if self._runs is not None:
                self._runs.save(record, only_if_running=only_if_running)
                return
        except StateError as exc:
            self._note(f"{exc.message}; the record of this run is kept on this machine until it is back")
        if record.outcome == "running":  # there is nothing to tell yet
            return
        try:
            self._spool.keep(record)
        except StateError as exc:
            self._note(
                f"{exc.message}; that run {record.id} was {record.outcome} is written down nowhere else"
            )
