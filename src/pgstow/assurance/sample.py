"""Choosing some of the packs to read, so that a large repository is read over many runs."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass

from pgstow.core.errors import UsageError

__all__ = ["PackSample"]

_PART = re.compile(r"([0-9]+)/([0-9]+)")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)%")
_MOST_PARTS = 256
_SHARES = 1 << 32


@dataclass(frozen=True, slots=True)
class PackSample:
    """Some packs: part ``number`` of ``parts``, the same in every run; or a random share, new in every run."""

    text: str
    number: int = 0
    parts: int = 0
    share: float = 0.0
    salt: bytes = b""

    @classmethod
    def parse(cls, text: str) -> PackSample:
        """Return the sample that ``2/7`` or ``10%`` stands for; UsageError for anything else."""
        if part := _PART.fullmatch(text):
            number, parts = int(part[1]), int(part[2])
            if 1 <= number <= parts <= _MOST_PARTS:
                return cls(text, number=number, parts=parts)
        elif (percent := _PERCENT.fullmatch(text)) and 0 < float(percent[1]) <= 100:
            return cls(text, share=float(percent[1]) / 100, salt=secrets.token_bytes(16))
        raise UsageError(
            f"{text!r} is no share of the packs",
            hint="write 10% for a random tenth, or 2/7 for the second of seven parts (at most 256)",
        )

    def __contains__(self, pack_id: bytes) -> bool:
        if self.parts:
            return pack_id[0] % self.parts == self.number - 1
        lot = int.from_bytes(hashlib.sha256(self.salt + pack_id).digest()[:4])
        return lot < self.share * _SHARES
