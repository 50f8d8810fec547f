"""Reading must not harm the server: its cache, its standbys, its users."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from pgstow.catalog.manifest import Selection
from pgstow.core.errors import ConnectionFailed, SourceMoved
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster, TcpAccess
from support.backups import Notes, capture_into, files_of, memory_repository, pg_dump_directory, tools_for
from support.proxy import StallingProxy

pytestmark = pytest.mark.integration

DatabaseFactory = Callable[..., ConnInfo]
ClusterFactory = Callable[..., Cluster]


def execute(conninfo: ConnInfo, *statements: str) -> None:
    with psycopg.connect(conninfo.connect_string(), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[arg-type]


def cached_pages(conninfo: ConnInfo, table: str) -> int:
    with psycopg.connect(conninfo.connect_string()) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_buffercache WHERE relfilenode = pg_relation_filenode(%s::regclass)"
            " AND reldatabase = (SELECT oid FROM pg_database WHERE datname = current_database())",
            (table,),
        ).fetchone()
        assert row is not None
        return int(row[0])


def test_hot_table_stays_cached_while_a_large_one_is_read(
    make_cluster: ClusterFactory, database: DatabaseFactory
) -> None:
    own = make_cluster(15, settings={"shared_buffers": "16MB", "autovacuum": "off"})
    source = database(own)
    execute(
        source,
        "CREATE EXTENSION pg_buffercache",
        "CREATE TABLE hot AS SELECT i AS id, repeat('h', 400) AS f FROM generate_series(1, 8000) AS i",
        "CREATE TABLE large AS SELECT i AS id, repeat('x', 900) AS f FROM generate_series(1, 60000) AS i",
        "VACUUM hot",
        "VACUUM large",
        "CHECKPOINT",
    )

    def warm() -> int:
        for _ in range(2):
            execute(source, "SELECT count(*) FROM hot")
        return cached_pages(source, "hot")

    before = warm()
    assert before > 400
    without_hot = Selection(exclude_tables=("hot",))  # reading it would bring it back into the cache
    backup = capture_into(memory_repository(), source, selection=without_hot)
    assert backup.manifest.tables[0].ranges is not None, (
        "the large table has page ranges, so it was scanned twice"
    )
    assert cached_pages(source, "hot") >= before * 0.95
    warm()
    split = capture_into(memory_repository(), source, selection=without_hot, split_big_tables=True)
    assert [record.read_by for record in split.manifest.tables if record.name == "large"] == ["tid-ranges"]
    assert cached_pages(source, "hot") < before * 0.95, (
        "TID ranges bypass the ring buffer: this test can fail"
    )


@pytest.fixture
def standby(make_cluster: ClusterFactory) -> tuple[Cluster, Cluster]:
    settings = {"max_standby_streaming_delay": "0", "hot_standby_feedback": "off", "wal_keep_size": "64MB"}
    primary = make_cluster(15, settings=settings)
    return primary, make_cluster(15, settings=settings, standby_of=primary)


def wait_for_replay(primary: Cluster, standby: Cluster) -> None:
    with psycopg.connect(primary.conninfo()) as connection:
        row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    assert row is not None
    with psycopg.connect(standby.conninfo(), autocommit=True) as connection:
        while connection.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", row).fetchone() != (True,):
            time.sleep(0.05)


def test_backup_of_a_hot_standby(standby: tuple[Cluster, Cluster], tmp_path: Path) -> None:
    primary, replica = standby
    execute(
        ConnInfo.parse(primary.conninfo()),
        "CREATE TABLE t AS SELECT i AS id, repeat('x', 100) AS f FROM generate_series(1, 30000) AS i",
        "CREATE UNLOGGED TABLE volatile AS SELECT 1 AS n",
        "SELECT lo_from_bytea(77, 'on the standby too')",
    )
    wait_for_replay(primary, replica)
    source = ConnInfo.parse(replica.conninfo())
    repository = memory_repository()
    backup = capture_into(repository, source)
    assert backup.manifest.server.is_standby
    files = files_of(repository, backup)
    expected = pg_dump_directory(tools_for(source), source, tmp_path / "dump")
    held = {name.removeprefix("archive/") for name, _ in files.members() if name.startswith("archive/")}
    assert held == set(expected)
    assert [record.rows for record in backup.manifest.tables] == [30000]


def test_recovery_conflict_on_a_standby_is_retried_then_reported(standby: tuple[Cluster, Cluster]) -> None:
    primary, replica = standby
    source = ConnInfo.parse(replica.conninfo())
    at_primary = ConnInfo.parse(primary.conninfo())
    execute(
        at_primary,
        "CREATE TABLE t AS SELECT i AS id, repeat('x', 1000) AS f FROM generate_series(1, 8000) AS i",
    )
    wait_for_replay(primary, replica)
    conflicts = 0

    def conflict(step: str) -> None:
        nonlocal conflicts
        if step == "catalog read":
            conflicts += 1
            execute(at_primary, f"DELETE FROM t WHERE id % 10 = {conflicts}", "VACUUM (FREEZE) t")
            wait_for_replay(primary, replica)

    notes = Notes()
    with pytest.raises(SourceMoved) as caught:
        capture_into(memory_repository(), source, checkpoint=conflict, progress=notes, limit_rate=3_000_000)
    assert "hot_standby_feedback" in (caught.value.hint or "")
    assert conflicts == 3
    assert sum("beginning anew" in note for note in notes.notes) == 2
    assert capture_into(memory_repository(), source).manifest.tables[0].rows < 8000


def test_peer_that_goes_silent_is_noticed(make_cluster: ClusterFactory, database: DatabaseFactory) -> None:
    own = make_cluster(15, tcp=TcpAccess(password=Secret("tcp pass")))
    source = database(own)
    execute(
        source, "CREATE TABLE t AS SELECT i AS id, repeat('x', 1000) AS f FROM generate_series(1, 30000) AS i"
    )
    direct = ConnInfo.parse(own.tcp_conninfo(source.dbname or "", password="tcp pass"))
    with StallingProxy(direct.params["host"], int(direct.params["port"])) as proxy:
        through = ConnInfo.parse(
            f"{direct.connect_string()} host={proxy.host} port={proxy.port} sslmode=disable"
        )

        class SilentAfterTheFirstRows(Notes):
            def advance(self, *, rows: int = 0, size_bytes: int = 0) -> None:
                proxy.stall()

        with pytest.raises(ConnectionFailed, match="sent nothing"):
            capture_into(
                memory_repository(),
                through,
                progress=SilentAfterTheFirstRows(),
                stall_timeout_s=1.5,
                limit_rate=5_000_000,
                attempts=1,
            )


@pytest.mark.parametrize("split", [False, True])
def test_a_reindex_does_not_wait_for_the_end(
    pg15: Cluster, database: DatabaseFactory, *, split: bool
) -> None:
    """Asking for fingerprints locks the indexes of a table, which plain COPY does not."""
    source = database(pg15)
    execute(
        source,
        "CREATE TABLE t AS SELECT i AS n, repeat('x', 1000) AS f FROM generate_series(1, 20000) AS i",
        "CREATE INDEX ON t (n)",
    )
    ended = threading.Event()

    def reindex() -> None:
        execute(source, "REINDEX TABLE t")
        ended.set()

    thread = threading.Thread(target=reindex)
    started = threading.Event()

    class Slowly(Notes):
        def advance(self, *, rows: int = 0, size_bytes: int = 0) -> None:
            if not started.is_set():  # the first rows are there: the table was fingerprinted
                started.set()
                thread.start()
            time.sleep(0.05 if not ended.is_set() else 0)

    notes = Slowly()
    taken = capture_into(
        memory_repository(), source, progress=notes, max_blocking_s=1, attempts=3, split_big_tables=split
    )
    thread.join()
    assert taken.manifest.tables[0].rows == 20000
    assert taken.manifest.attempts >= 1


def test_a_waiter_in_another_database_is_none_of_ours(pg15: Cluster, database: DatabaseFactory) -> None:
    """Databases made from one template have tables of the same OID."""
    source = database(pg15)
    execute(
        source, "CREATE TABLE t AS SELECT i AS n, repeat('x', 1000) AS f FROM generate_series(1, 5000) AS i"
    )
    twin = database(pg15, options=f"TEMPLATE {source.dbname}")
    with psycopg.connect(twin.connect_string()) as holder:
        holder.execute("LOCK TABLE t IN ACCESS SHARE MODE")

        def queue(step: str) -> None:
            if step == "catalog read":
                waiter = threading.Thread(
                    target=lambda: execute(twin, "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE; COMMIT"),
                    daemon=True,
                )
                waiter.start()

        taken = capture_into(
            memory_repository(),
            source,
            checkpoint=queue,
            max_blocking_s=0.5,
            limit_rate=2_000_000,
            attempts=1,
        )
    assert taken.manifest.attempts == 1
