"""Writing blobs: hashed, compressed and sealed by the calling thread, packed, uploaded in the background.

Order is the repository's safety: a blob is only listed in an index file once its pack is durable, and
``flush()`` returns once both are; the caller then writes the snapshot. A writer that dies leaves packs that
nothing refers to, never a reference to nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from mmap import mmap
from types import TracebackType
from typing import Self

from pgstow.core.errors import RepositoryError, StoreError
from pgstow.repository.compression import compress
from pgstow.repository.crypto import SEAL_BYTES, MasterKey
from pgstow.repository.files import FileKind, SealedFiles, pack_name
from pgstow.repository.ids import BlobId, BlobKind
from pgstow.repository.index import BlobIndex, PackContents, encode_index
from pgstow.repository.packs import PackEntry, encode_header, pack_size
from pgstow.repository.tree import DirNode, FileNode, encode_tree

__all__ = ["BlobWriter", "PreparedBlob", "SavedBlob", "WriterStats"]

PACK_BYTES = 16 << 20
_MAX_PACKS = 8  # open or on their way; each holds a buffer of PACK_BYTES
_SPARE_BUFFERS = 2
_MAX_PACK_ENTRIES = 20_000
_INDEX_ENTRIES = 30_000  # with one more full pack still below restic's 50,000 and 8 MiB
_INDEX_INTERVAL_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedBlob:
    """What became of a blob given to ``save()``."""

    id: BlobId
    size_bytes: int
    is_new: bool
    stored_bytes: int  # 0 if the repository had it


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterStats:
    """What a writer was given so far."""

    new_blobs: int = 0
    new_bytes: int = 0
    stored_bytes: int = 0
    known_blobs: int = 0
    known_bytes: int = 0
    packs: int = 0


class PreparedBlob:
    """A blob on its way into one or more repositories: hashed once, and compressed once, by the first that lacks it.

    Used by one thread.
    """

    __slots__ = ("_body", "_data", "id", "kind", "size_bytes")

    def __init__(self, kind: BlobKind, data: bytes | bytearray | memoryview) -> None:
        self.kind = kind
        self.id: BlobId = hashlib.sha256(data).digest()
        self.size_bytes = len(data)
        self._data = data
        self._body: bytes | bytearray | memoryview | None = None

    def body(self) -> bytes | bytearray | memoryview:
        """Return what is to be sealed: a frame where that is shorter, and for every tree; else the data itself."""
        if self._body is None:
            frame = compress(self._data)
            is_shorter = len(frame) < self.size_bytes or (self.kind is BlobKind.TREE and self.size_bytes > 0)
            self._body = frame if is_shorter else self._data
        return self._body

    @property
    def plain_length(self) -> int:
        """What pack and index say of the length: 0 for a body that is not compressed."""
        return 0 if self.body() is self._data else self.size_bytes


class _OpenPack:
    """A pack being filled. Callers reserve room under the writer's lock and seal into it without the lock."""

    __slots__ = ("buffer", "entries", "is_closed", "kind", "unsealed", "used")

    def __init__(self, kind: BlobKind, buffer: mmap) -> None:
        self.kind = kind
        self.buffer = buffer
        self.entries: list[PackEntry] = []
        self.used = 0
        self.unsealed = 0  # blobs reserved but not yet written
        self.is_closed = False

    def fits(self, entry_length: int) -> bool:
        if not self.entries:
            return True
        room = _overhead(len(self.entries) + 1)
        return len(self.entries) < _MAX_PACK_ENTRIES and self.used + entry_length + room <= len(self.buffer)

    def reserve(self, blob_id: BlobId, length: int, plain_length: int) -> memoryview:
        self.entries.append(PackEntry(self.kind, blob_id, self.used, length, plain_length))
        self.used += length
        self.unsealed += 1
        return memoryview(self.buffer)[self.used - length : self.used]

    def seal_header(self, key: MasterKey) -> memoryview:
        """Append the header and return the finished pack's bytes."""
        header = encode_header(self.entries)
        size_bytes = pack_size(self.entries)
        pack = memoryview(self.buffer)[:size_bytes]
        key.seal_into(header, pack[self.used : -4])
        pack[-4:] = (len(header) + SEAL_BYTES).to_bytes(4, "little")
        return pack


