"""Where every blob lies: index files, and the table in memory.

An index file is JSON, ``{"packs":[{"id":...,"blobs":[{"id","type","offset","length",
"uncompressed_length"}]}]}``; all entries of a pack stand in one file.
Source: restic doc/design.rst, "Indexing"; restic internal/repository/index/index.go.
"""

from __future__ import annotations

import json
import struct
import threading
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from borghash import HashTable

from pgstow.core.errors import RepositoryDamaged
from pgstow.repository import gojson
from pgstow.repository.crypto import SEAL_BYTES
from pgstow.repository.ids import ID_BYTES, BlobId, BlobKind
from pgstow.repository.packs import PackEntry

__all__ = ["BlobIndex", "Location", "PackContents", "encode_index", "grouped", "parse_index"]

_FILE_ENTRIES = 30_000  # one more full pack stays below restic's 50,000 and 8 MiB


class Location(NamedTuple):
    """Where one copy of a blob lies. ``plain_length`` is 0 if it is stored uncompressed."""

    pack_id: bytes
    offset: int
    length: int
    plain_length: int

    @property
    def size_bytes(self) -> int:
        """Length of the plaintext."""
        return self.plain_length or self.length - SEAL_BYTES


class PackContents(NamedTuple):
    """What an index file says about one pack."""

    pack_id: bytes
    entries: Sequence[PackEntry]


def encode_index(packs: Iterable[PackContents]) -> bytes:
    """Return the JSON of an index file."""
    listed = [
        {"id": pack.pack_id.hex(), "blobs": [_encode_entry(entry) for entry in pack.entries]}
        for pack in packs
    ]
    return gojson.dumps({"packs": listed}) + b"\n"


def grouped(packs: Iterable[PackContents]) -> Iterator[list[PackContents]]:
    """Yield packs in groups, each of which makes one index file of a good size."""
    group: list[PackContents] = []
    entries = 0
    for pack in packs:
        group.append(pack)
        entries += len(pack.entries)
        if entries >= _FILE_ENTRIES:
            yield group
            group, entries = [], 0
    if group:
        yield group


def _encode_entry(entry: PackEntry) -> dict[str, str | int]:
    fields: dict[str, str | int] = {
        "id": entry.id.hex(),
        "type": entry.kind.value,
        "offset": entry.offset,
        "length": entry.length,
    }
    if entry.plain_length:
        fields["uncompressed_length"] = entry.plain_length
    return fields


_OPENING = '{"packs":['
_decode_one = json.JSONDecoder().raw_decode


def parse_index(data: bytes, *, name: str) -> Iterator[PackContents]:
    """Yield the packs of an index file one by one; RepositoryDamaged, naming it, if it is malformed.

    Packs are parsed singly: the objects of a whole file would take five times its size.
    """
    try:
        text = data.decode()
        if text.startswith(_OPENING):
            yield from map(_decode_pack, _array_items(text, len(_OPENING)))
        else:
            yield from map(_decode_pack, json.loads(text)["packs"] or ())
    except (ValueError, KeyError, TypeError) as exc:
        raise RepositoryDamaged(f"{name} is not a readable index: {exc}", file=name) from exc


def _array_items(text: str, position: int) -> Iterator[Any]:
    """Yield the items of the array whose opening bracket ends at ``position``; the object must end after it."""
    if text[position : position + 1] != "]":
        while True:
            item, position = _decode_one(text, position)
            yield item
            if text[position : position + 1] != ",":
                break
            position += 1
    if text[position:].strip() != "]}":
        raise ValueError(f"unexpected text at {position}")


def _decode_pack(fields: dict[str, Any]) -> PackContents:
    return PackContents(_decode_id(fields["id"]), [_decode_blob(blob) for blob in fields["blobs"] or ()])


def _decode_blob(fields: dict[str, Any]) -> PackEntry:
    entry = PackEntry(
        BlobKind(fields["type"]),
        _decode_id(fields["id"]),
        int(fields["offset"]),
        int(fields["length"]),
        int(fields.get("uncompressed_length", 0)),
    )
    if entry.offset < 0 or entry.length < SEAL_BYTES or not 0 <= entry.plain_length < 1 << 32:
        raise ValueError(f"blob {entry.id.hex()} has an impossible place")
    if entry.offset + entry.length >= 1 << 32:
        raise ValueError(f"blob {entry.id.hex()} lies beyond 4 GiB")
    return entry


