"""What a prune would do: decided from a survey alone, so that a dry run and the real one decide the same."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pgstow.upkeep.survey import PackState, Place, Survey

__all__ = ["IndexPlan", "PackCount", "PruneOptions", "PrunePlan", "plan_index", "plan_prune"]

_SMALL_PACK_BYTES = 4 << 20
_SMALL_INDEX_ENTRIES = 15_000  # half of what a full one has


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOptions:
    """What the user decides. ``max_unused`` is a share of all stored blobs, 0 to 1."""

    grace_s: float = 24 * 3600.0
    max_unused: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class PackCount:
    """So many packs, and what they take in the store."""

    packs: int
    size_bytes: int

    @classmethod
    def of(cls, packs: Collection[PackState]) -> PackCount:
        return cls(packs=len(packs), size_bytes=sum(pack.size_bytes for pack in packs))


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPlan:
    """Which index files go, and which packs must then be listed anew."""

    obsolete: Sequence[str]
    relist: Sequence[PackState]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """The packs of a repository, sorted by what becomes of them."""

    survey: Survey
    options: PruneOptions
    reindex: Sequence[
        PackState
    ]  # needed, and in no index file: a snapshot appeared since they were unindexed
    remove: Sequence[PackState]  # recorded, the grace is over, nothing needs them
    wait: Sequence[PackState]  # the same, but the grace is not over
    unused: Sequence[PackState]  # indexed, nothing needs them
    gone: Sequence[PackState]  # the same, and they are not in the store either
    repack: Sequence[PackState]  # what is needed of them moves into new packs
    orphans: Sequence[PackState]  # in no index file and no record
    expired_records: Sequence[str]
    index: IndexPlan
    index_files: int
    used_bytes: int  # what the snapshots need, as it is stored
    unused_bytes: int  # what will be in packs in use though no snapshot needs it

    @property
    def recorded(self) -> list[PackState]:
        """The packs that are taken out of use now and removed when the grace is over."""
        return [*self.unused, *self.repack, *self.orphans]

    @property
    def unindexed(self) -> list[PackState]:
        """The packs that no index file may list from now on."""
        return [*self.unused, *self.gone, *self.repack]

    @property
    def moved_bytes(self) -> int:
        return sum(pack.kept_bytes for pack in self.repack)

    @property
    def freed_now_bytes(self) -> int:
        """What the store shrinks by at once; negative when more is moved than removed."""
        return sum(pack.size_bytes for pack in self.remove) - self.moved_bytes

    @property
    def freed_later_bytes(self) -> int:
        """What is removed when the grace is over."""
        return sum(pack.size_bytes for pack in [*self.wait, *self.recorded])

    @property
    def has_work(self) -> bool:
        return bool(
            self.reindex
            or self.remove
            or self.unindexed
            or self.orphans
            or self.expired_records
            or self.survey.damaged_records
            or self.index.obsolete
        )


def plan_prune(survey: Survey, options: PruneOptions, now: datetime) -> PrunePlan:
    """Decide what becomes of each pack. ``now`` is the store's time, as are those of the records."""
    unknown = [pack for pack in survey.packs.values() if pack.place is not Place.INDEXED]
    idle = [pack for pack in unknown if not pack.kept_blobs]
    limit = now - timedelta(seconds=options.grace_s)
    recorded = [pack for pack in idle if pack.place is Place.RECORDED]
    unneeded = [pack for pack in survey.of(Place.INDEXED) if not pack.kept_blobs]
    needed = [pack for pack in survey.packs.values() if pack.kept_blobs]
    repack = _choose_repack(needed, options.max_unused)
    leaving = {pack.id for pack in [*unneeded, *repack]}
    return PrunePlan(
        survey=survey,
        options=options,
        reindex=[pack for pack in unknown if pack.kept_blobs],
        remove=[pack for pack in recorded if _is_over(pack.recorded, limit)],
        wait=[pack for pack in recorded if not _is_over(pack.recorded, limit)],
        unused=[pack for pack in unneeded if pack.stored_bytes is not None],
        gone=[pack for pack in unneeded if pack.stored_bytes is None],
        repack=repack,
        orphans=[pack for pack in idle if pack.place is Place.ORPHAN],
        expired_records=[name for name, written in survey.records.items() if _is_over(written, limit)],
        index=plan_index(survey.index_files, leaving),
        index_files=len(survey.index_files),
        used_bytes=sum(pack.kept_bytes for pack in needed),
        unused_bytes=sum(pack.unused_bytes for pack in needed) - sum(pack.unused_bytes for pack in repack),
    )


def _is_over(since: datetime | None, limit: datetime) -> bool:
    return since is not None and since <= limit


def _choose_repack(staying: Sequence[PackState], max_unused: float) -> list[PackState]:
    """Return the packs to move out of: the most wasteful until little enough is unused, and small ones of a kind."""
    unused = sum(pack.unused_bytes for pack in staying)
    kept = sum(pack.kept_bytes for pack in staying)
    allowed = math.inf if max_unused >= 1 else kept * max_unused / (1 - max_unused)
    chosen: dict[bytes, PackState] = {}
    indexed = [pack for pack in staying if pack.place is Place.INDEXED]
    wasteful = [pack for pack in indexed if pack.unused_bytes]
    for pack in sorted(wasteful, key=lambda pack: (-pack.unused_bytes / pack.blob_bytes, pack.id)):
        if unused <= allowed:
            break
        chosen[pack.id] = pack
        unused -= pack.unused_bytes
    for kinds in {pack.kinds for pack in indexed}:
        alike = [pack for pack in indexed if pack.kinds == kinds]
        small = {pack.id: pack for pack in alike if pack.size_bytes < _SMALL_PACK_BYTES}
        if len(small) > 1 or (small and any(pack.id in chosen for pack in alike if pack.id not in small)):
            chosen |= small
    return list(chosen.values())


def plan_index(files: Mapping[str, Sequence[PackState]], leaving: Collection[bytes]) -> IndexPlan:
    """Decide which index files go so that each staying pack stands in one, and no more than one is small."""
    small = {name for name, packs in files.items() if _entries(packs) < _SMALL_INDEX_ENTRIES}
    obsolete: list[str] = []
    relist: dict[bytes, PackState] = {}
    listed: set[bytes] = set()
    kept: list[tuple[str, Sequence[PackState]]] = []
    for name, packs in files.items():
        is_wrong = not packs or any(pack.id in leaving or pack.is_split for pack in packs)
        if is_wrong or (name in small and len(small) > 1):
            obsolete.append(name)
        else:
            kept.append((name, packs))
    for name, packs in kept:
        if any(pack.id in listed for pack in packs):
            obsolete.append(name)
        else:
            listed.update(pack.id for pack in packs)
    for name in obsolete:
        relist |= {pack.id: pack for pack in files[name] if pack.id not in listed and pack.id not in leaving}
    return IndexPlan(obsolete=obsolete, relist=list(relist.values()))


def _entries(packs: Iterable[PackState]) -> int:
    return sum(max(1, pack.blobs) for pack in packs)
