"""Unchanged page ranges are taken over, and never one that only looks unchanged."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from pgstow.capture import logical
from pgstow.capture.reuse import KnownRange, KnownTable
from pgstow.capture.tables import TableTask
from pgstow.postgres import catalogs
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from support.backups import capture_into
from support.shop import Shop, ranges, table

Databases = Callable[..., ConnInfo]

# About six ranges of 1 MiB; every row carries its number so that a wrong one is seen.
TABLE = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN word AS text;
CREATE TABLE ledger (id int PRIMARY KEY, note text NOT NULL, how mood, two pair, said word, at timestamptz)
    WITH (autovacuum_enabled = off);
INSERT INTO ledger SELECT i, 'note ' || md5(i::text), CASE i % 2 WHEN 0 THEN 'good' ELSE 'bad' END::mood, ROW(i, 'x')::pair,
    'word', '2026-01-01Z'::timestamptz + i * interval '1 second' FROM generate_series(1, 45000) i;
CREATE TABLE quiet AS SELECT i AS id, repeat('q', 80) AS filler FROM generate_series(1, 30000) i;
"""


@pytest.fixture
def shop(pg15: Cluster, database: Databases, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(database(pg15), tmp_path)
    made.run(TABLE)
    yield made
    assert not [alarm for backup in [made.backup()] for alarm in backup.reuse.alarms]


@pytest.fixture
def every_shop(cluster: Cluster, database: Databases, tmp_path: Path) -> Shop:
    made = Shop(database(cluster), tmp_path)
    made.run(TABLE)
    return made


def test_nothing_changed(every_shop: Shop) -> None:
    first, second = every_shop.backup(), every_shop.backup()

    assert first.reuse.is_base
    assert first.reuse.refused == "no backup of this database can be a base"
    assert (first.reuse.depth, second.reuse.depth) == (0, 1)
    assert second.reuse.base == first.backup_id
    assert second.reuse.refused is None
    assert second.reuse.checked_ranges == 2  # one of each table
    for name in ("ledger", "quiet"):
        reused, there = ranges(second, name)
        assert reused == there > 1
        record = table(second, name)
        assert record.reused_rows == record.rows
        assert record.reused_bytes + 5 == record.size_bytes  # all but the trailer
        assert record.reuse_refused is None


CHANGES = {
    "update of one row": "UPDATE ledger SET note = 'changed' WHERE id = 20000",
    "delete of one row": "DELETE FROM ledger WHERE id = 20000",
    "insert at the end": "INSERT INTO ledger SELECT i, 'new' FROM generate_series(50001, 50100) i",
    "update of a value in TOAST": "UPDATE ledger SET note = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 3000) i)"
    " WHERE id = 7",
    "savepoints": "BEGIN; SAVEPOINT a; UPDATE ledger SET note = 'a' WHERE id = 3; ROLLBACK TO a;"
    " UPDATE ledger SET note = 'b' WHERE id = 30000; RELEASE a; COMMIT",
    "delete, vacuum, insert into the room": "DELETE FROM ledger WHERE id BETWEEN 5000 AND 5100",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_only_what_changed_is_read(shop: Shop, change: str) -> None:
    shop.backup()
    shop.run(change)
    if "5100" in change:
        shop.run("VACUUM ledger")
        shop.run("INSERT INTO ledger SELECT i, 'put in' FROM generate_series(60001, 60090) i")

    changed = shop.backup()

    reused, there = ranges(changed)
    assert 1 <= there - reused <= 2
    assert table(changed).reuse_refused is None
    assert ranges(changed, "quiet")[0] == ranges(changed, "quiet")[1]


NO_CHANGES = {
    "aborted": "BEGIN; UPDATE ledger SET note = 'never'; ROLLBACK",
    "vacuum": "VACUUM ledger",
    "freeze": "VACUUM FREEZE ledger",
    "analyze": "ANALYZE ledger",
    "an index": "CREATE INDEX ON ledger (note)",
    "renamed": "ALTER TABLE ledger RENAME TO other; ALTER TABLE other RENAME TO ledger",
    "row locks": "SELECT FROM ledger WHERE id < 100 FOR UPDATE",
}


@pytest.mark.parametrize("change", NO_CHANGES.values(), ids=NO_CHANGES.keys())
def test_what_leaves_the_rows_alone(shop: Shop, change: str) -> None:
    shop.backup()
    shop.run(change)
    same = shop.backup()
    reused, there = ranges(same)
    # an aborted update may have put dead versions on pages beyond the old end
    assert reused >= there - (there if change == NO_CHANGES["aborted"] else 0)
    assert same.reuse.checked_ranges >= 1


@pytest.mark.parametrize(
    ("is_big", "why"), [(False, "every page range"), (True, "more than half of its page ranges")]
)
def test_a_table_that_changed_everywhere_says_so(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, is_big: bool, why: str
) -> None:
    shop.backup()
    shop.run(
        "UPDATE ledger SET note = 'changed' WHERE id % 7 = 0 AND " + ("id < 30000" if is_big else "true")
    )
    if is_big:
        monkeypatch.setattr(logical, "TableTask", lambda **facts: TableTask(**{**facts, "is_big": True}))
    changed = table(shop.backup())
    assert (changed.reused_ranges, changed.reuse_refused) == (0, f"{why} changed")


REWRITES = {
    "truncate and the same rows": "CREATE TEMP TABLE kept AS TABLE ledger; TRUNCATE ledger; INSERT INTO ledger SELECT * FROM kept",
    "vacuum full": "VACUUM FULL ledger",
    "cluster": "CLUSTER ledger USING ledger_pkey",
    "another type": "ALTER TABLE ledger ALTER id TYPE bigint",
    "dropped and made again": "CREATE TABLE l2 (LIKE ledger INCLUDING ALL); INSERT INTO l2 TABLE ledger; DROP TABLE ledger;"
    " ALTER TABLE l2 RENAME TO ledger",
}


@pytest.mark.parametrize("change", REWRITES.values(), ids=REWRITES.keys())
def test_a_table_with_new_storage_is_read(shop: Shop, change: str) -> None:
    shop.backup()
    shop.run(change)
    rewritten = table(shop.backup())
    assert rewritten.reused_ranges == 0
    assert rewritten.reuse_refused in (
        "it was rewritten",
        "the base has no page ranges of it: it is new, or was smaller",
        "columns or types changed",
    )


SHAPES = {
    "a column with a default": "ALTER TABLE ledger ADD extra text DEFAULT 'everywhere'",
    "a column without": "ALTER TABLE ledger ADD extra text",
    "a column less": "ALTER TABLE ledger DROP at",
    "a type of the same storage": "ALTER TABLE ledger ALTER said TYPE text",
    "an enum's label": "ALTER TYPE mood RENAME VALUE 'good' TO 'splendid'",
    "a composite's attribute": "ALTER TYPE pair ADD ATTRIBUTE c int",
    "a column's name": "ALTER TABLE ledger RENAME note TO remark",
}


@pytest.mark.parametrize("change", SHAPES.values(), ids=SHAPES.keys())
def test_a_table_whose_rows_look_different_now_is_read(shop: Shop, change: str) -> None:
    shop.backup()
    shop.run(change)
    after = shop.backup()
    assert (table(after).reused_ranges, table(after).reuse_refused) == (0, "columns or types changed")
    assert ranges(after, "quiet")[0] == ranges(after, "quiet")[1]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("'quiet'::regclass", "regclass"), ("ARRAY['quiet'::regclass]", "regclass"), ("'postgres'::regrole", "regrole"),
        ("makeaclitem(10, 10, 'SELECT', false)", "aclitem"),
    ],
)  # fmt: skip
def test_values_that_print_names_are_always_read(shop: Shop, column: str, kind: str) -> None:
    shop.run(
        f"CREATE TABLE named AS SELECT i, {column} AS value, repeat('x', 100) AS f FROM generate_series(1, 30000) i"
    )
    shop.backup()
    shop.run("ALTER TABLE quiet RENAME TO silent")
    after = shop.backup()
    assert table(after, "named").reused_ranges == 0
    assert table(after, "named").reuse_refused == f"type {kind} may print the same value in different ways"
    assert ranges(after, "silent")[0] == ranges(after, "silent")[1]


