"""Reading blobs: decrypted, decompressed, and checked against their ids.

Neighbours in a pack are fetched by one ranged get, and a few such spans are fetched and decoded in
threads ahead of the consumer.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import TypeVar

from pgstow.core.errors import ObjectNotFound, RepositoryDamaged, StoreError, StoreUnavailable
from pgstow.repository.compression import CompressionError, decompress_exactly
from pgstow.repository.crypto import MasterKey
from pgstow.repository.files import pack_name
from pgstow.repository.ids import BlobId, BlobKind
from pgstow.repository.index import BlobIndex, Location
from pgstow.store.api import Store

__all__ = ["BlobReader", "ahead", "decode_blob", "fetch", "open_body"]

_SPAN_BYTES = 4 << 20  # plaintext of one span: what bounds the memory of a stream
_SPAN_BLOBS = 4096  # or tiny blobs would weigh more than their bytes
_GAP_BYTES = 512 << 10  # other tables' blobs lie between; reading past them is cheaper than a request
_LIMITS = {BlobKind.DATA: 128 << 20, BlobKind.TREE: 1 << 30}

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def ahead(
    executor: Executor, function: Callable[[_Item], _Result], items: Iterable[_Item], window: int
) -> Generator[_Result, None, None]:
    """Yield ``function(item)`` in order, computed up to ``window`` items ahead; closing cancels the rest."""
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def decode_blob(
    key: MasterKey, kind: BlobKind, blob_id: BlobId, place: Location, sealed: bytes | memoryview
) -> bytes:
    """Return the plaintext of a stored blob; RepositoryDamaged, naming blob and pack, unless every byte is right."""
    return _open(key, kind, blob_id, place, sealed)[1]


def open_body(
    key: MasterKey, kind: BlobKind, blob_id: BlobId, place: Location, sealed: bytes | memoryview
) -> bytes:
    """Return what was sealed of a stored blob, still compressed; checked as by ``decode_blob()``."""
    return _open(key, kind, blob_id, place, sealed)[0]


def _open(
    key: MasterKey, kind: BlobKind, blob_id: BlobId, place: Location, sealed: bytes | memoryview
) -> tuple[bytes, bytes]:
    body = key.open(sealed)
    if body is None:
        raise _damaged(kind, blob_id, place, "its bytes are not what was sealed")
    if place.size_bytes > _LIMITS[kind]:
        raise _damaged(kind, blob_id, place, f"{place.size_bytes} bytes are more than a blob may have")
    try:
        plain = decompress_exactly(body, place.plain_length) if place.plain_length else body
    except CompressionError as exc:
        raise _damaged(kind, blob_id, place, str(exc)) from exc
    if hashlib.sha256(plain).digest() != blob_id:
        raise _damaged(kind, blob_id, place, "its content does not match its id")
    return body, plain


def _damaged(kind: BlobKind, blob_id: BlobId, place: Location, why: str) -> RepositoryDamaged:
    pack_id = place.pack_id.hex()
    return RepositoryDamaged(
        f"{kind.value} blob {blob_id.hex()} in pack {pack_id} is damaged: {why}",
        file=pack_name(pack_id),
        blob=blob_id.hex(),
    )


@dataclass(slots=True)
class _Span:
    """Blobs of one pack that are fetched together, in the order the consumer wants them."""

    pack_id: bytes
    start: int
    end: int
    wanted: list[tuple[BlobId, Location]] = field(default_factory=list)
    size_bytes: int = 0

    def takes(self, place: Location) -> bool:
        return (
            place.pack_id == self.pack_id
            and len(self.wanted) < _SPAN_BLOBS
            and self.start <= place.offset <= self.end + _GAP_BYTES
            and self.size_bytes + place.size_bytes <= _SPAN_BYTES
            and place.offset + place.length - self.start <= _SPAN_BYTES + _GAP_BYTES
        )

    def add(self, blob_id: BlobId, place: Location) -> None:
        self.wanted.append((blob_id, place))
        self.end = max(self.end, place.offset + place.length)
        self.size_bytes += place.size_bytes


class BlobReader:
    """Reads blobs that an index knows. Safe to use from several threads."""

    def __init__(self, store: Store, key: MasterKey, index: BlobIndex, executor: Executor) -> None:
        self._store = store
        self._key = key
        self._index = index
        self._executor = executor

    def read(self, kind: BlobKind, blob_id: BlobId) -> bytes:
        """Return a blob's plaintext; RepositoryDamaged if no intact copy of it is there."""
        place = self._place(kind, blob_id)
        try:
            return decode_blob(
                self._key, kind, blob_id, place, self._fetch(place.pack_id, place.offset, place.length)
            )
        except RepositoryDamaged:
            other = self._index.find_other(kind, blob_id)
            if other is None:
                raise
            sealed = self._fetch(other.pack_id, other.offset, other.length)
            return decode_blob(self._key, kind, blob_id, other, sealed)

    def stream(self, ids: Iterable[BlobId], read_ahead: int) -> Generator[bytes, None, None]:
        """Yield the plaintext of data blobs in order; at most ``read_ahead`` spans are in memory."""
        spans = self._spans(ids)
        first = next(spans, None)
        if first is None:
            return
        second = next(spans, None)
        if second is None:  # most files are small: no thread is worth while
            yield from self._load(first)
            return
        for blobs in ahead(self._executor, self._load, _chain(first, second, spans), max(1, read_ahead)):
            blobs.reverse()
            while blobs:  # let go of each blob as it is handed out
                yield blobs.pop()

    def _spans(self, ids: Iterable[BlobId]) -> Iterator[_Span]:
        span: _Span | None = None
        for blob_id in ids:
            place = self._place(BlobKind.DATA, blob_id)
            if span is None or not span.takes(place):
                if span is not None:
                    yield span
                span = _Span(place.pack_id, place.offset, place.offset)
            span.add(blob_id, place)
        if span is not None:
            yield span

    def _load(self, span: _Span) -> list[bytes]:
        try:
            data = memoryview(self._fetch(span.pack_id, span.start, span.end - span.start))
            return [
                decode_blob(
                    self._key,
                    BlobKind.DATA,
                    blob_id,
                    place,
                    data[place.offset - span.start : place.offset - span.start + place.length],
                )
                for blob_id, place in span.wanted
            ]
        except RepositoryDamaged:
            return [
                self.read(BlobKind.DATA, blob_id) for blob_id, _ in span.wanted
            ]  # other copies may be intact

    def _place(self, kind: BlobKind, blob_id: BlobId) -> Location:
        place = self._index.find(kind, blob_id)
        if place is None:
            raise RepositoryDamaged(
                f"{kind.value} blob {blob_id.hex()} is in no index file",
                hint="pgstow verify tells which backups need it",
                blob=blob_id.hex(),
            )
        return place

    def _fetch(self, pack_id: bytes, offset: int, length: int) -> bytes:
        return fetch(self._store, pack_id.hex(), offset, length)


def fetch(store: Store, pack_id: str, offset: int, length: int) -> bytes:
    """Return a range of a pack; RepositoryDamaged if the pack is missing or shorter than that."""
    name = pack_name(pack_id)
    try:
        return store.get_range(name, offset, length)
    except ObjectNotFound as exc:
        raise RepositoryDamaged(f"pack {pack_id} is missing", file=name) from exc
    except StoreUnavailable:
        raise
    except StoreError as exc:
        size_bytes = store.stat(name).size_bytes
        if size_bytes >= offset + length:
            raise
        raise RepositoryDamaged(
            f"pack {pack_id} is damaged: it has {size_bytes} bytes, less than the {offset + length} it must have",
            file=name,
        ) from exc


def _chain(first: _Span, second: _Span, rest: Iterator[_Span]) -> Iterator[_Span]:
    yield first
    yield second
    yield from rest
