"""Large objects: each one is there, and holds the bytes that the repository holds.

Nothing is read from the repository once more: it knows the SHA-256 of every piece, and the server makes those of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from pgstow.assurance.drill.checks.records import counted, failed, passed, skipped, summed_up
from pgstow.assurance.drill.checks.restored import Restored
from pgstow.catalog.drills import CheckRecord
from pgstow.postgres.archive import large_object_ids
from pgstow.postgres.inventory import LargeObjectPiece, differing_large_objects
from pgstow.postgres.raw import RawSession
from pgstow.postgres.target import existing_large_objects

__all__ = ["check_large_objects"]

_BATCH = 256
_NOTHING = hashlib.sha256(b"").digest()


def check_large_objects(restored: Restored, session: RawSession) -> Iterator[CheckRecord]:
    """Yield whether each large object of the archive is there, with its bytes."""
    oids = [
        oid for entry in restored.toc.large_object_data() for oid in large_object_ids(restored.toc, entry)
    ]
    if not oids:
        yield skipped("large_objects", "the backup holds no large objects")
        return
    there = set(existing_large_objects(session, oids))
    problems = [
        failed("large_objects", "the large object is missing", subject=str(oid))
        for oid in sorted(set(oids) - there)
    ]
    problems += [
        failed("large_objects", "the large object holds other bytes than were saved", subject=str(oid))
        for oid in _differing(restored, session, sorted(there))
    ]
    good = f"{counted(len(oids), 'large object')} with exactly the bytes that the repository holds"
    yield from summed_up(passed("large_objects", good), problems)


def _differing(restored: Restored, session: RawSession, oids: list[int]) -> list[int]:
    found: set[int] = set()
    batch: list[LargeObjectPiece] = []
    for piece in _pieces(restored, oids):
        batch.append(piece)
        if len(batch) == _BATCH:
            found |= differing_large_objects(session, batch)
            batch = []
    found |= differing_large_objects(session, batch)
    return sorted(found)


def _pieces(restored: Restored, oids: list[int]) -> Iterator[LargeObjectPiece]:
    for oid in oids:
        offset = 0
        for size_bytes, digest in restored.files.pieces(f"archive/blob_{oid}.dat"):
            yield LargeObjectPiece(oid=oid, offset=offset, size_bytes=size_bytes, sha256=digest)
            offset += size_bytes
        yield LargeObjectPiece(oid=oid, offset=offset, size_bytes=1, sha256=_NOTHING)  # where it ends
