"""Copying between repositories: what arrives, how it travels, and what damage does to it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgstow.app.copy import rekey_repository
from pgstow.assurance.verify import verify
from pgstow.catalog.backups import list_backups
from pgstow.core.errors import BackupNotFound, RepositoryDamaged, RepositoryLocked, StoreFull, UsageError
from pgstow.core.progress import SilentProgress
from pgstow.repository import BlobKind, Repository
from pgstow.store.memory import MemoryStore
from pgstow.upkeep.repair import repair
from support.copying import (
    assert_copied,
    copy_all,
    make_target,
    objects,
    pack_names,
    quick_locks,
    small_packs,
)
from support.repositories import (
    MOMENT,
    WatchedStore,
    contents,
    copy_text,
    init_repository,
    nasty_files,
    open_repository,
    random_bytes,
    read_files,
    save_backup,
    save_tree,
    snapshot_of,
)

FIRST = {"3456.dat": [copy_text(500, seed) for seed in range(6)], "toc.dat": [b"PGDMP"]}
SECOND = {
    "3456.dat": [copy_text(500, seed) for seed in (0, 9, 2, 3)],
    "large": [random_bytes(30_000, seed) for seed in range(8)],
    "toc.dat": [b"PGDMP"],
}

both_keys = pytest.mark.parametrize("shares_key", [True, False], ids=["same-key", "other-key"])


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with quick_locks(), small_packs():
        yield


@pytest.fixture
def source() -> Repository:
    """A repository with two backups that have much in common."""
    repository = init_repository(MemoryStore())
    save_backup(repository, FIRST, run="beef-1")
    save_backup(repository, SECOND, run="beef-2", time=MOMENT + timedelta(days=1))
    return repository


def target_of(source: Repository, *, shares_key: bool) -> Repository:
    return make_target(WatchedStore(), source, shares_key=shares_key)


def files_of(repository: Repository, run: str) -> dict[str, bytes]:
    (record,) = [record for record in list_backups(repository) if record.id == run]
    found = read_files(repository, record.snapshot)
    return {name.removeprefix("/shop/archive/"): data for name, data in found.items()}


def packs_reached(repository: Repository, run: str) -> set[bytes]:
    """Return the packs that hold the data of a backup."""
    (record,) = [record for record in list_backups(repository) if record.id == run]
    todo, packs = [record.snapshot.tree], set()
    while todo:
        for node in repository.read_tree(todo.pop()):
            if hasattr(node, "subtree"):
                todo.append(node.subtree)
            packs |= {repository.pack_of(BlobKind.DATA, blob) for blob in getattr(node, "content", ())}
    return packs


# -- what arrives


@both_keys
def test_everything_arrives_and_the_source_stays_as_it_is(source: Repository, shares_key: bool) -> None:
    before = objects(source.store)
    target = target_of(source, shares_key=shares_key)
    report = copy_all(source, target)
    assert report.is_complete
    assert report.shares_key is shares_key
    assert [each.new_id for each in report.copied] == [each.id for each in target.snapshots()]
    assert_copied(source.store, target.store)
    assert objects(source.store) == before
    assert not list(target.store.list("locks/"))


@both_keys
def test_hostile_names_empty_and_large_files(shares_key: bool) -> None:
    with small_packs(1 << 20):
        source = init_repository(MemoryStore())
        save_backup(source, nasty_files())
        target = target_of(source, shares_key=shares_key)
        copy_all(source, target)
    assert_copied(source.store, target.store)


@both_keys
def test_second_copy_finds_nothing_to_do(source: Repository, shares_key: bool) -> None:
    target = target_of(source, shares_key=shares_key)
    copy_all(source, target)
    before = objects(target.store)
    report = copy_all(source, open_repository(target.store))
    assert (report.copied, report.sent_bytes) == ((), 0)
    assert len(report.present) == 2
    assert objects(target.store) == before


@both_keys
def test_what_the_target_has_is_not_sent_again(source: Repository, shares_key: bool) -> None:
    target = target_of(source, shares_key=shares_key)
    copy_all(source, target, "beef-1")
    report = copy_all(source, target, "beef-2")
    (copied,) = report.copied
    new = [random_bytes(30_000, seed) for seed in range(8)] + [copy_text(500, 9)]
    assert copied.stored_bytes < sum(map(len, new)) + 10_000
    assert_copied(source.store, target.store)


def test_backup_keeps_its_run_time_tags_and_names_where_it_came_from(source: Repository) -> None:
    first = source.snapshots()[0]
    with source.writer() as writer:
        tree = save_tree(writer, FIRST)
    third = snapshot_of(tree, [1], run="beef-3", time=MOMENT + timedelta(days=2))
    source.save_snapshot(replace(third, parent=first.id, excludes=("a", "b")))
    target = target_of(source, shares_key=False)
    copy_all(source, target)
    for mine, copied in zip(source.snapshots(), target.snapshots(), strict=True):
        assert copied == replace(mine, id=copied.id, original=mine.id, parent=None)
    further = target_of(source, shares_key=False)
    copy_all(target, further)
    assert {each.original for each in further.snapshots()} == {each.id for each in source.snapshots()}


def test_only_the_backups_that_were_named(source: Repository) -> None:
    target = target_of(source, shares_key=True)
    copy_all(source, target, "beef-2", "shop@latest")
    assert [record.id for record in list_backups(target)] == ["beef-2"]
    with pytest.raises(BackupNotFound):
        copy_all(source, target, "beef-9")


def test_state_of_running_work_stays_behind(source: Repository) -> None:
    source.store.put("pgstow/leases/shop", b"lease")
    target = target_of(source, shares_key=True)
    copy_all(source, target)
    assert not list(target.store.list("pgstow/leases/"))


def test_snapshots_that_pgstow_did_not_make(source: Repository) -> None:
    """They are known by the id they first had, unless their tags were changed since: as restic copy does."""
    with source.writer() as writer:
        tree = save_tree(writer, {"x": [b"theirs"]})
    theirs = replace(snapshot_of(tree, [6]), tags=("theirs",))
    old_id = source.save_snapshot(theirs)
    target = target_of(source, shares_key=False)
    assert len(copy_all(source, target).copied) == 3
    assert not copy_all(source, target).copied
    source.store.delete(f"snapshots/{old_id}")
    source.save_snapshot(replace(theirs, tags=("theirs", "seen"), original=old_id))
    (again,) = copy_all(source, target).copied
    assert again.snapshot.tags == ("theirs", "seen")
    assert not copy_all(source, target).copied


def test_dry_run_says_what_a_copy_does_and_does_nothing(source: Repository) -> None:
    target = target_of(source, shares_key=False)
    before = objects(target.store)
    planned = copy_all(source, target, dry_run=True)
    assert objects(target.store) == before
    report = copy_all(source, target)
    assert [(each.blobs, each.stored_bytes) for each in planned.copied] == [
        (each.blobs, each.stored_bytes) for each in report.copied
    ]
    assert sum(each.stored_bytes for each in planned.copied) == report.sent_bytes
    assert (planned.is_dry_run, planned.sent_bytes, planned.copied[0].new_id) == (True, 0, None)


def test_repository_is_not_copied_onto_itself(source: Repository) -> None:
    with pytest.raises(UsageError, match="same repository"):
        copy_all(source, open_repository(source.store))


blob = st.one_of(
    st.binary(max_size=200), st.builds(copy_text, st.integers(1, 400), st.integers(0, 5)), st.just(b"")
)
tree = st.dictionaries(
    st.text('abcdefgh\n"<é', min_size=1, max_size=6), st.lists(blob, max_size=6), max_size=6
)


@both_keys
@settings(max_examples=25)
@given(data=st.data())
def test_any_trees_in_any_order(data: st.DataObject, shares_key: bool) -> None:
    source = init_repository(MemoryStore())
    backups = data.draw(st.lists(tree, min_size=1, max_size=4))
    for number, files in enumerate(backups):
        save_backup(source, files, run=f"beef-{number}", time=MOMENT + timedelta(days=number))
    target = make_target(MemoryStore(), source, shares_key=shares_key)
    for number in data.draw(st.permutations(range(len(backups)))):
        copy_all(source, target, f"beef-{number}")
    assert_copied(source.store, target.store)


# -- how it travels


def test_whole_packs_are_moved_where_the_key_is_the_same(source: Repository) -> None:
    target = target_of(source, shares_key=True)
    report = copy_all(source, target)
    assert report.moved_packs == len(pack_names(source.store))
    assert pack_names(target.store) == pack_names(source.store)
    assert {name: target.store.get(name) for name in pack_names(target.store)} == {
        name: source.store.get(name) for name in pack_names(source.store)
    }


def test_of_a_pack_that_is_hardly_needed_only_what_is_needed_travels() -> None:
    with small_packs(16 << 20):
        source = init_repository(MemoryStore())
        with source.writer() as writer:  # one pack for the data of both
            trees = [save_tree(writer, {"own": [random_bytes(20_000, n)]}) for n in range(2)]
        for number, each in enumerate(trees):
            source.save_snapshot(snapshot_of(each, [20_000], run=f"beef-{number}"))
        target = target_of(source, shares_key=True)
        copy_all(source, target, "beef-1")
    unneeded = open_repository(source.store)
    blobs = [entry for pack in unneeded.indexed_packs() for entry in pack.entries]
    there = open_repository(target.store)
    assert sum(there.has_blob(entry.kind, entry.id) for entry in blobs) < len(blobs)
    for entry in blobs:  # the very bytes that were sealed once
        place, original = there.locate(entry.kind, entry.id), unneeded.locate(entry.kind, entry.id)
        if place is not None and original is not None:
            pair = [(target.store, place), (source.store, original)]
            mine, its = (
                s.get(f"data/{p.pack_id.hex()[:2]}/{p.pack_id.hex()}")[p.offset :][: p.length]
                for s, p in pair
            )
            assert mine == its
    assert files_of(there, "beef-1") == {"own": random_bytes(20_000, 1)}


@both_keys
def test_nothing_is_compressed_again(source: Repository, shares_key: bool) -> None:
    target = target_of(source, shares_key=shares_key)
    with patch("pgstow.repository.writer.compress", side_effect=AssertionError):
        copy_all(source, target)
    assert_copied(source.store, target.store)


def test_other_key_seals_everything_anew(source: Repository) -> None:
    target = target_of(source, shares_key=False)
    report = copy_all(source, target)
    assert report.moved_packs == 0
    assert not pack_names(target.store) & pack_names(source.store)
    sealed = {bytes(source.store.get(name)[:16]) for name in pack_names(source.store)}
    assert not sealed & {bytes(target.store.get(name)[:16]) for name in pack_names(target.store)}


def test_packs_stand_before_the_index_and_that_before_the_snapshot(source: Repository) -> None:
    target = target_of(source, shares_key=True)
    store = target.store
    assert isinstance(store, WatchedStore)
    store.calls.clear()
    copy_all(source, target)
    order = [name.split("/")[0] for name in store.names("put") if not name.startswith("locks/")]
    steps = [step for position, step in enumerate(order) if order[position - 1 : position] != [step]]
    assert steps == ["data", "index", "pgstow", "snapshots"] * 2


def test_a_whole_backup_comes_back_where_a_repair_kept_a_part(source: Repository) -> None:
    target = target_of(source, shares_key=False)
    copy_all(source, target)
    copied = target.snapshots()[0]
    target.save_snapshot(replace(copied, tags=(*copied.tags, "damaged"), id=None))
    target.remove_snapshot(copied.id or "")
    assert [record.is_damaged for record in list_backups(target)] == [True, False]
    assert verify(open_repository(target.store), read_data=False).incomplete == ("beef-1",)
    (brought,) = copy_all(source, open_repository(target.store)).copied
    assert brought.snapshot.id == source.snapshots()[0].id
    assert [record.is_damaged for record in list_backups(target)] == [False, False]
    assert verify(open_repository(target.store), read_data=True).incomplete == ()
    assert not copy_all(source, open_repository(target.store)).copied
    further = target_of(source, shares_key=False)
    copy_all(source, further)
    assert not copy_all(target, further).copied, "what is damaged is not brought where it is whole"


def test_who_loses_his_lock_while_he_claims_publishes_nothing(source: Repository) -> None:
    """A prune may have removed by then what the snapshot needs."""
    target = target_of(source, shares_key=True)
    assert isinstance(target.store, WatchedStore)

    def lose_lock() -> None:
        (lock,) = target._locks
        lock._lost = "the repository lock could not be renewed for 40 minutes"

    before_the_first(target.store, "pgstow/runs/copy-", lose_lock)
    with pytest.raises(RepositoryLocked, match="40 minutes"):
        copy_all(source, target)
    assert target.snapshots() == []


# -- several at once


def before_the_first(store: WatchedStore, folder: str, act: Callable[[], None]) -> None:
    """Do something just before the first object of a folder is written."""
    waiting = [act]

    def step_in(method: str, name: str) -> None:
        if method == "put" and name.startswith(folder) and waiting:
            waiting.pop()()

    store.before = step_in


@both_keys
@pytest.mark.parametrize("folder", ["pgstow/runs/copy-", "snapshots/"])
def test_two_at_once_leave_one_snapshot(source: Repository, shares_key: bool, folder: str) -> None:
    """The other one comes and goes between our last look at the target and our snapshot."""
    target = target_of(source, shares_key=shares_key)
    assert isinstance(target.store, WatchedStore)
    before_the_first(
        target.store,
        folder,
        lambda: copy_all(open_repository(source.store), open_repository(target.store.inner)),
    )
    report = copy_all(source, target)
    assert len(target.snapshots()) == 2
    assert_copied(source.store, target.store)
    copied = {each.new_id for each in report.copied}
    assert copied and copied <= {each.id for each in target.snapshots()}


def test_a_backup_from_two_of_its_places_at_once_leaves_one_snapshot(source: Repository) -> None:
    """Copies have names of their own in each repository, and all are one backup."""
    other = target_of(source, shares_key=False)
    copy_all(source, other)
    target = target_of(source, shares_key=False)
    assert isinstance(target.store, WatchedStore)
    before_the_first(
        target.store,
        "snapshots/",
        lambda: copy_all(open_repository(other.store), open_repository(target.store.inner)),
    )
    copy_all(source, target)
    assert len(target.snapshots()) == 2
    assert_copied(source.store, target.store)


@pytest.mark.parametrize("wrong", [None, b"no snapshot at all"], ids=["another's", "nothing"])
def test_what_stands_in_the_place_of_a_claim_is_not_believed(source: Repository, wrong: bytes | None) -> None:
    """Somebody who may write to the store puts the claim of one copy in the place of another's."""
    target = target_of(source, shares_key=True)
    copy_all(source, target)
    first, second = (info.name for info in target.store.list("pgstow/runs/"))
    target.store.put(first, wrong or target.store.get(second))
    for snapshot in target.snapshots():
        target.remove_snapshot(snapshot.id or "")
    copy_all(source, target)
    assert_copied(source.store, target.store)


