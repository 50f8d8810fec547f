"""What a backup holds, against what pg_dump would have written."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from pgstow.capture.ranges import decode_ranges
from pgstow.catalog.backups import BackupFiles
from pgstow.core.errors import GaveWay, Interrupted, PgstowError, PostgresError, SourceMoved
from pgstow.postgres.archive import TABLE_DATA_TRAILER, read_directory_toc
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from support import backups
from support.backups import Notes, capture_into, files_of, memory_repository, pg_dump_directory, tools_for
from support.every_kind import HOSTILE, create_every_kind
from support.waiting import until

pytestmark = pytest.mark.integration

DatabaseFactory = Callable[..., ConnInfo]


def execute(conninfo: ConnInfo, *statements: str) -> None:
    with psycopg.connect(conninfo.connect_string(), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[arg-type]


def members(files: BackupFiles) -> dict[str, bytes]:
    return {
        name.removeprefix("archive/"): b"".join(files.stream(name))
        for name, _ in files.members()
        if name.startswith("archive/")
    }


def assert_equals_pg_dump(files: BackupFiles, expected: dict[str, bytes]) -> None:
    ours = members(files)
    assert ours.keys() == expected.keys()
    for name in expected.keys() - {"toc.dat"}:
        assert ours[name] == expected[name], f"member {name} differs"
    toc, theirs = read_directory_toc(ours["toc.dat"]), read_directory_toc(expected["toc.dat"])
    assert toc.entries == theirs.entries
    assert toc.header.version == theirs.header.version


def table(files: BackupFiles, name: str) -> bytes:
    (record,) = [record for record in files.manifest.tables if record.name == name]
    return b"".join(files.stream(record.member)).removesuffix(TABLE_DATA_TRAILER)


def test_every_kind_equals_pg_dump_member_by_member(
    cluster: Cluster, database: DatabaseFactory, tmp_path: Path
) -> None:
    execute(ConnInfo.parse(cluster.conninfo()), "DROP ROLE IF EXISTS kinds_owner", "CREATE ROLE kinds_owner")
    source = database(cluster)
    create_every_kind(source, role="kinds_owner")
    tools = tools_for(source)
    repository = memory_repository()
    backup = capture_into(repository, source, jobs=3)
    files = files_of(repository, backup)
    assert_equals_pg_dump(files, pg_dump_directory(tools, source, tmp_path / "dump"))
    manifest = files.manifest
    assert manifest == backup.manifest
    assert manifest.large_objects.count == 3
    assert manifest.large_objects.size_bytes == 3_200_012
    assert {e.name for e in manifest.extensions} == {"plpgsql"}
    assert any(record.name == HOSTILE for record in manifest.tables)
    many = next(record for record in manifest.tables if record.name == "many_pages")
    assert many.ranges is not None
    execute(source, "DROP OWNED BY kinds_owner CASCADE")


def test_counts_and_ranges_are_those_of_the_rows(pg16: Cluster, database: DatabaseFactory) -> None:
    source = database(pg16)
    create_every_kind(source)
    repository = memory_repository()
    files = files_of(repository, capture_into(repository, source))
    with psycopg.connect(source.connect_string()) as connection:
        for record in files.manifest.tables:
            query = sql.SQL("SELECT count(*) FROM ONLY {}").format(
                sql.Identifier(record.schema_, record.name)
            )
            assert connection.execute(query).fetchone() == (record.rows,), record.name
            data = b"".join(files.stream(record.member))
            assert len(data) == record.size_bytes
            if record.ranges:
                pages, ranges = decode_ranges(files.read(record.ranges))
                listed = list(ranges)
                assert pages == record.pages_per_range
                assert len(listed) == -(-record.pages // pages)
                assert sum(r.rows for r in listed) == record.rows
                assert sum(r.size_bytes for r in listed) + len(TABLE_DATA_TRAILER) == record.size_bytes
                node = files.member(record.member)
                assert node is not None
                assert sum(r.blobs for r in listed) + 1 == len(node.content)


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_JP", "SQL_ASCII", "WIN1251"])
def test_databases_in_other_encodings(
    pg15: Cluster, database: DatabaseFactory, tmp_path: Path, encoding: str
) -> None:
    options = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    source = database(pg15, options=options)
    word = {"LATIN1": "grün", "EUC_JP": "日本", "WIN1251": "привет", "SQL_ASCII": "raw"}[encoding]
    execute(source, f'SET client_encoding = \'UTF8\'; CREATE TABLE "{word}" (id int, "{word}" text)')
    execute(
        source,
        f"SET client_encoding = 'UTF8'; INSERT INTO \"{word}\" VALUES (1, '{word}'), (2, E'a\\tb\\\\')",
    )
    if encoding == "SQL_ASCII":
        execute(source, "INSERT INTO raw VALUES (3, convert_from('\\xff80fe', 'SQL_ASCII'))")
    repository = memory_repository()
    files = files_of(repository, capture_into(repository, source))
    assert_equals_pg_dump(files, pg_dump_directory(tools_for(source), source, tmp_path / "dump"))
    if encoding != "SQL_ASCII":
        assert [record.name for record in files.manifest.tables] == [word]


def test_unchanged_data_costs_nothing_and_a_change_costs_its_pages(
    pg15: Cluster, database: DatabaseFactory
) -> None:
    source = database(pg15)
    execute(
        source,
        "CREATE TABLE big (id int, filler text)",
        "INSERT INTO big SELECT i, md5(i::text) || md5((i + 1)::text) FROM generate_series(1, 60000) AS i",
        "VACUUM big",
    )
    repository = memory_repository()
    first = capture_into(repository, source).manifest
    assert first.totals.known_bytes < 100
    second = capture_into(repository, source).manifest
    assert second.totals.new_bytes < 100_000  # toc, manifest, trees
    assert second.totals.known_bytes >= first.tables[0].size_bytes
    execute(source, "UPDATE big SET filler = 'x' WHERE id = 30000")
    third = capture_into(repository, source).manifest
    grown = third.totals.new_bytes - second.totals.new_bytes
    assert 0 < grown < 3 * (1 << 20), "one changed row may cost the range it left and the one it went to"


def test_partial_selections_are_marked_and_hold_what_pg_dump_selects(
    pg15: Cluster, database: DatabaseFactory, tmp_path: Path
) -> None:
    source = database(pg15)
    execute(
        source,
        "CREATE SCHEMA other",
        "CREATE TABLE kept AS SELECT 1 AS n",
        "CREATE TABLE audit_log AS SELECT 2 AS n",
        "CREATE TABLE other.dropped AS SELECT 3 AS n",
        "CREATE TABLE shell AS SELECT 4 AS n",
    )
    from pgstow.catalog.manifest import Selection

    selection = Selection(
        exclude_tables=("audit_*",), exclude_schemas=("other",), exclude_table_data=("shell",)
    )
    repository = memory_repository()
    backup = capture_into(repository, source, selection=selection)
    expected = pg_dump_directory(
        tools_for(source),
        source,
        tmp_path / "d",
        "-T",
        "audit_*",
        "-N",
        "other",
        "--exclude-table-data=shell",
    )
    files = files_of(repository, backup)
    assert_equals_pg_dump(files, expected)
    assert backup.manifest.is_partial
    assert files.record.is_partial
    assert files.record.snapshot.paths == ("/test (partial)",)
    assert [record.name for record in files.manifest.tables] == ["kept"]


def test_load_via_partition_root_reads_the_partition_and_names_the_root(
    cluster: Cluster, database: DatabaseFactory, tmp_path: Path
) -> None:
    source = database(cluster)
    create_every_kind(source)
    repository = memory_repository()
    files = files_of(repository, capture_into(repository, source))
    hashed = [record for record in files.manifest.tables if record.name.startswith("by_hash_")]
    assert sum(record.rows for record in hashed) == 60
    with psycopg.connect(source.connect_string()) as connection:
        for record in hashed:
            query = sql.SQL("SELECT count(*) FROM ONLY app.{}").format(sql.Identifier(record.name))
            assert connection.execute(query).fetchone() == (record.rows,), (
                "a partition gives its own rows only"
            )
    if cluster.version[0] >= 16:  # pg_dump 16 and newer load enum hash partitions through the root
        assert {record.load_via_root.name for record in hashed if record.load_via_root} == {"by_hash"}


def at(step: str, action: Callable[[], object]) -> Callable[[str], None]:
    done: list[str] = []

    def checkpoint(name: str) -> None:
        if name == step and not done:
            done.append(name)
            action()

    return checkpoint


@pytest.mark.parametrize(
    "change",
    ["ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'", "ALTER TYPE pair ADD ATTRIBUTE c text"],
)
def test_type_that_changes_in_mid_backup_makes_it_begin_anew(
    outer_cluster: Cluster, database: DatabaseFactory, tmp_path: Path, change: str
) -> None:
    source = database(outer_cluster)
    execute(
        source,
        "CREATE TYPE mood AS ENUM ('sad', 'happy')",
        "CREATE TYPE pair AS (a int, b int)",
        "CREATE TABLE t (m mood, p pair)",
        "INSERT INTO t VALUES ('sad', '(1,2)')",
    )
    repository = memory_repository()
    backup = capture_into(repository, source, checkpoint=at("catalog read", lambda: execute(source, change)))
    assert backup.manifest.attempts == 2
    files = files_of(repository, backup)
    assert_equals_pg_dump(files, pg_dump_directory(tools_for(source), source, tmp_path / "dump"))


def test_type_that_keeps_changing_fails_the_backup_and_publishes_nothing(
    pg15: Cluster, database: DatabaseFactory
) -> None:
    source = database(pg15)
    execute(
        source, "CREATE TYPE mood AS ENUM ('l0')", "CREATE TABLE t (m mood)", "INSERT INTO t VALUES ('l0')"
    )
    numbers = itertools.count()

    def checkpoint(step: str) -> None:
        if step == "catalog read":
            n = next(numbers)
            execute(source, f"ALTER TYPE mood RENAME VALUE 'l{n}' TO 'l{n + 1}'")

    repository = memory_repository()
    with pytest.raises(SourceMoved, match="a data type .* changed"):
        capture_into(repository, source, checkpoint=checkpoint)
    assert repository.snapshots() == []
    assert next(numbers) == 3, "three attempts"


class Waiter:
    """A session that queues an ACCESS EXCLUSIVE lock, ``after`` somebody waits for a lock of that relation."""

    def __init__(self, conninfo: ConnInfo, table: str, *, after: str | None = None) -> None:
        self._conninfo = conninfo
        self._table = table
        self._after = after
        self._thread = threading.Thread(target=self._run)
        self.waited_s: float | None = None

    def _run(self) -> None:
        if self._after is not None:
            self._until_there_is_a_queue(f"relation = '{self._after}'::regclass")
        begun = time.monotonic()
        execute(self._conninfo, f"ALTER TABLE {self._table} ADD COLUMN IF NOT EXISTS added int")
        self.waited_s = time.monotonic() - begun

    def queue(self) -> None:
        """Return once the lock is queued."""
        self.start()
        self._until_there_is_a_queue("true")

    def start(self) -> None:
        self._thread.start()

    def _until_there_is_a_queue(self, where: str) -> None:
        query = f"SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'relation' AND {where}"
        with psycopg.connect(self._conninfo.connect_string(), autocommit=True) as watching:
            while not watching.execute(query).fetchone():  # type: ignore[arg-type]
                time.sleep(0.02)

    def join(self, timeout_s: float | None = None) -> None:
        self._thread.join(timeout_s)


def test_tables_with_a_queued_exclusive_lock_are_read_by_the_session_that_holds_ours(
    outer_cluster: Cluster, database: DatabaseFactory
) -> None:
    source = database(outer_cluster)
    execute(
        source,
        "CREATE TABLE quiet AS SELECT 1 AS n",
        "CREATE TABLE wanted AS SELECT generate_series(1, 20000) AS n",
    )
    execute(
        source, "CREATE TABLE big AS SELECT i AS n, repeat('x', 100) AS f FROM generate_series(1, 30000) AS i"
    )
    waiters = [Waiter(source, "wanted"), Waiter(source, "big")]

    def both() -> None:
        for waiter in waiters:
            waiter.queue()

    notes = Notes()
    repository = memory_repository()
    backup = capture_into(repository, source, checkpoint=at("catalog read", both), progress=notes)
    for waiter in waiters:
        waiter.join()
    assert backup.manifest.attempts == 1
    assert {record.name: record.rows for record in backup.manifest.tables} == {
        "quiet": 1,
        "wanted": 20000,
        "big": 30000,
    }
    assert sum("exclusive lock is queued" in note for note in notes.notes) == 2


def test_backup_gives_way_to_a_session_that_waits_too_long(pg15: Cluster, database: DatabaseFactory) -> None:
    source = database(pg15)
    execute(
        source,
        "CREATE TABLE slow AS SELECT i AS n, repeat('x', 1000) AS f FROM generate_series(1, 20000) AS i",
    )
    waiter = Waiter(source, "slow")
    notes = Notes()
    repository = memory_repository()
    with pytest.raises(GaveWay, match="slow") as caught:
        capture_into(
            repository,
            source,
            checkpoint=at("catalog read", waiter.queue),
            progress=notes,
            max_blocking_s=1,
            limit_rate=200_000,
            attempts=1,
        )
    waiter.join()
    assert caught.value.hint is not None
    assert "--max-blocking" in caught.value.hint
    assert waiter.waited_s is not None
    assert repository.snapshots() == []


def test_backup_that_gave_way_begins_anew_and_succeeds(pg15: Cluster, database: DatabaseFactory) -> None:
    source = database(pg15)
    execute(
        source,
        "CREATE TABLE slow AS SELECT i AS n, repeat('x', 1000) AS f FROM generate_series(1, 3000) AS i",
    )
    waiter = Waiter(source, "slow")
    repository = memory_repository()
    backup = capture_into(
        repository,
        source,
        checkpoint=at("catalog read", waiter.queue),
        max_blocking_s=1,
        limit_rate=1_000_000,
    )
    waiter.join()
    assert backup.manifest.attempts == 2
    assert backup.manifest.tables[0].rows == 3000


def test_giving_way_does_not_wait_for_pg_dump(
    pg15: Cluster, database: DatabaseFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a database with thousands of tables it reads the catalog for minutes, while we hold the locks."""
    source = database(pg15)
    execute(source, "CREATE TABLE slow (n int)")
    endless = tmp_path / "pg_dump"
    endless.write_text("#!/bin/sh\nexec sleep 300\n")
    endless.chmod(0o755)
    tools = replace(tools_for(source), bin_dir=tmp_path)
    monkeypatch.setattr(backups, "tools_for", lambda _: tools)
    waiter = Waiter(source, "slow")
    begun = time.monotonic()
    with pytest.raises(GaveWay, match="slow"):
        capture_into(
            memory_repository(),
            source,
            checkpoint=at("newcomers locked", waiter.queue),
            max_blocking_s=1,
            attempts=1,
        )
    waiter.join()
    assert time.monotonic() - begun < 250  # the sleep was ended


