"""Objects in memory: a full store for tests, shipped so that others can test with it too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from pgstow.core.errors import ObjectExists, ObjectNotFound, StoreError
from pgstow.store.api import ObjectInfo, check_name, check_prefix, check_range

__all__ = ["MemoryStore"]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class MemoryStore:
    """A store that forgets. Keeps every promise of ``Store`` but durability."""

    def __init__(self, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, datetime]] = {}

    @property
    def location(self) -> str:
        return "memory"

    def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
        check_name(name)
        copy = bytes(data)
        with self._lock:
            if if_absent and name in self._objects:
                raise ObjectExists(f"{name} is already in {self.location}")
            self._objects[name] = (copy, self._now())

    def get(self, name: str) -> bytes:
        return self._find(name)[0]

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        check_range(name, offset, length)
        data = self._find(name)[0]
        if offset + length > len(data):
            raise StoreError(f"{name} in {self.location} is shorter than {offset + length} bytes")
        return data[offset : offset + length]

    def stat(self, name: str) -> ObjectInfo:
        data, modified = self._find(name)
        return ObjectInfo(name=name, size_bytes=len(data), modified=modified)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        with self._lock:
            found = [(name, *value) for name, value in self._objects.items() if name.startswith(prefix)]
        return (
            ObjectInfo(name=name, size_bytes=len(data), modified=modified) for name, data, modified in found
        )

    def delete(self, name: str) -> None:
        check_name(name)
        with self._lock:
            self._objects.pop(name, None)

    def remove_stale_temporaries(self) -> int:
        return 0  # a put here has no unfinished state

    def _find(self, name: str) -> tuple[bytes, datetime]:
        check_name(name)
        with self._lock:
            try:
                return self._objects[name]
            except KeyError:
                raise ObjectNotFound(f"{name} is not in {self.location}") from None
