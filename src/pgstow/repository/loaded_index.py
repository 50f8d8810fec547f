"""The index files of a repository as they are in memory: read on demand, brought up to date by reading what is new."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor

from pgstow.core.errors import RepositoryDamaged
from pgstow.repository.files import FileKind, SealedFiles, list_ids
from pgstow.repository.index import BlobIndex, PackContents, parse_index
from pgstow.repository.reader import ahead

__all__ = ["LoadedIndex"]

_TRIES = 3
_FILES_AHEAD = 4
_VANISHED = "vanished"

# Among the names of index files that were read it makes the next load() read everything anew: the index in
# memory has packs that a writer could not list.
_NEVER_WRITTEN = "never written"


class LoadedIndex:
    """Which blob is in which pack, by the index files that were read. Safe to use from several threads."""

    def __init__(self, files: SealedFiles, executor: Executor) -> None:
        self.blobs = BlobIndex()
        self._files = files
        self._executor = executor
        self._names: set[str] = set()
        self._lost: frozenset[bytes] = frozenset()
        self._lock = threading.Lock()

    def load(self, damaged: list[RepositoryDamaged] | None = None) -> None:
        """Bring it up to date; see ``Repository.load_index()``."""
        found: list[RepositoryDamaged] = []
        for tries_left in reversed(range(_TRIES)):
            found = []
            try:
                self._load(None if damaged is None else found)
                is_settled = not any(exc.facts.get(_VANISHED) for exc in found)
            except RepositoryDamaged as exc:
                if not exc.facts.get(_VANISHED) or not tries_left:
                    raise
                is_settled = False
            if is_settled:
                break
        if damaged is not None:
            damaged += found

    def _load(self, damaged: list[RepositoryDamaged] | None) -> None:
        with self._lock:
            present = set(self.names())
            is_addition = self._names <= present
            index = self.blobs if is_addition else BlobIndex()
            missing = sorted(present - self._names if is_addition else present)
            for pack in self._read(missing, damaged):
                index.add_pack(*pack)
            if not is_addition:  # restic pruned: what it dropped must be unknown from now on
                self.blobs.replace_with(index)
                self.blobs.lose_packs(self._lost)
            self._names = present

    def use(self, index: BlobIndex) -> None:
        """Let ``index`` stand in its place until the next ``load()``, which reads everything anew."""
        with self._lock:
            self.blobs.replace_with(index)
            self._names = {_NEVER_WRITTEN}

    def note_written(self, index_id: str) -> None:
        """Take an index file for read: what it lists is in ``blobs``."""
        self._names.add(index_id)

    def note_unlisted(self) -> None:
        """Take note that ``blobs`` has what could not be listed."""
        self._names.add(_NEVER_WRITTEN)

    def lose_missing_packs(self) -> int:
        """Look which packs the store has lost, or cut off, and forget what only they hold; return how many there are."""
        ends = self.blobs.pack_ends()
        for pack_id, info in list_ids(self._files.store, FileKind.PACK):
            if (
                ends.get(bytes.fromhex(pack_id), info.size_bytes) < info.size_bytes
            ):  # a header follows the blobs
                del ends[bytes.fromhex(pack_id)]
        with self._lock:
            self._lost = frozenset(ends)
            self.blobs.lose_packs(self._lost)
        return len(ends)

    def names(self) -> list[str]:
        """Return the names of the index files in the store."""
        return sorted(index_id for index_id, _ in list_ids(self._files.store, FileKind.INDEX))

    def packs(self, damaged: list[RepositoryDamaged] | None = None) -> Iterator[PackContents]:
        """Yield what the loaded files say about every pack, read again; see ``Repository.indexed_packs()``."""
        return self._read(sorted(self._names), damaged)

    def file(self, index_id: str) -> list[PackContents]:
        """Return what one index file lists. Raises RepositoryDamaged."""
        content = self._read_file(index_id)[1]
        if isinstance(content, RepositoryDamaged):
            raise content
        return list(parse_index(content, name=FileKind.INDEX.name_of(index_id)))

    def _read(
        self, index_ids: Iterable[str], damaged: list[RepositoryDamaged] | None
    ) -> Iterator[PackContents]:
        for index_id, content in ahead(self._executor, self._read_file, index_ids, _FILES_AHEAD):
            try:
                if isinstance(content, RepositoryDamaged):
                    raise content
                yield from parse_index(content, name=FileKind.INDEX.name_of(index_id))
            except RepositoryDamaged as exc:
                if damaged is None:
                    raise
                damaged.append(exc)

    def _read_file(self, index_id: str) -> tuple[str, bytes | RepositoryDamaged]:
        try:
            content = self._files.load_present(FileKind.INDEX, index_id)
        except RepositoryDamaged as exc:
            return index_id, exc
        if content is None:  # a prune replaced it since the listing; what it listed is in a newer file
            return index_id, RepositoryDamaged(
                f"index/{index_id} vanished while the index was read",
                hint="a prune was running: try again",
                **{_VANISHED: True},
            )
        return index_id, content
