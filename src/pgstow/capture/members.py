"""Turning a stream of pieces into the blobs of one archive member, with the sealing done elsewhere.

The thread that reads a table hands pieces to a small pool that hashes, compresses and encrypts them: the
server keeps sending meanwhile. At most ``_IN_FLIGHT`` pieces of a member wait, so memory stays flat.
"""

from __future__ import annotations

import collections
from concurrent.futures import Executor, Future
from datetime import datetime

from pgstow.capture.destinations import FanOutWriter
from pgstow.repository import BlobIds, BlobKind, FileNode, SavedBlob

__all__ = ["MemberWriter", "save_file"]

_IN_FLIGHT = 4
_MAX_BLOB_BYTES = 4 << 20


class MemberWriter:
    """Collects the content of one member. Used by one thread; ``complete()`` gives its blobs."""

    def __init__(self, writer: FanOutWriter, pool: Executor) -> None:
        self._writer = writer
        self._pool = pool
        self._waiting: collections.deque[Future[SavedBlob] | BlobIds] = collections.deque()
        self._content = bytearray()
        self.size_bytes = 0
        self.new_bytes = 0  # of what is sealed: the repository did not have it
        self.blobs = 0  # added so far, also those still being sealed

    def add(self, data: bytes) -> None:
        """Append ``data``, as one blob or, when it is very long, as several."""
        for start in range(0, len(data), _MAX_BLOB_BYTES):
            part = data if len(data) <= _MAX_BLOB_BYTES else data[start : start + _MAX_BLOB_BYTES]
            if len(self._waiting) >= _IN_FLIGHT:
                self._collect()
            self._waiting.append(self._pool.submit(self._writer.save, BlobKind.DATA, part))
            self.size_bytes += len(part)
            self.blobs += 1

    def take_over(self, content: BlobIds, size_bytes: int) -> None:
        """Append blobs that the repository has."""
        self._writer.count_known(len(content), size_bytes)
        self._waiting.append(content)
        if len(self._waiting) > _IN_FLIGHT:
            self._collect()
        self.size_bytes += size_bytes
        self.blobs += len(content)

    def _collect(self) -> None:
        first = self._waiting.popleft()
        if isinstance(first, BlobIds):
            self._content += first.packed
            return
        saved = first.result()
        self._content += saved.id
        self.new_bytes += saved.size_bytes if saved.is_new else 0

    def complete(self) -> BlobIds:
        """Return the blobs in order, once the repository writer has taken over every one."""
        while self._waiting:
            self._collect()
        return BlobIds(self._content)


def save_file(writer: FanOutWriter, name: str, data: bytes, modified: datetime) -> FileNode:
    """Save a small file in the calling thread and return its node."""
    parts = (data[start : start + _MAX_BLOB_BYTES] for start in range(0, len(data), _MAX_BLOB_BYTES))
    content = tuple(writer.save(BlobKind.DATA, part).id for part in parts)
    return FileNode(name=name, size_bytes=len(data), content=content, modified=modified)
