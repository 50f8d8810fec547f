"""Pruning: removing what no snapshot needs, in two phases with a day between them.

Both phases run under the exclusive lock. Everything is written before what it replaces is removed:

1. Packs that were unindexed earlier and that a snapshot needs after all are listed again (a new index file).
2. Packs whose record is older than the grace, and that nothing needs, are removed; then their records.
3. Copies that stay while another copy leaves are read and checked. What is needed of packs that are mostly unneeded
   moves into new packs, opened and checked, and never compressed again; new index files list them.
4. The packs that leave are recorded in ``pgstow/prune/ID``.
5. New index files list what stays.
6. The old index files are removed: now the packs that leave are out of use, and still there.

What a crash leaves: after 1 and 2 nothing but less work. During 3 packs that no index file lists (orphans: the next
prune records them), then blobs that are stored twice (the next prune keeps one). After 4 a record of packs that an
index file still lists: such a pack is in use, whatever records say, and the next prune records it again, so that its
grace begins anew. After 5 packs that are listed twice. At every point each needed blob is in a pack that an index
file lists; restic accepts all of it.

The grace is for whoever did not respect the lock: a reader that ignores locks still finds the packs, and a backup
that was published by a run whose lock had been removed by force gets its packs back in step 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from pgstow.core.errors import RepositoryDamaged
from pgstow.core.progress import Progress
from pgstow.repository import Holdings, Repository, RepositoryLock, ahead
from pgstow.upkeep.prune_plan import IndexPlan, PrunePlan, plan_index
from pgstow.upkeep.survey import REPAIR_HINT, PackState, Place

__all__ = ["PruneResult", "prune"]

_REMOVALS_AHEAD = 16

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """What was done, where the plan could not know it before."""

    new_packs: int
    index_files_written: int
    index_files_removed: int


def prune(plan: PrunePlan, repository: Repository, lock: RepositoryLock, progress: Progress) -> PruneResult:
    """Carry out a plan that was made under the same exclusive lock.

    The index that ``repository`` holds in memory is not up to date afterwards: ``load_index()`` makes it so.
    """
    work = _Prune(plan, repository.holdings(), lock, progress)
    work.list_again()
    work.remove_recorded()
    work.move()
    work.record()
    work.replace_index()
    repository.store.remove_stale_temporaries()
    return work.result()


class _Prune:
    def __init__(self, plan: PrunePlan, holdings: Holdings, lock: RepositoryLock, progress: Progress) -> None:
        self._plan = plan
        self._survey = plan.survey
        self._holdings = holdings
        self._lock = lock
        self._progress = progress
        self._new_packs = 0
        self._index_written = 0
        self._index_removed = 0

    def list_again(self) -> None:
        """Step 1: make the repository whole before anything is removed from it."""
        if self._plan.reindex:
            self._progress.phase("listing packs that are needed again")
            self._adopt(self._holdings.write_indexes(pack.contents for pack in self._plan.reindex))

    def _adopt(self, index_ids: Iterable[str]) -> list[PackState]:
        """Read index files that were just written, and return the packs they list."""
        found: dict[bytes, PackState] = {}
        for index_id, packs in self._holdings.read_indexes(index_ids):
            self._index_written += 1
            self._survey.add_index_file(index_id, packs)
            found |= {pack.id: pack for pack in self._survey.index_files[index_id]}
        return list(found.values())

    def remove_recorded(self) -> None:
        """Step 2: the second phase of an earlier prune."""
        if not (self._plan.remove or self._plan.expired_records):
            return
        self._progress.phase("removing packs")
        self._progress.expect(size_bytes=sum(pack.size_bytes for pack in self._plan.remove))
        self._lock.confirm()
        for pack in self._each(self._remove_pack, self._plan.remove):
            self._progress.advance(size_bytes=pack.size_bytes)
        for _ in self._each(self._holdings.remove_record, self._plan.expired_records):
            pass

    def _remove_pack(self, pack: PackState) -> PackState:
        self._holdings.remove_pack(pack.name)
        return pack

    def move(self) -> None:
        """Step 3: prove the copies that stay, and move what is needed out of packs that leave."""
        try:
            self._check_copies()
            if self._plan.repack:
                self._move()
        except RepositoryDamaged as exc:
            facts = {name: value for name, value in exc.facts.items() if value is not None}
            raise RepositoryDamaged(
                f"{exc.message}; no pack was taken out of use", hint=exc.hint or REPAIR_HINT, **facts
            ) from exc

    def _check_copies(self) -> None:
        self._progress.phase("checking copies")
        for blobs in self._holdings.read_sealed(self._survey.suspect(self._plan.recorded, self._plan.repack)):
            self._progress.advance(size_bytes=sum(entry.length for entry, _ in blobs))

    def _move(self) -> None:
        self._progress.phase("moving blobs")
        self._progress.expect(size_bytes=self._plan.moved_bytes)
        wanted = (self._survey.kept(pack) for pack in self._plan.repack)
        written: list[str] = []
        with self._holdings.mover(written.append) as writer:
            for blobs in self._holdings.read_sealed(wanted):
                for entry, sealed in blobs:
                    writer.save_sealed(entry.kind, entry.id, sealed, entry.plain_length)
                self._progress.advance(size_bytes=sum(entry.length for entry, _ in blobs))
        moved = self._adopt(written)
        self._new_packs = len(moved)
        self._survey.move(moved)

    def record(self) -> None:
        """Step 4. From here on it is known what may be removed, and how to list it again without reading it."""
        self._survey.refuse_loss([*self._plan.unindexed, *self._plan.orphans])
        leaving = self._plan.recorded
        if leaving:
            self._progress.phase("recording packs")
            self._holdings.write_records(pack.contents for pack in leaving)
        for record_id in self._survey.damaged_records:  # what it told of was found as orphans
            self._holdings.remove_record(record_id)

    def replace_index(self) -> None:
        """Steps 5 and 6."""
        leaving = {pack.id for pack in self._plan.unindexed}
        plan = plan_index(self._survey.index_files, leaving)
        if not plan.obsolete:
            return
        self._progress.phase("writing the index")
        self._refuse_unlisted(plan, leaving)
        written = self._holdings.write_indexes(pack.contents for pack in plan.relist)
        self._index_written += len(written)
        self._lock.confirm()
        for _ in self._each(self._holdings.remove_index, plan.obsolete):
            self._index_removed += 1

    def _refuse_unlisted(self, plan: IndexPlan, leaving: set[bytes]) -> None:
        """RepositoryDamaged if a pack that stays would stand in no index file."""
        obsolete = set(plan.obsolete)
        listed = {pack.id for pack in plan.relist}
        for pack in self._survey.of(Place.INDEXED):
            if pack.id not in leaving and pack.id not in listed and obsolete.issuperset(pack.listed_in):
                raise RepositoryDamaged(
                    f"pack {pack.name} would be in no index file",
                    hint="this is a bug in pgstow; no index file was removed",
                )

    def _each(self, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
        """Yield ``function(item)`` of each, several at a time: a bucket takes as long for one removal as for many."""
        with ThreadPoolExecutor(_REMOVALS_AHEAD, thread_name_prefix="prune") as executor:
            yield from ahead(executor, function, items, _REMOVALS_AHEAD)

    def result(self) -> PruneResult:
        return PruneResult(
            new_packs=self._new_packs,
            index_files_written=self._index_written,
            index_files_removed=self._index_removed,
        )
