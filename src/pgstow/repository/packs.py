"""Pack files: sealed blobs, then a sealed header that lists them.

    blob ... blob | sealed header | length of the sealed header, uint32 LE

A header entry is type (0 data, 1 tree; 2 and 3 the same, compressed), stored length uint32 LE, for
compressed ones the plaintext length uint32 LE, and the blob's id. Offsets follow from the lengths.
Source: restic doc/design.rst, "Pack Format"; restic internal/repository/pack/pack.go.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pgstow.core.errors import RepositoryDamaged
from pgstow.repository.crypto import SEAL_BYTES, MasterKey
from pgstow.repository.files import pack_name
from pgstow.repository.ids import BlobId, BlobKind
from pgstow.store.api import Store

__all__ = [
    "MAX_HEADER_BYTES",
    "PackEntry",
    "decode_header",
    "encode_header",
    "pack_size",
    "read_header",
    "split_pack",
]

MAX_HEADER_BYTES = 16 << 20
_LENGTH = struct.Struct("<I")
_STORED = struct.Struct("<BI32s")
_COMPRESSED = struct.Struct("<BII32s")
_CODES = {
    (BlobKind.DATA, False): 0,
    (BlobKind.TREE, False): 1,
    (BlobKind.DATA, True): 2,
    (BlobKind.TREE, True): 3,
}
_KINDS = {code: (kind, is_compressed) for (kind, is_compressed), code in _CODES.items()}


class PackEntry(NamedTuple):
    """A blob in a pack. ``plain_length`` is 0 for a blob that is stored uncompressed, as in restic."""

    kind: BlobKind
    id: BlobId
    offset: int
    length: int
    plain_length: int

    @property
    def size_bytes(self) -> int:
        """Length of the plaintext."""
        return self.plain_length or self.length - SEAL_BYTES


def encode_header(entries: Iterable[PackEntry]) -> bytes:
    """Return the plaintext of the header for ``entries``, which are in offset order without gaps."""
    return b"".join(
        _COMPRESSED.pack(_CODES[entry.kind, True], entry.length, entry.plain_length, entry.id)
        if entry.plain_length
        else _STORED.pack(_CODES[entry.kind, False], entry.length, entry.id)
        for entry in entries
    )


def decode_header(header: bytes) -> list[PackEntry]:
    """Return the entries of a header's plaintext; ValueError if it is malformed."""
    entries: list[PackEntry] = []
    position = offset = 0
    while position < len(header):
        code = header[position]
        if code not in _KINDS:
            raise ValueError(f"unknown blob type {code}")
        kind, is_compressed = _KINDS[code]
        layout = _COMPRESSED if is_compressed else _STORED
        if position + layout.size > len(header):
            raise ValueError("header ends in mid entry")
        _, length, *plain, blob_id = layout.unpack_from(header, position)
        entry = PackEntry(kind, blob_id, offset, length, plain[0] if plain else 0)
        if length < SEAL_BYTES or (is_compressed and not entry.plain_length):
            raise ValueError("entry has an impossible length")
        entries.append(entry)
        position += layout.size
        offset += length
    return entries


def _header_size(entries: Iterable[PackEntry]) -> int:
    return sum(_COMPRESSED.size if entry.plain_length else _STORED.size for entry in entries)


def pack_size(entries: Sequence[PackEntry]) -> int:
    """Return how many bytes a pack of exactly these blobs has."""
    return sum(entry.length for entry in entries) + _header_size(entries) + SEAL_BYTES + _LENGTH.size


def split_pack(pack_id: str, data: bytes, key: MasterKey) -> list[PackEntry]:
    """Return the entries of a whole pack; RepositoryDamaged unless its header accounts for every byte."""
    length = _sealed_header_length(pack_id, data[-_LENGTH.size :], len(data))
    return _open_header(pack_id, data[-_LENGTH.size - length : -_LENGTH.size], len(data), key)


def read_header(store: Store, pack_id: str, size_bytes: int, key: MasterKey) -> list[PackEntry]:
    """Return the entries of a stored pack of ``size_bytes``, reading only its end."""
    name = pack_name(pack_id)
    tail = store.get_range(name, max(0, size_bytes - 4096), min(4096, size_bytes))
    length = _sealed_header_length(pack_id, tail[-_LENGTH.size :], size_bytes)
    if length + _LENGTH.size > len(tail):
        tail = store.get_range(name, size_bytes - length - _LENGTH.size, length + _LENGTH.size)
    return _open_header(pack_id, tail[-_LENGTH.size - length : -_LENGTH.size], size_bytes, key)


def _sealed_header_length(pack_id: str, field: bytes, size_bytes: int) -> int:
    length = _LENGTH.unpack(field)[0] if len(field) == _LENGTH.size else 0
    if not SEAL_BYTES <= length <= min(size_bytes - _LENGTH.size, MAX_HEADER_BYTES):
        raise _damaged(pack_id, "its header length is impossible")
    return int(length)


def _open_header(pack_id: str, sealed: bytes, size_bytes: int, key: MasterKey) -> list[PackEntry]:
    header = key.open(sealed)
    if header is None:
        raise _damaged(pack_id, "its header is not what was sealed")
    try:
        entries = decode_header(header)
    except ValueError as exc:
        raise _damaged(pack_id, str(exc)) from exc
    if pack_size(entries) != size_bytes:
        raise _damaged(pack_id, f"its header accounts for {pack_size(entries)} of {size_bytes} bytes")
    return entries


def _damaged(pack_id: str, why: str) -> RepositoryDamaged:
    return RepositoryDamaged(f"pack {pack_id} is damaged: {why}", file=pack_name(pack_id))