# -- damage


@both_keys
@pytest.mark.parametrize("loss", ["missing", "short"])
def test_what_the_target_has_lost_is_sent_again(source: Repository, shares_key: bool, loss: str) -> None:
    """Its index lists it all the same: a copy that took it for present would not be whole."""
    target = target_of(source, shares_key=shares_key)
    copy_all(source, target, "beef-1")
    (pack_id, *_) = packs_reached(target, "beef-1")
    name = f"data/{pack_id.hex()[:2]}/{pack_id.hex()}"
    data = target.store.get(name)
    target.store.delete(name)
    if loss == "short":
        target.store.put(name, data[:-60])
    copy_all(source, open_repository(target.store), "beef-2")
    assert files_of(open_repository(target.store), "beef-2") == contents(SECOND)
    report = copy_all(source, open_repository(target.store))
    assert (report.copied, len(report.present)) == ((), 2)
    assert report.moved_packs <= len(packs_reached(source, "beef-1")), "none twice"
    assert files_of(open_repository(target.store), "beef-1") == contents(FIRST), "it is brought what it lacks"
    assert repair(open_repository(target.store), SilentProgress()).mended == ()
    assert verify(open_repository(target.store), read_data=True).problems == ()
    assert copy_all(source, open_repository(target.store)).sent_bytes == 0