def test_giving_way_lets_go_of_the_locks_of_pg_dump(pg15: Cluster, database: DatabaseFactory) -> None:
    """It has those of all tables, too, in a session that waits here for a view that is being refreshed."""
    source = database(pg15)
    execute(source, "CREATE TABLE wanted (n int); CREATE MATERIALIZED VIEW busy AS SELECT 1 AS n")
    execute(source, "CREATE VIEW on_busy AS SELECT n FROM busy")
    waiter = Waiter(source, "wanted", after="busy")
    with psycopg.connect(source.connect_string()) as refreshing:
        refreshing.execute("REFRESH MATERIALIZED VIEW busy")
        with pytest.raises(GaveWay, match="wanted"):
            capture_into(
                memory_repository(),
                source,
                checkpoint=at("newcomers locked", waiter.start),
                max_blocking_s=1,
                attempts=1,
            )
        waiter.join(60)
        has_its_lock = waiter.waited_s is not None
    waiter.join()
    assert has_its_lock


def test_an_owner_that_is_gone_when_roles_are_asked_for_is_told(
    pg15: Cluster, database: DatabaseFactory
) -> None:
    """No lock keeps a role from being dropped; the archive names it, and globals.sql does not."""
    source = database(pg15)
    execute(source, "DROP ROLE IF EXISTS leaving", "CREATE ROLE leaving", "CREATE TABLE t (n int)")
    execute(source, "ALTER TABLE t OWNER TO leaving")
    backup = capture_into(
        memory_repository(),
        source,
        checkpoint=at(
            "locks released",
            lambda: execute(source, "REASSIGN OWNED BY leaving TO postgres", "DROP ROLE leaving"),
        ),
    )
    gone = "role leaving: dropped or renamed while the backup was made"
    assert gone in backup.manifest.globals.missing
    assert [(one.code, one.message) for one in backup.manifest.warnings] == [
        ("globals", f"not captured: {gone}")
    ]


