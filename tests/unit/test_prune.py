"""Pruning: what nothing needs goes, in two phases, and what is needed never does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgstow.core.errors import RepositoryDamaged, RepositoryLocked
from pgstow.repository import BlobKind, LockTimes, PackContents, pack_name
from pgstow.store.memory import MemoryStore
from support.pruning import (
    DAY_S,
    Clock,
    assert_sound,
    copy_of,
    needed_blobs,
    objects,
    prune_now,
    remove_locks,
    remove_snapshots,
    restored,
)
from support.repositories import (
    WatchedStore,
    contents,
    init_repository,
    open_repository,
    random_bytes,
    save_backup,
)

FIRST = {"a": [random_bytes(30_000, 1), random_bytes(9_000, 2)], "toc": [b"PGDMP 1"]}
SECOND = {"a": [random_bytes(30_000, 1), random_bytes(9_000, 3)], "toc": [b"PGDMP 2"]}
OTHER = {"b": [random_bytes(40_000, seed) for seed in range(10, 14)], "empty": []}


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make packs of 64 KiB, so that few blobs fill several; those below 1 KiB are small."""
    monkeypatch.setattr("pgstow.repository.writer.PACK_BYTES", 64 << 10)
    monkeypatch.setattr("pgstow.upkeep.prune_plan._SMALL_PACK_BYTES", 1 << 10)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    store = MemoryStore(now=clock)
    init_repository(store)
    return store


def save(store: MemoryStore, files: dict[str, list[bytes]], run: str) -> str:
    return save_backup(open_repository(store), files, run=run)


def files_of(files: dict[str, list[bytes]]) -> dict[str, bytes]:
    return {f"/shop/archive/{name}": data for name, data in contents(files).items()}


def change(store: MemoryStore, name: str, change: Callable[[bytearray], object]) -> None:
    data = bytearray(store.get(name))
    change(data)
    store.put(name, data)