def spoil(source: Repository, pack_id: bytes, at: int = 100) -> None:
    name = f"data/{pack_id.hex()[:2]}/{pack_id.hex()}"
    data = bytearray(source.store.get(name))
    data[at] ^= 1
    source.store.put(name, data)


@both_keys
def test_damaged_backup_is_named_and_the_others_are_copied(source: Repository, shares_key: bool) -> None:
    (pack_id, *_) = packs_reached(source, "beef-2") - packs_reached(source, "beef-1")
    spoil(source, pack_id)
    target = target_of(source, shares_key=shares_key)
    report = copy_all(source, target)
    (failure,) = report.failures
    assert not report.is_complete
    assert failure.snapshot is not None and "run=beef-2" in failure.snapshot.tags
    assert failure.file and pack_id.hex() in failure.file
    assert files_of(open_repository(target.store), "beef-1") == contents(FIRST)
    assert [record.id for record in list_backups(target)] == ["beef-1"]
    assert verify(open_repository(target.store), read_data=True).problems == ()


@both_keys
@pytest.mark.parametrize("loss", ["missing", "short"])
def test_lost_pack(source: Repository, shares_key: bool, loss: str) -> None:
    (pack_id, *_) = packs_reached(source, "beef-2") - packs_reached(source, "beef-1")
    name = f"data/{pack_id.hex()[:2]}/{pack_id.hex()}"
    data = source.store.get(name)
    source.store.delete(name)
    if loss == "short":
        source.store.put(name, data[:40])
    target = target_of(source, shares_key=shares_key)
    report = copy_all(source, target)
    assert [failure.file for failure in report.failures] == [name]
    assert [record.id for record in list_backups(target)] == ["beef-1"]


