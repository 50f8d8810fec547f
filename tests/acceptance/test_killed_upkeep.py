"""``repo copy``, ``repo prune``, ``repo repair``, ``retention apply`` and ``hold`` killed with -9 at the writes to their stores, and run again.

By default a part of the writes is tried, at equal distances through all of them; PGSTOW_ALL_FAULTS=1 tries all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgstow.audit.checking import verify
from pgstow.audit.trail import read_trail
from pgstow.core.progress import SilentProgress
from pgstow.repository import BlobKind, Repository, pack_name
from pgstow.store.local import LocalStore
from pgstow.upkeep.repair import repair
from support.command import Pgstow
from support.copying import contents_by_origin, make_target, small_packs
from support.copying import objects as contents_of
from support.damage import readable_members
from support.dated_backups import backup_id, save_dated
from support.killing import AT_WRITES, Killing, noting
from support.pruning import assert_sound, objects, prune_now, remove_snapshots, restored
from support.repositories import (
    MOMENT,
    contents,
    init_repository,
    open_repository,
    random_bytes,
    save_backup,
)
from support.restic import PASSWORD, Restic


@pytest.fixture(autouse=True)
def packs() -> Iterator[None]:
    """Let the templates have several packs; the command itself is left as it is."""
    with small_packs(32 << 10):
        yield


@pytest.fixture
def template(tmp_path: Path) -> Path:
    return tmp_path / "template"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "folder"


@pytest.fixture
def pgstow(folder: Path) -> Pgstow:
    return Pgstow({"PGSTOW_REPOSITORY": str(folder / "repository"), "PGSTOW_PASSWORD": PASSWORD})


def files(*seeds: int) -> dict[str, list[bytes]]:
    return {"toc.dat": [b"PGDMP"], "1.dat": [random_bytes(9000, seed) for seed in seeds]}


def assert_tidy(*stores: LocalStore) -> None:
    """Nothing is left of the process that was killed."""
    for store in stores:
        assert objects(store, "locks") == set()
        assert list(Path(store.location).glob("tmp/*")) == []


def untold(found: dict[str, bytes]) -> dict[str, bytes]:
    """Return the objects of a repository without what its audit trail tells of the command."""
    return {name: content for name, content in found.items() if not name.startswith("pgstow/audit/")}


def assert_told(*stores: LocalStore, begun: int = 0) -> None:
    """The audit trails have no hole, and so many times tell of a command before it began."""
    for store in stores:
        trail = read_trail(open_repository(store))
        assert verify(trail).is_intact
        assert sum(each.entry.result == "begun" for each in trail.entries) >= begun


@pytest.mark.parametrize("shares_key", [True, False], ids=["same-key", "other-key"])
def test_copy(shares_key: bool, pgstow: Pgstow, template: Path, folder: Path, newest_restic: Restic) -> None:
    source = init_repository(LocalStore(template / "repository"))
    save_backup(source, files(*range(8)), run="beef-1")
    save_backup(source, files(*range(4, 12)), run="beef-2", time=MOMENT + timedelta(days=1))
    target = make_target(LocalStore(template / "target"), source, shares_key=shares_key)
    save_backup(target, files(50, 51), run="cafe-1", folder="other")
    own, theirs = (
        contents_by_origin(open_repository(target.store)),
        contents_by_origin(open_repository(source.store)),
    )
    before = contents_of(source.store)
    command = Killing(
        pgstow, ["repo", "copy", "--to", str(folder / "target")], template=template, folder=folder
    )
    title = f"copy{'' if shares_key else ' under another key'}"
    for kill in command.kills(title, AT_WRITES, tries=6 if shares_key else 3):
        with noting(kill):
            source_store, target_store = LocalStore(folder / "repository"), LocalStore(folder / "target")
            assert untold(contents_of(source_store)) == before
            copied = contents_by_origin(open_repository(target_store))
            assert own.items() <= copied.items() <= {**own, **theirs}.items()
            for name in ("repository", "target"):
                newest_restic(folder / name, "check", "--read-data", "--no-lock")
            again = command.again()
            assert again.code == 0, again.stderr
            source_store.remove_stale_temporaries()  # half a lock: its next backup removes it
            assert_tidy(source_store, target_store)
            assert_told(source_store, target_store)
            assert contents_by_origin(open_repository(target_store)) == {**own, **theirs}
            assert_sound(target_store)


def make_prune_template(store: LocalStore) -> None:
    """Make a repository in which a prune has to do both of its phases, and all kinds of work in each."""
    repository = init_repository(store)
    early = [save_backup(repository, files(*range(6)), run="early")]
    save_backup(repository, files(5, 6), run="kept")
    remove_snapshots(store, *early)
    prune_now(store)  # takes packs out of use, which the second phase removes
    repository = open_repository(store)
    late = [
        save_backup(repository, files(6, *range(10, 16)), run="late"),
        save_backup(repository, files(30, 31, 32, 33), run="unneeded"),
    ]
    save_backup(repository, files(11, 15), run="needs parts of it")
    listed = objects(store, "index")
    late.append(save_backup(open_repository(store), files(20, 21), run="never listed"))
    for name in objects(store, "index") - listed:
        store.delete(name)
    remove_snapshots(store, *late)


def test_prune(pgstow: Pgstow, template: Path, folder: Path, newest_restic: Restic) -> None:
    make_prune_template(LocalStore(template / "repository"))
    expected = restored(LocalStore(template / "repository"))
    begun_with = contents_of(LocalStore(template / "repository"))
    arguments = ["repo", "prune", "--grace", "0", "--max-unused", "0"]
    planned = pgstow(*arguments, "--dry-run", "--json", PGSTOW_REPOSITORY=str(template / "repository"))
    plan = planned.json()["plan"]
    assert all(plan[work]["packs"] for work in ("remove", "unused", "repack", "orphans"))
    command = Killing(pgstow, arguments, template=template, folder=folder)
    for kill in command.kills("prune", AT_WRITES, tries=6):
        with noting(kill):
            store = LocalStore(folder / "repository")  # a new one: it knows which folders there are
            is_changed = untold(contents_of(store)) != begun_with
            assert restored(store) == expected
            newest_restic(store.location, "check", "--read-data", "--no-lock")
            again = command.again()
            assert again.code == 0, again.stderr
            assert_tidy(store)
            assert_told(store, begun=1 + is_changed)
            assert restored(store) == expected
            assert_sound(store)
            prune_now(store, grace_s=0, max_unused=0)
            prune_now(store, grace_s=0, max_unused=0)
            listed = {pack_name(pack.pack_id.hex()) for pack in open_repository(store).indexed_packs()}
            assert objects(store, "data") == listed
            assert objects(store, "pgstow") == objects(store, "pgstow/audit")
            assert restored(store) == expected


KEPT = (90, 20, 0)  # the first is held


def make_aged_template(store: LocalStore) -> None:
    """Make a repository of which two backups are to expire, of all those that are older than 30 days."""
    repository = init_repository(store)
    now = datetime.now(UTC)
    for age in (90, 60, 40, 20, 0):
        save_dated(repository, age, now - timedelta(days=age))
    repository.marks().hold(backup_id(90), at=now, by="tests", reason="case 7")


def contents_by_age(store: LocalStore) -> dict[int, dict[str, bytes]]:
    return {int(run.removeprefix("run=")[:8]): named for run, named in restored(store).items()}


def test_retention_apply(pgstow: Pgstow, template: Path, folder: Path, newest_restic: Restic) -> None:
    """Whenever it dies: each backup is whole or gone, the oldest went first, and none went that is kept."""
    make_aged_template(LocalStore(template / "repository"))
    before = contents_by_age(LocalStore(template / "repository"))
    begun_with = contents_of(LocalStore(template / "repository"))
    command = Killing(
        pgstow, ["retention", "apply", "--no-promote", "--yes"], template=template, folder=folder
    )
    for kill in command.kills("retention apply", AT_WRITES, tries=6):
        with noting(kill):
            store = LocalStore(folder / "repository")
            is_changed = untold(contents_of(store)) != begun_with
            left = contents_by_age(store)
            assert set(left) in ({*KEPT, 60, 40}, {*KEPT, 40}, {*KEPT})
            assert left.items() <= before.items()
            newest_restic(store.location, "check", "--read-data", "--no-lock")
            again = command.again()
            assert again.code == 0, again.stderr
            assert_tidy(store)
            assert_told(store, begun=1 + is_changed)
            assert contents_by_age(store) == {age: before[age] for age in KEPT}
            assert_sound(store)
            assert list(open_repository(store).marks().holds()) == [backup_id(90)]


def test_hold(pgstow: Pgstow, template: Path, folder: Path) -> None:
    """A hold that died is there or not, is in nobody's way, and does not come undone."""
    make_aged_template(LocalStore(template / "repository"))
    command = Killing(pgstow, ["hold", backup_id(60), "--reason", "case 8"], template=template, folder=folder)
    for kill in command.kills("hold", AT_WRITES, tries=3):
        with noting(kill):
            store = LocalStore(folder / "repository")
            again = command.again()
            assert again.code == 0, again.stderr
            applied = pgstow(
                "retention", "apply", "--no-promote", "--yes", PGSTOW_STATE_DIR=str(command.state)
            )
            assert applied.code == 0, applied.stderr
            assert_tidy(store)
            assert_told(store)
            assert set(contents_by_age(store)) == {*KEPT, 60}


