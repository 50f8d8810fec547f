"""What a repository holds and what of it a snapshot needs: the ground on which pruning and statistics stand.

Memory is what limits a repository here: a blob takes 45 bytes for its place and, if a snapshot needs it, about 55
more. Nothing is kept per file or folder but one hash for each distinct list of blobs.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

from borghash import HashTable

from pgstow.core.errors import RepositoryDamaged
from pgstow.core.progress import Progress
from pgstow.repository import (
    BlobId,
    BlobIds,
    BlobKind,
    DirNode,
    FileNode,
    Holdings,
    Node,
    PackContents,
    PackEntry,
    Repository,
    Snapshot,
    pack_name,
    pack_size,
)
from pgstow.repository.index import BlobIndex

__all__ = ["REPAIR_HINT", "PackState", "Place", "Survey", "take_survey"]

_ENTRY = struct.Struct("<BIII32s")  # kind, offset, length, plain length, id
_KINDS = tuple(BlobKind)
_CODES = {kind: code for code, kind in enumerate(_KINDS)}

_NUMBER = struct.Struct("<I")
_NOWHERE = 0x7FFFFFFF  # number of no pack: the blob is needed and no copy was chosen yet
_SUSPECT = 0x80000000  # added to the pack's number: another copy is about to go, so this one must be proven

REPAIR_HINT = "pgstow repo repair drops what is lost and says what; until then nothing can be removed safely"


class Place(IntEnum):
    """Who knows a pack. Of several copies of a blob the one in the first place is preferred."""

    INDEXED = 0
    RECORDED = 1  # taken out of use by a prune, and in no index file since
    ORPHAN = 2  # in neither: left by a run that died


@dataclass(slots=True, kw_only=True, eq=False)
class PackState:
    """One pack: what is in it, who knows it, and what of it is needed."""

    id: bytes
    place: Place
    packed: bytes  # its entries
    stored_bytes: int | None = None  # None: it is not in the store
    listed_in: list[str] = field(default_factory=list)  # index files
    is_split: bool = False  # index files list different parts of it
    recorded: datetime | None = None  # by the newest prune record
    implied_bytes: int = 0
    blob_bytes: int = 0
    used_bytes: int = 0  # of blobs that are needed, wherever else they lie
    kept_bytes: int = 0  # of blobs that are needed from here
    kept_blobs: int = 0
    kinds: frozenset[BlobKind] = frozenset()

    @property
    def name(self) -> str:
        return self.id.hex()

    @property
    def blobs(self) -> int:
        return len(self.packed) // _ENTRY.size

    @property
    def unused_bytes(self) -> int:
        return self.blob_bytes - self.kept_bytes

    @property
    def size_bytes(self) -> int:
        """What removing it frees."""
        return self.stored_bytes or 0

    @property
    def is_readable(self) -> bool:
        """Whether everything that is listed lies inside the stored file."""
        return self.stored_bytes is not None and self.stored_bytes >= self.implied_bytes

    @property
    def contents(self) -> PackContents:
        return PackContents(self.id, list(_unpack(self.packed)))

    def describe(self, entries: Iterable[PackEntry]) -> None:
        """Note the blobs that somebody lists in this pack, besides those that are known already."""
        listed = list(entries)
        if self.packed:
            known = set(_unpack(self.packed))
            self.is_split |= known != set(listed)
            listed = sorted(known.union(listed), key=lambda entry: entry.offset)
        self.packed = b"".join(_ENTRY.pack(_CODES[entry.kind], *entry[2:], entry.id) for entry in listed)
        self.implied_bytes = pack_size(listed) if listed else 0
        self.blob_bytes = sum(entry.length for entry in listed)
        self.kinds = frozenset(entry.kind for entry in listed)


def _unpack(packed: bytes) -> Iterator[PackEntry]:
    for code, offset, length, plain_length, blob_id in _ENTRY.iter_unpack(packed):
        yield PackEntry(_KINDS[code], blob_id, offset, length, plain_length)


class Survey:
    """The packs of a repository, and which of them hold what the snapshots need. Made by ``take_survey()``."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.packs: dict[bytes, PackState] = {}
        self.index_files: dict[str, list[PackState]] = {}
        self.index_bytes = 0
        self.records: dict[str, datetime] = {}  # readable ones
        self.damaged_records: list[str] = []
        self._used = [HashTable(key_size=32, value_size=_NUMBER.size) for _ in _KINDS]
        self._ranked: list[PackState] = []

    @property
    def used_blobs(self) -> int:
        """How many distinct blobs the snapshots need."""
        return sum(map(len, self._used))

    def of(self, place: Place) -> list[PackState]:
        """Return the packs that are known by ``place`` and nothing before it."""
        return [pack for pack in self.packs.values() if pack.place is place]

    def kept(self, pack: PackState) -> PackContents:
        """Return what of a pack is needed from there."""
        return PackContents(pack.id, [entry for entry in _unpack(pack.packed) if self._home(entry) is pack])

    def add_index_file(self, index_id: str, packs: Iterable[PackContents]) -> None:
        """Note what an index file lists."""
        listed = self.index_files.setdefault(index_id, [])
        for contents in packs:
            pack = self.packs.setdefault(
                contents.pack_id, PackState(id=contents.pack_id, place=Place.INDEXED, packed=b"")
            )
            pack.place = Place.INDEXED
            pack.describe(contents.entries)
            pack.listed_in.append(index_id)
            listed.append(pack)

    def add_elsewhere(self, contents: PackContents, place: Place) -> PackState | None:
        """Note a pack that no index file lists; None if one does."""
        pack = self.packs.setdefault(
            contents.pack_id, PackState(id=contents.pack_id, place=place, packed=b"")
        )
        if pack.place is not place:
            return None
        pack.describe(contents.entries)
        return pack

    def use(self, kind: BlobKind, blob_id: BlobId) -> bool:
        """Mark a blob as needed; return whether it was not yet."""
        table = self._used[_CODES[kind]]
        if blob_id in table:
            return False
        table[blob_id] = _NUMBER.pack(_NOWHERE)
        return True

    def choose(self) -> None:
        """Decide for each needed blob which of its copies is the one. RepositoryDamaged if one has none.

        Packs in which little is unneeded come first, so that duplicates go where most can be removed.
        """
        for pack in self.packs.values():
            pack.used_bytes = sum(e[2] for e in _ENTRY.iter_unpack(pack.packed) if e[4] in self._used[e[0]])
        readable = [pack for pack in self.packs.values() if pack.is_readable]
        self._ranked = sorted(readable, key=_preference)
        found = sum(self._claim(number, pack) for number, pack in enumerate(self._ranked))
        if found < self.used_blobs:
            raise self._missing()

    def _claim(self, number: int, pack: PackState) -> int:
        nowhere, here = _NUMBER.pack(_NOWHERE), _NUMBER.pack(number)
        pack.kept_blobs = pack.kept_bytes = 0
        for code, _, length, _, blob_id in _ENTRY.iter_unpack(pack.packed):
            table = self._used[code]
            if table.get(blob_id) == nowhere:
                table[blob_id] = here
                pack.kept_blobs += 1
                pack.kept_bytes += length
        return pack.kept_blobs

    def _missing(self) -> RepositoryDamaged:
        nowhere = _NUMBER.pack(_NOWHERE)
        kind, blob_id = next(
            (kind, blob_id)
            for kind, table in zip(_KINDS, self._used, strict=True)
            for blob_id, home in table.items()
            if home == nowhere
        )
        broken = next((p for p in self.packs.values() if not p.is_readable and _holds(p, blob_id)), None)
        why = "is in no pack"
        if broken is not None:
            why = f"is in pack {broken.name}, which is " + (
                "missing" if broken.stored_bytes is None else "shorter than its index says"
            )
        return RepositoryDamaged(
            f"{kind.value} blob {blob_id.hex()} is needed and {why}",
            hint=REPAIR_HINT,
            file=pack_name(broken.name) if broken else None,
            blob=blob_id.hex(),
        )

    def move(self, moved: Iterable[PackState]) -> None:
        """Note that needed blobs were stored again, in ``moved``, and are needed from there now."""
        for pack in moved:
            number = len(self._ranked)
            self._ranked.append(pack)
            for entry in _unpack(pack.packed):
                table = self._used[_CODES[entry.kind]]
                if entry.id in table:
                    table[entry.id] = _NUMBER.pack(number)
                    pack.kept_blobs += 1
                    pack.kept_bytes += entry.length

    def suspect(self, leaving: Iterable[PackState], moving: Iterable[PackState]) -> Iterator[PackContents]:
        """Yield the blobs that stay where they are while another copy of them leaves, pack by pack.

        Those that are ``moving`` are left out: they are proven on the way.
        """
        numbers: set[int] = set()
        moving_ids = {pack.id for pack in moving}
        for pack in leaving:
            for entry in _unpack(pack.packed):
                home = self._home(entry)
                if home is not None and home is not pack and home.id not in moving_ids:
                    table = self._used[_CODES[entry.kind]]
                    (number,) = _NUMBER.unpack(table[entry.id])
                    table[entry.id] = _NUMBER.pack(number | _SUSPECT)
                    numbers.add(number & ~_SUSPECT)
        for number in sorted(numbers):
            home = self._ranked[number]
            marked = _NUMBER.pack(number | _SUSPECT)
            entries = [e for e in _unpack(home.packed) if self._used[_CODES[e.kind]].get(e.id) == marked]
            yield PackContents(home.id, entries)

    def refuse_loss(self, leaving: Iterable[PackState]) -> None:
        """RepositoryDamaged if a needed blob has its home in one of the packs that are about to leave."""
        for pack in leaving:
            for entry in self.kept(pack).entries:
                raise RepositoryDamaged(
                    f"{entry.kind.value} blob {entry.id.hex()} would be lost with pack {pack.name}",
                    hint="this is a bug in pgstow; nothing was removed",
                    blob=entry.id.hex(),
                )

    def _home(self, entry: PackEntry) -> PackState | None:
        home = self._used[_CODES[entry.kind]].get(entry.id)
        return None if home is None else self._ranked[_NUMBER.unpack(home)[0] & ~_SUSPECT]