@both_keys
def test_another_copy_of_a_damaged_blob_is_taken(source: Repository, shares_key: bool) -> None:
    other = open_repository(source.store)
    other._index.replace_with(type(other._index)())  # as two backups at once store a blob twice
    save_backup(other, FIRST, run="beef-3")
    source = open_repository(source.store)
    for pack_id in packs_reached(source, "beef-1") - packs_reached(other, "beef-3"):
        spoil(source, pack_id)
    target = target_of(source, shares_key=shares_key)
    copy_all(source, target, "beef-1")
    assert files_of(open_repository(target.store), "beef-1") == contents(FIRST)
    assert verify(open_repository(target.store), read_data=True).problems == ()


@both_keys
def test_what_a_failed_backup_left_out_is_brought_for_the_next_one(shares_key: bool) -> None:
    source = init_repository(MemoryStore())
    blobs = [random_bytes(60_000, seed) for seed in range(20)]  # each in a pack of its own
    save_backup(source, {"large": blobs}, run="beef-1")
    save_backup(source, {"large": blobs[1:]}, run="beef-2", time=MOMENT + timedelta(days=1))
    (pack_id,) = packs_reached(source, "beef-1") - packs_reached(source, "beef-2")
    spoil(source, pack_id)
    target = target_of(source, shares_key=shares_key)
    assert len(copy_all(source, target).failures) == 1
    assert files_of(open_repository(target.store), "beef-2") == {"large": b"".join(blobs[1:])}