def test_a_column_that_is_called_like_something_of_our_query(shop: Shop) -> None:
    """Else every range would be taken for the first: that is the rows of an equal number of pages, which the change leaves alone."""
    shop.run(
        """CREATE TABLE start (page int DEFAULT 0, raw int DEFAULT 7, f text) WITH (autovacuum_enabled = off);
        INSERT INTO start (f) SELECT repeat('v', 100) FROM generate_series(1, 30000) i;
        DELETE FROM start WHERE ctid >= '(384,0)'"""
    )
    shop.run("VACUUM start")  # 384 full pages, three ranges of as many rows
    shop.backup()
    shop.run("DELETE FROM start WHERE ctid = '(200,5)'")
    shop.run("VACUUM start")
    shop.run("INSERT INTO start (f) VALUES (repeat('w', 100))")
    assert shop.ask("SELECT ctid FROM start WHERE f LIKE 'w%'") == "(200,5)"

    assert ranges(shop.backup(), "start") == (2, 3)


def test_tables_that_changed_names(shop: Shop) -> None:
    shop.run(
        "CREATE TABLE one AS SELECT i, 'one' || i AS v, repeat('1', 90) AS f FROM generate_series(1, 30000) i"
    )
    shop.run(
        "CREATE TABLE two AS SELECT i, 'two' || i AS v, repeat('2', 90) AS f FROM generate_series(1, 30000) i"
    )
    shop.backup()
    shop.run(
        "ALTER TABLE one RENAME TO three; ALTER TABLE two RENAME TO one; ALTER TABLE three RENAME TO two"
    )
    swapped = shop.backup()
    for name in ("one", "two"):
        assert ranges(swapped, name)[0] == ranges(swapped, name)[1] > 1


