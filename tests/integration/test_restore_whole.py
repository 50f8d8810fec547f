"""Restoring a whole database: what comes back, and the rules by which rows are loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from pgstow.core.errors import ContentMismatch, RepositoryDamaged
from pgstow.core.progress import SilentProgress
from pgstow.postgres.archive import TABLE_DATA_TRAILER
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from support.backups import capture_into, files_of, memory_repository, tools_for
from support.dumps import content_of, dump
from support.every_kind import HOSTILE, create_every_kind
from support.restoring import assert_equal_rows, bring_back, execute, fetch

Databases = Callable[..., ConnInfo]

# Rows of a table that is hashed by an enum may come back in another partition: the hash is of the label's OID.
HASHED = "--exclude-table-data=app.by_hash_*"


def test_everything_comes_back(cluster: Cluster, database: Databases) -> None:
    execute(ConnInfo.parse(cluster.conninfo()), "CREATE ROLE restore_owner")
    try:
        source, target = database(cluster), database(cluster)
        create_every_kind(source, role="restore_owner")
        repository = memory_repository()
        files = files_of(repository, capture_into(repository, source))

        report = bring_back(files, target)

        tools = tools_for(source)
        assert content_of(target, tools, HASHED) == content_of(source, tools, HASHED)
        assert_equal_rows(source, target)
        assert report.rows == files.manifest.totals.rows > 7_000
        assert report.large_objects == 3
        assert report.size_bytes > 3_000_000
        assert {table.name for table in report.tables} >= {"kinds", HOSTILE, "events_rest"}
        assert report.warnings == () == report.unset_foreign_keys
        assert not report.is_partial
    finally:
        execute(source, "DROP OWNED BY restore_owner CASCADE")
        execute(target, "DROP OWNED BY restore_owner CASCADE")
        execute(ConnInfo.parse(cluster.conninfo()), "DROP ROLE restore_owner")


@pytest.mark.parametrize("old", [15, 16])
def test_a_newer_major_release_takes_it(
    old: int, request: pytest.FixtureRequest, pg18: Cluster, database: Databases, tmp_path: Path
) -> None:
    source, target = database(request.getfixturevalue(f"pg{old}")), database(pg18)
    create_every_kind(source)

    bring_back(dump(source, tools_for(source), tmp_path / "dump"), target)

    assert_equal_rows(source, target)


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_JP", "SQL_ASCII"])
@pytest.mark.parametrize("into_same", [True, False])
def test_other_encodings(encoding: str, into_same: bool, pg15: Cluster, database: Databases) -> None:
    options = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    source = database(pg15, options=options)
    target = database(pg15, options=options) if into_same else database(pg15)
    word = "日本" if encoding == "EUC_JP" else "Größe é"
    execute(
        source,
        f"""SET client_encoding = 'UTF8'; CREATE SCHEMA "{word}"; CREATE TABLE "{word}"."{word}" ("{word}" text);
        INSERT INTO "{word}"."{word}" VALUES ('{word}'), (NULL); COMMENT ON TABLE "{word}"."{word}" IS '{word}'""",
    )
    repository = memory_repository()
    files = files_of(repository, capture_into(repository, source))

    report = bring_back(files, target)

    # SQL_ASCII knows no characters: a client that wants UTF-8 gets the bytes that a UTF-8 client wrote
    shown = f'SELECT * FROM "{word}"."{word}" ORDER BY 1'
    with psycopg.connect(target.connect_string(), client_encoding="utf-8") as connection:
        assert connection.execute(shown).fetchall() == [(word,), (None,)]
    assert [table.name for table in report.tables] == [word]


def test_into_a_new_database_with_a_hostile_name(pg16: Cluster, database: Databases, tmp_path: Path) -> None:
    source = database(
        pg16,
        "DATABASE source; --",
        options="ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    )
    name = sql.Identifier("DATABASE source; --")
    with psycopg.connect(source.connect_string(), autocommit=True) as connection:
        for statement in (
            "COMMENT ON DATABASE {} IS 'of DATABASE x; it''s'",
            "ALTER DATABASE {} SET myapp.text = 'ALTER DATABASE y; \"quoted\"'",
            "ALTER DATABASE {} SET default_transaction_read_only = on",
            "ALTER DATABASE {} CONNECTION LIMIT 77",
            "ALTER ROLE postgres IN DATABASE {} SET work_mem = '5MB'",
            "REVOKE TEMP ON DATABASE {} FROM PUBLIC",
        ):
            connection.execute(sql.SQL(statement).format(name))
    with psycopg.connect(
        source.connect_string(), options="-c default_transaction_read_only=off"
    ) as connection:
        connection.execute("CREATE TABLE t (id int)")
    files = dump(source, tools_for(source), tmp_path / "dump")
    target = source.with_database("new \"one\"='x' \n DATABASE")
    try:
        report = bring_back(files, target, create=True)

        about = """SELECT pg_encoding_to_char(encoding), datcollate, datconnlimit, (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(datacl) a), shobj_description(d.oid, 'pg_database'),
            (SELECT string_agg(setrole::regrole::text || setconfig::text, ';' ORDER BY setrole) FROM pg_db_role_setting s
             WHERE s.setdatabase = d.oid), datname FROM pg_database d WHERE datname = current_database()"""
        (found,), (wanted,) = fetch(target, about), fetch(source, about)
        assert found[:-1] == wanted[:-1]
        assert found[0] == "LATIN1"
        assert found[-1] == target.dbname == report.target.database
        assert report.created_database
    finally:
        with psycopg.connect(pg16.conninfo(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(target.dbname or ""))
            )


def test_a_locale_the_server_lacks_is_replaced_and_said(
    pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    source = database(pg15)
    execute(source, "CREATE TABLE t AS SELECT 1 AS id")
    files = dump(source, tools_for(source), tmp_path / "dump")
    files.tamper(
        server=files.manifest.server.model_copy(update={"collate": "xx_XX.UTF-8", "ctype": "xx_XX.UTF-8"})
    )
    target = source.with_database("restored_elsewhere")
    try:
        report = bring_back(files, target, create=True)

        assert "xx_XX.UTF-8" in report.warnings[0]
        assert fetch(target, "SELECT id FROM t") == [(1,)]
    finally:
        execute(source, "DROP DATABASE IF EXISTS restored_elsewhere")


# -- how rows are loaded


def test_rows_are_frozen_in_tables_that_the_restore_made(
    outer_cluster: Cluster, database: Databases, tmp_path: Path
) -> None:
    source, target = database(outer_cluster), database(outer_cluster)
    execute(
        source,
        """CREATE TABLE plain AS SELECT i FROM generate_series(1, 20000) i; CREATE TABLE small AS SELECT 1 AS i;
        CREATE TABLE parts (i int) PARTITION BY RANGE (i); CREATE TABLE part PARTITION OF parts DEFAULT;
        INSERT INTO parts SELECT generate_series(1, 20000)""",
    )

    report = bring_back(dump(source, tools_for(source), tmp_path / "dump"), target)

    # for a small table the new files of TRUNCATE cost more than freezing saves
    assert {t.name: t.is_frozen for t in report.tables} == {"plain": True, "part": True, "small": False}
    # 20,000 rows fill 89 pages; 16 and newer make some more in advance
    visible = "SELECT relname FROM pg_class WHERE relallvisible = 89 AND relnamespace = 'public'::regnamespace ORDER BY 1"
    assert fetch(target, visible) == [("part",), ("plain",)]  # before any vacuum
    if _has(target, "pageinspect"):
        execute(target, "CREATE EXTENSION pageinspect")
        for table in ("plain", "part"):
            masks = f"SELECT DISTINCT t_infomask & 768 FROM heap_page_items(get_raw_page('{table}', 0))"
            assert fetch(target, masks) == [(768,)]  # both hint bits together mean frozen


def test_many_small_tables(pg15: Cluster, database: Databases, tmp_path: Path) -> None:
    """More than fit into one transaction, and one of them wrong."""
    source, target = database(pg15), database(pg15)
    execute(
        source,
        "DO $$ BEGIN FOR i IN 1..120 LOOP EXECUTE format('CREATE TABLE t%s AS SELECT generate_series(1, %s) i', i, i);"
        " END LOOP; END $$",
    )
    files = dump(source, tools_for(source), tmp_path / "dump")
    files.tamper(rows={"t60": 61})
    with pytest.raises(ContentMismatch, match=r"60 rows of public\.t60"):
        bring_back(files, target)
    files.tamper(rows={"t60": 60})

    report = bring_back(files, target, clean=True, confirm=target.dbname)

    assert [table.rows for table in report.tables if table.name == "t60"] == [60]
    assert len(report.tables) == 120
    assert_equal_rows(source, target)


def _has(conninfo: ConnInfo, extension: str) -> bool:
    return bool(fetch(conninfo, f"SELECT 1 FROM pg_available_extensions WHERE name = '{extension}'"))


def test_a_partition_root_spreads_rows_and_counts_are_its_own(
    cluster: Cluster, database: Databases, tmp_path: Path
) -> None:
    source, target = database(cluster), database(cluster)
    execute(
        source,
        """CREATE TYPE word AS ENUM ('a', 'b', 'c', 'd', 'e', 'f');
        CREATE TABLE spread (w word, i int) PARTITION BY HASH (w);
        CREATE TABLE spread_0 PARTITION OF spread FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE spread_1 PARTITION OF spread FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        INSERT INTO spread SELECT w, i FROM unnest(enum_range(NULL::word)) w, generate_series(1, 5000) i""",
    )
    # other OIDs of the labels in the target, so other hashes
    execute(target, "CREATE TYPE other AS ENUM ('x', 'y', 'z'); DROP TYPE other")
    files = dump(source, tools_for(source), tmp_path / "dump", "--load-via-partition-root")

    report = bring_back(files, target)

    assert {table.loaded_via for table in report.tables} == {"public.spread"}
    assert not any(table.is_frozen for table in report.tables)
    assert fetch(target, "SELECT count(*) FROM spread") == [(30_000,)]
    assert_equal_rows(source, target)


# What the script of an extension with a configuration table does.
CONFIGURED = """
    CREATE EXTENSION tablefunc; CREATE TABLE config (id int PRIMARY KEY, standard bool, t text); ALTER EXTENSION tablefunc ADD TABLE config;
    UPDATE pg_extension SET extconfig = ARRAY['config'::regclass::oid], extcondition = ARRAY['WHERE NOT standard']
    WHERE extname = 'tablefunc';
    INSERT INTO config VALUES (1, true), (2, true)"""
# Enough that the restore would freeze a table of its own.
OF_USERS = "; INSERT INTO config SELECT i, false, repeat('x', 1000) FROM generate_series(10, 109) i"


@pytest.mark.parametrize("compare", [False, True])
def test_rows_of_the_extension_itself_survive(
    compare: bool, pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    source, target = database(pg15), database(pg15)
    execute(source, CONFIGURED + OF_USERS)
    execute(target, CONFIGURED)  # an extension and what is its own leave a database empty

    report = bring_back(dump(source, tools_for(source), tmp_path / "dump"), target, compare=compare)

    assert fetch(target, "SELECT standard, count(*) FROM config GROUP BY 1 ORDER BY 1") == [
        (False, 100),
        (True, 2),
    ]
    assert [(table.name, table.rows, table.is_frozen) for table in report.tables] == [("config", 100, False)]


@pytest.mark.parametrize("compare", [False, True])
def test_rows_that_an_extension_brings_are_not_counted_as_restored(
    compare: bool, pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    source, target = database(pg15), database(pg15)
    execute(source, CONFIGURED + OF_USERS)
    execute(
        target, CONFIGURED + ", (3, false)"
    )  # a newer version of it brings a row that matches the condition

    report = bring_back(dump(source, tools_for(source), tmp_path / "dump"), target, compare=compare)

    assert report.rows == 100


def test_a_backup_that_lost_a_large_object(pg15: Cluster, database: Databases, tmp_path: Path) -> None:
    source, target = database(pg15), database(pg15)
    execute(source, "SELECT lo_from_bytea(0, 'one'), lo_from_bytea(0, 'two')")
    files = dump(source, tools_for(source), tmp_path / "dump")
    assert files.manifest.large_objects.count == 2
    listing = files.folder / "blobs.toc"
    listing.write_text("".join(listing.read_text().splitlines(keepends=True)[:1]))

    with pytest.raises(ContentMismatch, match="lists 1 large objects, the manifest 2"):
        bring_back(files, target)


def test_a_count_that_differs_is_found(pg15: Cluster, database: Databases, tmp_path: Path) -> None:
    source, target = database(pg15), database(pg15)
    execute(source, "CREATE TABLE stock AS SELECT i FROM generate_series(1, 10) i")
    files = dump(source, tools_for(source), tmp_path / "dump")
    files.tamper(rows={"stock": 11})

    with pytest.raises(ContentMismatch, match=r"10 rows of public\.stock .* recorded 11"):
        bring_back(files, target)

    assert fetch(target, "SELECT count(*) FROM stock") == [(0,)]


def test_rows_that_go_missing_after_the_load_are_found(
    pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    source, target = database(pg15), database(pg15)
    execute(source, "CREATE TABLE stock AS SELECT i FROM generate_series(1, 10) i")
    files = dump(source, tools_for(source), tmp_path / "dump")

    class Thief(SilentProgress):
        def phase(self, name: str) -> None:
            if name == "counting rows":
                execute(target, "DELETE FROM stock WHERE i = 3")

    with pytest.raises(ContentMismatch, match=r"public\.stock has 9 instead of 10"):
        bring_back(files, target, progress=Thief())


@pytest.mark.parametrize("end", [b"", b"\\.\n", b"\\.\n\n\nx", b"1"])
def test_a_member_without_its_end_mark_is_damaged(
    end: bytes, pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    source, target = database(pg15), database(pg15)
    execute(source, "CREATE TABLE stock AS SELECT i FROM generate_series(1, 10) i")
    files = dump(source, tools_for(source), tmp_path / "dump")
    assert files.manifest.tables
    (member,) = files.folder.glob("*[0-9].dat")
    member.write_bytes(member.read_bytes().removesuffix(TABLE_DATA_TRAILER) + end)

    with pytest.raises(RepositoryDamaged, match="does not end as pg_dump ends"):
        bring_back(files, target)

    assert fetch(target, "SELECT count(*) FROM stock") == [(0,)]


FOREIGN_KEYS = """
CREATE TABLE clients (id int PRIMARY KEY, parent int REFERENCES clients DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE "odd
    ADD CONSTRAINT x" (id int PRIMARY KEY, client int CONSTRAINT "what; NOT VALID" REFERENCES clients ON DELETE CASCADE);
CREATE TABLE a (id int UNIQUE, client int REFERENCES clients MATCH FULL);
CREATE TABLE "a b" (id int REFERENCES a (id), client int REFERENCES clients);
CREATE TABLE loose (client int);
INSERT INTO clients SELECT i, i / 2 + 1 FROM generate_series(1, 3000) i;
INSERT INTO "odd
    ADD CONSTRAINT x" SELECT i, i FROM generate_series(1, 2000) i;
INSERT INTO a SELECT i, i FROM generate_series(1, 2000) i; INSERT INTO "a b" SELECT i, i FROM generate_series(1, 2000) i;
INSERT INTO loose VALUES (-1); ALTER TABLE loose ADD CONSTRAINT never_valid FOREIGN KEY (client) REFERENCES clients NOT VALID;
ALTER TABLE "a b" ADD CONSTRAINT "b c" FOREIGN KEY (client) REFERENCES clients;
ALTER TABLE a ADD CONSTRAINT "b b c" FOREIGN KEY (client) REFERENCES clients;
CREATE STATISTICS of_both (dependencies) ON id, client FROM a
"""


@pytest.mark.parametrize("jobs", [1, 4])
def test_foreign_keys_end_as_they_were(
    outer_cluster: Cluster, database: Databases, tmp_path: Path, jobs: int
) -> None:
    source, target = database(outer_cluster), database(outer_cluster)
    execute(source, FOREIGN_KEYS)
    files = dump(source, tools_for(source), tmp_path / "dump")

    bring_back(files, target, jobs=jobs)

    query = (
        "SELECT conrelid::regclass::text, conname, convalidated, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE contype = 'f' ORDER BY 1, 2"
    )
    found = fetch(target, query)
    assert found == fetch(source, query)
    assert [name for _, name, is_valid, _ in found if not is_valid] == ["never_valid"]
    assert len(found) == 8


def test_every_table_has_statistics(outer_cluster: Cluster, database: Databases, tmp_path: Path) -> None:
    source, target = database(outer_cluster), database(outer_cluster)
    execute(source, FOREIGN_KEYS)
    execute(source, "CREATE INDEX ON clients ((id * parent))")
    execute(
        source,
        """CREATE TABLE parent (id int, kind text); CREATE TABLE child (more int) INHERITS (parent);
        INSERT INTO parent VALUES (1, 'p'); INSERT INTO child SELECT i, 'c', i FROM generate_series(1, 4000) i""",
    )
    create_partitioned = """CREATE TABLE parted (id int) PARTITION BY RANGE (id);
        CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (10000);
        INSERT INTO parted SELECT generate_series(1, 2000)"""
    execute(source, create_partitioned)
    execute(source, "ANALYZE")
    files = dump(source, tools_for(source), tmp_path / "dump")

    bring_back(files, target, jobs=2)

    query = "SELECT tablename, attname, inherited FROM pg_stats WHERE schemaname = 'public' ORDER BY 1, 2, 3"
    assert fetch(target, query) == fetch(source, query)
    assert fetch(target, "SELECT count(*) FROM pg_stats_ext WHERE dependencies IS NOT NULL") == [(1,)]


def test_indexes_that_take_strong_locks(outer_cluster: Cluster, database: Databases, tmp_path: Path) -> None:
    """pg_dump sets the clustered index and the replica identity in the statement that makes the index."""
    source, target = database(outer_cluster), database(outer_cluster)
    execute(
        source,
        """CREATE TABLE t AS SELECT i AS id, i AS other, i % 7 AS third FROM generate_series(1, 50000) i;
        ALTER TABLE t ALTER other SET NOT NULL;
        CREATE INDEX by_id ON t (id); CREATE UNIQUE INDEX by_other ON t (other); CREATE INDEX by_third ON t (third);
        ALTER TABLE t CLUSTER ON by_id; ALTER TABLE t REPLICA IDENTITY USING INDEX by_other""",
    )
    files = dump(source, tools_for(source), tmp_path / "dump")

    bring_back(files, target, jobs=4)

    query = (
        "SELECT indexrelid::regclass::text, indisclustered, indisreplident FROM pg_index"
        " WHERE indrelid = 't'::regclass ORDER BY 1"
    )
    assert fetch(target, query) == fetch(source, query)


def test_a_key_of_a_partitioned_table_that_has_no_partitions(
    outer_cluster: Cluster, database: Databases, tmp_path: Path
) -> None:
    source, target = database(outer_cluster), database(outer_cluster)
    execute(
        source,
        """CREATE TABLE clients (id int PRIMARY KEY); INSERT INTO clients VALUES (1);
        CREATE TABLE events (at date, client int REFERENCES clients) PARTITION BY RANGE (at)""",
    )
    files = dump(source, tools_for(source), tmp_path / "dump")

    bring_back(files, target)

    query = "SELECT conname, convalidated FROM pg_constraint WHERE contype = 'f'"
    assert fetch(target, query) == [("events_client_fkey", True)]


def test_the_targets_default_tablespace_is_not_ours(
    make_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    cluster = make_cluster(16)
    place = cluster.data_dir.parent / "fast"
    place.mkdir()
    shutil.chown(place, cluster.data_dir.owner())
    source = ConnInfo.parse(cluster.conninfo())
    execute(source, f"CREATE TABLESPACE fast LOCATION '{place}'")
    execute(source, "CREATE DATABASE target")
    execute(source, "ALTER DATABASE target SET default_tablespace = fast")
    execute(
        source,
        "CREATE TABLE t (id int PRIMARY KEY, other int); CREATE INDEX ON t (other); INSERT INTO t VALUES (1)",
    )
    files = dump(source, tools_for(source), tmp_path / "dump")
    target = source.with_database("target")

    bring_back(files, target)

    elsewhere = "SELECT relname FROM pg_class WHERE reltablespace <> 0 AND relname ~ '^t'"
    assert fetch(target, elsewhere) == []


def test_owners_without_rights_on_their_tables_get_their_rows(
    pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    admin = ConnInfo.parse(pg15.conninfo())
    execute(admin, "CREATE ROLE humble LOGIN CREATEDB; GRANT pg_read_all_data TO humble")
    try:
        source, target = database(pg15), database(pg15, options="OWNER humble")
        execute(
            source,
            """ALTER DATABASE CURRENT_DB OWNER TO humble; CREATE TABLE stock AS SELECT 1 AS id; ALTER TABLE stock OWNER TO humble;
            REVOKE ALL ON stock FROM humble; GRANT SELECT ON stock TO humble""".replace(
                "CURRENT_DB", f'"{source.dbname}"'
            ),
        )
        files = dump(source, tools_for(source), tmp_path / "dump")

        bring_back(files, ConnInfo.parse(pg15.conninfo(target.dbname or "", user="humble")))

        assert fetch(target, "SELECT id FROM stock") == [(1,)]
        assert fetch(target, "SELECT relacl::text FROM pg_class WHERE relname = 'stock'") == [
            ("{humble=r/humble}",)
        ]
    finally:
        for conninfo in (source, target):
            execute(conninfo, f'ALTER DATABASE "{conninfo.dbname}" OWNER TO postgres; DROP OWNED BY humble')
        execute(admin, "DROP OWNED BY humble; DROP ROLE humble")


# -- --clean


def test_clean_replaces_tables_that_hold_on_to_each_other(
    outer_cluster: Cluster, database: Databases, tmp_path: Path
) -> None:
    source, target = database(outer_cluster), database(outer_cluster)
    create_every_kind(source)
    files = dump(source, tools_for(source), tmp_path / "dump")
    bring_back(files, target)
    execute(target, "DELETE FROM app.orders; CREATE TABLE kept (id int); SELECT lo_put(900001, 0, 'spoiled')")

    report = bring_back(files, target, clean=True, confirm=target.dbname)

    assert fetch(target, "SELECT count(*) FROM kept") == [(0,)]
    execute(target, "DROP TABLE kept")
    assert_equal_rows(source, target)
    assert report.timings_s["dropping"] > 0


def test_create_and_clean_replace_the_database(pg15: Cluster, database: Databases, tmp_path: Path) -> None:
    source, target = database(pg15), database(pg15)
    execute(source, "CREATE TABLE stock AS SELECT 1 AS id")
    execute(target, "CREATE TABLE other AS SELECT 1 AS id")
    files = dump(source, tools_for(source), tmp_path / "dump")

    report = bring_back(files, target, create=True, clean=True, confirm=target.dbname)

    assert fetch(target, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [
        ("stock",)
    ]
    assert report.created_database


def test_schema_only(pg15: Cluster, database: Databases, tmp_path: Path) -> None:
    source, target = database(pg15), database(pg15)
    create_every_kind(source)
    tools = tools_for(source)

    report = bring_back(dump(source, tools, tmp_path / "dump"), target, schema_only=True)

    assert content_of(target, tools, "--schema-only", "--exclude-schema=none") == content_of(
        source, tools, "--schema-only"
    )
    assert fetch(target, "SELECT count(*) FROM app.orders") == [(0,)]
    assert (report.tables, report.large_objects) == ((), 0)
