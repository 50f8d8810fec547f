"""The files behind a repository, one by one: index files, packs, and the records of what a prune takes out of use.

What rearranges a repository works here and not through the index in memory, which stands for all index files at
once. A *prune record*, ``pgstow/prune/ID``, is sealed like an index file and has the same content: the packs that
no index lists any more, with their blobs, so that they can be listed again without being read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime

from pgstow.core.errors import ObjectNotFound, RepositoryDamaged
from pgstow.repository.crypto import MasterKey
from pgstow.repository.files import FileKind, SealedFiles, list_ids
from pgstow.repository.ids import BlobId, BlobKind
from pgstow.repository.index import BlobIndex, Location, PackContents, encode_index, parse_index
from pgstow.repository.lock import RepositoryLock
from pgstow.repository.packs import PackEntry, read_header
from pgstow.repository.reader import BlobReader, ahead, decode_blob, fetch
from pgstow.repository.tree import Node, TreeError, decode_tree
from pgstow.repository.writer import BlobWriter

__all__ = ["Holdings", "PruneRecord"]

_FILE_ENTRIES = 30_000  # with one more full pack still below restic's 50,000 and 8 MiB
_FILES_AHEAD = 4
_HEADERS_AHEAD = 16
_SPANS_AHEAD = 4
_SPAN_BYTES = 8 << 20
_GAP_BYTES = 512 << 10  # reading past blobs nobody needs is cheaper than another request


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneRecord:
    """A record of packs that were taken out of use. ``packs`` is None if it cannot be read."""

    id: str
    written: datetime  # by the store's clock
    packs: Sequence[PackContents] | None


class Holdings:
    """Reads and changes single files of a repository. Made by ``Repository.holdings()``.

    Every change raises RepositoryLocked first when a lock of the repository object is lost. The index in memory
    does not follow: call ``Repository.load_index()`` before it is used again.
    """

    def __init__(
        self, files: SealedFiles, key: MasterKey, executor: Executor, *, guard: Callable[[], None]
    ) -> None:
        self._files = files
        self._store = files.store
        self._key = key
        self._executor = executor
        self._guard = guard

    def now(self, lock: RepositoryLock) -> datetime:
        """Return the store's time when ``lock`` was last written: a moment that has certainly passed."""
        while True:
            lock_id = lock.id
            try:
                return self._store.stat(FileKind.LOCK.name_of(lock_id)).modified
            except ObjectNotFound:
                if lock_id == lock.id:  # else a refresh replaced the file meanwhile
                    lock.confirm()
                    raise

    def index_sizes(self) -> dict[str, int]:
        """Return the index files and their sizes."""
        return self._sizes(FileKind.INDEX)

    def read_indexes(self, index_ids: Iterable[str]) -> Iterator[tuple[str, Iterator[PackContents]]]:
        """Yield each index file and what it lists; RepositoryDamaged if one is missing or unreadable."""
        for index_id, content in ahead(self._executor, self._read_index, index_ids, _FILES_AHEAD):
            yield index_id, parse_index(content, name=FileKind.INDEX.name_of(index_id))

    def _read_index(self, index_id: str) -> tuple[str, bytes]:
        content = self._files.load_present(FileKind.INDEX, index_id)
        if content is None:
            raise RepositoryDamaged(f"index/{index_id} vanished while it was read", hint="try again")
        return index_id, content

    def write_indexes(self, packs: Iterable[PackContents]) -> list[str]:
        """List packs in new index files, none longer than restic makes them; durable on return."""
        return [self._save(FileKind.INDEX, group) for group in _groups(packs)]

    def remove_index(self, index_id: str) -> None:
        """Remove an index file. What it lists and is needed must stand in another one."""
        self._remove(FileKind.INDEX, index_id)

    def pack_sizes(self) -> dict[str, int]:
        """Return the packs in the store and their sizes."""
        return self._sizes(FileKind.PACK)

    def read_headers(self, sizes: Mapping[str, int]) -> Iterator[PackContents]:
        """Yield what packs say of themselves; nothing is in one that cannot be read. Packs that are gone are left out."""

        def read(pack_id: str) -> PackContents | None:
            try:
                return PackContents(
                    bytes.fromhex(pack_id), read_header(self._store, pack_id, sizes[pack_id], self._key)
                )
            except RepositoryDamaged:
                return PackContents(bytes.fromhex(pack_id), ())
            except ObjectNotFound:
                return None

        for contents in ahead(self._executor, read, sorted(sizes), _HEADERS_AHEAD):
            if contents is not None:
                yield contents

    def remove_pack(self, pack_id: str) -> None:
        """Remove a pack for ever; an absent one is fine."""
        self._remove(FileKind.PACK, pack_id)

    def records(self) -> Iterator[PruneRecord]:
        """Yield every prune record."""
        for record_id, info in list_ids(self._store, FileKind.PRUNE_RECORD):
            packs: list[PackContents] | None
            try:
                content = self._files.load_present(FileKind.PRUNE_RECORD, record_id)
                if content is None:
                    continue
                packs = list(parse_index(content, name=info.name))
            except RepositoryDamaged:
                packs = None
            yield PruneRecord(id=record_id, written=info.modified, packs=packs)

    def write_records(self, packs: Iterable[PackContents]) -> None:
        """Record packs as about to be removed; durable on return."""
        for group in _groups(packs):
            self._save(FileKind.PRUNE_RECORD, group)

    def remove_record(self, record_id: str) -> None:
        self._remove(FileKind.PRUNE_RECORD, record_id)

    def read_tree(self, index: BlobIndex, tree_id: BlobId) -> list[Node]:
        """Return the nodes of a folder that ``index`` places; RepositoryDamaged if it is not there whole."""
        try:
            return decode_tree(
                BlobReader(self._store, self._key, index, self._executor).read(BlobKind.TREE, tree_id)
            )
        except TreeError as exc:
            raise RepositoryDamaged(
                f"tree {tree_id.hex()} is not readable: {exc}", blob=tree_id.hex()
            ) from exc

    def read_sealed(self, wanted: Iterable[PackContents]) -> Iterator[list[tuple[PackEntry, memoryview]]]:
        """Yield the wanted blobs of packs as they are stored, some at a time; each was opened and is whole.

        RepositoryDamaged names the first that is not.
        """
        spans = (span for contents in wanted for span in _spans(contents))
        yield from ahead(self._executor, self._read_span, spans, _SPANS_AHEAD)

    def _read_span(self, span: PackContents) -> list[tuple[PackEntry, memoryview]]:
        start = span.entries[0].offset
        end = max(entry.offset + entry.length for entry in span.entries)
        data = memoryview(fetch(self._store, span.pack_id.hex(), start, end - start))
        found: list[tuple[PackEntry, memoryview]] = []
        for entry in span.entries:
            sealed = data[entry.offset - start : entry.offset - start + entry.length]
            place = Location(span.pack_id, entry.offset, entry.length, entry.plain_length)
            decode_blob(self._key, entry.kind, entry.id, place, sealed)
            found.append((entry, sealed))
        return found

    def mover(self, indexed: Callable[[str], None]) -> BlobWriter:
        """Return a writer that takes no blob for known; ``indexed`` hears of the index files it writes."""
        return BlobWriter(self._files, self._key, BlobIndex(), guard=self._guard, indexed=indexed)

    def _sizes(self, kind: FileKind) -> dict[str, int]:
        return {file_id: info.size_bytes for file_id, info in list_ids(self._store, kind)}

    def _save(self, kind: FileKind, packs: list[PackContents]) -> str:
        self._guard()
        return self._files.save(kind, encode_index(packs))

    def _remove(self, kind: FileKind, file_id: str) -> None:
        self._guard()
        self._files.remove(kind, file_id)


def _groups(packs: Iterable[PackContents]) -> Iterator[list[PackContents]]:
    """Yield packs in groups for one file each; all but the last are full."""
    group: list[PackContents] = []
    entries = 0
    for pack in packs:
        group.append(pack)
        entries += max(1, len(pack.entries))
        if entries >= _FILE_ENTRIES:
            yield group
            group, entries = [], 0
    if group:
        yield group


def _spans(contents: PackContents) -> Iterator[PackContents]:
    """Yield the entries of a pack in runs that are fetched together."""
    run: list[PackEntry] = []
    for entry in sorted(contents.entries, key=lambda entry: entry.offset):
        if run and (
            entry.offset > run[-1].offset + run[-1].length + _GAP_BYTES
            or entry.offset + entry.length - run[0].offset > _SPAN_BYTES
        ):
            yield PackContents(contents.pack_id, run)
            run = []
        run.append(entry)
    if run:
        yield PackContents(contents.pack_id, run)