def test_unreadable_snapshot_and_lost_index(source: Repository) -> None:
    source.store.put("snapshots/" + "ab" * 32, b"not a snapshot")
    target = target_of(source, shares_key=True)
    report = copy_all(source, target)
    assert [(failure.snapshot, failure.file) for failure in report.failures] == [
        (None, "snapshots/" + "ab" * 32)
    ]
    assert len(report.copied) == 2
    for info in list(source.store.list("index/")):
        source.store.delete(info.name)
    empty = target_of(source, shares_key=True)
    report = copy_all(open_repository(source.store), empty)
    assert len(report.failures) == 3
    assert not report.copied
    assert not pack_names(empty.store)


@both_keys
def test_full_target_ends_the_copy_and_room_lets_it_go_on(source: Repository, shares_key: bool) -> None:
    target = target_of(source, shares_key=shares_key)
    store = target.store
    assert isinstance(store, WatchedStore)
    packs = 0

    def fill_up(method: str, name: str) -> None:
        nonlocal packs
        packs += method == "put" and name.startswith("data/")
        if method == "put" and packs > 2:
            raise StoreFull("no room left")

    store.before = fill_up
    with pytest.raises(StoreFull):
        copy_all(source, target)
    store.before = lambda method, name: None
    survivor = open_repository(store)
    assert verify(survivor, read_data=True).problems == ()
    copy_all(source, survivor)
    assert_copied(source.store, store)


