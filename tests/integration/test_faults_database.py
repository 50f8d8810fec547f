"""The database goes away, goes silent, or gives up in the middle of a backup or a restore.

Connections are cut and stalled at messages at equal distances through the whole conversation; PGSTOW_ALL_FAULTS=1
tries many more.
"""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from pgstow.app.backup import BackupRequest, backup
from pgstow.app.restore import restore
from pgstow.capture.contents import read_contents
from pgstow.capture.globals import capture_globals
from pgstow.capture.options import CaptureOptions
from pgstow.catalog.backups import list_backups
from pgstow.catalog.manifest import Selection
from pgstow.core.errors import ConnectionFailed, PgstowError, PostgresError, ProcessFailed, RestoreError
from pgstow.core.progress import SilentProgress
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.programs import no_timeouts
from pgstow.postgres.server import Cluster, TcpAccess
from pgstow.postgres.session import CAPTURE_SETTINGS, Connection, connect
from pgstow.postgres.tools import ClientTools, pick
from pgstow.repository import Repository
from pgstow.restore.request import RestoreOptions
from pgstow.store.memory import MemoryStore
from support.backups import capture_into
from support.fault_operation import in_a_hurry
from support.fault_world import TRY_ALL, make_database, tell
from support.oracle import contents_of
from support.proxy import MessageProxy, Then
from support.repositories import init_repository
from support.restoring import assert_equal_rows, execute, fetch
from support.waiting import until

PASSWORD = "open sesame"
SILENCE_S = 1.0
HANGS_AFTER_S = 300  # a run that takes longer waits for ever: it has no limit but this test's


@pytest.fixture(scope="module", autouse=True)
def hurry() -> Iterator[None]:
    with in_a_hurry():
        yield


@dataclass(frozen=True, kw_only=True)
class Place:
    """A server that listens on a port, its database, and a backup of that."""

    cluster: Cluster
    source: ConnInfo
    tools: list[ClientTools]
    repository: Repository

    def through(self, proxy: MessageProxy, database: str | None = None) -> ConnInfo:
        direct = self.cluster.tcp_conninfo(database or self.source.dbname or "", password=PASSWORD)
        timeout_s = 2 if proxy.will_stall else 60
        return ConnInfo.parse(
            f"{direct} host={proxy.host} port={proxy.port} sslmode=disable gssencmode=disable"
            f" connect_timeout={timeout_s}"
        )

    def proxy(self, at: int | None = None, then: Then = Then.CUT_ONE) -> MessageProxy:
        assert self.cluster.tcp is not None
        return MessageProxy(self.cluster.tcp.host, self.cluster.port, at=at, then=then)

    def back_up(self, source: ConnInfo, repository: Repository) -> None:
        backup(BackupRequest(source=source, name="shop"), repository, self.tools, SilentProgress())

    def restore(self, target: ConnInfo) -> None:
        options = RestoreOptions(create=True, no_owner=True)
        restore("latest", target, options, self.repository, self.tools, SilentProgress())


@pytest.fixture(scope="module")
def place(hurry: None, make_module_cluster: Callable[..., Cluster], client_tools: list[ClientTools]) -> Place:
    cluster = make_module_cluster(
        15,
        settings={"wal_writer_delay": "10ms", "autovacuum": "off"},
        tcp=TcpAccess(password=Secret(PASSWORD)),
    )
    source = make_database(cluster, "tiny")
    repository = init_repository(MemoryStore())
    made = Place(cluster=cluster, source=source, tools=client_tools, repository=repository)
    made.back_up(source, repository)
    return made