def test_locks_are_held_while_rows_are_read_and_no_longer(pg15: Cluster, database: DatabaseFactory) -> None:
    """Roles and settings are asked for after that; a migration need not wait for these."""
    source = database(pg15)
    execute(source, "CREATE TABLE t AS SELECT generate_series(1, 10) AS n")
    migration = "SET lock_timeout = '2s'; ALTER TABLE t ADD more int"
    with pytest.raises(psycopg.errors.LockNotAvailable):
        capture_into(
            memory_repository(), source, checkpoint=at("tables read", lambda: execute(source, migration))
        )
    backup = capture_into(
        memory_repository(), source, checkpoint=at("locks released", lambda: execute(source, migration))
    )
    assert (backup.manifest.attempts, backup.manifest.totals.rows) == (1, 10)
    assert backup.manifest.globals.is_captured


def test_rate_limit_is_kept(pg15: Cluster, database: DatabaseFactory) -> None:
    source = database(pg15)
    execute(
        source, "CREATE TABLE t AS SELECT repeat(md5(i::text), 30) AS f FROM generate_series(1, 4000) AS i"
    )
    begun = time.monotonic()
    backup = capture_into(memory_repository(), source, limit_rate=2_000_000)
    assert time.monotonic() - begun >= backup.manifest.tables[0].size_bytes / 2_000_000 * 0.9


