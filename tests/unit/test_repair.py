"""Repairing: what is lost is dropped and named, what is whole stays, and a crash anywhere loses nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pgstow.assurance.verify import verify
from pgstow.catalog.backups import list_backups
from pgstow.core.errors import PgstowError, RepositoryError, StoreUnavailable
from pgstow.core.progress import SilentProgress
from pgstow.core.secrets import Secret
from pgstow.repository import BlobKind, Repository, find_damaged_keys, pack_name
from pgstow.store.api import ObjectInfo
from pgstow.store.local import LocalStore
from pgstow.store.memory import MemoryStore
from pgstow.upkeep.repair import repair
from pgstow.upkeep.repair_report import RepairReport
from support.damage import objects_of, readable_members, store_of
from support.repositories import (
    MOMENT,
    WatchedStore,
    contents,
    copy_text,
    init_repository,
    open_repository,
    random_bytes,
    read_files,
    save_backup,
)
from support.restic import PASSWORD, Restic

SHARED, LOST, KEPT = copy_text(400, 1), random_bytes(5000, 2), copy_text(300, 3)
FILES = {
    "run-1": {"toc.dat": [b"PGDMP 1"], "1.dat": [SHARED, LOST], "2.dat": [KEPT]},
    "run-2": {"toc.dat": [b"PGDMP 2"], "1.dat": [SHARED], "3.dat": [random_bytes(900, 4)]},
    "run-3": {"toc.dat": [b"PGDMP 3"], "4.dat": [random_bytes(700, 5)]},
}


def repaired(store: MemoryStore, **options: bool) -> RepairReport:
    return repair(Repository.open(store, Secret(PASSWORD), without_config=True), SilentProgress(), **options)


def place_of(store: MemoryStore, data: bytes) -> tuple[str, int]:
    """Return pack name and offset of a data blob."""
    (place, *_) = open_repository(store).places_of(BlobKind.DATA, hashlib.sha256(data).digest())
    return pack_name(place.pack_id.hex()), place.offset


def flip(store: MemoryStore, name: str, place: int) -> None:
    data = bytearray(store.get(name))
    data[place] ^= 1
    store.put(name, data)


@pytest.fixture
def store() -> MemoryStore:
    """Three backups."""
    store = MemoryStore()
    repository = init_repository(store)
    for number, (run, files) in enumerate(FILES.items()):
        save_backup(repository, files, run=run, time=MOMENT + timedelta(days=number))
    return store


def members(store: MemoryStore) -> dict[str, dict[str, bytes]]:
    """Return every file of every backup, by run; all must be readable."""
    repository = open_repository(store)
    return {each.id: read_files(repository, each.snapshot) for each in list_backups(repository)}


def expected(run: str, *lost: str) -> dict[str, bytes]:
    files = contents(FILES[run])
    return {f"/shop/archive/{name}": data for name, data in files.items() if name not in lost}


def test_without_damage_nothing_is_changed(store: MemoryStore) -> None:
    before = objects_of(store)
    report = repaired(store)
    assert not report.is_needed
    assert not report.is_done
    assert objects_of(store) == before


def test_orphans_of_dead_runs_are_no_damage(store: MemoryStore) -> None:
    listed = {info.name for info in store.list("index/")}
    with open_repository(store).writer() as writer:
        writer.save(BlobKind.DATA, b"of a run that died")
    for info in list(store.list("index/")):
        if info.name not in listed:
            store.delete(info.name)
    before = objects_of(store)
    assert not repaired(store).is_needed
    assert objects_of(store) == before


def test_a_dry_run_says_the_same_and_changes_nothing(store: MemoryStore) -> None:
    name, offset = place_of(store, LOST)
    flip(store, name, offset + 20)
    before = objects_of(store)
    plan = repaired(store, dry_run=True)
    assert objects_of(store) == before
    done = repaired(store)
    assert done.is_done and not plan.is_done
    assert (done.packs, done.dropped) == (plan.packs, plan.dropped)
    assert [each.paths for each in done.mended] == [each.paths for each in plan.mended]


def test_a_flipped_bit_costs_one_file_of_one_backup(store: MemoryStore) -> None:
    name, offset = place_of(store, LOST)
    flip(store, name, offset + 20)
    report = repaired(store)
    (pack,) = report.packs
    assert (pack.lost, pack.elsewhere) == (1, 0)
    assert pack.saved == pack.blobs - 1
    (mended,) = report.mended
    assert (mended.backup_id, mended.paths) == ("run-1", ("/shop/archive/1.dat",))
    assert members(store) == {
        "run-1": expected("run-1", "1.dat"), "run-2": expected("run-2"), "run-3": expected("run-3"),
    }  # fmt: skip
    repository = open_repository(store)
    assert verify(repository, read_data=True).problems == ()
    (damaged,) = [each for each in list_backups(repository) if each.is_damaged]
    assert damaged.snapshot.original == mended.snapshot
    assert mended.becomes == damaged.snapshot.id
    summary = damaged.snapshot.summary
    assert summary is not None
    assert summary.total_files_processed == 2
    assert summary.total_bytes_processed == sum(map(len, expected("run-1", "1.dat").values()))
    assert store.get(name)  # the pack itself stays for a prune to remove
    assert json.loads(repository.read_note(report.record or ""))["done"] is True


def test_the_record_is_sealed(store: MemoryStore) -> None:
    name, offset = place_of(store, LOST)
    flip(store, name, offset + 20)
    report = repaired(store)
    assert b"1.dat" not in store.get(report.record or "")


def test_a_backup_without_its_table_of_contents_is_dropped(store: MemoryStore) -> None:
    name, offset = place_of(store, b"PGDMP 3")
    flip(store, name, offset)
    report = repaired(store)
    assert [each.backup_id for each in report.dropped] == ["run-3"]
    assert members(store) == {run: expected(run) for run in ("run-1", "run-2")}
    (kept,) = [info.name for info in store.list("pgstow/repairs/") if "/snapshots/" in info.name]
    assert kept.endswith(report.dropped[0].snapshot)


def test_another_copy_of_a_blob_serves(store: MemoryStore) -> None:
    """Two hosts stored the same blob at once; one of the packs is damaged."""
    late = Repository.open(store, Secret(PASSWORD))  # an empty index: it knows of nothing
    with late.writer() as writer:
        writer.save(BlobKind.DATA, LOST)
    name, offset = place_of(store, LOST)
    flip(store, name, offset + 20)
    report = verify(open_repository(store), read_data=True)
    assert not report.is_sound
    assert {backup for problem in report.problems for backup in problem.backups} == set()
    done = repaired(store)
    assert (done.mended, done.dropped) == ((), ())
    assert [(pack.lost, pack.elsewhere) for pack in done.packs] == [(0, 1)]
    assert members(store) == {run: expected(run) for run in FILES}
    assert verify(open_repository(store), read_data=True).is_sound


@pytest.mark.parametrize("how", ["gone", "nonsense"])
def test_a_lost_index_file_is_made_again(store: MemoryStore, how: str) -> None:
    for info in list(store.list("index/")):
        if how == "gone":
            store.delete(info.name)
        else:
            store.put(info.name, b"nonsense")
    report = repaired(store)
    assert report.relisted_packs == 6
    assert (report.mended, report.dropped) == ((), ())
    assert members(store) == {run: expected(run) for run in FILES}
    assert verify(open_repository(store), read_data=True).is_sound


def test_a_damaged_key_file_goes_where_another_opens(store: MemoryStore) -> None:
    good = next(info.name for info in store.list("keys/"))
    store.put("keys/" + "ab" * 32, b"{}")
    assert list(find_damaged_keys(store)) == ["ab" * 32]
    assert not verify(open_repository(store)).is_sound
    assert [each.file for each in repaired(store).bad_objects] == ["keys/" + "ab" * 32]
    assert [info.name for info in store.list("keys/")] == [good]


def test_a_lost_config_is_made_anew(store: MemoryStore) -> None:
    old = Repository.open(store, Secret(PASSWORD)).id
    store.delete("config")
    assert "missing" in (repaired(store).config or "")
    again = Repository.open(store, Secret(PASSWORD))
    assert again.id != old
    assert members(store) == {run: expected(run) for run in FILES}


def test_what_is_read_wrongly_once_is_not_dropped(store: MemoryStore) -> None:
    """A bit that flips on the way here, not in the store."""
    seen: set[str] = set()

    class Flaky(MemoryStore):
        def get(self, name: str) -> bytes:
            data = bytearray(super().get(name))
            if name.startswith(("data/", "index/", "snapshots/")) and name not in seen:
                seen.add(name)
                data[len(data) // 2] ^= 1
            return bytes(data)

    flaky = Flaky()
    flaky._objects = store._objects
    before = objects_of(store)
    repository = Repository.open(flaky, Secret(PASSWORD))
    assert not repair(repository, SilentProgress()).is_needed
    assert len(seen) > 8
    assert objects_of(store) == before


def test_listings_that_lag_behind_are_not_believed(store: MemoryStore) -> None:
    """At first neither the newest index file nor the packs that it lists are shown; the snapshot is."""
    (newest,) = [
        index_id
        for index_id in open_repository(store).index_ids()
        if any(
            place_of(store, b"PGDMP 3")[0] == pack_name(p.pack_id.hex())
            for p in open_repository(store).index_file(index_id)
        )
    ]
    packs = {pack_name(p.pack_id.hex()) for p in open_repository(store).index_file(newest)}
    hidden = {f"index/{newest}", *packs}

    class Lagging(MemoryStore):
        def list(self, prefix: str) -> Iterator[ObjectInfo]:
            for info in super().list(prefix):
                if info.name in hidden:
                    hidden.remove(info.name)
                else:
                    yield info

    lagging = Lagging()
    lagging._objects = store._objects
    before = objects_of(store)
    with pytest.raises(RepositoryError, match="are listed now than when the repair began"):
        repair(Repository.open(lagging, Secret(PASSWORD)), SilentProgress())
    assert hidden == set()
    assert objects_of(store) == before
    assert not repaired(store).is_needed


def test_nothing_happens_unless_it_is_approved(store: MemoryStore) -> None:
    store.delete(place_of(store, LOST)[0])
    before = objects_of(store)

    def refuse(plan: RepairReport) -> None:
        assert plan.is_needed
        raise PgstowError("no")

    with pytest.raises(PgstowError, match="no"):
        repair(Repository.open(store, Secret(PASSWORD)), SilentProgress(), approve=refuse)
    assert objects_of(store) == before


# -- crashes


def damage_everything(store: MemoryStore) -> dict[str, dict[str, bytes]]:
    """Damage one object of each kind; return what must be there after a repair."""
    repository = open_repository(store)
    lost_pack, offset = place_of(store, LOST)
    flip(store, lost_pack, offset)
    third = next(each for each in repository.snapshots() if "run=run-3" in each.tags)
    listing = {
        name: {pack_name(p.pack_id.hex()) for p in repository.index_file(name)}
        for name in repository.index_ids()
    }
    flip(store, "index/" + next(name for name, packs in listing.items() if lost_pack not in packs), 40)
    flip(store, f"snapshots/{third.id}", 30)
    flip(store, "config", 20)
    store.put("keys/" + "ab" * 32, b"{}")
    return {"run-1": expected("run-1", "1.dat"), "run-2": expected("run-2")}


class DiedError(BaseException):
    """Not an error that anything may handle: the process is gone."""


def failing_at(
    store: MemoryStore, number: int, error: BaseException, methods: tuple[str, ...]
) -> WatchedStore:
    """Return the store so that it fails at an operation and at all that follow."""
    watched = WatchedStore(inner=store)
    count = 0

    def step(method: str, name: str) -> None:
        nonlocal count
        if method in methods:
            count += 1
            if count >= number:
                raise error

    watched.before = step
    return watched


def crashes(store: MemoryStore, methods: tuple[str, ...], error: Callable[[], BaseException]) -> int:
    """Repair a copy of the store with a failure at each operation in turn; return how many there are."""
    wanted = damage_everything(store)
    objects = objects_of(store)
    readable, _ = readable_members(store, without_config=True)
    for number in range(1, 1000):
        copy = store_of(objects)
        watched = failing_at(copy, number, error(), methods)
        try:
            repair(Repository.open(watched, Secret(PASSWORD), without_config=True), SilentProgress())
        except (DiedError, PgstowError):
            meanwhile, _ = readable_members(copy, without_config=True)
            for run, files in readable.items():  # the repository is no worse than it was
                assert files.items() <= meanwhile[run].items(), (number, run)
            repaired(copy)
        else:
            return number - 1
        after = members(copy)
        assert after == wanted, number
        assert verify(open_repository(copy), read_data=True).problems == (), number
        assert not repaired(copy).is_needed, number
        runs = [
            tag for each in open_repository(copy).snapshots() for tag in each.tags if tag.startswith("run=")
        ]
        assert sorted(runs) == ["run=run-1", "run=run-2"], number
    raise AssertionError("the repair never ended")


def test_a_process_that_dies_at_any_write_loses_nothing(store: MemoryStore) -> None:
    assert crashes(store, ("put", "delete"), DiedError) > 15


def test_a_store_that_fails_at_any_operation_is_no_damage(store: MemoryStore) -> None:
    methods = ("put", "delete", "get", "get_range", "stat", "list")
    assert crashes(store, methods, lambda: StoreUnavailable("the store is away")) > 60


# -- restic's own


def test_snapshots_that_restic_made_keep_all_else(newest_restic: Restic, tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "repository"
    home.mkdir()
    (home / "whole").write_bytes(random_bytes(2000, 1))
    (home / "lost").write_bytes(random_bytes(400_000, 2))
    (home / "link").symlink_to("whole")
    init_repository(LocalStore(folder))
    newest_restic(folder, "backup", str(home))
    local = LocalStore(folder)
    copy = MemoryStore()
    for info in local.list(""):
        copy.put(info.name, local.get(info.name))
    name, offset = place_of(copy, random_bytes(400_000, 2))
    flip(copy, name, offset + 300)
    local.put(name, copy.get(name))
    report = repair(Repository.open(local, Secret(PASSWORD)), SilentProgress())
    (mended,) = report.mended
    assert (mended.backup_id, mended.paths) == (None, (f"{home}/lost",))
    newest_restic(folder, "check", "--read-data")
    newest_restic(folder, "restore", "latest", "--target", str(tmp_path / "back"))
    back = tmp_path / "back" / home.relative_to("/")
    assert (back / "whole").read_bytes() == random_bytes(2000, 1)
    assert (back / "link").is_symlink()
    assert not (back / "lost").exists()