def _overhead(entries: int) -> int:
    return entries * 41 + SEAL_BYTES + 4


_COMPACT = struct.Struct("<?III32s")  # is a tree, offset, length, plain length, id


def _compact(entries: Iterable[PackEntry]) -> bytes:
    return b"".join(
        _COMPACT.pack(e.kind is BlobKind.TREE, e.offset, e.length, e.plain_length, e.id) for e in entries
    )


def _entries(compact: bytes) -> list[PackEntry]:
    return [
        PackEntry(BlobKind.TREE if is_tree else BlobKind.DATA, blob_id, offset, length, plain_length)
        for is_tree, offset, length, plain_length, blob_id in _COMPACT.iter_unpack(compact)
    ]


@dataclass(slots=True)
class _Counts:
    new_blobs: int = 0
    new_bytes: int = 0
    stored_bytes: int = 0
    known_blobs: int = 0
    known_bytes: int = 0
    packs: int = 0


@dataclass(slots=True)
class _Unindexed:
    """Packs that are durable but in no index file yet, and their entries in 45 bytes each instead of 300."""

    packs: list[tuple[bytes, bytes]] = field(default_factory=list)
    entries: int = 0
    since: float = 0.0


class BlobWriter:
    """Stores blobs. ``save()`` may be called from any number of threads.

    ``guard`` is called before anything is written to the store and raises when writing is no longer allowed.
    The first failure of any kind ends the writer: every later call raises it again.
    """

    def __init__(
        self,
        files: SealedFiles,
        key: MasterKey,
        index: BlobIndex,
        *,
        guard: Callable[[], None],
        indexed: Callable[[str], None] = lambda _: None,
        unlisted: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._key = key
        self._index = index
        self._guard = guard
        self._indexed = indexed
        self._unlisted = unlisted
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._pending: dict[BlobKind, set[BlobId]] = {kind: set() for kind in BlobKind}
        self._open: dict[BlobKind, _OpenPack] = {}
        self._alive_packs = 0
        self._spare_buffers: list[mmap] = []
        self._unindexed = _Unindexed(since=monotonic())
        self._counts = _Counts()
        self._failure: BaseException | None = None
        self._uploads = ThreadPoolExecutor(_MAX_PACKS, thread_name_prefix="pack-upload")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if exc is None:
                self.flush()
        except BaseException:
            self._abandon()
            raise
        else:
            if exc is not None:
                self._abandon()
        finally:
            self._uploads.shutdown(wait=True, cancel_futures=True)

    @property
    def stats(self) -> WriterStats:
        with self._changed:
            counts = self._counts
            return WriterStats(
                new_blobs=counts.new_blobs,
                new_bytes=counts.new_bytes,
                stored_bytes=counts.stored_bytes,
                known_blobs=counts.known_blobs,
                known_bytes=counts.known_bytes,
                packs=counts.packs,
            )

    def save(self, kind: BlobKind, data: bytes | bytearray | memoryview) -> SavedBlob:
        """Store ``data`` unless the repository has it, and return its id.

        Blocks while too many packs are on their way. Durable, and safe to refer to, after ``flush()``.
        """
        return self.save_prepared(PreparedBlob(kind, data))

    def save_prepared(self, blob: PreparedBlob) -> SavedBlob:
        """Do the same with a blob that other repositories are given as well."""
        if not self._claim(blob.kind, blob.id, blob.size_bytes):
            return SavedBlob(id=blob.id, size_bytes=blob.size_bytes, is_new=False, stored_bytes=0)
        with self._failing():
            body = blob.body()
            length = len(body) + SEAL_BYTES
            pack, room = self._reserve(blob.kind, blob.id, length, blob.plain_length)
            self._key.seal_into(body, room)
            self._sealed(pack, blob.size_bytes, length)
        return SavedBlob(id=blob.id, size_bytes=blob.size_bytes, is_new=True, stored_bytes=length)

    def save_sealed(
        self, kind: BlobKind, blob_id: BlobId, sealed: bytes | memoryview, plain_length: int
    ) -> SavedBlob:
        """Store a blob as a pack sealed by the same key holds it, unless the repository has it.

        The caller has opened it and knows that it is whole. ``plain_length`` is 0 for one that is not compressed.
        """

        def fill(room: memoryview) -> None:
            room[:] = sealed

        return self._save_stored(kind, blob_id, len(sealed), plain_length, fill)

    def save_body(
        self, kind: BlobKind, blob_id: BlobId, body: bytes | memoryview, plain_length: int
    ) -> SavedBlob:
        """Store a blob that was opened with another key, compressed as it was, unless the repository has it.

        The caller knows that it is whole. ``plain_length`` is 0 for one that is not compressed.
        """
        length = len(body) + SEAL_BYTES
        return self._save_stored(
            kind, blob_id, length, plain_length, lambda room: self._key.seal_into(body, room)
        )

    def _save_stored(
        self,
        kind: BlobKind,
        blob_id: BlobId,
        length: int,
        plain_length: int,
        fill: Callable[[memoryview], None],
    ) -> SavedBlob:
        size_bytes = plain_length or length - SEAL_BYTES
        if not self._claim(kind, blob_id, size_bytes):
            return SavedBlob(id=blob_id, size_bytes=size_bytes, is_new=False, stored_bytes=0)
        with self._failing():
            pack, room = self._reserve(kind, blob_id, length, plain_length)
            fill(room)
            self._sealed(pack, size_bytes, length)
        return SavedBlob(id=blob_id, size_bytes=size_bytes, is_new=True, stored_bytes=length)

    def save_pack(self, contents: PackContents, data: bytes) -> None:
        """Store a whole pack that a repository of the same key holds; durable on return, listed after ``flush()``.

        The caller knows that it is whole. Blobs in it that the repository has already are stored twice.
        """
        with self._changed:
            self._check()
        with self._failing():
            self._guard()
            self._files.store.put(pack_name(contents.pack_id.hex()), data)
            with self._changed:
                self._counts.new_blobs += len(contents.entries)
                self._counts.new_bytes += sum(entry.size_bytes for entry in contents.entries)
                self._counts.stored_bytes += sum(entry.length for entry in contents.entries)
            self._write_index(self._now_durable(contents))

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """End the writer when the block fails: others rely on what it claimed."""
        try:
            yield
        except BaseException as exc:
            self._fail(exc)
            raise

    def count_known(self, blobs: int, size_bytes: int) -> None:
        """Count blobs that are referred to without having been given to ``save()``."""
        with self._changed:
            self._counts.known_blobs += blobs
            self._counts.known_bytes += size_bytes

    def save_tree(self, nodes: Iterable[FileNode | DirNode]) -> BlobId:
        """Store a folder and return its id."""
        return self.save(BlobKind.TREE, encode_tree(nodes)).id

    def flush(self) -> None:
        """Return once every blob is durable and listed in a durable index file; raises the first failure."""
        with self._changed:
            for kind in list(self._open):
                self._close(kind)
            while self._alive_packs and self._failure is None:
                self._changed.wait()
            self._check()
        self._write_index(self._take_unindexed())

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, exc: BaseException) -> None:
        with self._changed:
            if self._failure is None:
                self._failure = exc
            self._changed.notify_all()

    def _claim(self, kind: BlobKind, blob_id: BlobId, size_bytes: int) -> bool:
        """Return True if this thread must store the blob: nobody has and nobody else is about to."""
        with self._changed:
            self._check()
            if blob_id in self._pending[kind] or self._index.has(kind, blob_id):
                self._counts.known_blobs += 1
                self._counts.known_bytes += size_bytes
                return False
            self._pending[kind].add(blob_id)
            return True

    def _reserve(
        self, kind: BlobKind, blob_id: BlobId, length: int, plain_length: int
    ) -> tuple[_OpenPack, memoryview]:
        with self._changed:
            while True:
                self._check()
                pack = self._open.get(kind)
                if pack is not None and not pack.fits(length):
                    self._close(kind)
                    pack = None
                if pack is None and self._alive_packs < _MAX_PACKS:
                    pack = self._open[kind] = _OpenPack(kind, self._buffer(length))
                    self._alive_packs += 1
                if pack is not None:
                    return pack, pack.reserve(blob_id, length, plain_length)
                self._changed.wait()

    def _buffer(self, length: int) -> mmap:
        """Return memory for a pack, at the beginning of a page: stores may write it without copying."""
        needed = length + _overhead(1)
        if needed > PACK_BYTES:
            return mmap(-1, needed)
        return self._spare_buffers.pop() if self._spare_buffers else mmap(-1, PACK_BYTES)

    def _sealed(self, pack: _OpenPack, size_bytes: int, stored_bytes: int) -> None:
        with self._changed:
            pack.unsealed -= 1
            self._counts.new_blobs += 1
            self._counts.new_bytes += size_bytes
            self._counts.stored_bytes += stored_bytes
            if pack.is_closed and not pack.unsealed:
                self._uploads.submit(self._upload, pack)

    def _close(self, kind: BlobKind) -> None:
        """Take a pack out of use; it is uploaded once the last blob is sealed into it."""
        pack = self._open.pop(kind)
        pack.is_closed = True
        if not pack.unsealed:
            self._uploads.submit(self._upload, pack)

    def _upload(self, pack: _OpenPack) -> None:
        try:
            data = pack.seal_header(self._key)
            digest = hashlib.sha256(data)
            self._guard()
            self._files.store.put(pack_name(digest.hexdigest()), data)
            self._write_index(self._uploaded(pack, PackContents(digest.digest(), pack.entries)))
        except BaseException as exc:  # noqa: BLE001  the next save() or flush() raises it
            self._fail(exc)
        finally:
            with self._changed:
                self._alive_packs -= 1
                self._changed.notify_all()

    def _uploaded(self, pack: _OpenPack, contents: PackContents) -> list[tuple[bytes, bytes]]:
        """Note a durable pack that was filled here; return what ``_now_durable()`` does."""
        with self._changed:
            due = self._now_durable(contents)
            self._pending[pack.kind].difference_update(entry.id for entry in contents.entries)
            if len(pack.buffer) == PACK_BYTES and len(self._spare_buffers) < _SPARE_BUFFERS:
                self._spare_buffers.append(pack.buffer)
            return due

    def _now_durable(self, contents: PackContents) -> list[tuple[bytes, bytes]]:
        """Note a durable pack; return what the next index file must list, if it is time for one."""
        with self._changed:
            self._index.add_pack(*contents)
            self._counts.packs += 1
            self._unindexed.packs.append((contents.pack_id, _compact(contents.entries)))
            self._unindexed.entries += len(contents.entries)
            age_s = self._monotonic() - self._unindexed.since
            is_time = self._unindexed.entries >= _INDEX_ENTRIES or age_s >= _INDEX_INTERVAL_S
            return self._take_unindexed() if is_time else []

    def _take_unindexed(self) -> list[tuple[bytes, bytes]]:
        with self._changed:
            packs = self._unindexed.packs
            self._unindexed = _Unindexed(since=self._monotonic())
            return packs

    def _write_index(self, packs: list[tuple[bytes, bytes]]) -> None:
        """List packs in an index file; ``unlisted`` is told if that fails, as the index in memory has them already."""
        if not packs:
            return
        listed = (PackContents(pack_id, _entries(compact)) for pack_id, compact in packs)
        try:
            self._guard()
            self._indexed(self._files.save(FileKind.INDEX, encode_index(listed)))
        except BaseException:
            self._unlisted()
            raise

    def _abandon(self) -> None:
        """Drop what is not uploaded, and index what is, so that the next run need not send it again."""
        self._fail(RuntimeError("the writer was abandoned"))
        self._uploads.shutdown(wait=True, cancel_futures=True)
        with contextlib.suppress(StoreError, RepositoryError):  # unindexed packs are only garbage
            self._write_index(self._take_unindexed())