TOC = {"toc.dat": [b"PGDMP"]}
LOST, GONE = random_bytes(9000, 2), random_bytes(9000, 4)
RUNS: dict[str, dict[str, list[bytes]]] = {
    "partly": {"1.dat": [random_bytes(9000, 1), LOST], "2.dat": [random_bytes(9000, 3)]},
    "also partly": {"1.dat": [random_bytes(9000, 1)], "3.dat": [GONE]},
    "unreadable": {"4.dat": [random_bytes(9000, 5)]},
    "unlisted": {"5.dat": [random_bytes(9000, 6)]},
}
MENDED = {
    "partly": ["2.dat", "toc.dat"],
    "also partly": ["1.dat", "toc.dat"],
    "unlisted": ["5.dat", "toc.dat"],
}


def make_damaged_template(store: LocalStore) -> None:
    """Make a repository with damage of every kind: two packs, an index file, a snapshot, the config, a key file."""
    repository = init_repository(store)
    listed: set[str] = set()
    for day, (run, named) in enumerate(RUNS.items()):
        listed = objects(store, "index")
        save_backup(repository, TOC | named, run=run, time=MOMENT + timedelta(days=day))
    repository = open_repository(store)
    flip(store, *place_of(repository, LOST))
    store.delete(place_of(repository, GONE)[0])
    (index_file,) = objects(store, "index") - listed
    store.delete(index_file)
    (unreadable,) = [each.id for each in repository.snapshots() if "run=unreadable" in each.tags]
    for name in (f"snapshots/{unreadable}", "config"):
        store.put(name, store.get(name)[:-1])
    store.put("keys/" + "ab" * 32, b"{}")


