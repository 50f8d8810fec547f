"""How long-running work tells how far it is.

Use cases call a ``Progress``; only the command line draws it. Every method is safe to call from any
thread and never fails the work it reports on.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "SilentProgress"]


class Progress(Protocol):
    """Receives what happens during a backup, restore, verification or export."""

    def phase(self, name: str) -> None:
        """A new phase began; ``name`` is a short verb phrase such as ``reading tables``."""

    def expect(self, *, rows: int | None = None, size_bytes: int | None = None) -> None:
        """The current phase will handle about this much; None is unknown."""

    def advance(self, *, rows: int = 0, size_bytes: int = 0) -> None:
        """So much more of the current phase is done."""

    def note(self, message: str) -> None:
        """Something a person should know now (a retry, a wait)."""


class SilentProgress:
    """A Progress that says nothing."""

    def phase(self, name: str) -> None: ...

    def expect(self, *, rows: int | None = None, size_bytes: int | None = None) -> None: ...

    def advance(self, *, rows: int = 0, size_bytes: int = 0) -> None: ...

    def note(self, message: str) -> None: ...
