"""Several backups at once, of one database and of many, from one host and from two, beside restic's own work."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
import pytest

from pgstow.app.backup import BackupRequest, FailedBackup, backup, backup_all
from pgstow.app.doctor import RepositoryToCheck, diagnose
from pgstow.app.findings import Level
from pgstow.assurance.verify import verify
from pgstow.capture.options import CapturedBackup
from pgstow.catalog.backups import list_backups
from pgstow.core.errors import ProcessFailed, RepositoryLocked
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.postgres.tools import ClientTools
from pgstow.repository import LockTimes, Repository
from pgstow.repository.holder import Holder
from pgstow.store.api import Store
from pgstow.store.local import LocalStore
from pgstow.store.opening import open_retrying_store
from support.backups import Notes
from support.repositories import WatchedStore, init_repository, open_repository
from support.restic import PASSWORD, Restic
from support.s3 import S3Bucket
from support.write_once import WriteOnceStore

DatabaseFactory = Callable[..., ConnInfo]


def fill(source: ConnInfo, rows: int = 3000) -> ConnInfo:
    with psycopg.connect(source.connect_string(), autocommit=True) as connection:
        connection.execute(f"CREATE TABLE t AS SELECT i, md5(i::text) AS f FROM generate_series(1, {rows}) i")
    return source


@pytest.fixture
def shop(pg15: Cluster, database: DatabaseFactory) -> ConnInfo:
    return fill(database(pg15))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    init_repository(LocalStore(folder))
    return folder


@contextlib.contextmanager
def host(name: str) -> Iterator[None]:
    """Everything in the block is done by a process of another machine."""
    there = replace(Holder.current(), hostname=name, boot_id=f"boot of {name}")
    with patch.object(Holder, "current", classmethod(lambda _: there)):
        yield


class Gate:
    """Holds a backup up at its first pack until it is opened."""

    def __init__(self, store: Store) -> None:
        self.store = WatchedStore(inner=store, before=self._before)
        self.reached, self.opened = threading.Event(), threading.Event()

    def _before(self, method: str, name: str) -> None:
        if method == "put" and name.startswith("data/"):
            self.reached.set()
            assert self.opened.wait(60)

    @contextlib.contextmanager
    def holding_up(self, work: Callable[[Repository], Any]) -> Iterator[Any]:
        """Run ``work`` in a thread up to its first pack; yield its future. The end of the block waits for it."""
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(work, open_repository(self.store))
            try:
                assert self.reached.wait(60)
                yield future
            finally:
                self.opened.set()
        future.result()


def backup_of(
    source: ConnInfo, tools: list[ClientTools], *, progress: Notes | None = None, **options: Any
) -> Callable[[Repository], CapturedBackup]:
    request = BackupRequest(source=source, **options)
    return lambda repository: backup(request, repository, tools, progress or Notes())


def test_a_second_backup_of_a_database_gives_way_or_waits(
    shop: ConnInfo, folder: Path, client_tools: list[ClientTools]
) -> None:
    """Under whatever name, from whatever host: it is the same database."""
    gate = Gate(LocalStore(folder))
    repository = open_repository(LocalStore(folder))
    repository.lock_times = LockTimes(conflict_s=0.05)
    notes = Notes()

    def note(message: str) -> None:
        notes.notes.append(message)
        gate.opened.set()

    notes.note = note  # type: ignore[method-assign]
    with gate.holding_up(backup_of(shop, client_tools, name="shop")) as first:
        for where in (contextlib.nullcontext(), host("db7")):
            with (
                where,
                pytest.raises(
                    RepositoryLocked, match="other is being backed up, under the name shop, by PID"
                ) as caught,
            ):
                backup_of(shop, client_tools, name="other")(repository)
            assert caught.value.exit_code == 11
        assert list_backups(repository) == []
        with pytest.raises(RepositoryLocked):
            backup_of(shop, client_tools, name="shop", wait_s=0.2)(open_repository(LocalStore(folder)))
        second = backup_of(shop, client_tools, name="shop", wait_s=60, progress=notes)(repository)
    assert any(message.endswith("; waiting for it") for message in notes.notes)
    assert second.manifest.reuse.base == first.result().manifest.backup_id, "it was looked for after the wait"
    assert len(list_backups(repository)) == 2


def test_credentials_that_may_only_add_are_enough(
    shop: ConnInfo, folder: Path, client_tools: list[ClientTools], restic: Restic
) -> None:
    """They read, list and create: nothing is overwritten or removed, in one backup after the other."""
    store = WriteOnceStore(LocalStore(folder))
    taken = [backup_of(shop, client_tools)(open_repository(store)) for _ in range(2)]
    assert taken[1].manifest.reuse.base == taken[0].manifest.backup_id
    assert verify(open_repository(store), read_data=True).problems == ()
    assert store.denied
    restic(folder, "check", "--no-lock")


def test_an_exclusive_lock_is_waited_for(
    shop: ConnInfo, folder: Path, client_tools: list[ClientTools]
) -> None:
    repository, other = open_repository(LocalStore(folder)), open_repository(LocalStore(folder))
    repository.lock_times = LockTimes(conflict_s=0.05)
    with other.lock(exclusive=True):
        with pytest.raises(RepositoryLocked, match="locked exclusively"):
            backup_of(shop, client_tools)(repository)
        with pytest.raises(RepositoryLocked, match="locked exclusively"):
            backup_of(shop, client_tools, wait_s=0.1)(repository)
    released = threading.Event()
    notes = Notes()
    notes.note = lambda _: released.set()  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as held:
        held.enter_context(other.lock(exclusive=True))
        waiting = pool.submit(backup_of(shop, client_tools, wait_s=60, progress=notes), repository)
        assert released.wait(60)
        held.close()
        assert waiting.result().manifest.totals.rows == 3000


def test_a_conflict_that_only_the_second_look_finds_is_waited_for(
    shop: ConnInfo, folder: Path, client_tools: list[ClientTools]
) -> None:
    other = open_repository(LocalStore(folder))
    store = WatchedStore(inner=LocalStore(folder))
    there = replace(Holder.current(), hostname="elsewhere", boot_id="another boot")
    with patch.object(Holder, "current", classmethod(lambda _: there)), other.lock(exclusive=True) as lock:
        name = f"locks/{lock.id}"
        content = store.get(name)
    listed = 0

    def appear(method: str, prefix: str) -> None:
        nonlocal listed
        if (method, prefix) == ("list", "locks/"):
            listed += 1
            if listed == 2:
                store.inner.put(name, content)
            if listed == 3:
                store.inner.delete(name)

    repository = open_repository(store)
    repository.lock_times = LockTimes(settle_s=0, conflict_s=0.01)
    store.before = appear
    assert backup_of(shop, client_tools, wait_s=60)(repository).manifest.totals.rows == 3000
    assert listed >= 4


def test_many_databases_at_once_beside_restic(
    make_cluster: Callable[..., Cluster],
    folder: Path,
    tmp_path: Path,
    client_tools: list[ClientTools],
    restic: Restic,
) -> None:
    cluster = make_cluster(15)
    names = ["shop", "books", "mail"]
    with psycopg.connect(cluster.conninfo(), autocommit=True) as admin:
        for name in names:
            admin.execute(f"CREATE DATABASE {name}")
    sources = [fill(ConnInfo.parse(cluster.conninfo(name))) for name in names]
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "letter").write_text("of restic's own")
    gate = Gate(LocalStore(folder))
    with (
        ThreadPoolExecutor(4) as pool,
        gate.holding_up(backup_of(sources[0], client_tools)) as first,
    ):
        others = [
            pool.submit(backup_of(source, client_tools), open_repository(LocalStore(folder)))
            for source in sources[1:]
        ]
        beside = [
            pool.submit(restic, folder, "backup", tmp_path / "files"),
            pool.submit(restic, folder, "check", "--no-lock"),
        ]
        with pytest.raises(ProcessFailed, match="lock"):
            restic(folder, "check")
        restic(folder, "unlock")  # finds nothing dead
        everything = backup_all(
            BackupRequest(source=sources[0].with_database("postgres")),
            open_repository(LocalStore(folder)),
            client_tools,
            Notes(),
        )
        for future in [*others, *beside]:
            future.result()
    taken = [future.result().manifest.backup_id for future in [first, *others]]
    by_result = {type(result) for result in everything}
    assert by_result == {CapturedBackup, FailedBackup}, "one was busy, the rest of the set went on"
    refused = [result for result in everything if isinstance(result, FailedBackup)]
    assert {type(each.error) for each in refused} == {RepositoryLocked}
    assert "shop" in {each.database for each in refused}
    repository = open_repository(LocalStore(folder))
    assert set(taken) <= {record.id for record in list_backups(repository)}
    assert len(repository.snapshots()) == 3 + len(everything) - len(refused) + 1
    restic(folder, "check", "--read-data")
    assert verify(repository, read_data=True).problems == ()
    assert list((folder / "locks").glob("*")) == []


def test_in_a_bucket(
    s3_bucket: S3Bucket, shop: ConnInfo, client_tools: list[ClientTools], newest_restic: Restic
) -> None:
    """The lease is a conditional create of the store's there, and its clock is the server's."""
    store = open_retrying_store(s3_bucket.location, s3_bucket.environ)
    init_repository(store)
    gate = Gate(store)
    with (
        gate.holding_up(backup_of(shop, client_tools)),
        pytest.raises(RepositoryLocked, match="is being backed up by PID"),
    ):
        backup_of(shop, client_tools)(open_repository(store))
    backup_of(shop, client_tools)(open_repository(store))
    stored = s3_bucket.keys()
    assert [int(key.rpartition("/")[2]) for key in stored if "/pgstow/leases/" in key] == [2]
    assert len([key for key in stored if "/pgstow/runs/" in key]) == 2
    newest_restic.with_environ(**s3_bucket.environ)(s3_bucket.restic_location, "check", "--read-data")


# -- clocks


def shifted(folder: Path, minutes: float) -> Repository:
    repository = open_repository(LocalStore(folder))
    times = LockTimes()
    repository.lock_times = replace(times, now=lambda: times.now() + timedelta(minutes=minutes))
    return repository


@pytest.mark.parametrize("minutes", [10, -10])
def test_clocks_ten_minutes_apart_are_harmless(
    shop: ConnInfo,
    pg15: Cluster,
    database: DatabaseFactory,
    folder: Path,
    client_tools: list[ClientTools],
    newest_restic: Restic,
    minutes: float,
) -> None:
    """Two hosts at once, one of them with the wrong time, and restic with the right one."""
    books = fill(database(pg15))
    gate = Gate(LocalStore(folder))
    with gate.holding_up(backup_of(shop, client_tools)):
        wrong = shifted(folder, minutes)
        with host("db7"):
            notes = Notes()
            taken = backup_of(books, client_tools, progress=notes)(wrong)
            with pytest.raises(RepositoryLocked, match="is being backed up"):
                backup_of(shop, client_tools)(wrong)
            with pytest.raises(RepositoryLocked), wrong.lock(exclusive=True):
                pytest.fail("the other host is at work")
            with wrong.lock() as lock:
                newest_restic(folder, "unlock")
                lock.confirm()
                with pytest.raises(ProcessFailed, match="lock"):
                    newest_restic(folder, "check")
        assert [warning.code for warning in taken.manifest.warnings if warning.code == "clock"] == []
        assert notes.notes == []
    newest_restic(folder, "check")


@pytest.mark.parametrize(("minutes", "words"), [(20, "20 minutes ahead of"), (-20, "20 minutes behind")])
def test_clocks_twenty_minutes_apart_are_told(
    shop: ConnInfo, folder: Path, client_tools: list[ClientTools], minutes: float, words: str
) -> None:
    notes = Notes()
    taken = backup_of(shop, client_tools, progress=notes)(shifted(folder, minutes))
    (warning,) = [warning for warning in taken.manifest.warnings if warning.code == "clock"]
    assert f"{words} the store's: unsupported beside restic clients" in warning.message
    assert notes.notes == [f"warning: {warning.message}"]


@pytest.mark.parametrize(("minutes", "level"), [(0, Level.OK), (-14, Level.OK), (20, Level.WARNING)])
def test_the_doctor_compares_with_the_store_s_clock(
    shop: ConnInfo, folder: Path, client_tools: list[ClientTools], minutes: float, level: Level
) -> None:
    place = RepositoryToCheck(store=LocalStore(folder), folder=folder, password=Secret(PASSWORD))
    before = sorted(path for path in folder.rglob("*") if path.is_file())
    now = LockTimes().now
    report = diagnose(
        shop, tools=client_tools, repository=place, clock=lambda: now() + timedelta(minutes=minutes)
    )
    (found,) = [each for each in report.findings if each.code == "store_clock"]
    assert found.level is level
    assert report.would_work
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == before