def place_of(repository: Repository, data: bytes) -> tuple[str, int]:
    """Return pack name and offset of a blob."""
    (place,) = repository.places_of(BlobKind.DATA, hashlib.sha256(data).digest())
    return pack_name(place.pack_id.hex()), place.offset


def flip(store: LocalStore, name: str, place: int) -> None:
    data = bytearray(store.get(name))
    data[place] ^= 1
    store.put(name, data)


def test_repair(pgstow: Pgstow, template: Path, folder: Path, newest_restic: Restic) -> None:
    make_damaged_template(LocalStore(template / "repository"))
    before, _ = readable_members(LocalStore(template / "repository"), without_config=True)
    mended = {
        run: {
            f"/shop/archive/{name}": data for name, data in contents(RUNS[run] | TOC).items() if name in kept
        }
        for run, kept in MENDED.items()
    }
    command = Killing(
        pgstow,
        ["repo", "repair", "--confirm", str(folder / "repository")],
        template=template,
        folder=folder,
    )
    for kill in command.kills("repair", AT_WRITES, tries=6):
        with noting(kill):
            store = LocalStore(folder / "repository")
            meanwhile, _ = readable_members(store, without_config=True)
            for run, readable in before.items():
                assert readable.items() <= meanwhile[run].items()
            again = command.again()
            assert again.code == 0, again.stderr
            assert_tidy(store)
            assert_told(store)
            assert restored(store) == {f"run={run}": named for run, named in mended.items()}
            assert len(open_repository(store).snapshots()) == len(mended)
            newest_restic(store.location, "check", "--read-data")
            assert_sound(store)
            assert not repair(open_repository(store), SilentProgress(), dry_run=True).is_needed
            save_backup(open_repository(store), RUNS["unreadable"], run="next")
            assert_sound(store)
