"""Where a drill restores: what every such place can do."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from psycopg import errors as pgerrors

from pgstow.core.errors import ConnectionFailed, DiskFull, Interrupted, PgstowError
from pgstow.postgres.conninfo import ConnInfo
from pgstow.restore.request import RestoreOptions

__all__ = ["Place"]


_NO_SPACE = "No space left on device"
_TELLING = re.compile(r"FATAL|PANIC|terminated by signal|exited with exit code|out of memory|No space left")
_CRASH = "terminated by signal"
_TOLD_LINES = 5


class Place(ABC):
    """A place that is made for one drill and removed after it.

    ``make()`` it first; after that the other properties hold. ``remove()`` it whatever happened, also if ``make()`` raised.
    """

    kind: ClassVar[Literal["throwaway", "database"]]
    _when_full: ClassVar[str]  # what to do about a disk that is full

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

    @property
    @abstractmethod
    def remains(self) -> str:
        """What is there of it, for people: named where it cannot be removed."""

    def _log_tail(self) -> str:
        """Return what the server wrote last, as far as we can know."""
        return ""

    def explained(self, exc: PgstowError) -> PgstowError:
        """Return what an error in this place comes from, before it is removed."""
        log = self._log_tail()
        is_full = exc.facts.get("sqlstate") == pgerrors.DiskFull.sqlstate
        if is_full or _NO_SPACE in exc.message or (isinstance(exc, ConnectionFailed) and _NO_SPACE in log):
            return DiskFull(f"the disk ran full under {self.remains}: {exc.message}", hint=self._when_full)
        if isinstance(exc, ConnectionFailed):
            self._tell_last_words(log)
        return exc

    def look_back(self) -> None:
        """Remark that the server fell over, though it came up again and nobody was stopped by that."""
        log = self._log_tail()
        if _CRASH in log:
            self._tell_last_words(log)

    def _tell_last_words(self, log: str) -> None:
        telling = [line for line in log.splitlines() if _TELLING.search(line)]
        if telling:
            self.warnings.append(f"the server's last words: {'; '.join(telling[-_TOLD_LINES:])}")

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