def _preference(pack: PackState) -> tuple[int, float, int, bytes]:
    used_share = pack.used_bytes / pack.blob_bytes if pack.blob_bytes else 0.0
    return pack.place, -used_share, -pack.blob_bytes, pack.id


def _holds(pack: PackState, blob_id: BlobId) -> bool:
    return any(entry.id == blob_id for entry in _unpack(pack.packed))


def take_survey(
    repository: Repository,
    progress: Progress,
    *,
    seen: Callable[[BlobId, list[Node]], None] = lambda _tree, _nodes: None,
) -> Survey:
    """Look at everything that matters: snapshots, index files, prune records, packs, and every folder once.

    Hold a lock. Order matters beside running backups: snapshots are listed before the index and packs after it,
    so whatever a listed snapshot needs is there. ``seen`` is told of each distinct folder.
    RepositoryDamaged where something cannot be read, since then it is unknown what is needed.
    """
    survey, holdings = Survey(), repository.holdings()
    try:
        progress.phase("reading the index")
        survey.snapshots = repository.snapshots()
        _read_lists(survey, holdings)
        progress.phase("reading folders")
        _walk(survey, holdings, seen)
        progress.phase("comparing")
        survey.choose()
    except RepositoryDamaged as exc:
        facts = {name: value for name, value in exc.facts.items() if value is not None}
        raise RepositoryDamaged(
            f"what is needed cannot be known for certain: {exc.message}",
            hint=exc.hint or REPAIR_HINT,
            **facts,
        ) from exc
    return survey


