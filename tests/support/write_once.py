"""A store whose credentials read, list and create, and do nothing else: what is written once stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pgstow.core.errors import ObjectExists, ObjectNotFound, StoreDenied
from pgstow.store.api import ObjectInfo, Store
from pgstow.store.memory import MemoryStore

__all__ = ["WriteOnceStore"]


@dataclass
class WriteOnceStore:
    """Denies deleting and overwriting. With ``denies_before_condition`` it says so to a conditional create too."""

    inner: Store = field(default_factory=MemoryStore)
    denies_before_condition: bool = False
    denied: list[str] = field(default_factory=list)

    @property
    def location(self) -> str:
        return self.inner.location

    def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
        try:
            self.inner.put(name, data, if_absent=True)
        except ObjectExists:
            if if_absent and not self.denies_before_condition:
                raise
            raise self._denied("overwrite", name) from None

    def get(self, name: str) -> bytes:
        return self.inner.get(name)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self.inner.get_range(name, offset, length)

    def stat(self, name: str) -> ObjectInfo:
        return self.inner.stat(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self.inner.list(prefix)

    def delete(self, name: str) -> None:
        try:
            self.inner.stat(name)
        except ObjectNotFound:
            return
        raise self._denied("delete", name)

    def remove_stale_temporaries(self) -> int:
        return self.inner.remove_stale_temporaries()

    def _denied(self, what: str, name: str) -> StoreDenied:
        self.denied.append(f"{what} {name.rpartition('/')[0]}")
        return StoreDenied(f"cannot {what} {name}: access denied")