def _decode_id(text: str) -> bytes:
    decoded = bytes.fromhex(text)
    if len(decoded) != ID_BYTES:
        raise ValueError(f"{text!r} is not an id")
    return decoded


_PLACE = struct.Struct("<IIII")  # pack number, offset, length, plain length


class BlobIndex:
    """The blobs of a repository in memory, about 75 bytes each. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._packs: list[bytes] = []
        self._pack_numbers: dict[bytes, int] = {}
        self._ends = array("Q")  # of each pack's last blob
        self._lost: set[int] = set()
        self._first = {kind: HashTable(key_size=ID_BYTES, value_size=_PLACE.size) for kind in BlobKind}
        # Concurrent backups may store a blob twice. One further copy is remembered: it can replace a damaged one.
        self._second = {kind: HashTable(key_size=ID_BYTES, value_size=_PLACE.size) for kind in BlobKind}

    def __len__(self) -> int:
        return sum(map(len, self._first.values()))

    def add_pack(self, pack_id: bytes, entries: Iterable[PackEntry]) -> None:
        """Make the blobs of a pack known, also if it was lost; adding a pack again changes nothing else."""
        with self._lock:
            number = self._pack_numbers.setdefault(pack_id, len(self._packs))
            if number == len(self._packs):
                self._packs.append(pack_id)
                self._ends.append(0)
            self._lost.discard(number)
            end = self._ends[number]
            for entry in entries:
                end = max(end, entry.offset + entry.length)
                place = _PLACE.pack(number, entry.offset, entry.length, entry.plain_length)
                known = self._first[entry.kind].get(entry.id)
                if known is None:
                    self._first[entry.kind][entry.id] = place
                elif known != place:
                    self._second[entry.kind][entry.id] = place
            self._ends[number] = end

    def has(self, kind: BlobKind, blob_id: BlobId) -> bool:
        """Whether the blob is stored."""
        with self._lock:
            if self._lost:
                return self._place(kind, blob_id) is not None
            return blob_id in self._first[kind]

    def find(self, kind: BlobKind, blob_id: BlobId) -> Location | None:
        """Return where the blob lies, or None if it is not stored."""
        with self._lock:
            return self._location(self._place(kind, blob_id))

    def find_other(self, kind: BlobKind, blob_id: BlobId) -> Location | None:
        """Return where another copy of the blob lies, if there is one."""
        with self._lock:
            place = self._second[kind].get(blob_id)
            is_lost = self._is_lost(place) or self._is_lost(self._first[kind].get(blob_id))
            return None if is_lost else self._location(place)

    def pack_ends(self) -> dict[bytes, int]:
        """Return the packs and where the last blob in each ends."""
        with self._lock:
            return dict(zip(self._packs, self._ends, strict=True))

    def lose_packs(self, pack_ids: Iterable[bytes]) -> None:
        """Make unknown what only these packs hold, and nothing else."""
        with self._lock:
            self._lost = {
                self._pack_numbers[pack_id] for pack_id in pack_ids if pack_id in self._pack_numbers
            }

    def _place(self, kind: BlobKind, blob_id: BlobId) -> bytes | None:
        place = self._first[kind].get(blob_id)
        if self._is_lost(place):
            place = self._second[kind].get(blob_id)
        return None if self._is_lost(place) else place

    def _is_lost(self, place: bytes | None) -> bool:
        return bool(self._lost) and place is not None and _PLACE.unpack(place)[0] in self._lost

    def _location(self, place: bytes | None) -> Location | None:
        if place is None:
            return None
        number, offset, length, plain_length = _PLACE.unpack(place)
        return Location(self._packs[number], offset, length, plain_length)

    def replace_with(self, other: BlobIndex) -> None:
        """Take over the blobs of ``other``, which must not be used afterwards."""
        with self._lock:
            self._packs, self._pack_numbers = other._packs, other._pack_numbers
            self._ends, self._lost = other._ends, other._lost
            self._first, self._second = other._first, other._second
