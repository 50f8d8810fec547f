"""What of a repository is there and whole: files, packs, blobs. Only reads.

What looks damaged is read a second time before it counts as damaged: a bit may also flip on its way here, and a
repair drops what it believes to be lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from pgstow.core.errors import RepositoryDamaged
from pgstow.core.progress import Progress
from pgstow.repository import (
    BlobIndex,
    BlobKind,
    PackCheck,
    PackContents,
    PackEntry,
    Repository,
    Snapshot,
    ahead,
    pack_size,
)

__all__ = ["BadPack", "Damage", "find_damage", "find_orphans"]

_MAX_THREADS = 4

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class BadPack:
    """A pack that is missing, or is not what its name says, and the blobs in it that are whole."""

    contents: PackContents
    why: str
    intact: Sequence[PackEntry]

    @property
    def id(self) -> str:
        return self.contents.pack_id.hex()


@dataclass(slots=True, kw_only=True)
class Damage:
    """What was found. ``available`` has every blob that can be read, and where, also inside bad packs."""

    has_read_data: bool
    snapshots: list[Snapshot] = field(default_factory=list)
    bad_snapshots: dict[str, str] = field(default_factory=dict)  # object name: what is wrong with it
    index_files: dict[str, set[bytes]] = field(default_factory=dict)  # readable ones, and the packs they list
    bad_index_files: dict[str, str] = field(default_factory=dict)  # id: what is wrong with it
    bad_packs: dict[bytes, BadPack] = field(default_factory=dict)
    orphans: list[PackContents] = field(default_factory=list)  # whole, in no readable index file, and of use
    sizes: dict[bytes, int] = field(default_factory=dict)
    available: BlobIndex = field(default_factory=BlobIndex)

    @property
    def tainted_index_files(self) -> list[str]:
        """Readable index files that list packs which must not be listed any more."""
        return [name for name, packs in self.index_files.items() if packs & self.bad_packs.keys()]


def find_damage(repository: Repository, progress: Progress, *, read_data: bool) -> Damage:
    """Look at every snapshot, index file and pack. Without ``read_data`` packs of the right size are believed.

    The exclusive lock must be held: what comes and goes meanwhile would look like damage.
    """
    found = Damage(has_read_data=read_data)
    progress.phase("reading snapshots and index files")
    _read_snapshots(repository, found)
    _read_index_files(repository, found)
    progress.phase("reading packs" if read_data else "checking packs")
    found.sizes = repository.pack_sizes()
    progress.expect(size_bytes=sum(found.sizes.values()) if read_data else 0)
    _check_packs(repository, found, _listed_packs(repository, found), progress)
    return found


def find_orphans(repository: Repository, found: Damage, progress: Progress) -> None:
    """Take up packs that no readable index file lists, if they hold a blob that is nowhere else.

    They are what a lost index file listed. Interrupted runs leave such packs as well: listing those is no harm.
    """
    progress.phase("looking into packs that no index file lists")
    listed = set().union(*found.index_files.values())
    unlisted = _unlisted_packs(repository, found, listed)
    _check_packs(repository, found, unlisted, progress, orphans=found.orphans)


def _read_snapshots(repository: Repository, found: Damage) -> None:
    damaged: list[RepositoryDamaged] = []
    found.snapshots = repository.snapshots(damaged=damaged)
    if damaged:
        damaged.clear()
        found.snapshots = repository.snapshots(damaged=damaged)
    found.bad_snapshots = {str(exc.facts["file"]): exc.message for exc in damaged}


def _read_index_files(repository: Repository, found: Damage) -> None:
    for index_id in repository.index_ids():
        try:
            packs = _twice(repository.index_file, index_id)
        except RepositoryDamaged as exc:
            found.bad_index_files[index_id] = exc.message
        else:
            found.index_files[index_id] = {pack.pack_id for pack in packs}


def _twice(read: Callable[[str], _Result], name: str) -> _Result:
    try:
        return read(name)
    except RepositoryDamaged:
        return read(name)


def _listed_packs(repository: Repository, found: Damage) -> Iterator[PackContents]:
    seen: set[bytes] = set()
    for index_id in found.index_files:
        for pack in _twice(repository.index_file, index_id):
            if pack.pack_id not in seen:
                seen.add(pack.pack_id)
                yield pack


def _unlisted_packs(repository: Repository, found: Damage, listed: set[bytes]) -> Iterator[PackContents]:
    for pack_id, size_bytes in sorted(found.sizes.items()):
        if pack_id in listed:
            continue
        try:
            pack = repository.pack_header(pack_id, size_bytes)
        except RepositoryDamaged:
            continue  # without a header nobody knows what is in it
        if not all(found.available.has(entry.kind, entry.id) for entry in pack.entries):
            yield pack


def _check_packs(
    repository: Repository,
    found: Damage,
    packs: Iterator[PackContents],
    progress: Progress,
    *,
    orphans: list[PackContents] | None = None,
) -> None:
    """Sort packs into whole and bad ones. Always read are orphans, for which no index file vouches, and trees."""

    def check(pack: PackContents) -> tuple[PackContents, PackCheck | None]:
        has_trees = any(entry.kind is BlobKind.TREE for entry in pack.entries)
        must_read = found.has_read_data or orphans is not None or has_trees
        if found.sizes.get(pack.pack_id) == pack_size(pack.entries) and not must_read:
            return pack, None
        first = repository.check_pack(pack)
        return pack, first if first.is_whole else repository.check_pack(pack)

    threads = min(_MAX_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, thread_name_prefix="survey") as executor:
        for pack, result in ahead(executor, check, packs, threads + 1):
            progress.advance(size_bytes=result.size_bytes if result else 0)
            if result is None or result.is_whole:
                found.available.add_pack(*pack)
                if orphans is not None:
                    orphans.append(pack)
            else:
                _note_bad(found, pack, result, is_orphan=orphans is not None)


def _note_bad(found: Damage, pack: PackContents, result: PackCheck, *, is_orphan: bool) -> None:
    damaged = {entry for entry, _ in result.damaged}
    intact = [entry for entry in pack.entries if entry not in damaged]
    if is_orphan and all(found.available.has(entry.kind, entry.id) for entry in intact):
        return  # an earlier repair took out of it what there was
    found.available.add_pack(pack.pack_id, intact)
    why = (*result.problems, *(message for _, message in result.damaged))[0]
    found.bad_packs[pack.pack_id] = BadPack(contents=pack, why=why, intact=intact)