def test_a_transaction_that_straddles_the_base(shop: Shop) -> None:
    with psycopg.connect(shop.source.connect_string()) as writer:
        writer.execute("UPDATE ledger SET note = 'late' WHERE id = 100")
        shop.run("SELECT pg_current_xact_id()")  # a commit, so that all of the log is on disk
        before = shop.backup()
        writer.commit()
    after = shop.backup()
    assert before.reuse.is_base
    assert 1 <= ranges(after)[1] - ranges(after)[0] <= 3


def test_partitions_come_and_go(shop: Shop) -> None:
    shop.run(
        """CREATE TABLE parts (id int, f text) PARTITION BY RANGE (id);
        CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (40000);
        CREATE TABLE part2 (id int, f text);
        INSERT INTO parts SELECT i, repeat('p', 90) FROM generate_series(1, 30000) i;
        INSERT INTO part2 SELECT i, repeat('o', 90) FROM generate_series(40001, 70000) i"""
    )
    shop.backup()
    shop.run(
        "ALTER TABLE parts ATTACH PARTITION part2 FOR VALUES FROM (40000) TO (80000); ALTER TABLE parts DETACH PARTITION part1"
    )
    after = shop.backup()
    for name in ("part1", "part2"):
        assert ranges(after, name)[0] == ranges(after, name)[1] > 1


def test_an_extension_that_changed_ends_all_reuse(shop: Shop) -> None:
    shop.backup()
    shop.run("CREATE EXTENSION hstore")
    after = shop.backup()
    assert after.reuse.refused == "extensions were changed"
    assert ranges(after)[0] == ranges(after, "quiet")[0] == 0
    assert ranges(shop.backup())[0] > 0


def test_a_base_that_a_crash_could_undo_is_none(make_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    """Asynchronous commits that are visible but not on disk yet; a crash gives their numbers to others."""
    cluster = make_cluster(15, settings={"synchronous_commit": "off", "autovacuum": "off"})
    source = ConnInfo.parse(cluster.conninfo())
    shop = Shop(source, tmp_path)
    shop.run(TABLE)
    with psycopg.connect(source.connect_string()) as connection:
        row = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"
        ).fetchone()
    assert row is not None
    wal_writer = int(row[0])

    def commit(step: str) -> None:
        if step == "tables listed":
            shop.run("UPDATE quiet SET filler = 'x' WHERE id = 1")

    os.kill(wal_writer, signal.SIGSTOP)
    try:
        taken = capture_into(shop.repository, source, checkpoint=commit)
    finally:
        os.kill(wal_writer, signal.SIGCONT)
    assert not taken.manifest.reuse.is_base
    assert shop.backup().reuse.refused == "no backup of this database can be a base"