def test_invariant_holds_in_every_backup_under_writes(
    outer_cluster: Cluster, database: DatabaseFactory
) -> None:
    source = database(outer_cluster)
    execute(
        source,
        "CREATE TABLE a (id int PRIMARY KEY, balance int)",
        "CREATE TABLE b (id int PRIMARY KEY, balance int, filler text)",
        "INSERT INTO a SELECT i, 100 FROM generate_series(1, 500) AS i",
        "INSERT INTO b SELECT i, 100, repeat('f', 300) FROM generate_series(1, 8000) AS i",
    )
    stop = threading.Event()

    def transfer(seed: int) -> None:
        with psycopg.connect(source.connect_string()) as connection:
            for n in itertools.count(seed):
                if stop.is_set():
                    return
                with connection.transaction():
                    connection.execute("UPDATE a SET balance = balance - 7 WHERE id = %s", (1 + n * 7 % 500,))
                    connection.execute(
                        "UPDATE b SET balance = balance + 7 WHERE id = %s", (1 + n * 31 % 8000,)
                    )

    threads = [threading.Thread(target=transfer, args=(seed,)) for seed in (0, 100_000)]
    for thread in threads:
        thread.start()
    try:
        repository = memory_repository()
        digests = set()
        for _ in range(4):
            files = files_of(repository, capture_into(repository, source))
            rows = table(files, "a").splitlines() + table(files, "b").splitlines()
            assert sum(int(row.split(b"\t")[1]) for row in rows) == 8500 * 100
            assert len(rows) == 8500
            digests.add(hashlib.sha256(b"".join(rows)).hexdigest())
        assert len(digests) > 1, "the database did change between backups"
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_server_that_dies_in_mid_backup_fails_it_cleanly(
    make_cluster: Callable[..., Cluster], database: DatabaseFactory
) -> None:
    own = make_cluster(15)
    source = database(own)
    execute(source, "CREATE TABLE t AS SELECT repeat('x', 1000) AS f FROM generate_series(1, 30000)")
    repository = memory_repository()
    with pytest.raises(PgstowError) as caught:
        capture_into(
            repository,
            source,
            limit_rate=3_000_000,
            checkpoint=at("catalog read", lambda: threading.Timer(1.0, own.kill).start()),
        )
    assert not isinstance(caught.value, Interrupted)
    assert repository.snapshots() == []
    ours = ("read_", "seal_", "pack-upload_", "lock-watchdog", "pg_dump-")

    def left() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith(ours)]

    until(lambda: not left(), lambda: f"the end of {left()}")