def chosen(total: int, tries: int) -> range:
    return range(1, total + 1, max(1, total // (tries * 20 if TRY_ALL else tries)))


def no_sessions(place: Place) -> bool:
    """Whether nobody but us is connected any more; a server needs a moment to see that a client is gone."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    with psycopg.connect(place.cluster.conninfo(), autocommit=True) as connection:
        return bool(
            until(lambda: connection.execute(query).fetchone() == (0,), "the end of all other sessions")
        )


def run_bounded(work: Callable[[], None]) -> PgstowError | None:
    """Run ``work`` and return pgstow's error, if it ended with one; a failure if it never ends."""
    ended: list[BaseException | None] = []

    def run() -> None:
        try:
            work()
        except BaseException as exc:  # noqa: BLE001  looked at below
            ended.append(exc)
        else:
            ended.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(HANGS_AFTER_S)
    assert ended, "it hangs"
    (error,) = ended
    if error is not None and not isinstance(error, PgstowError):
        raise error
    return error


# -- cut and stalled connections


def backup_with(place: Place, at: int | None, then: Then) -> tuple[int, PgstowError | None]:
    """Back up through a proxy; return how many messages there were, and the error."""
    store = MemoryStore()
    init_repository(store)
    repository = Repository.open(store, Secret("correct horse"))
    with place.proxy(at, then) as proxy:
        error = run_bounded(lambda: place.back_up(place.through(proxy), repository))
        count = proxy.count
    records = list_backups(repository)
    assert len(records) == (error is None)
    if not error:
        repository.load_index()
        (theirs,) = list_backups(place.repository)
        mine = contents_of(repository, records[0])
        members = [name for name in mine if name.startswith("archive/") and not name.endswith("toc.dat")]
        expected = contents_of(place.repository, theirs)
        assert [mine[name] for name in members] == [expected[name] for name in members]
    return count, error


def restore_with(place: Place, at: int | None, then: Then) -> tuple[int, PgstowError | None]:
    """Restore through a proxy; return how many messages there were, and the error."""
    with place.proxy(at, then) as proxy:
        error = run_bounded(lambda: place.restore(place.through(proxy, "brought_back")))
        count = proxy.count
    try:
        if error is None:
            assert_equal_rows(place.source, place.source.with_database("brought_back"))
        else:
            there = fetch(
                place.source, "SELECT count(*)::int FROM pg_database WHERE datname = 'brought_back'"
            )
            assert "dropped again" not in (error.hint or "") or there == [(0,)]
    finally:
        execute(place.source, "DROP DATABASE IF EXISTS brought_back WITH (FORCE)")
    return count, error


def be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait but a moment for what does not come."""
    monkeypatch.setattr("pgstow.postgres.silence._SILENCE_S", SILENCE_S)
    monkeypatch.setattr("pgstow.postgres.silence._ANSWER_S", SILENCE_S)
    for options in (CaptureOptions, RestoreOptions):
        monkeypatch.setitem(options.__init__.__kwdefaults__, "stall_timeout_s", SILENCE_S)
    monkeypatch.setattr("pgstow.capture.cancellation._CANCEL_TIMEOUT_S", SILENCE_S)
    monkeypatch.setattr("pgstow.restore.workers._CANCEL_TIMEOUT_S", SILENCE_S)


RUNS = {"backup": (backup_with, 8), "restore": (restore_with, 5)}


@pytest.mark.parametrize("then", Then, ids=lambda then: then.name.lower().replace("_", "-"))
@pytest.mark.parametrize("name", RUNS)
def test_the_conversation_ends_at_any_message(
    place: Place, name: str, then: Then, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, tries = RUNS[name]
    total, error = run(place, None, then)
    assert error is None
    failures: list[Exception] = []
    tried = failed = 0
    for at in chosen(total, max(2, tries // 4) if then is Then.STALL else tries):
        tried += 1
        try:
            with monkeypatch.context() as patch:
                if then is Then.STALL:
                    be_impatient(patch)
                failed += run(place, at, then)[1] is not None
            assert no_sessions(place)
        except Exception as exc:  # noqa: BLE001  the others are tried all the same
            exc.add_note(f"{name}: message {at} of {total}")
            failures.append(exc)
    tell(operation=f"{name}: {then.value}", points=total, tried=tried, failed=failed)
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {tried} messages", failures)
    assert failed > tried // 2, "the proxy hardly ever mattered"
    assert run(place, None, then)[1] is None


# -- the server


STEPS = (
    "tables listed",
    "tables locked",
    "snapshot exported",
    "newcomers locked",
    "catalog read",
    "tables read",
)


def test_a_server_that_restarts_at_any_step(
    make_cluster: Callable[..., Cluster], client_tools: list[ClientTools]
) -> None:
    own = make_cluster(15, settings={"wal_writer_delay": "10ms"})
    source = make_database(own, "tiny")
    repository = init_repository(MemoryStore())
    for number, step in enumerate(STEPS):

        def restart(at: str, wanted: str = step, mode: str = ("fast", "immediate")[number % 2]) -> None:
            if at == wanted:
                own.restart(mode)  # type: ignore[arg-type]

        with pytest.raises(PgstowError) as failed:
            capture_into(repository, source, checkpoint=restart)
        assert "connection" in str(failed.value).lower() or isinstance(failed.value, ConnectionFailed)
        assert repository.snapshots() == []
    taken = capture_into(repository, source)
    assert [(t.name, t.rows) for t in taken.manifest.tables] == [
        ("account", 200),
        ("ledger", 8000),
        ("nothing_yet", 0),
    ]


# Short enough to end a backup and a restore, long enough for the statement that switches them off on a busy machine.
TIMEOUTS = {
    "statement_timeout": "300ms",
    "lock_timeout": "300ms",
    "idle_in_transaction_session_timeout": "300ms",
    "idle_session_timeout": "1s",
    "transaction_timeout": "300ms",
}


@pytest.mark.parametrize("major", [15, 17])
def test_timeouts_of_role_and_database_do_not_apply(
    major: int, request: pytest.FixtureRequest, client_tools: list[ClientTools]
) -> None:
    cluster: Cluster = request.getfixturevalue(f"pg{major}")
    source = make_database(cluster, "impatient")
    try:
        execute(source, "CREATE ROLE hasty LOGIN SUPERUSER")
        for name, value in TIMEOUTS.items():
            if fetch(source, f"SELECT 1 FROM pg_settings WHERE name = '{name}'"):
                execute(source, f"ALTER ROLE hasty SET {name} = '{value}'")
                execute(source, f"ALTER DATABASE impatient SET {name} = '{value}'")
        hasty = ConnInfo.parse(cluster.conninfo("impatient", user="hasty"))
        with pytest.raises(psycopg.Error, match="timeout"):
            execute(hasty, "SELECT pg_sleep(1)")
        repository = init_repository(MemoryStore())
        request_ = BackupRequest(source=hasty, name="shop", limit_rate=900_000)
        taken = backup(request_, repository, client_tools, SilentProgress())
        assert taken.manifest.globals.is_captured
        assert taken.manifest.attempts == 1
        target = ConnInfo.parse(cluster.conninfo("brought_back", user="hasty"))
        options = RestoreOptions(create=True, no_owner=True)
        report = restore("latest", target, options, repository, client_tools, SilentProgress())
        assert report.rows == 8200
        assert_equal_rows(source, source.with_database("brought_back"))
    finally:
        admin = ConnInfo.parse(cluster.conninfo())
        for name in ("impatient", "brought_back"):
            execute(admin, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        execute(admin, "DROP ROLE IF EXISTS hasty")


@pytest.mark.parametrize("major", [15, 17])
def test_programs_meet_no_timeout_of_the_role(
    major: int, request: pytest.FixtureRequest, client_tools: list[ClientTools]
) -> None:
    """pg_dumpall leaves them on, and pg_dump has asked a few questions before it switches them off."""
    cluster: Cluster = request.getfixturevalue(f"pg{major}")
    admin = ConnInfo.parse(cluster.conninfo())
    execute(admin, "CREATE ROLE hasty LOGIN SUPERUSER")
    try:
        execute(admin, "ALTER ROLE hasty SET statement_timeout = '1ms'")
        hasty = ConnInfo.parse(cluster.conninfo(user="hasty"))
        tools = pick(client_tools, major * 10000)
        with connect(admin, settings=CAPTURE_SETTINGS) as connection:
            found = capture_globals(tools, hasty, connection, database="postgres", with_passwords=True)
            contents = read_contents(
                tools,
                hasty,
                snapshot=fetch_snapshot(connection),
                selection=Selection(),
                lock_timeout_s=10,
                settings=no_timeouts(connection.info.server_version),
            )
            with pytest.raises(ProcessFailed, match="no_such_setting"):  # so they do arrive
                read_contents(
                    tools,
                    hasty,
                    snapshot="none",
                    selection=Selection(),
                    lock_timeout_s=10,
                    settings={"no_such_setting": "1"},
                )
        assert found.refused == ()
        assert contents.toc.entries
    finally:
        execute(admin, "DROP ROLE hasty")


def test_globals_are_asked_for_again_when_the_connection_was_cut(place: Place, tmp_path: Path) -> None:
    tools = pick(place.tools, 150000)
    cut_once = tmp_path / "pg_dumpall"
    cut_once.write_text(
        f"#!/bin/sh\nif mkdir {tmp_path}/cut 2>/dev/null\n"
        "then echo 'pg_dumpall: error: query failed: server closed the connection unexpectedly' >&2; exit 1; fi\n"
        f'exec {tools.pg_dumpall} "$@"\n'
    )
    cut_once.chmod(0o755)
    with connect(place.source, settings=CAPTURE_SETTINGS) as connection:
        found = capture_globals(
            replace(tools, bin_dir=tmp_path),
            place.source,
            connection,
            database="postgres",
            with_passwords=False,
        )
    assert found.record.is_captured
    assert (tmp_path / "cut").exists()


def fetch_snapshot(connection: Connection) -> str:
    """Begin a transaction and return its snapshot, exported."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    row = connection.execute("SELECT pg_export_snapshot()").fetchone()
    assert row is not None
    return str(row[0], "ascii")


# -- rights


def test_rights_that_are_taken_away_in_mid_backup(place: Place) -> None:
    execute(place.source, "CREATE ROLE clerk LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO clerk")
    execute(place.source, "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO clerk")
    execute(place.source, "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO clerk")
    execute(place.source, "GRANT SELECT ON LARGE OBJECT 4711 TO clerk")
    clerk = ConnInfo.parse(place.cluster.conninfo(place.source.dbname or "", user="clerk"))
    repository = init_repository(MemoryStore())
    try:

        def revoke(step: str) -> None:
            if step == "catalog read":
                execute(place.source, "REVOKE SELECT ON ledger FROM clerk")

        with pytest.raises(PostgresError, match="permission denied for table ledger"):
            capture_into(repository, clerk, checkpoint=revoke)
        assert repository.snapshots() == []
        execute(place.source, "GRANT SELECT ON ledger TO clerk")
        assert capture_into(repository, clerk).manifest.totals.rows == 8200
    finally:
        execute(place.source, "DROP OWNED BY clerk; DROP ROLE clerk")


# -- a full disk


@dataclass(frozen=True, kw_only=True)
class SmallDisk:
    """A server whose tables do not fit, and how to give it more room."""

    database: ConnInfo
    enlarge: Callable[[], object]


@pytest.fixture
def small_disk(make_cluster: Callable[..., Cluster]) -> Iterator[SmallDisk]:
    """A database on a file system of 16 MB; where none can be mounted, files may not be larger than 24 MB."""
    own = make_cluster(15)
    folder = Path(tempfile.mkdtemp(prefix="pgstow-disk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0711", "tmpfs", folder], capture_output=True
    )
    try:
        if mounted.returncode:
            _, hard = resource.prlimit(own.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(own.pid, resource.RLIMIT_FSIZE, (24 << 20, hard))
            database = make_empty(own, "")
            yield SmallDisk(
                database=database,
                enlarge=lambda: resource.prlimit(own.pid, resource.RLIMIT_FSIZE, (hard, hard)),
            )
        else:
            owner = own.data_dir.stat()
            os.chown(folder, owner.st_uid, owner.st_gid)
            execute(ConnInfo.parse(own.conninfo()), f"CREATE TABLESPACE small LOCATION '{folder}'")
            database = make_empty(own, "TABLESPACE small")
            command = ["mount", "-o", "remount,size=300m", folder]
            yield SmallDisk(database=database, enlarge=lambda: subprocess.run(command, check=True))
    finally:
        own.stop("immediate")
        if not mounted.returncode:
            subprocess.run(["umount", folder], check=True)
        folder.rmdir()


def make_empty(cluster: Cluster, options: str) -> ConnInfo:
    execute(ConnInfo.parse(cluster.conninfo()), f"CREATE DATABASE cramped {options}")
    return ConnInfo.parse(cluster.conninfo("cramped"))


def test_a_full_disk_at_the_target_names_the_table_and_leaves_a_target_that_can_be_used(
    small_disk: SmallDisk, pg15: Cluster, database: Callable[..., ConnInfo], client_tools: list[ClientTools]
) -> None:
    source = database(pg15)
    execute(
        source,
        """CREATE TABLE small AS SELECT generate_series(1, 10) AS i;
        CREATE TABLE large AS SELECT i, repeat(md5(i::text), 30) AS f FROM generate_series(1, 30000) AS i""",
    )
    repository = init_repository(MemoryStore())
    backup(BackupRequest(source=source, name="shop"), repository, client_tools, SilentProgress())

    with pytest.raises(
        RestoreError, match=r"loading public\.large.*(No space left on device|File too large)"
    ) as failed:
        restore("latest", small_disk.database, RestoreOptions(), repository, client_tools, SilentProgress())

    assert "is incomplete" in (failed.value.hint or "")
    small_disk.enlarge()
    again = RestoreOptions(clean=True, confirm="cramped")
    restore("latest", small_disk.database, again, repository, client_tools, SilentProgress())
    assert_equal_rows(source, small_disk.database)
