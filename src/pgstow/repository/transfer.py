"""Taking blobs out of a repository as they are stored, to put them into another one: nothing is compressed again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pgstow.core.errors import ObjectNotFound, RepositoryDamaged
from pgstow.repository.crypto import MasterKey
from pgstow.repository.files import pack_name
from pgstow.repository.ids import BlobId, BlobKind
from pgstow.repository.index import BlobIndex, Location, PackContents
from pgstow.repository.packs import PackEntry, split_pack
from pgstow.repository.reader import fetch, open_body
from pgstow.store.api import Store

__all__ = ["StoredBlob", "read_pack", "stored_blobs"]

_SPAN_BYTES = 4 << 20
_GAP_BYTES = 256 << 10  # what nobody asked for lies between; reading past it is cheaper than a request


class StoredBlob(NamedTuple):
    """A blob that was checked: ``sealed`` as its pack holds it, ``body`` what was sealed, maybe compressed."""

    kind: BlobKind
    id: BlobId
    sealed: bytes | memoryview
    body: bytes
    plain_length: int


def read_pack(store: Store, key: MasterKey, pack_id: bytes) -> tuple[PackContents, bytes]:
    """Return what a pack lists and its bytes; RepositoryDamaged unless they match its name and its header."""
    name = pack_name(pack_id.hex())
    try:
        data = store.get(name)
    except ObjectNotFound as exc:
        raise RepositoryDamaged(f"pack {pack_id.hex()} is missing", file=name) from exc
    if hashlib.sha256(data).digest() != pack_id:
        raise RepositoryDamaged(
            f"pack {pack_id.hex()} is damaged: its content does not match its name", file=name
        )
    return PackContents(pack_id, split_pack(pack_id.hex(), data, key)), data


def stored_blobs(
    store: Store, key: MasterKey, index: BlobIndex, pack_id: bytes, entries: Sequence[PackEntry]
) -> Iterator[StoredBlob]:
    """Yield ``entries`` of a pack, in the order of their places; see ``Repository.stored_blobs()``."""
    for span in _spans(sorted(entries, key=lambda entry: entry.offset)):
        start = span[0].offset
        data: memoryview | None
        try:
            end = span[-1].offset + span[-1].length
            data = memoryview(fetch(store, pack_id.hex(), start, end - start))
        except RepositoryDamaged:
            data = None  # other copies may be intact, and the blobs before the end of a short pack
        for entry in span:
            sealed = (
                None if data is None else data[entry.offset - start : entry.offset - start + entry.length]
            )
            yield _checked(store, key, index, pack_id, entry, sealed)


def _spans(entries: Iterable[PackEntry]) -> Iterator[list[PackEntry]]:
    """Yield entries that are worth fetching together."""
    span: list[PackEntry] = []
    for entry in entries:
        if span:
            gap = entry.offset - (span[-1].offset + span[-1].length)
            if gap > _GAP_BYTES or entry.offset + entry.length - span[0].offset > _SPAN_BYTES:
                yield span
                span = []
        span.append(entry)
    if span:
        yield span


def _checked(
    store: Store,
    key: MasterKey,
    index: BlobIndex,
    pack_id: bytes,
    entry: PackEntry,
    sealed: memoryview | None,
) -> StoredBlob:
    """Return a blob from its place, or from another one if it is damaged there."""
    place = Location(pack_id, entry.offset, entry.length, entry.plain_length)
    try:
        return _opened(store, key, entry, place, sealed)
    except RepositoryDamaged:
        other = index.find_other(entry.kind, entry.id)
        if other is None:
            raise
        return _opened(store, key, entry, other, None)


def _opened(
    store: Store, key: MasterKey, entry: PackEntry, place: Location, sealed: bytes | memoryview | None
) -> StoredBlob:
    if sealed is None:
        sealed = fetch(store, place.pack_id.hex(), place.offset, place.length)
    body = open_body(key, entry.kind, entry.id, place, sealed)
    return StoredBlob(entry.kind, entry.id, sealed, body, place.plain_length)