def test_row_level_security_that_would_hide_rows_fails_the_backup(
    pg15: Cluster, database: DatabaseFactory
) -> None:
    source = database(pg15)
    execute(
        source,
        "DROP ROLE IF EXISTS limited",
        "CREATE ROLE limited LOGIN",
        "CREATE TABLE secrets AS SELECT generate_series(1, 5) AS n",
        "ALTER TABLE secrets ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY few ON secrets USING (n < 3)",
        "GRANT SELECT ON secrets TO limited",
        "ALTER ROLE limited SET row_security = on",
    )
    limited = ConnInfo.parse(f"{source.connect_string()} user=limited")
    repository = memory_repository()
    with pytest.raises(PgstowError, match="row-level security"):
        capture_into(repository, limited)
    assert repository.snapshots() == []
    execute(source, "DROP OWNED BY limited", "DROP ROLE limited")


def test_table_that_may_not_be_read_fails_the_backup_and_is_named(
    pg15: Cluster, database: DatabaseFactory
) -> None:
    source = database(pg15)
    execute(
        source, "DROP ROLE IF EXISTS outsider", "CREATE ROLE outsider LOGIN", "CREATE TABLE closed (id int)"
    )
    outsider = ConnInfo.parse(f"{source.connect_string()} user=outsider")
    with pytest.raises(PgstowError, match="closed"):
        capture_into(memory_repository(), outsider)
    execute(source, "DROP ROLE outsider")


