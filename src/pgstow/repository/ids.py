"""Blob names: their kinds, and long lists of them in little memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import overload

__all__ = ["ID_BYTES", "BlobId", "BlobIds", "BlobKind"]

ID_BYTES = 32

BlobId = bytes
"""The SHA-256 of a blob's plaintext, or of a file's stored bytes."""


class BlobKind(Enum):
    """What a blob holds. The values are the words of restic's index files."""

    DATA = "data"
    TREE = "tree"


class BlobIds(Sequence[BlobId]):
    """An immutable list of blob ids that costs 32 bytes an id.

    A file of a terabyte has a million blobs: as a list of bytes objects its ids would take 73 MB.
    """

    __slots__ = ("packed",)

    def __init__(self, packed: bytes | bytearray = b"") -> None:
        if len(packed) % ID_BYTES:
            raise ValueError(f"{len(packed)} bytes are not a whole number of blob ids")
        self.packed = bytes(packed)

    @classmethod
    def of(cls, ids: Iterable[BlobId]) -> BlobIds:
        """Return ``ids`` packed; a BlobIds is returned as it is."""
        return ids if isinstance(ids, BlobIds) else cls(b"".join(ids))

    def __len__(self) -> int:
        return len(self.packed) // ID_BYTES

    @overload
    def __getitem__(self, index: int) -> BlobId: ...

    @overload
    def __getitem__(self, index: slice) -> BlobIds: ...

    def __getitem__(self, index: int | slice) -> BlobId | BlobIds:
        if isinstance(index, slice):
            return BlobIds.of(self[position] for position in range(*index.indices(len(self))))
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.packed[index * ID_BYTES : (index + 1) * ID_BYTES]

    def __iter__(self) -> Iterator[BlobId]:
        packed = self.packed
        return (packed[start : start + ID_BYTES] for start in range(0, len(packed), ID_BYTES))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BlobIds):
            return self.packed == other.packed
        if isinstance(other, Sequence):
            return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.packed)

    def __repr__(self) -> str:
        return f"BlobIds({len(self)} ids)"
