"""Each way in which a table can move between snapshot and lock, and what a role's defaults may not do."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from pgstow.capture.leader import taking_lead
from pgstow.core.errors import SourceMoved
from pgstow.postgres import catalogs
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.postgres.session import CAPTURE_SETTINGS, connect
from pgstow.postgres.shapes import read_shapes
from support.backups import capture_into, files_of, memory_repository

pytestmark = pytest.mark.integration

DatabaseFactory = Callable[..., ConnInfo]


def execute(conninfo: ConnInfo, *statements: str) -> None:
    with psycopg.connect(conninfo.connect_string(), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[arg-type]


def at(step: str, action: Callable[[], object]) -> Callable[[str], None]:
    """Return a checkpoint that acts once, at ``step``."""
    done = []

    def checkpoint(name: str) -> None:
        if name == step and not done:
            done.append(name)
            action()

    return checkpoint


@pytest.mark.parametrize(
    "change",
    [
        "TRUNCATE newcomer",
        "CLUSTER newcomer USING newcomer_pkey",
        "ALTER TABLE newcomer ALTER COLUMN id TYPE bigint",
        "VACUUM FULL newcomer",
    ],
)
def test_table_rewritten_between_snapshot_and_lock_is_noticed(
    outer_cluster: Cluster, database: DatabaseFactory, change: str
) -> None:
    source = database(outer_cluster)

    def checkpoint(step: str) -> None:
        if step == "tables locked":  # too late for the first listing, in time for the snapshot
            execute(
                source, "CREATE TABLE newcomer (id int PRIMARY KEY)", "INSERT INTO newcomer VALUES (1), (2)"
            )
        if step == "snapshot exported":  # not locked yet
            execute(source, change)

    with (
        pytest.raises(SourceMoved, match="newcomer"),
        taking_lead(source, lock_timeout_s=5, checkpoint=checkpoint),
    ):
        pass


def test_truncate_before_the_lock_gives_one_consistent_moment(
    pg15: Cluster, database: DatabaseFactory
) -> None:
    source = database(pg15)
    execute(source, "CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
    checkpoint = at("tables listed", lambda: execute(source, "TRUNCATE t", "INSERT INTO t VALUES (2), (3)"))
    with taking_lead(source, lock_timeout_s=5, checkpoint=checkpoint) as leader:
        assert leader.connection.execute("SELECT array_agg(id ORDER BY id) FROM public.t").fetchone() == (
            [2, 3],
        )


def test_newcomer_is_locked_and_part_of_the_moment(pg15: Cluster, database: DatabaseFactory) -> None:
    source = database(pg15)
    checkpoint = at("tables locked", lambda: execute(source, "CREATE TABLE late (id int)"))
    with taking_lead(source, lock_timeout_s=5, checkpoint=checkpoint) as leader:
        held = catalogs.held_table_locks(leader.connection)
        (late,) = catalogs.capturable_tables(leader.connection)
        assert late.oid in held
        assert late.oid in leader.locked


def test_table_dropped_between_listing_and_lock(pg15: Cluster, database: DatabaseFactory) -> None:
    source = database(pg15)
    execute(source, "CREATE TABLE doomed (id int)")
    checkpoint = at("tables listed", lambda: execute(source, "DROP TABLE doomed"))
    with (
        pytest.raises(SourceMoved, match="doomed"),
        taking_lead(source, lock_timeout_s=5, checkpoint=checkpoint),
    ):
        pass


def test_tables_that_swap_names_before_the_lock(pg15: Cluster, database: DatabaseFactory) -> None:
    source = database(pg15)
    execute(source, "CREATE TABLE a AS SELECT 1 AS n", "CREATE TABLE b AS SELECT 2 AS n")
    swap = ("ALTER TABLE a RENAME TO c", "ALTER TABLE b RENAME TO a", "ALTER TABLE c RENAME TO b")
    with taking_lead(
        source, lock_timeout_s=5, checkpoint=at("tables listed", lambda: execute(source, *swap))
    ) as leader:
        assert leader.locked <= catalogs.held_table_locks(leader.connection)
        assert leader.connection.execute("SELECT n FROM public.a").fetchone() == (2,)


def test_lock_that_cannot_be_had_in_time_is_said_and_nothing_stays_held(
    pg15: Cluster, database: DatabaseFactory
) -> None:
    source = database(pg15)
    execute(source, "CREATE TABLE busy (id int)")
    with psycopg.connect(source.connect_string()) as other:
        other.execute("LOCK TABLE busy IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(SourceMoved, match="could not be locked"), taking_lead(source, lock_timeout_s=0.2):
            pass
    execute(source, "SET lock_timeout = '2s'", "DROP TABLE busy")


def test_locks_are_released_when_the_block_ends(pg15: Cluster, database: DatabaseFactory) -> None:
    source = database(pg15)
    execute(source, "CREATE TABLE t (id int)")
    with taking_lead(source, lock_timeout_s=5), pytest.raises(psycopg.errors.LockNotAvailable):
        execute(source, "SET lock_timeout = '100ms'", "DROP TABLE t")
    execute(source, "SET lock_timeout = '2s'", "DROP TABLE t")


def test_defaults_of_the_role_do_not_leak_in(pg15: Cluster, database: DatabaseFactory) -> None:
    source = database(pg15)
    execute(
        source,
        "DROP ROLE IF EXISTS traveller",
        "CREATE ROLE traveller LOGIN SUPERUSER",
        "ALTER ROLE traveller SET timezone = 'Asia/Tokyo'",
        "ALTER ROLE traveller SET datestyle = 'German'",
        "ALTER ROLE traveller SET statement_timeout = '1ms'",
        "ALTER ROLE traveller SET default_transaction_isolation = 'serializable'",
        "ALTER ROLE traveller SET search_path = 'pg_temp'",
    )
    try:
        traveller = ConnInfo.parse(f"{source.connect_string()} user=traveller")
        with connect(traveller, settings=CAPTURE_SETTINGS) as connection:
            row = connection.execute(
                "SELECT timestamptz '2026-01-01 12:00+00'::text, current_setting('statement_timeout')"
            )
            assert row.fetchone() == (b"2026-01-01 12:00:00+00", b"0")
    finally:
        execute(source, "DROP ROLE traveller")


def test_shapes_see_enum_labels_composites_and_domains(cluster: Cluster, database: DatabaseFactory) -> None:
    source = database(cluster)
    execute(
        source,
        "CREATE TYPE mood AS ENUM ('sad', 'happy')",
        "CREATE TYPE inner_pair AS (a int, m mood)",
        "CREATE DOMAIN moods AS mood[]",
        "CREATE TYPE span AS RANGE (subtype = float8)",
        "CREATE TABLE direct (id int, m mood)",
        "CREATE TABLE nested (id int, p inner_pair[])",
        "CREATE TABLE domained (id int, ms moods)",
        "CREATE TABLE plain (id int, r span)",
    )

    def look() -> tuple[dict[bytes, str], str]:
        with connect(source, settings=CAPTURE_SETTINGS) as connection:
            tables = catalogs.capturable_tables(connection)
            found = read_shapes(connection, [table.oid for table in tables])
            return {table.qualified: found.by_table[table.oid] for table in tables}, found.present

    before, present = look()
    assert look() == (before, present)
    execute(source, "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'")
    renamed, present_renamed = look()
    changed = {name for name in before if before[name] != renamed[name]}
    assert changed == {b"public.direct", b"public.nested", b"public.domained"}
    execute(source, "ALTER TYPE mood RENAME VALUE 'blue' TO 'sad'")
    undone, present_undone = look()
    assert undone == before
    assert len({present, present_renamed, present_undone}) == 3, "a change that was undone must still be seen"
    execute(source, "ALTER TYPE inner_pair ADD ATTRIBUTE b text")
    assert {name for name, shape in look()[0].items() if shape != before[name]} == {b"public.nested"}


def test_schemas_that_swap_names_are_noticed(pg15: Cluster, database: DatabaseFactory) -> None:
    """Renaming a schema takes no lock on its tables, which are read by name."""
    source = database(pg15)
    execute(
        source,
        "CREATE SCHEMA blue; CREATE SCHEMA green; CREATE TABLE blue.t AS SELECT 'blue' AS v; CREATE TABLE green.t AS SELECT 'green' AS v",
    )
    swap = "ALTER SCHEMA blue RENAME TO other; ALTER SCHEMA green RENAME TO blue; ALTER SCHEMA other RENAME TO green"
    repository = memory_repository()
    with pytest.raises(SourceMoved, match="a schema's name"):
        capture_into(
            repository, source, checkpoint=at("catalog read", lambda: execute(source, swap)), attempts=1
        )
    with pytest.raises(SourceMoved, match="a schema's name"):  # and back again, before the last look
        capture_into(
            repository,
            source,
            checkpoint=lambda step: (
                execute(source, swap) if step in ("catalog read", "tables read") else None
            ),
            attempts=1,
        )
    assert repository.snapshots() == []
    taken = capture_into(repository, source, checkpoint=at("catalog read", lambda: execute(source, swap)))
    assert taken.manifest.attempts == 2
    files = files_of(repository, taken)
    for record in taken.manifest.tables:
        assert next(files.stream(record.member)).split(b"\n")[0].decode() in ("blue", "green")