def flip(data: bytearray) -> None:
    data[len(data) // 2] ^= 1


def state(store: MemoryStore) -> dict[str, bytes]:
    return {info.name: store.get(info.name) for info in store.list("")}


def packs_of(store: MemoryStore, kind: BlobKind = BlobKind.DATA) -> list[PackContents]:
    return [pack for pack in open_repository(store).indexed_packs() if pack.entries[0].kind is kind]


def test_what_nothing_needs_is_taken_out_of_use_and_removed_a_day_later(
    store: MemoryStore, clock: Clock
) -> None:
    save(store, FIRST, "1")
    kept = needed_blobs(store)
    gone = save(store, OTHER, "2")
    remove_snapshots(store, gone)
    packs = objects(store, "data")
    plan, _ = prune_now(store)
    assert (len(plan.unused), len(plan.repack), len(plan.remove)) == (5, 0, 0)
    assert objects(store, "data") == packs, "the first phase removes no pack"
    assert needed_blobs(store) == kept
    assert_sound(store)
    clock.pass_s(DAY_S - 60)
    plan, _ = prune_now(store)
    assert len(plan.wait) == 5
    assert objects(store, "data") == packs
    clock.pass_s(61)
    plan, _ = prune_now(store)
    assert len(plan.remove) == 5
    assert plan.freed_now_bytes == sum(pack.size_bytes for pack in plan.remove) > 160_000
    assert len(objects(store, "data")) == len(packs) - 5
    assert objects(store, "pgstow") == set()
    assert restored(store) == {"run=1": files_of(FIRST)}
    assert_sound(store)
    before = state(store)
    assert not prune_now(store)[0].has_work
    assert state(store) == before


def test_a_grace_of_nothing_still_takes_two_runs(store: MemoryStore) -> None:
    remove_snapshots(store, save(store, FIRST, "1"))
    prune_now(store, grace_s=0)
    assert objects(store, "data")
    prune_now(store, grace_s=0)
    assert not objects(store, "data") | objects(store, "index") | objects(store, "pgstow")


def test_the_grace_begins_anew_for_a_pack_that_was_in_use_again(store: MemoryStore, clock: Clock) -> None:
    """A prune died after it recorded packs: an index file lists them still, whatever the record says."""
    remove_snapshots(store, save(store, FIRST, "1"))
    repository = open_repository(store)
    repository.holdings().write_records(list(repository.indexed_packs()))
    clock.pass_s(2 * DAY_S)
    plan, _ = prune_now(store)
    assert (len(plan.unused), len(plan.remove), len(plan.expired_records)) == (2, 0, 1)
    assert len(objects(store, "data")) == 2
    clock.pass_s(DAY_S)
    prune_now(store)
    assert not objects(store, "data")


def test_of_several_records_of_a_pack_the_newest_counts(store: MemoryStore, clock: Clock) -> None:
    remove_snapshots(store, save(store, FIRST, "1"))
    repository = open_repository(store)
    repository.holdings().write_records(list(repository.indexed_packs()))
    clock.pass_s(DAY_S / 2)
    assert len(prune_now(store)[0].unused) == 2
    clock.pass_s(DAY_S / 2)
    plan, _ = prune_now(store)
    assert (len(plan.remove), len(plan.wait), len(plan.expired_records)) == (0, 2, 1)
    clock.pass_s(DAY_S / 2)
    assert len(prune_now(store)[0].remove) == 2


def test_partly_needed_packs_are_repacked_and_nothing_is_sealed_again(store: MemoryStore) -> None:
    gone = save(store, FIRST, "1")
    save(store, SECOND, "2")
    shared = next(e for p in packs_of(store) for e in p.entries if e.length > 30_000)
    old = next(p for p in packs_of(store) if shared in p.entries)
    sealed = store.get_range(pack_name(old.pack_id.hex()), shared.offset, shared.length)
    remove_snapshots(store, gone)
    plan, result = prune_now(store)
    assert old.pack_id in [pack.id for pack in plan.repack]
    assert result.new_packs == 1
    moved_to, moved = next((p, e) for p in packs_of(store) for e in p.entries if e.id == shared.id)
    assert moved_to.pack_id != old.pack_id
    assert store.get_range(pack_name(moved_to.pack_id.hex()), moved.offset, moved.length) == sealed
    assert restored(store) == {"run=2": files_of(SECOND)}
    assert_sound(store)


def test_waste_below_the_limit_stays(store: MemoryStore) -> None:
    gone = save(store, FIRST, "1")  # 39 KB, of which 30 KB stay needed; 9 KB are new
    save(store, SECOND, "2")
    remove_snapshots(store, gone)
    plan, _ = prune_now(copy_of(store), max_unused=0.5)
    assert plan.repack == []
    assert plan.unused_bytes > 9_000
    plan, _ = prune_now(copy_of(store), max_unused=0.1)
    assert len(plan.repack) == 1
    plan, _ = prune_now(copy_of(store), max_unused=1.0)
    assert plan.repack == []


def test_small_packs_and_index_files_are_merged(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgstow.upkeep.prune_plan._SMALL_PACK_BYTES", 4 << 20)
    monkeypatch.setattr("pgstow.repository.writer.PACK_BYTES", 16 << 20)
    repository = init_repository(store := MemoryStore())
    for number in range(300):
        save_backup(repository, {"f": [b"content %d" % number]}, run=f"{number}")
    assert (len(objects(store, "index")), len(objects(store, "data"))) == (300, 600)
    before = restored(store)
    prune_now(store, grace_s=0)
    assert (len(objects(store, "index")), len(list(open_repository(store).indexed_packs()))) == (1, 2)
    prune_now(store, grace_s=0)
    assert len(objects(store, "data")) == 2
    assert restored(store) == before
    assert_sound(store)
    assert not prune_now(store)[0].has_work


def test_small_index_files_of_large_packs_are_merged(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgstow.upkeep.prune_plan._SMALL_PACK_BYTES", 0)
    for number in range(5):
        save(store, {"f": [random_bytes(1000, number)]}, f"{number}")
    packs = objects(store, "data")
    plan, _ = prune_now(store)
    assert (len(plan.index.obsolete), len(plan.repack)) == (5, 0)
    assert (len(objects(store, "index")), objects(store, "data")) == (1, packs)
    assert_sound(store)


def test_a_pack_in_several_index_files_is_listed_once(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgstow.upkeep.prune_plan._SMALL_INDEX_ENTRIES", 0)
    save(store, FIRST, "1")
    repository = open_repository(store)
    repository.holdings().write_indexes(list(repository.indexed_packs()))
    assert len(objects(store, "index")) == 2
    prune_now(store)
    needed_blobs(store)
    assert_sound(store)


def test_long_indexes_are_split(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgstow.repository.holdings._FILE_ENTRIES", 4)
    monkeypatch.setattr("pgstow.upkeep.prune_plan._SMALL_INDEX_ENTRIES", 2)
    save(store, OTHER, "1")
    gone = save(store, FIRST, "2")
    save(store, SECOND, "3")
    remove_snapshots(store, gone)
    prune_now(store, max_unused=0)
    assert len(objects(store, "index")) > 2
    assert_sound(store)
    assert not prune_now(store, max_unused=0)[0].index.obsolete


def test_of_duplicates_one_copy_is_kept(store: MemoryStore) -> None:
    repository, unaware = open_repository(store), open_repository(store)
    save_backup(repository, OTHER, run="1")
    save_backup(unaware, OTHER, run="2")
    plan, result = prune_now(store)
    assert len(plan.unused) == 5
    assert result.new_packs == 0
    needed_blobs(store)  # each is listed once
    assert_sound(store)
    assert restored(store) == {"run=1": files_of(OTHER), "run=2": files_of(OTHER)}


def test_a_copy_goes_only_if_the_one_that_stays_is_whole(store: MemoryStore) -> None:
    repository, unaware = open_repository(store), open_repository(store)
    save_backup(repository, OTHER, run="1")
    save_backup(unaware, OTHER, run="2")
    plan, _ = prune_now(copy_of(store))
    for number, pack in enumerate(plan.survey.of(plan.unused[0].place)):
        if pack.kept_blobs and BlobKind.DATA in pack.kinds:
            damaged = copy_of(store)
            change(damaged, pack_name(pack.name), lambda data: data.__setitem__(100, data[100] ^ 1))
            before = state(damaged)
            with pytest.raises(RepositoryDamaged, match=f"pack {pack.name} is damaged") as caught:
                prune_now(damaged)
            assert "no pack was taken out of use" in caught.value.message
            assert "repo repair" in (caught.value.hint or "")
            assert state(damaged) == before, number


def test_what_died_runs_left_is_recorded_and_removed(store: MemoryStore, clock: Clock) -> None:
    save(store, FIRST, "1")
    index = objects(store, "index")
    snapshot = save(store, OTHER, "2")
    store.delete(f"snapshots/{snapshot}")
    for name in objects(store, "index") - index:
        store.delete(name)
    store.put("data/00/" + "00" * 32, b"not even a header")
    store.put("data/01/" + "01" * 32, b"")
    plan, _ = prune_now(store)
    assert len(plan.orphans) == 5 + 2
    clock.pass_s(DAY_S)
    plan, _ = prune_now(store)
    assert len(plan.remove) == 7
    assert len(objects(store, "data")) == 2
    assert_sound(store)


def test_packs_whose_index_file_is_lost_are_listed_again(store: MemoryStore) -> None:
    save(store, FIRST, "1")
    for name in objects(store, "index"):
        store.delete(name)
    plan, _ = prune_now(store)
    assert len(plan.reindex) == 2
    assert_sound(store)
    assert restored(store) == {"run=1": files_of(FIRST)}


@pytest.mark.parametrize("later_s", [0, DAY_S, 10 * DAY_S])
def test_a_snapshot_that_appears_late_gets_its_packs_back(
    store: MemoryStore, clock: Clock, later_s: float
) -> None:
    """A run whose lock was removed by force goes on with the index it knew, and publishes after the first phase."""
    gone = save(store, OTHER, "1")
    zombie = open_repository(store)
    remove_snapshots(store, gone)
    prune_now(store)
    save_backup(zombie, OTHER, run="2")
    with pytest.raises(RepositoryDamaged):
        restored(store)
    clock.pass_s(later_s)
    plan, _ = prune_now(store)
    assert len(plan.reindex) == 5
    assert restored(store) == {"run=2": files_of(OTHER)}
    assert_sound(store)
    clock.pass_s(DAY_S)
    prune_now(store)
    assert_sound(store)
    assert objects(store, "pgstow") == set()


def test_packs_that_restic_pruned_before_us_do_no_harm(store: MemoryStore, clock: Clock) -> None:
    save(store, FIRST, "1")
    remove_snapshots(store, save(store, OTHER, "2"))
    plan, _ = prune_now(store)
    for pack in plan.unused[:3]:
        store.delete(pack_name(pack.name))
    clock.pass_s(DAY_S)
    plan, _ = prune_now(store)
    assert len(plan.remove) == 2
    assert len(objects(store, "data")) == 2
    assert objects(store, "pgstow") == set()


def test_a_damaged_record_is_replaced(store: MemoryStore, clock: Clock) -> None:
    save(store, FIRST, "1")
    remove_snapshots(store, save(store, OTHER, "2"))
    prune_now(store)
    (record,) = objects(store, "pgstow")
    change(store, record, flip)
    clock.pass_s(2 * DAY_S)
    plan, _ = prune_now(store)
    assert (len(plan.orphans), len(plan.remove)) == (5, 0)
    assert record not in objects(store, "pgstow")
    clock.pass_s(DAY_S)
    assert len(prune_now(store)[0].remove) == 5
    assert_sound(store)


def test_a_pack_listed_in_parts_is_listed_whole_again(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgstow.upkeep.prune_plan._SMALL_INDEX_ENTRIES", 0)
    save(store, FIRST, "1")
    repository = open_repository(store)
    (index_id,) = (name.rpartition("/")[2] for name in objects(store, "index"))
    for pack in list(repository.indexed_packs()):
        for entry in pack.entries:
            repository.holdings().write_indexes([PackContents(pack.pack_id, [entry])])
    repository.holdings().remove_index(index_id)
    prune_now(store)
    assert len(objects(store, "index")) == 1
    assert_sound(store)


@pytest.mark.parametrize("folder", ["snapshots", "index", "data", "data missing"])
def test_what_cannot_be_read_makes_it_refuse(store: MemoryStore, folder: str) -> None:
    gone = save(store, FIRST, "1")
    save(store, SECOND, "2")
    remove_snapshots(store, gone)
    trees = [pack_name(pack.pack_id.hex()) for pack in packs_of(store, BlobKind.TREE)]
    for name in trees if folder.startswith("data") else objects(store, folder):
        if "missing" in folder:
            store.delete(name)
        else:
            change(store, name, flip)
    before = state(store)
    with pytest.raises(RepositoryDamaged, match="cannot be known for certain") as caught:
        prune_now(store)
    assert "repo repair" in (caught.value.hint or "")
    assert state(store) == before


@pytest.mark.parametrize("how", ["missing", "short"])
def test_a_needed_blob_without_a_pack_makes_it_refuse(store: MemoryStore, how: str) -> None:
    save(store, OTHER, "1")
    pack = packs_of(store)[0].pack_id.hex()
    if how == "missing":
        store.delete(pack_name(pack))
    else:
        change(store, pack_name(pack), lambda data: data.pop())
    with pytest.raises(RepositoryDamaged, match=f"is in pack {pack}, which is {how}"):
        prune_now(store)


def test_a_missing_pack_that_nothing_needs_is_dropped_from_the_index(store: MemoryStore) -> None:
    save(store, FIRST, "1")
    remove_snapshots(store, save(store, OTHER, "2"))
    plan, _ = prune_now(copy_of(store))
    for pack in plan.unused:
        store.delete(pack_name(pack.name))
    plan, _ = prune_now(store)
    assert (len(plan.gone), len(plan.unused)) == (5, 0)
    assert objects(store, "pgstow") == set()
    assert_sound(store)


def test_without_its_lock_it_removes_nothing(store: MemoryStore) -> None:
    remove_snapshots(store, save(store, OTHER, "1"))
    watched = WatchedStore(inner=store)

    def unlock(method: str, name: str) -> None:
        if method == "put" and name.startswith("pgstow/prune/"):
            remove_locks(store)

    watched.before = unlock
    index = objects(store, "index")
    with pytest.raises(RepositoryLocked, match="removed by someone else"):
        prune_now(watched)
    assert objects(store, "index") >= index
    assert len(objects(store, "data")) == 5


def test_nobody_else_may_be_at_work(store: MemoryStore) -> None:
    repository = open_repository(store)
    with repository.lock(times=LockTimes(settle_s=0)), pytest.raises(RepositoryLocked):
        prune_now(store)


def test_the_index_in_memory_forgets_what_was_taken_out_of_use(store: MemoryStore) -> None:
    remove_snapshots(store, save(store, OTHER, "1"))
    repository = open_repository(store)
    prune_now(store, repository=repository)
    repository.load_index()
    with repository.writer() as writer:
        assert writer.save(BlobKind.DATA, OTHER["b"][0]).is_new


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_whatever_the_history_the_remaining_snapshots_are_whole(data: st.DataObject) -> None:
    clock = Clock()
    store = MemoryStore(now=clock)
    init_repository(store)
    expected: dict[str, dict[str, bytes]] = {}
    ids: dict[str, str] = {}
    stale = open_repository(store)
    pieces = st.lists(st.integers(0, 12), max_size=6)
    for number in range(data.draw(st.integers(2, 9))):
        match data.draw(st.sampled_from(["save", "save", "save by one who knows little", "remove", "prune"])):
            case "remove" if expected:
                run = data.draw(st.sampled_from(sorted(expected)))
                remove_snapshots(store, ids.pop(run))
                del expected[run]
            case "prune":
                clock.pass_s(data.draw(st.sampled_from([0.0, DAY_S / 2, DAY_S])))
                prune_now(store, max_unused=data.draw(st.sampled_from([0.0, 0.05, 0.5, 1.0])))
                stale = open_repository(store)
                assert restored(store) == expected
            case how:
                files = {
                    name: [random_bytes(seed * 3000 + 5, seed) for seed in data.draw(pieces)]
                    for name in ("a", "b")
                }
                repository = stale if "little" in how else open_repository(store)
                run = f"run={number}"
                ids[run] = save_backup(repository, files, run=f"{number}")
                expected[run] = files_of(files)
    prune_now(store, max_unused=0, grace_s=0)
    prune_now(store, max_unused=0, grace_s=0)
    assert restored(store) == expected
    assert_sound(store)
    packs = list(open_repository(store).indexed_packs())
    assert {pack_name(pack.pack_id.hex()) for pack in packs} == objects(store, "data")
    needed_blobs(store)
    assert not prune_now(store, max_unused=0)[0].has_work


MEMORY_PROBE = """
import hashlib, resource
from pgstow.repository import BlobKind, PackContents, PackEntry
from pgstow.upkeep.survey import Survey
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
survey, count = Survey(), 300_000
def packs():
    for pack in range(count // 50):
        ids = [hashlib.sha256(b"%d %d" % (pack, blob)).digest() for blob in range(50)]
        for blob_id in ids: survey.use(BlobKind.DATA, blob_id)
        yield PackContents(hashlib.sha256(b"%d" % pack).digest(),
                           [PackEntry(BlobKind.DATA, i, at * 300_000, 300_000, 1 << 20) for at, i in enumerate(ids)])
survey.add_index_file("i", packs())
for pack in survey.packs.values(): pack.stored_bytes = 1 << 30
survey.choose()
assert survey.used_blobs == count == sum(pack.kept_blobs for pack in survey.packs.values())
print((peak() - before) / count)
"""


def test_a_million_blobs_take_less_than_180_megabytes() -> None:
    output = subprocess.run([sys.executable, "-c", MEMORY_PROBE], check=True, capture_output=True).stdout
    assert float(output) < 180