def _read_lists(survey: Survey, holdings: Holdings) -> None:
    index_sizes = holdings.index_sizes()
    survey.index_bytes = sum(index_sizes.values())
    for index_id, packs in holdings.read_indexes(sorted(index_sizes)):
        survey.add_index_file(index_id, packs)
    for record in holdings.records():
        if record.packs is None:
            survey.damaged_records.append(record.id)
            continue
        survey.records[record.id] = record.written
        for contents in record.packs:
            pack = survey.add_elsewhere(contents, Place.RECORDED)
            if pack is not None and (pack.recorded is None or pack.recorded < record.written):
                pack.recorded = record.written
    stored = holdings.pack_sizes()
    known = {pack.name for pack in survey.packs.values()}
    for contents in holdings.read_headers(
        {name: size_bytes for name, size_bytes in stored.items() if name not in known}
    ):
        survey.add_elsewhere(contents, Place.ORPHAN)
    for pack in list(survey.packs.values()):
        pack.stored_bytes = stored.get(pack.name)
        if pack.stored_bytes is None and pack.place is not Place.INDEXED:
            del survey.packs[pack.id]  # removed already, by us or by restic's own prune


def _walk(survey: Survey, holdings: Holdings, seen: Callable[[BlobId, list[Node]], None]) -> None:
    """Mark every blob that a snapshot reaches."""
    trees = BlobIndex()
    for place in Place:
        for pack in survey.of(place):
            if BlobKind.TREE in pack.kinds and pack.is_readable:
                trees.add_pack(pack.id, (e for e in _unpack(pack.packed) if e.kind is BlobKind.TREE))
    contents_seen: set[bytes] = set()  # unchanged tables have the same list of blobs in every backup
    for snapshot in survey.snapshots:
        todo = [snapshot.tree]
        while todo:
            tree_id = todo.pop()
            if not survey.use(BlobKind.TREE, tree_id):
                continue
            try:
                nodes = holdings.read_tree(trees, tree_id)
            except RepositoryDamaged as exc:
                raise RepositoryDamaged(
                    f"snapshot {snapshot.id}: {exc.message}", hint=None, **exc.facts
                ) from exc
            seen(tree_id, nodes)
            for node in nodes:
                if isinstance(node, DirNode):
                    todo.append(node.subtree)
                elif isinstance(node, FileNode):
                    _use_content(survey, BlobIds.of(node.content), contents_seen)


def _use_content(survey: Survey, content: BlobIds, contents_seen: set[bytes]) -> None:
    digest = hashlib.sha256(content.packed).digest()
    if digest not in contents_seen:
        contents_seen.add(digest)
        for blob_id in content:
            survey.use(BlobKind.DATA, blob_id)
