"""What the service removes of its own when nobody asks for it any more. Hosts that do it at once do not disturb each other.

Dead hosts are forgotten where they are declared dead (``presence``).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from pgstow.jobs.dispatch import Dispatcher
from pgstow.state.database import StateDatabase
from pgstow.state.dues import Dues
from pgstow.state.runs import Runs

__all__ = ["Cleaning"]

_ORDERS_KEPT = timedelta(days=7)
_SETTLED_KEPT = timedelta(
    days=60
)  # that a due time is not handed out twice is asked after a clock was set back
_KEPT = timedelta(days=400)
_NEWEST_KEPT = (
    100  # runs of a plan and database, however old: a clock that is wrong must not empty the history
)
_MOST = 1000  # of each, each time


class Cleaning:
    """Removes what is old. ``forget_copies`` removes copies of settings that are in force no more."""

    def __init__(
        self, state: StateDatabase, dispatcher: Dispatcher, forget_copies: Callable[[], object]
    ) -> None:
        self._dues = Dues(state)
        self._runs = Runs(state)
        self._dispatcher = dispatcher
        self._forget_copies = forget_copies

    def __call__(self, now: datetime) -> None:
        """Remove a bounded number of each. Raises StateError; what is left is for the next time."""
        self._forget_copies()
        self._dues.forget(settled_before=now - _SETTLED_KEPT, before=now - _KEPT)
        self._runs.forget(before=now - _KEPT, newest_kept=_NEWEST_KEPT, most=_MOST)
        self._dispatcher.forget(before=now - _ORDERS_KEPT, most=_MOST)