def test_extension_configuration_tables_keep_to_their_condition(
    pg15: Cluster, database: DatabaseFactory, tmp_path: Path
) -> None:
    source = database(pg15)
    execute(
        source,
        "CREATE SCHEMA ext",
        "CREATE TABLE ext.config (id int PRIMARY KEY, note text, is_default boolean)",
        "CREATE TABLE ext.all_rows (id int)",
        "CREATE EXTENSION tablefunc SCHEMA ext",
        # an extension of our own would need files in the server's folder; membership is what matters
        "ALTER EXTENSION tablefunc ADD TABLE ext.config",
        "ALTER EXTENSION tablefunc ADD TABLE ext.all_rows",
        "UPDATE pg_extension SET extconfig = ARRAY['ext.config'::regclass::oid, 'ext.all_rows'::regclass::oid],"
        " extcondition = ARRAY['WHERE NOT is_default', ''] WHERE extname = 'tablefunc'",
        "INSERT INTO ext.config SELECT i, 'row ' || i, i <= 10 FROM generate_series(1, 25) AS i",
        "INSERT INTO ext.all_rows VALUES (1), (2)",
    )
    repository = memory_repository()
    files = files_of(repository, capture_into(repository, source))
    assert_equals_pg_dump(files, pg_dump_directory(tools_for(source), source, tmp_path / "dump"))
    records = {record.name: record for record in files.manifest.tables}
    assert records["config"].rows == 15
    assert records["config"].condition == "WHERE NOT is_default"
    assert records["config"].extension_owned
    assert records["all_rows"].rows == 2
    assert records["all_rows"].condition is None


