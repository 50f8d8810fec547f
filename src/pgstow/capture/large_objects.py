"""Taking over large objects that are what they were in the base.

A large object is its rows in pg_largeobject, and these are row versions like any other: where number and digests of the
(ctid, xmin) of an object's rows are those of the base, its bytes are. The conditions of the server hold here as well, and
pg_largeobject must have the storage it had. Its columns and their types are the server's own and need no comparing.

The index is ``ranges/large_objects`` in the backup, little-endian, in the order of OIDs, without empty objects:

    header   magic "PGSTOWL1", number of objects uint64
    object   oid uint32, rows uint64, sum int64, xor int64
"""

from __future__ import annotations

import secrets
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

from psycopg import errors as pgerrors

from pgstow.capture.bases import Base
from pgstow.capture.reuse import Reuse
from pgstow.core.errors import RepositoryDamaged
from pgstow.postgres.fingerprints import Fingerprint, large_object_fingerprints
from pgstow.postgres.large_objects import large_objects_readable, lock_large_objects
from pgstow.postgres.session import Connection
from pgstow.repository import BlobIds

__all__ = ["INDEX_NAME", "KnownLargeObjects", "LargeObjectIndex", "compare_large_objects"]

INDEX_NAME = "large_objects"

_MAGIC = b"PGSTOWL1"
_HEADER = struct.Struct("<8sQ")
_OBJECT = struct.Struct("<IQqq")


class LargeObjectIndex:
    """The fingerprint of every large object that is not empty, by rising OID; 28 bytes each."""

    __slots__ = ("_oids", "_packed")

    def __init__(self) -> None:
        self._oids = array("I")
        self._packed = bytearray()

    def __len__(self) -> int:
        return len(self._oids)

    def append(self, oid: int, found: Fingerprint) -> None:
        self._oids.append(oid)
        self._packed += _OBJECT.pack(oid, found.rows, found.sum, found.xor)

    def place(self, oid: int) -> int | None:
        """Return the place of an object, None if it has no rows."""
        place = bisect_left(self._oids, oid)
        return place if place < len(self._oids) and self._oids[place] == oid else None

    def oid(self, place: int) -> int:
        return self._oids[place]

    def encode(self) -> bytes:
        return _HEADER.pack(_MAGIC, len(self._oids)) + self._packed

    def same(self, base: bytes) -> bytearray:
        """Return 1 for each object that has the same rows in the index ``base``; RepositoryDamaged if that is none."""
        same, place = bytearray(len(self._oids)), 0
        mine = memoryview(self._packed)
        for oid, one in _entries(base):
            while place < len(self._oids) and self._oids[place] < oid:
                place += 1
            if place < len(self._oids) and self._oids[place] == oid:
                same[place] = mine[place * _OBJECT.size : (place + 1) * _OBJECT.size] == one
        return same


def _entries(index: bytes) -> Iterator[tuple[int, memoryview]]:
    if len(index) < _HEADER.size:
        raise RepositoryDamaged("an index of large objects is shorter than its header")
    magic, count = _HEADER.unpack_from(index)
    if magic != _MAGIC or len(index) != _HEADER.size + count * _OBJECT.size:
        raise RepositoryDamaged("an index of large objects is malformed")
    view = memoryview(index)
    for start in range(_HEADER.size, len(index), _OBJECT.size):
        yield _OBJECT.unpack_from(index, start)[0], view[start : start + _OBJECT.size]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownLargeObjects:
    """What pg_largeobject holds now, and which of its objects are as they were in the base.

    ``refused`` says why none can be taken over, ``index`` is None where the role may not look. ``checked`` is read
    although it could be taken over.
    """

    refused: str | None
    index: LargeObjectIndex | None = None
    filenode: int | None = None
    base: Base | None = None
    same: bytearray = field(default_factory=bytearray)
    checked: int | None = None

    def content(self, oid: int) -> tuple[BlobIds, int] | None:
        """Return the blobs and size of an object of the base that still is what it was; None: it must be read."""
        place = self.index.place(oid) if self.index is not None else None
        if self.base is None or place is None or not self.same[place]:
            return None
        node = self.base.member(f"archive/blob_{oid}.dat")
        if node is None:
            return None
        content = BlobIds.of(node.content)
        return (content, node.size_bytes) if self.base.is_held(content, node.size_bytes) else None


def compare_large_objects(connection: Connection, reuse: Reuse) -> KnownLargeObjects:
    """Ask the server for the fingerprints of all large objects, and compare them with the base's.

    One scan of pg_largeobject. The lock on it, held until the session ends, keeps VACUUM FULL from moving the rows while
    we look at them.
    """
    if not large_objects_readable(connection):
        return KnownLargeObjects(refused="this role may not read pg_largeobject")
    try:
        with connection.transaction():
            filenode = lock_large_objects(connection)
    except pgerrors.LockNotAvailable:
        return KnownLargeObjects(refused="pg_largeobject is locked exclusively")
    index, young = LargeObjectIndex(), bytearray()
    for oid, found, is_young in large_object_fingerprints(connection, window=reuse.window):
        index.append(oid, found)
        young.append(is_young)
    refused = _refuse(reuse, filenode)
    if reuse.base is None or refused is not None:
        return KnownLargeObjects(refused=refused, index=index, filenode=filenode)
    try:
        same = index.same(reuse.base.read(reuse.base.manifest.large_objects.ranges or ""))
    except RepositoryDamaged as exc:
        return KnownLargeObjects(
            refused=f"the base is damaged: {exc.message}", index=index, filenode=filenode
        )
    for place in (place for place, is_young in enumerate(young) if is_young):
        same[place] = 0
    alike = [place for place, is_same in enumerate(same) if is_same]
    return KnownLargeObjects(
        refused=None,
        index=index,
        filenode=filenode,
        base=reuse.base,
        same=same,
        checked=index.oid(secrets.choice(alike)) if alike else None,
    )


def _refuse(reuse: Reuse, filenode: int) -> str | None:
    if reuse.base is None:
        return reuse.refused
    record = reuse.base.manifest.large_objects
    if record.ranges is None:
        return "the base does not say what they were"
    return None if record.filenode == filenode else "pg_largeobject was rewritten"
