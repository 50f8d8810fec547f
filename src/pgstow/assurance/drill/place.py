"""Where a drill restores: what every such place can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from pgstow.core.errors import Interrupted
from pgstow.postgres.conninfo import ConnInfo
from pgstow.restore.request import RestoreOptions

__all__ = ["Place"]


class Place(ABC):
    """A place that is made for one drill and removed after it.

    ``make()`` it first; after that the other properties hold. ``remove()`` it whatever happened, also if ``make()`` raised.
    """

    kind: ClassVar[Literal["throwaway", "database"]]

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.server = "none was started"  # which server it is, for people
        self.server_version_num = 0
        self.is_isolated = False  # nobody else can reach it
        self._target: ConnInfo | None = None

    @property
    def target(self) -> ConnInfo:
        """The database to restore into."""
        assert self._target is not None, "the place is not made yet"
        return self._target

    @abstractmethod
    def options(self, options: RestoreOptions) -> RestoreOptions:
        """Return the options with what this place asks of a restore."""

    @abstractmethod
    def make(self) -> None:
        """Make it, having removed what killed drills left behind. Raises PgstowError."""

    @abstractmethod
    def _remove(self) -> None:
        """Remove everything that was made; nothing happens the second time."""

    def remove(self) -> None:
        """Remove everything that was made. An interruption that arrives meanwhile is raised when that is done."""
        try:
            self._remove()
        except (Interrupted, KeyboardInterrupt):
            self._remove()
            raise