def test_globals_come_along_without_passwords_unless_asked(
    cluster: Cluster, database: DatabaseFactory
) -> None:
    source = database(cluster)
    execute(
        source,
        "DROP ROLE IF EXISTS app_owner",
        "DROP ROLE IF EXISTS viewer",
        "CREATE ROLE app_owner LOGIN PASSWORD 'hunter2hunter2'",
        "CREATE ROLE viewer LOGIN",
        "GRANT app_owner TO viewer",
        "ALTER ROLE app_owner SET work_mem = '7MB'",
    )
    try:
        repository = memory_repository()
        plain = files_of(repository, capture_into(repository, source))
        text = plain.read("globals.sql").decode()
        assert "CREATE ROLE app_owner" in text
        assert "GRANT app_owner TO viewer" in text
        assert "work_mem" in text
        assert "SCRAM" not in text
        assert "PASSWORD" not in text
        assert plain.manifest.globals.missing == ("role passwords: not asked for (--role-passwords)",)
        full = files_of(repository, capture_into(repository, source, role_passwords=True))
        assert "SCRAM-SHA-256" in full.read("globals.sql").decode()
        assert full.manifest.globals.has_passwords
        viewer = ConnInfo.parse(f"{source.connect_string()} user=viewer")
        refused = files_of(repository, capture_into(repository, viewer, role_passwords=True))
        assert "SCRAM" not in refused.read("globals.sql").decode()
        assert not refused.manifest.globals.has_passwords
        assert "permission denied" in refused.manifest.globals.missing[0]
    finally:
        execute(source, "DROP ROLE viewer", "DROP ROLE app_owner")


def test_split_big_tables_gives_the_same_bytes(pg16: Cluster, database: DatabaseFactory) -> None:
    source = database(pg16)
    execute(
        source,
        "CREATE TABLE big AS SELECT i AS id, repeat('x', 500) AS f FROM generate_series(1, 60000) AS i",
        "DELETE FROM big WHERE id BETWEEN 20000 AND 35000",
    )
    repository = memory_repository()
    whole = files_of(repository, capture_into(repository, source))
    parts = files_of(repository, capture_into(repository, source, split_big_tables=True, jobs=3))
    assert parts.manifest.tables[0].read_by == "tid-ranges"
    assert table(whole, "big") == table(parts, "big")
    assert parts.manifest.totals.new_bytes < 100_000, "the same ranges, so the same blobs"
    ranges = [files.read(files.manifest.tables[0].ranges or "") for files in (whole, parts)]
    assert ranges[0] == ranges[1]


def test_statement_of_the_server_names_the_table(pg15: Cluster, database: DatabaseFactory) -> None:
    source = database(pg15)
    execute(
        source,
        "CREATE FUNCTION boom(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE 'boom'; END $$",
        "CREATE SCHEMA ext",
        "CREATE TABLE ext.config (id int)",
        "INSERT INTO ext.config VALUES (1)",
        "CREATE EXTENSION tablefunc SCHEMA ext",
        "ALTER EXTENSION tablefunc ADD TABLE ext.config",
        "UPDATE pg_extension SET extconfig = ARRAY['ext.config'::regclass::oid],"
        " extcondition = ARRAY['WHERE public.boom(id) = 1'] WHERE extname = 'tablefunc'",
    )
    with pytest.raises(PostgresError, match=r"reading ext\.config: boom"):
        capture_into(memory_repository(), source)
