"""Records: sealed documents that are written once below ``pgstow/`` and never changed.

Who can write to the store without having the key cannot forge one. That a genuine one does not stand in another's place is for
the reader to see: a document says what its name must be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor

from pgstow.core.errors import ObjectNotFound, RepositoryDamaged, StoreUnavailable
from pgstow.repository.files import SealedFiles
from pgstow.repository.reader import ahead

__all__ = ["Records"]

_READS_AHEAD = 8


class Records:
    """Reads and writes the records of one folder, such as ``pgstow/drills/``. Made by ``Repository.records()``."""

    def __init__(
        self, files: SealedFiles, folder: str, executor: Executor, *, guard: Callable[[], None]
    ) -> None:
        self._files = files
        self._folder = folder
        self._executor = executor
        self._guard = guard

    def save(self, name: str, content: bytes) -> None:
        """Store one; it is durable and read back on return. RepositoryLocked when a lock of ours is lost."""
        self._guard()
        sealed = self._files.seal(content)
        self._files.store.put(self._folder + name, sealed)
        if self._files.store.get(self._folder + name) != sealed:
            raise StoreUnavailable(f"{self._folder}{name} is not what was written", hint="try again")

    def names(self) -> list[str]:
        """Return the names of all there are, sorted."""
        return sorted(info.name.removeprefix(self._folder) for info in self._files.store.list(self._folder))

    def load(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | RepositoryDamaged]]:
        """Yield each name with its content, or with why it cannot be read. One that is gone by now is left out."""
        for name, content in ahead(self._executor, self._load_one, names, _READS_AHEAD):
            if content is not None:
                yield name, content

    def _load_one(self, name: str) -> tuple[str, bytes | RepositoryDamaged | None]:
        try:
            return name, self._files.load_as(self._folder + name)
        except ObjectNotFound:
            return name, None
        except RepositoryDamaged as exc:
            return name, exc
