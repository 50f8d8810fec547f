"""Reading a whole pack and checking every byte of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pgstow.core.errors import ObjectNotFound, RepositoryDamaged
from pgstow.repository.crypto import MasterKey
from pgstow.repository.files import pack_name
from pgstow.repository.index import Location, PackContents
from pgstow.repository.packs import PackEntry, split_pack
from pgstow.repository.reader import decode_blob
from pgstow.store.api import Store

__all__ = ["PackCheck", "check_pack", "intact_blobs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackCheck:
    """What is wrong with a pack: messages about the file, and about single blobs."""

    pack_id: bytes
    size_bytes: int
    problems: tuple[str, ...]
    damaged: tuple[tuple[PackEntry, str], ...]

    @property
    def is_whole(self) -> bool:
        return not (self.problems or self.damaged)


def check_pack(store: Store, key: MasterKey, contents: PackContents) -> PackCheck:
    """Check name, header and blobs of a pack against what an index file says; lists everything it finds."""
    pack_id = contents.pack_id.hex()
    try:
        data = store.get(pack_name(pack_id))
    except ObjectNotFound:
        problem = f"pack {pack_id} is missing"
        damaged = tuple((entry, problem) for entry in contents.entries)
        return PackCheck(pack_id=contents.pack_id, size_bytes=0, problems=(problem,), damaged=damaged)
    problems = []
    if hashlib.sha256(data).digest() != contents.pack_id:
        problems.append(f"pack {pack_id} is damaged: its content does not match its name")
    try:
        if set(split_pack(pack_id, data, key)) != set(contents.entries):
            problems.append(f"pack {pack_id} lists other blobs in its header than the index does")
    except RepositoryDamaged as exc:
        problems.append(exc.message)
    damaged = tuple(
        (entry, why)
        for entry in contents.entries
        if (why := _blob_problem(key, contents.pack_id, entry, data))
    )
    return PackCheck(
        pack_id=contents.pack_id, size_bytes=len(data), problems=tuple(problems), damaged=damaged
    )


def _blob_problem(key: MasterKey, pack_id: bytes, entry: PackEntry, data: bytes | memoryview) -> str | None:
    place = Location(pack_id, entry.offset, entry.length, entry.plain_length)
    try:
        decode_blob(
            key, entry.kind, entry.id, place, memoryview(data)[entry.offset : entry.offset + entry.length]
        )
    except RepositoryDamaged as exc:
        return exc.message
    return None


def intact_blobs(
    store: Store, key: MasterKey, pack_id: bytes, entries: Iterable[PackEntry]
) -> Iterator[tuple[PackEntry, memoryview]]:
    """Yield those blobs of a pack, sealed as they are, that open to what their ids say; the pack may be damaged."""
    try:
        data = memoryview(store.get(pack_name(pack_id.hex())))
    except ObjectNotFound:
        return
    for entry in entries:
        if _blob_problem(key, pack_id, entry, data) is None:
            yield entry, data[entry.offset : entry.offset + entry.length]
