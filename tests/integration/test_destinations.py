"""One backup into several repositories: folders and a bucket, and every way in which one of them goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
import pytest

from pgstow.app.backup import BackupRequest, backup, backup_all_to, backup_to
from pgstow.app.copy import CatchUp, catch_up
from pgstow.capture import logical
from pgstow.capture.destinations import Destination, Destinations
from pgstow.capture.options import CapturedBackup
from pgstow.catalog.backups import list_backups
from pgstow.core.errors import Interrupted, PgstowError, RepositoryLocked, StoreError
from pgstow.core.progress import SilentProgress
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.postgres.tools import ClientTools
from pgstow.repository import BlobIds, BlobKind, LockTimes, Repository
from pgstow.store.local import LocalStore
from pgstow.store.memory import MemoryStore
from pgstow.store.opening import open_retrying_store
from support.backups import Notes
from support.copying import quick_locks
from support.faults import Fault, FaultyStore, Kind, Point, patient
from support.oracle import Oracle, contents_of
from support.repositories import WatchedStore, init_repository, open_repository
from support.restic import PASSWORD, Restic
from support.s3 import S3Bucket

DatabaseFactory = Callable[..., ConnInfo]

SECRET = Secret(PASSWORD)

MADE = """
CREATE TABLE ledger AS SELECT i AS id, md5(i::text) || md5((-i)::text) AS entry, repeat('x', 80) AS note
    FROM generate_series(1, 8000) AS i;
