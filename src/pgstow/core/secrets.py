"""A string that does not print itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Secret"]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Secret:
    """A password or key. ``reveal()`` is the only way to its text, so uses can be found by name."""

    _text: str

    def reveal(self) -> str:
        """Return the secret itself; hand it to a library, never to a message."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__
