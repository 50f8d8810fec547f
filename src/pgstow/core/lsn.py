"""Log sequence numbers."""

from __future__ import annotations

import re
from functools import total_ordering

from pgstow.core.errors import PgstowError

__all__ = ["Lsn"]

_TEXT = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


@total_ordering
class Lsn:
    """A position in the write-ahead log: 64 bits, written ``16/B374D848``."""

    __slots__ = ("position",)

    def __init__(self, position: int) -> None:
        self.position = position

    @classmethod
    def parse(cls, text: str) -> Lsn:
        """Return the LSN that PostgreSQL prints as ``text``; PgstowError when it is none."""
        match = _TEXT.fullmatch(text)
        if not match:
            raise PgstowError(f"{text!r} is not a log sequence number")
        return cls(int(match[1], 16) << 32 | int(match[2], 16))

    def __str__(self) -> str:
        return f"{self.position >> 32:X}/{self.position & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lsn) and self.position == other.position

    def __lt__(self, other: Lsn) -> bool:
        return self.position < other.position

    def __hash__(self) -> int:
        return hash(self.position)