def test_what_an_idle_server_has_not_flushed_yet_is_flushed_for_the_base(shop: Shop) -> None:
    """Pages pruned by a reader are logged, but no commit follows that would bring the records to disk."""
    for number in range(3):
        shop.run("SELECT pg_logical_emit_message(false, 'left', repeat('x', 100))")
        assert shop.backup().reuse.is_base, number


def test_a_restarted_server_is_another_server(make_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster = make_cluster(15)
    shop = Shop(ConnInfo.parse(cluster.conninfo()), tmp_path)
    shop.run(TABLE)
    shop.backup()
    cluster.stop()
    cluster.start()
    assert shop.backup().reuse.refused == "the server was restarted"
    assert ranges(shop.backup())[0] > 0


def test_every_seventh_backup_reads_everything_and_compares(shop: Shop) -> None:
    depths = [(backup.reuse.depth, backup.reuse.is_full_read) for backup in (shop.backup() for _ in range(9))]
    assert depths == [(0, True), *((n, False) for n in range(1, 7)), (0, True), (1, False)]


def test_a_full_read_compares_all_that_is_the_same(shop: Shop) -> None:
    shop.backup()
    shop.run("UPDATE ledger SET note = 'changed' WHERE id = 20000")
    full = shop.backup(full_read=True)
    unchanged = ranges(full)[1] + ranges(full, "quiet")[1] - full.reuse.checked_ranges
    assert 1 <= unchanged <= 2
    assert ranges(full)[0] == 0


@contextlib.contextmanager
def a_lying_base(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the base hold other rows than its fingerprints say."""
    honest = KnownTable.ranges

    def ranges(self: KnownTable, first: int, count: int) -> Iterator[KnownRange]:
        there = list(honest(self, first, count))
        for mine, other in zip(there, [*there[1:], there[0]], strict=True):
            yield KnownRange(range=mine.range, content=other.content)

    with monkeypatch.context() as patch:
        patch.setattr(KnownTable, "ranges", ranges)
        yield


@pytest.mark.parametrize("full_read", [False, True])
def test_rows_that_differ_where_no_version_does_are_an_alarm(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, full_read: bool
) -> None:
    first = shop.backup()
    with a_lying_base(monkeypatch):
        alarmed = shop.backup(full_read=full_read)
    assert any("ledger: rows on pages from" in alarm for alarm in alarmed.reuse.alarms)
    assert alarmed.reuse.distrusted == (first.backup_id,)
    assert ranges(alarmed)[0] == 0

    assert shop.backup().reuse.base == alarmed.backup_id


def test_a_backup_from_the_future_hides_neither_later_ones_nor_their_alarms(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's clock was a day ahead once; what came after that looks older."""
    now = catalogs.clock
    with monkeypatch.context() as patch:
        patch.setattr(catalogs, "clock", lambda connection: now(connection) + timedelta(days=1))
        ahead = shop.backup()
    second = shop.backup()
    assert second.reuse.base == ahead.backup_id
    with a_lying_base(monkeypatch):
        alarmed = shop.backup()
    assert alarmed.reuse.distrusted == (second.backup_id,)

    assert shop.backup().reuse.base == alarmed.backup_id


def test_a_backup_from_the_future_that_an_alarm_speaks_of_is_no_base(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was made before the alarm, whatever its time says; and the backup with the alarm cannot be a base itself here."""
    now = catalogs.clock
    with monkeypatch.context() as patch:
        patch.setattr(catalogs, "clock", lambda connection: now(connection) + timedelta(days=1))
        ahead = shop.backup()
    second = shop.backup()
    assert second.reuse.base == ahead.backup_id
    with a_lying_base(monkeypatch), monkeypatch.context() as patch:
        patch.setattr(logical, "_is_durable", lambda *_: False)
        alarmed = shop.backup()
    assert alarmed.reuse.alarms and not alarmed.reuse.is_base

    after = shop.backup().reuse
    assert (after.base, after.distrusted) == (None, tuple(sorted((ahead.backup_id, second.backup_id))))