CREATE TABLE account AS SELECT i AS id, 'owner ' || i AS owner FROM generate_series(1, 200) AS i;
SELECT lo_from_bytea(4711, convert_to(repeat('large', 5000), 'UTF8'));
VACUUM ledger
"""
CHANGED = "UPDATE account SET owner = 'somebody else' WHERE id % 10 = 0"


@pytest.fixture(scope="module")
def server(make_module_cluster: Callable[..., Cluster]) -> Cluster:
    return make_module_cluster(15, settings={"wal_writer_delay": "10ms", "autovacuum": "off"})


@pytest.fixture
def source(server: Cluster, database: DatabaseFactory) -> ConnInfo:
    made = database(server)
    run(made, MADE)
    return made


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with quick_locks():
        yield


def run(conninfo: ConnInfo, statements: str) -> None:
    with psycopg.connect(conninfo.connect_string(), autocommit=True) as connection:
        for statement in statements.split(";"):
            connection.execute(statement)


@pytest.fixture
def take(source: ConnInfo, client_tools: list[ClientTools]) -> Callable[..., CapturedBackup]:
    """Back up into repositories that are called a, b, c..."""

    def taking(*repositories: Repository, progress: Any = None, **options: Any) -> CapturedBackup:
        destinations = [
            Destination(name=name, open=lambda one=one: one)  # type: ignore[misc]  # a default binds it
            for name, one in zip("abc", repositories, strict=False)
        ]
        request = BackupRequest(source=source, name="shop", **options)
        return backup_to(request, destinations, client_tools, progress or SilentProgress())

    return taking


Taking = Callable[..., CapturedBackup]


def folder(path: Path) -> Repository:
    return init_repository(LocalStore(path))


def only_backup(repository: Repository) -> tuple[str, dict[str, str], bytes]:
    """Return id, contents and tree of the one backup there is, read anew."""
    fresh = open_repository(repository.store)
    (record,) = list_backups(fresh)
    return record.id, contents_of(fresh, record), record.snapshot.tree


def errors(taken: CapturedBackup) -> dict[str, str | None]:
    return {each.name: each.error.code if each.error else None for each in taken.destinations}


# -- all goes well


def test_two_folders_and_a_bucket(
    take: Taking, source: ConnInfo, tmp_path: Path, s3_bucket: S3Bucket, restic_binaries: list[Restic]
) -> None:
    """Each holds the same backup, byte for byte, under keys of its own; restic takes all of them for its own."""
    a, b = folder(tmp_path / "a"), folder(tmp_path / "b")
    c = init_repository(open_retrying_store(s3_bucket.location, s3_bucket.environ))
    first = take(a, b, c)
    assert first.is_everywhere
    assert only_backup(a) == only_backup(b) == only_backup(c)
    assert len({each.snapshot_id for each in first.destinations}) == 3
    assert first.snapshot_id == first.destinations[0].snapshot_id
    assert len({each.stats.new_bytes for each in first.destinations}) == 1
    run(source, CHANGED)
    second = take(a, b, c)
    assert second.manifest.reuse.base == first.manifest.backup_id
    assert [t.reused_ranges for t in second.manifest.tables if t.name == "ledger"] == [2]
    for number, repository in enumerate((a, b, c)):
        oracle = Oracle(restics=restic_binaries[-1:], scratch=tmp_path / f"scratch{number}")
        oracle.scratch.mkdir()
        for taken in (first, second):
            oracle.acknowledge(open_repository(repository.store), taken.manifest.backup_id)
        oracle.check(repository.store)


def test_a_new_destination_gets_everything(take: Taking, source: ConnInfo) -> None:
    """What one of them lacks is read, though the other has it; the backup after that reuses everywhere."""
    a, b = init_repository(MemoryStore()), init_repository(MemoryStore())
    alone = take(a)
    assert errors(alone) == {"a": None}
    both = take(a, b)
    assert both.manifest.reuse.base == alone.manifest.backup_id  # of which b knows nothing
    assert sum(table.reused_ranges for table in both.manifest.tables) == 0
    stats = {each.name: each.stats for each in both.destinations}
    assert stats["a"].new_bytes < both.manifest.totals.size_bytes < stats["b"].new_bytes
    assert both.manifest.totals.new_bytes <= stats["a"].new_bytes  # the manifest itself comes later
    third = take(b, a)
    assert third.manifest.reuse.base == both.manifest.backup_id
    assert [t.reused_ranges for t in third.manifest.tables if t.name == "ledger"] == [2]
    assert third.is_everywhere


def test_blobs_that_one_of_them_lost_are_read_again(take: Taking) -> None:
    """Its base is there, as a snapshot; a part of the rows is not."""
    a, b = init_repository(MemoryStore()), init_repository(MemoryStore())
    first = take(a, b)
    for name in [info.name for info in b.store.list("index/")]:
        b.store.delete(name)
    with b.lock(), b.writer() as writer:  # an index, so that it opens, of something else
        writer.save(BlobKind.DATA, b"something else")
    second = take(a, b)
    assert second.manifest.reuse.base == first.manifest.backup_id
    assert sum(table.reused_ranges for table in second.manifest.tables) == 0
    assert second.manifest.large_objects.reused == 0
    fresh = open_repository(b.store)
    (record,) = [each for each in list_backups(fresh) if each.id == second.manifest.backup_id]
    assert contents_of(fresh, record)


def test_what_only_the_first_destination_has_is_not_taken_over(take: Taking) -> None:
    """Without that the backup is not wrong but the other destination refuses it, at its very end."""
    a, b = init_repository(MemoryStore()), init_repository(MemoryStore())
    take(a)

    def in_the_first(self: Destinations, content: BlobIds, size_bytes: int) -> bool:
        sizes = [self.first.repository.blob_size(BlobKind.DATA, blob) or 0 for blob in content]
        return sum(sizes) == size_bytes

    with patch.object(Destinations, "hold", in_the_first):
        taken = take(a, b)
    assert errors(taken) == {"a": None, "b": "repository_damaged"}
    assert list_backups(b) == []
    assert take(a, b).is_everywhere


def test_every_database_of_a_server(
    server: Cluster, source: ConnInfo, client_tools: list[ClientTools]
) -> None:
    a, opened = init_repository(MemoryStore()), []

    def broken() -> Repository:
        opened.append(1)
        raise StoreError("not today")

    results = backup_all_to(
        BackupRequest(source=ConnInfo.parse(server.conninfo())),
        [Destination(name="a", open=lambda: a), Destination(name="b", open=broken)],
        client_tools,
        SilentProgress(),
    )
    taken = [each for each in results if isinstance(each, CapturedBackup)]
    assert len(taken) == len(results) >= 2
    assert {str(errors(each)) for each in taken} == {"{'a': None, 'b': 'store'}"}
    assert opened == [1]


# -- one of them goes wrong

_B_POINTS = [
    Point("list", "snapshots", 1),
    Point("put", "locks", 1),
    Point("list", "locks", 1),
    Point("list", "pgstow/leases", 1),
    Point("put", "pgstow/leases", 1),
    Point("list", "index", 1),
    Point("put", "data", 1),
    Point("put", "index", 1),
    Point("stat", "locks", 1),
    Point("list", "index", 3),
    Point("put", "pgstow/runs", 1),
    Point("put", "snapshots", 1),
]


@pytest.mark.parametrize("at", _B_POINTS, ids=str)
def test_one_fails_for_good_and_the_other_has_the_backup(
    take: Taking, tmp_path: Path, at: Point, newest_restic: Restic
) -> None:
    """Its store says no, from that request on. Then it is back: the next run is whole, and a copy fills the gap."""
    a = folder(tmp_path / "a")
    folder(tmp_path / "b")
    faulty = FaultyStore(LocalStore(tmp_path / "b"), fault=Fault(Kind.ERROR, for_ever=True), at=at)
    notes = Notes()
    taken = take(a, Repository.open(patient(faulty), SECRET), progress=notes)
    assert faulty.was_hit
    assert errors(taken) == {"a": None, "b": "store"}
    assert [note for note in notes.notes if note.startswith("b: ")]
    assert taken.snapshot_id == taken.destinations[0].snapshot_id
    assert only_backup(a)[0] == taken.manifest.backup_id
    b = open_repository(LocalStore(tmp_path / "b"))
    assert list_backups(b) == []
    again = take(a, b)
    assert again.is_everywhere
    missed = catch_up(a, b, CatchUp(since=taken.manifest.started), SilentProgress())
    assert [each.snapshot.tree for each in missed.copied] == [
        each.snapshot.tree for each in list_backups(a) if each.id == taken.manifest.backup_id
    ]
    for path in ("a", "b"):
        if at.method == "put" and at.folder in ("data", "snapshots"):
            newest_restic(tmp_path / path, "check", "--read-data")


@pytest.mark.parametrize("number", [1, 4, 8, 12, 17])
def test_a_fault_of_the_first_destination_leaves_the_second(take: Taking, number: int) -> None:
    """Whatever is asked of it: the base is read there, and its numbers stand in the manifest."""
    a, b = init_repository(MemoryStore()), init_repository(MemoryStore())
    take(a, b)
    watched = FaultyStore(a.store)
    take(Repository.open(watched, SECRET), b)
    points = [point for point in watched.points if point.method != "delete"]
    opening = [point for point in points if point.folder in ("keys", "config")]
    at = points[len(opening) :][number * (len(points) - len(opening)) // 20]
    faulty = FaultyStore(a.store)
    first = Repository.open(patient(faulty), SECRET)
    faulty.fault, faulty.at = Fault(Kind.ERROR, for_ever=True), at
    taken = take(first, b)
    assert errors(taken)["b"] is None
    fresh = open_repository(b.store)
    (record,) = [each for each in list_backups(fresh) if each.id == taken.manifest.backup_id]
    assert contents_of(fresh, record)


def test_both_fail(take: Taking) -> None:
    stores = [FaultyStore(init_repository(MemoryStore()).store) for _ in range(2)]
    repositories = [Repository.open(store, SECRET) for store in stores]
    for store, kind in zip(stores, (Kind.FULL, Kind.DENIED), strict=True):
        store.fault, store.at = Fault(kind, for_ever=True), Point("put", "data", 1)
    with pytest.raises(
        PgstowError, match=r"no destination is left: a: .*no space left.*; b: .*denied"
    ) as raised:
        take(*repositories)
    assert raised.value.code == "repository"
    for store in stores:
        assert list_backups(Repository.open(store.inner, SECRET)) == []


def test_one_is_locked(take: Taking) -> None:
    a, b = init_repository(MemoryStore()), init_repository(MemoryStore())
    with open_repository(b.store).lock(exclusive=True):
        taken = take(a, b)
        assert errors(taken) == {"a": None, "b": "repository_locked"}
        with (
            open_repository(a.store).lock(exclusive=True),
            pytest.raises(RepositoryLocked, match="no destination"),
        ):
            take(a, b)
    assert take(a, b).is_everywhere


def test_who_lost_its_lock_in_mid_run_is_dropped(take: Taking) -> None:
    """As after a machine was asleep, but for one of the stores only."""
    a, b = init_repository(MemoryStore()), init_repository(WatchedStore())
    late_s = [0.0]
    b.lock_times = LockTimes(settle_s=0.01, clock_s=lambda: late_s[0])

    def before(method: str, name: str) -> None:
        if (method, name[:5]) == ("put", "data/"):
            late_s[0] = 31 * 60.0

    b.store.before = before  # type: ignore[attr-defined]  # a WatchedStore
    taken = take(a, b)
    assert errors(taken) == {"a": None, "b": "repository_locked"}
    assert list_backups(open_repository(b.store)) == []


def test_the_source_failing_is_the_whole_run_s_failure(take: Taking, source: ConnInfo) -> None:
    a, b = init_repository(MemoryStore()), init_repository(MemoryStore())
    with (
        patch.object(logical, "_refuse_changed_types", side_effect=PgstowError("no more")),
        pytest.raises(PgstowError, match="^no more$"),
    ):
        take(a, b)
    assert list_backups(a) == list_backups(b) == []


# -- interruptions


def interrupt_at(repository: Repository, method: str, prefix: str) -> None:
    calls = iter([Interrupted("by you")])

    def before(called: str, name: str) -> None:
        if called == method and name.startswith(prefix):
            for exc in calls:
                raise exc

    repository.store.before = before  # type: ignore[attr-defined]  # a WatchedStore


def test_interrupted_between_two_destinations(take: Taking) -> None:
    """The first one has the backup, and that is said; the second gets it another time."""
    a, b = init_repository(WatchedStore()), init_repository(WatchedStore())
    interrupt_at(b, "stat", "locks/")
    taken = take(a, b)
    assert errors(taken) == {"a": None, "b": "interrupted"}
    assert taken.interrupted is not None
    assert len(list_backups(a)) == 1
    assert list_backups(b) == []


@pytest.mark.parametrize("has_second", [True, False])
def test_an_interruption_too_late_for_one_database_ends_the_set(
    server: Cluster, source: ConnInfo, client_tools: list[ClientTools], has_second: bool
) -> None:
    """It comes when the first backup is there, at the second destination or while locks are given back."""
    a, b = init_repository(WatchedStore()), init_repository(WatchedStore())
    if has_second:
        interrupt_at(b, "stat", "locks/")
    else:
        interrupt_at(a, "delete", "locks/")
    destinations = [Destination(name="a", open=lambda: a), Destination(name="b", open=lambda: b)]
    request = BackupRequest(source=ConnInfo.parse(server.conninfo()))
    with pytest.raises(Interrupted) as raised:
        backup_all_to(request, destinations[: 1 + has_second], client_tools, SilentProgress())
    assert raised.value.left_behind is not None
    assert raised.value.left_behind.startswith("1 of ")
    assert len(list_backups(open_repository(a.store))) == 1


def test_interrupted_before_anyone_has_it(take: Taking) -> None:
    a, b = init_repository(WatchedStore()), init_repository(WatchedStore())
    interrupt_at(a, "stat", "locks/")
    with pytest.raises(Interrupted):
        take(a, b)
    assert list_backups(a) == list_backups(b) == []
    assert take(a, b).is_everywhere


# -- what runs beside each other


def test_leases_are_taken_in_one_order_whatever_the_order_of_destinations(take: Taking) -> None:
    taken: list[str] = []

    def noting(repository: Repository) -> None:
        def before(method: str, name: str) -> None:
            if method == "put" and name.startswith("pgstow/leases/") and repository.id not in taken:
                taken.append(repository.id)

        repository.store.before = before  # type: ignore[attr-defined]  # a WatchedStore

    repositories = [init_repository(WatchedStore()) for _ in range(3)]
    for one in repositories:
        noting(one)
    for order in (repositories, repositories[::-1]):
        taken.clear()
        take(*order, wait_s=5.0)  # who waits takes one after the other
        assert taken == sorted(one.id for one in repositories)


def test_alarms_count_wherever_they_were_raised(take: Taking, source: ConnInfo) -> None:
    """A backup that only one destination has raised an alarm: its base is none in any of them."""
    a, b = init_repository(MemoryStore()), init_repository(MemoryStore())
    first = take(a, b)
    with patch("pgstow.capture.reuse.Reuse.checked", lambda self, _ranges: self.alarm("seen in a test")):
        alarmed = take(b)
    assert alarmed.manifest.reuse.alarms
    with patch("pgstow.capture.bases._BASES_LOOKED_AT", 2):
        second = take(a, b)
    assert second.manifest.reuse.base == alarmed.manifest.backup_id
    assert first.manifest.backup_id in second.manifest.reuse.distrusted


def test_one_destination_is_what_a_backup_always_was(
    source: ConnInfo, client_tools: list[ClientTools]
) -> None:
    repository = init_repository(MemoryStore())
    taken = backup(BackupRequest(source=source, name="shop"), repository, client_tools, SilentProgress())
    (result,) = taken.destinations
    assert result.location == repository.store.location
    assert result.snapshot_id == taken.snapshot_id
    assert taken.is_everywhere