def test_what_is_wrong_with_the_target_is_said_to_be(source: Repository) -> None:
    target = target_of(source, shares_key=True)
    with (
        open_repository(target.store).lock(exclusive=True),
        pytest.raises(RepositoryLocked, match="^target: "),
    ):
        copy_all(source, target)
    with open_repository(source.store).lock(exclusive=True), pytest.raises(RepositoryLocked, match="^repo"):
        copy_all(source, target)
    target.store.put("index/" + "ab" * 32, b"torn")
    with pytest.raises(RepositoryDamaged, match="^target: index/abab"):
        copy_all(source, target)
    assert not target.snapshots()
    assert not list(target.store.list("locks/"))


# -- others at work


@both_keys
def test_two_copies_at_once(source: Repository, shares_key: bool) -> None:
    target = target_of(source, shares_key=shares_key)
    failures: list[BaseException] = []

    def copy() -> None:
        try:
            copy_all(open_repository(source.store), open_repository(target.store))
        except BaseException as exc:  # noqa: BLE001
            failures.append(exc)

    threads = [threading.Thread(target=copy) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert_copied(source.store, target.store)
    assert [record.id for record in list_backups(target)] == ["beef-1", "beef-2"]


def test_copy_that_someone_else_finished_meanwhile_does_not_appear_twice(source: Repository) -> None:
    target = target_of(source, shares_key=True)
    store = target.store
    assert isinstance(store, WatchedStore)
    done = []

    def overtake(method: str, name: str) -> None:
        if method == "put" and name.startswith("index/") and not done:
            done.append(True)
            copy_all(source, open_repository(store.inner))

    store.before = overtake
    report = copy_all(open_repository(source.store), target)
    assert len(target.snapshots()) == 2
    assert report.is_complete
    assert len(report.present) >= 1


@both_keys
def test_copy_while_backups_run_on_both_sides(source: Repository, shares_key: bool) -> None:
    target = target_of(source, shares_key=shares_key)
    busy = [open_repository(source.store), open_repository(target.store)]
    third = {"new": [copy_text(500, 77), random_bytes(90_000, 5)]}
    with contextlib.ExitStack() as stack:
        writers = []
        for repository in busy:
            stack.enter_context(repository.lock())
            writers.append(stack.enter_context(repository.writer()))
        trees = [save_tree(writer, third) for writer in writers]
        assert len(copy_all(source, target).copied) == 2
        for number, (repository, writer) in enumerate(zip(busy, writers, strict=True)):
            writer.flush()
            repository.save_snapshot(snapshot_of(trees[number], [1], run=f"beef-{3 + number}"))
    assert [copied.snapshot.tags[-1] for copied in copy_all(source, target).copied] == ["run=beef-3"]
    assert {record.id for record in list_backups(target)} == {"beef-1", "beef-2", "beef-3", "beef-4"}
    assert verify(open_repository(target.store), read_data=True).problems == ()


# -- a new master key


def test_rekey_says_whether_the_old_repository_can_go(source: Repository) -> None:
    target = target_of(source, shares_key=False)
    report = rekey_repository(source, target, SilentProgress(), read_data=True)
    assert report.is_complete
    assert report.verified.snapshots == 2
    assert_copied(source.store, target.store)
    (pack_id, *_) = packs_reached(source, "beef-2") - packs_reached(source, "beef-1")
    spoil(source, pack_id)
    report = rekey_repository(source, target_of(source, shares_key=False), SilentProgress(), read_data=False)
    assert not report.is_complete
    assert [snapshot.tags[-1] for snapshot in report.missing] == ["run=beef-2"]
    assert report.verified.is_sound
