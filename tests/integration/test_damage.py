"""Damage at every object of a real repository: found, named, survived by everything else, and repaired.

The repository holds three backups of a real database. Each object of it is damaged in turn in many places, and after
each of these points everything below is asked. ``docs/reliability.md`` says how many points there are. By default every
third point is tried, and each object gone; PGSTOW_ALL_FAULTS=1 tries all.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pgstow.app import backup as backing_up
from pgstow.assurance.verify import VerifyReport, verify
from pgstow.catalog.affected import lost_contents
from pgstow.catalog.backups import BackupFiles, find_backup, list_backups
from pgstow.core.errors import PgstowError, RepositoryDamaged
from pgstow.core.progress import SilentProgress
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.repository import BlobKind, Repository, pack_name
from pgstow.store.local import LocalStore
from pgstow.store.memory import MemoryStore
from pgstow.upkeep.repair import repair
from support.backups import capture_into, files_of, tools_for
from support.damage import Point, objects_of, points, readable_members, store_of
from support.fault_world import TRY_ALL
from support.repositories import init_repository
from support.restic import PASSWORD, Restic
from support.restoring import assert_equal_rows, bring_back, execute, fetch

DatabaseFactory = Callable[..., ConnInfo]


@dataclass(frozen=True)
class World:
    """A repository as bytes, and what is in its backups."""

    source: ConnInfo
    objects: dict[str, bytes]
    members: dict[str, dict[str, bytes]]
    tables: dict[str, dict[str, str]]  # by backup: member, table
    points: list[Point]

    @property
    def ids(self) -> list[str]:
        return list(self.members)


@pytest.fixture(scope="module")
def world(pg15: Cluster, shared_database: DatabaseFactory) -> World:
    source = shared_database(pg15)
    execute(source, "CREATE TABLE clients (id int PRIMARY KEY, name text)")
    execute(source, "INSERT INTO clients SELECT i, 'client ' || i FROM generate_series(1, 200) i")
    execute(source, "CREATE TABLE orders (id int PRIMARY KEY, client int REFERENCES clients, note text)")
    execute(source, "INSERT INTO orders SELECT i, i % 200 + 1, md5(i::text) FROM generate_series(1, 20000) i")
    execute(source, 'CREATE SCHEMA app CREATE TABLE notes (t text) CREATE TABLE "Odd name" (t text)')
    execute(source, "INSERT INTO app.notes SELECT repeat(md5(i::text), 9) FROM generate_series(1, 90) i")
    execute(source, "SELECT lo_from_bytea(0, 'large'), lo_from_bytea(0, repeat('larger', 900)::bytea)")
    store = MemoryStore()
    repository = init_repository(store)
    capture_into(repository, source)
    execute(source, "UPDATE clients SET name = 'renamed' WHERE id < 9")
    capture_into(repository, source)
    execute(source, "DELETE FROM app.notes; UPDATE orders SET note = 'last' WHERE id > 19990")
    capture_into(repository, source)
    members, lost = readable_members(store)
    assert not lost
    objects = objects_of(store)
    return World(
        source, objects, members, table_names(repository), list(points(objects, blob_places(repository)))
    )


def table_names(repository: Repository) -> dict[str, dict[str, str]]:
    repository.load_index()
    found = {}
    for record in list_backups(repository):
        manifest = BackupFiles(repository, record).manifest
        found[record.id] = {table.member: f"{table.schema_}.{table.name}" for table in manifest.tables}
        found[record.id] |= {
            table.ranges: f"{table.schema_}.{table.name}" for table in manifest.tables if table.ranges
        }
    return found


def blob_places(repository: Repository) -> dict[str, list[int]]:
    """Return a byte in the IV, the body and the seal of each blob, by object name."""
    repository.load_index()
    return {
        f"data/{pack.pack_id.hex()[:2]}/{pack.pack_id.hex()}": [
            place
            for entry in pack.entries
            for place in (entry.offset, entry.offset + entry.length // 2, entry.offset + entry.length - 1)
        ]
        for pack in repository.indexed_packs()
    }


def report_of(store: MemoryStore) -> VerifyReport:
    return verify(Repository.open(store, Secret(PASSWORD), without_config=True), read_data=True)


def named(report: VerifyReport) -> set[tuple[str, str]]:
    """Return (backup, path without the backup's own folder) of everything that verify says is reached."""
    return {
        (backup, path.lstrip("/").partition("/")[2] or "/")
        for problem in report.problems
        for backup in problem.backups
        for path in problem.paths
    }


def test_there_are_many_points(world: World) -> None:
    kinds = {point.name.split("/")[0] for point in world.points}
    assert kinds == {"config", "keys", "index", "snapshots", "data"}
    assert len(world.points) > 380  # places that coincide differ from run to run


def test_every_point_is_found_named_survived_and_repaired(world: World) -> None:
    key = next(name for name in world.objects if name.startswith("keys/"))
    failures = []
    for number, point in enumerate(world.points):
        if point.name == key or not (TRY_ALL or number % 3 == 0 or point.data is None):
            continue
        try:
            check_point(world, point, is_repaired=number % 6 == 0 or point.data is None)
        except (AssertionError, PgstowError) as exc:  # all of them at once say more than the first
            failures.append(f"{point}: {type(exc).__name__}: {exc}")
    assert failures == []


def check_point(world: World, point: Point, *, is_repaired: bool) -> None:
    store = point.applied(world.objects)
    if point.name == "config":
        with pytest.raises(RepositoryDamaged, match="repo repair"):
            raise_with_hint(lambda: Repository.open(store, Secret(PASSWORD)))
    found, lost = readable_members(store, without_config=True)
    # what can be read is what was saved, and everything that cannot be read is named
    for backup, members in found.items():
        for name, data in members.items():
            assert data == world.members[backup][name], (backup, name)
    gone = set(world.ids) - set(found)
    if point.name.startswith("snapshots/"):
        assert len(gone) == 1
        assert not lost
    else:
        assert not gone
    if not (point.name.startswith("snapshots/") and point.data is None):  # which nobody remembers
        report = report_of(store)
        assert not report.is_sound
        said = named(report)
        assert lost <= {(b, p) for b, path in said for p in members_below(world, b, path)}
        for backup, path in lost:
            is_nameless = {(backup, "manifest.json"), (backup, "archive/toc.dat")} <= lost
            if (table := world.tables[backup].get(path)) and not is_nameless:
                contents = {each for problem in report.problems for each in problem.contents}
                assert table in contents, (table, contents)
    if is_repaired:
        check_repair(world, store, found, point)


def raise_with_hint(work: Callable[[], object]) -> None:
    try:
        work()
    except PgstowError as exc:
        raise type(exc)(f"{exc.message} {exc.hint}") from exc


def members_below(world: World, backup: str, path: str) -> set[str]:
    if path == "/":
        return {"/", *world.members[backup]}
    return {path, *(name for name in world.members[backup] if name.startswith(f"{path}/"))}


def check_repair(world: World, store: MemoryStore, found: dict[str, dict[str, bytes]], point: Point) -> None:
    """After a repair everything there is is whole, and everything that could be read before still can."""
    repository = Repository.open(store, Secret(PASSWORD), without_config=True)
    report = repair(repository, SilentProgress())
    is_forgotten = point.name.startswith("snapshots/") and point.data is None
    assert report.is_needed != is_forgotten
    again = Repository.open(store, Secret(PASSWORD))
    assert verify(again, read_data=True).problems == ()
    after, lost = readable_members(store)
    assert not lost
    dropped = {each.backup_id for each in report.dropped}
    for backup, members in found.items():
        if backup in dropped:
            assert backup not in after
            assert not {"archive/toc.dat", "manifest.json"} <= members.keys()
        else:
            # the repair may find more than the reader could: an index file that was lost is made again
            assert members.items() <= after[backup].items()
            kept = {name: data for name, data in after[backup].items() if not name.startswith("salvaged/")}
            assert kept.items() <= world.members[backup].items()
            for name in after[backup].keys() - kept.keys():
                check_salvaged(world, backup, name, after[backup][name])
    objects = objects_of(store)
    assert not repair(again, SilentProgress()).is_needed
    assert objects_of(store) == objects  # nothing to do: nothing changed


def check_salvaged(world: World, backup: str, name: str, data: bytes) -> None:
    """What is left of a table is rows of that table, and it is not there as a whole."""
    member = name.replace("salvaged/", "archive/").replace(".sql", ".dat")
    all_rows = world.members[backup][member].splitlines()
    head, _, rows = data.partition(b" FROM stdin;\n")
    assert head.startswith(b"-- pgstow repo repair: ")
    *left, end, empty, last = rows.splitlines()
    assert (end, empty, last) == (b"\\.", b"", b"")
    assert 0 < len(left) < len(all_rows) - 3
    assert set(left) < set(all_rows)


def test_a_damaged_only_key_opens_nothing(world: World) -> None:
    key = next(name for name in world.objects if name.startswith("keys/"))
    tried = 0
    for point in world.points:
        if point.name == key:
            with pytest.raises(PgstowError):
                Repository.open(point.applied(world.objects), Secret(PASSWORD))
            tried += 1
    assert tried > 10


def of_table(world: World, backup: str, table: str) -> tuple[str, list[tuple[bytes, int, int]]]:
    """Return the member with a table's rows, and where its blobs lie: pack, offset, length."""
    repository = Repository.open(store_of(world.objects), Secret(PASSWORD))
    repository.load_index()
    (record,) = [each for each in list_backups(repository) if each.id == backup]
    files = BackupFiles(repository, record)
    (member,) = [m for m, name in world.tables[backup].items() if name == table and m.startswith("archive/")]
    node = files.member(member)
    assert node is not None
    places = [repository.places_of(BlobKind.DATA, blob)[0] for blob in node.content]
    return member, [(place.pack_id, place.offset, place.length) for place in places]


def packs_of(world: World, backup: str, member: str) -> set[bytes]:
    """Return the packs that hold a member of a backup."""
    repository = Repository.open(store_of(world.objects), Secret(PASSWORD))
    repository.load_index()
    (record,) = [each for each in list_backups(repository) if each.id == backup]
    node = BackupFiles(repository, record).member(member)
    assert node is not None
    return {repository.places_of(BlobKind.DATA, blob)[0].pack_id for blob in node.content}


@pytest.fixture
def flipped(world: World) -> MemoryStore:
    """The repository with a bit flipped in the rows of app.notes in the first two backups."""
    _, ((pack, offset, _), *_) = of_table(world, world.ids[0], "app.notes")
    name = pack_name(pack.hex())
    data = bytearray(world.objects[name])
    data[offset + 20] ^= 4
    return store_of({**world.objects, name: bytes(data)})


def opened(store: MemoryStore, backup: str) -> BackupFiles:
    repository = Repository.open(store, Secret(PASSWORD))
    repository.load_index(damaged=[])
    return BackupFiles(repository, find_backup(repository, backup, lambda _: None))


def is_empty(target: ConnInfo) -> bool:
    return fetch(target, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [
        (0,)
    ]


def test_rows_that_are_damaged_fail_the_restore_and_name_the_table(
    world: World, flipped: MemoryStore, pg15: Cluster, database: DatabaseFactory
) -> None:
    with pytest.raises(RepositoryDamaged, match=r"rows of app\.notes are damaged"):
        bring_back(opened(flipped, world.ids[0]), database(pg15))
    target = database(pg15)
    report = bring_back(opened(flipped, world.ids[0]), target, tables=("public.orders",))
    assert [table.name for table in report.tables] == ["orders"]
    last = database(pg15)
    bring_back(opened(flipped, world.ids[2]), last)
    assert_equal_rows(world.source, last)


def test_after_a_repair_the_loss_is_known_before_anything_is_touched(
    world: World, flipped: MemoryStore, pg15: Cluster, database: DatabaseFactory
) -> None:
    report = repair(Repository.open(flipped, Secret(PASSWORD)), SilentProgress())
    assert {(each.backup_id, each.lost) for each in report.mended} == {
        (backup, ("app.notes",)) for backup in world.ids[:2]
    }
    files = opened(flipped, world.ids[0])
    assert files.record.is_damaged
    assert lost_contents(files) == ("app.notes",)
    target = database(pg15)
    with pytest.raises(RepositoryDamaged, match=r"has lost app\.notes") as caught:
        bring_back(files, target)
    assert "--table" in (caught.value.hint or "")
    assert is_empty(target)
    assert bring_back(files, target, tables=("public.orders", "public.clients")).rows == 20200
    whole = database(pg15)
    bring_back(opened(flipped, world.ids[2]), whole)
    assert_equal_rows(world.source, whole)


def test_what_is_left_of_a_table_can_be_loaded(
    world: World, pg15: Cluster, database: DatabaseFactory, tmp_path: Path
) -> None:
    """Page ranges whose blobs are whole are in a script; a second loss, in another table, does not cost it."""
    backup = world.ids[2]
    _, places = of_table(world, backup, "public.orders")
    assert len(places) > 2, "ranges, and the end of the data"
    pack, offset, _ = places[0]
    data = bytearray(world.objects[pack_name(pack.hex())])
    data[offset + 20] ^= 1
    store = store_of({**world.objects, pack_name(pack.hex()): bytes(data)})
    report = repair(Repository.open(store, Secret(PASSWORD)), SilentProgress())
    (table,) = next(each.salvaged for each in report.mended if each.backup_id == backup)
    assert (table.table, table.rows + table.lost_rows) == ("public.orders", 20000)
    files = opened(store, backup)
    name = table.path.removeprefix("/test/")
    (tmp_path / "left.sql").write_bytes(files.read(name))
    target = database(pg15)
    with pytest.raises(RepositoryDamaged, match=r"has lost public\.orders") as caught:
        bring_back(files, target)
    assert f"--tag run={backup},damaged latest {table.path}" in (caught.value.hint or "")
    execute(target, "CREATE TABLE orders (id int PRIMARY KEY, client int, note text)")
    psql = tools_for(target).pg_restore.parent / "psql"
    subprocess.run(
        [psql, "-qX", "-v", "ON_ERROR_STOP=1", "-d", target.connect_string(), "-f", tmp_path / "left.sql"],
        check=True,
    )
    rows = "SELECT id, client, note FROM orders"
    left = fetch(target, rows)
    assert len(left) == table.rows
    assert set(left) < set(fetch(world.source, rows))
    _, ((notes, *_), *_) = of_table(world, world.ids[0], "app.notes")
    store.delete(pack_name(notes.hex()))
    repair(Repository.open(store, Secret(PASSWORD)), SilentProgress())
    kept = [each for each in list_backups(Repository.open(store, Secret(PASSWORD))) if each.id == backup]
    if kept:  # unless that pack held its manifest
        assert opened(store, backup).read(name) == (tmp_path / "left.sql").read_bytes()


@pytest.mark.parametrize("is_listed", [True, False])
def test_the_end_of_the_data_is_known_though_it_is_lost(world: World, is_listed: bool) -> None:
    """One blob ends the data of all tables in all backups: its loss costs none of them."""
    _, places = of_table(world, world.ids[0], "app.notes")
    pack, offset, _ = places[-1]
    assert all(of_table(world, backup, "public.orders")[1][-1] == (pack, offset, _) for backup in world.ids)
    data = bytearray(world.objects[pack_name(pack.hex())])
    data[offset] ^= 1
    store = store_of({**world.objects, pack_name(pack.hex()): bytes(data)})
    if not is_listed:
        for info in list(store.list("index/")):
            store.delete(info.name)
    report = repair(Repository.open(store, Secret(PASSWORD)), SilentProgress())
    assert (report.mended, report.dropped, report.recreated_blobs) == ((), (), 1)
    assert readable_members(store) == (world.members, set())


def test_a_backup_after_the_repair_is_whole_again(
    world: World, flipped: MemoryStore, pg15: Cluster, database: DatabaseFactory
) -> None:
    _, ((pack, *_), *_) = of_table(world, world.ids[2], "public.clients")
    flipped.delete(pack_name(pack.hex()))
    repository = Repository.open(flipped, Secret(PASSWORD))
    assert repair(repository, SilentProgress()).is_done
    taken = capture_into(repository, world.source)
    assert verify(repository, read_data=True).is_sound
    target = database(pg15)
    bring_back(files_of(repository, taken), target)
    assert_equal_rows(world.source, target)


def test_a_missing_pack_is_noticed_before_the_target_is_touched(
    world: World, pg15: Cluster, database: DatabaseFactory
) -> None:
    _, places = of_table(world, world.ids[2], "public.orders")  # from the first backup
    names = {
        pack for name in ("manifest.json", "archive/toc.dat") for pack in packs_of(world, world.ids[2], name)
    }
    pack = next(pack for pack, *_ in places if pack not in names)  # else nothing could tell the table's name
    store = store_of({name: data for name, data in world.objects.items() if name != pack_name(pack.hex())})
    target = database(pg15)
    with pytest.raises(RepositoryDamaged, match=r"public\.orders"):
        bring_back(opened(store, world.ids[2]), target)
    assert is_empty(target)


def test_a_damaged_latest_is_not_replaced_by_an_older_one(world: World) -> None:
    snapshots = Repository.open(store_of(world.objects), Secret(PASSWORD)).snapshots()
    store = store_of({**world.objects, f"snapshots/{snapshots[-1].id}": b"nonsense"})
    notes: list[str] = []
    repository = Repository.open(store, Secret(PASSWORD))
    for text in ("latest", "test@latest", "test@2099-01-01"):
        with pytest.raises(RepositoryDamaged, match="cannot be told"):
            find_backup(repository, text, notes.append)
    assert find_backup(repository, world.ids[0], notes.append).id == world.ids[0]
    assert len(notes) == 4


def test_a_backup_is_made_beside_a_damaged_index_and_snapshot(world: World) -> None:
    index, *_ = [name for name in world.objects if name.startswith("index/")]
    snapshot, *_ = [name for name in world.objects if name.startswith("snapshots/")]
    store = store_of({**world.objects, index: b"nonsense", snapshot: b"nonsense"})
    request = backing_up.BackupRequest(source=world.source, name="test", full_read=True)
    tools = [tools_for(world.source)]
    taken = backing_up.backup(request, Repository.open(store, Secret(PASSWORD)), tools, SilentProgress())
    assert [warning.code for warning in taken.manifest.warnings] == ["repository", "repository"]
    repository = Repository.open(store, Secret(PASSWORD))
    report = verify(repository, read_data=True)
    reached = {each for problem in report.problems for each in problem.backups}
    assert taken.manifest.backup_id not in reached


@pytest.mark.parametrize("loss", ["missing", "cut off"])
def test_a_backup_takes_nothing_for_known_that_the_store_has_lost(world: World, loss: str) -> None:
    """The index lists it all the same; whoever believes that makes a backup that cannot be restored."""
    _, ((pack, *_), *_) = of_table(world, world.ids[2], "public.orders")
    store, name = store_of(world.objects), pack_name(pack.hex())
    data = store.get(name)
    store.delete(name)
    if loss == "cut off":
        store.put(name, data[: len(data) // 2])
    request = backing_up.BackupRequest(source=world.source, name="test")
    tools = [tools_for(world.source)]
    taken = backing_up.backup(request, Repository.open(store, Secret(PASSWORD)), tools, SilentProgress())
    (warning,) = [each for each in taken.manifest.warnings if each.code == "repository"]
    assert warning.message.startswith("1 pack that the index lists is missing or cut off")
    found, lost = readable_members(store)
    assert not {path for backup, path in lost if backup == taken.manifest.backup_id}
    members = found[taken.manifest.backup_id]
    for member in (m for m in world.tables[world.ids[2]] if m.startswith("archive/")):
        assert members[member] == world.members[world.ids[2]][member], "the database has not changed"


SAMPLES = ("config", "index/", "snapshots/", "data/ flipped", "data/ gone", "everything")


@pytest.mark.parametrize("kind", SAMPLES)
def test_restic_finds_nothing_wrong_after_a_repair(
    world: World, restic_binaries: list[Restic], kind: str, tmp_path: Path
) -> None:
    wanted = kind.split()
    by_name = {
        start: [p for p in world.points if p.name.startswith(start)]
        for start in ("config", "index/", "snapshots/", "data/")
    }
    if kind == "everything":
        chosen = [by_name[start][len(by_name[start]) // 2] for start in by_name]
    else:
        how = wanted[1] if len(wanted) > 1 else "flipped"
        candidates = [p for p in by_name[wanted[0]] if how in p.how]
        chosen = [candidates[len(candidates) // 3]]
    changed = dict(world.objects)
    for point in chosen:
        if point.data is None:
            del changed[point.name]
        else:
            changed[point.name] = point.data
    folder = LocalStore(tmp_path / "repository")
    for name, data in changed.items():
        folder.put(name, data)
    repository = Repository.open(folder, Secret(PASSWORD), without_config=True)
    assert repair(repository, SilentProgress()).is_done
    for restic in restic_binaries:
        restic(tmp_path / "repository", "check", "--read-data")
    if restic_binaries[-1].version >= (0, 18):
        restic_binaries[-1](
            tmp_path / "repository", "rewrite", "--exclude", "nothing-has-this-name", "--dry-run"
        )
