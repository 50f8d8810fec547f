"""Every way in which a restored database can differ is seen, and none is imagined."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from pgstow.assurance.compare import TableComparison, compare_databases
from pgstow.core.errors import PostgresError
from pgstow.postgres.conninfo import ConnInfo

CONTENT = """
    CREATE TABLE plain (id int, name text, price numeric(10,2), seen timestamptz, tags text[], doc jsonb);
    INSERT INTO plain SELECT n, 'name ' || n, n / 3.0, timestamptz '2026-01-01 UTC' + n * interval '1 hour',
        ARRAY['a', n::text], jsonb_build_object('n', n) FROM generate_series(1, 500) n;
    INSERT INTO plain VALUES (NULL, NULL, NULL, NULL, NULL, NULL), (501, '', 0, NULL, '{}', '{}');
    CREATE TABLE empty (id int);
    CREATE TABLE columnless ();
    INSERT INTO columnless SELECT FROM generate_series(1, 7);
    CREATE TABLE computed (a int, b int GENERATED ALWAYS AS (a * 2) STORED);
    INSERT INTO computed SELECT generate_series(1, 20);
    CREATE TABLE floats (f float8, g float4, b bytea, i interval);
    INSERT INTO floats VALUES (0.1::float8 + 0.2::float8, 1.1, '\\x00ff', '1 year 2 days 3.5 s'), ('NaN', '-Infinity', '', '-1 s');
    CREATE TABLE "Odd ""name"".x" ("a""b" int, "select" text);
    INSERT INTO "Odd ""name"".x" VALUES (1, E'two\\nlines\\t\\\\');
    CREATE TABLE monthly (at date, v int) PARTITION BY RANGE (at);
    CREATE TABLE monthly_1 PARTITION OF monthly FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
    CREATE TABLE monthly_2 (v int, at date);
    ALTER TABLE monthly ATTACH PARTITION monthly_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
    INSERT INTO monthly SELECT date '2026-01-01' + n % 59, n FROM generate_series(0, 99) n;
    CREATE TABLE hashed (k int, v text) PARTITION BY HASH (k);
    CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE hashed_1 (v text, k int);
    ALTER TABLE hashed ATTACH PARTITION hashed_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    INSERT INTO hashed SELECT n, 'v' || n FROM generate_series(1, 40) n;
    CREATE TABLE parent (a int);
    CREATE TABLE child (b int) INHERITS (parent);
    INSERT INTO parent VALUES (1);
    INSERT INTO child VALUES (1, 2), (3, 4);
    CREATE SEQUENCE counter;
    SELECT nextval('counter');
    SELECT lo_from_bytea(70001, 'large'), lo_from_bytea(70002, '\\x00'),
        lo_from_bytea(70003, convert_to(repeat('0123456789', 250000), 'UTF8'));
"""

# Name of the damage, what does it, what is then different.
DAMAGES = [
    ("row lost", "DELETE FROM plain WHERE id = 250", "plain"),
    ("row doubled", "INSERT INTO plain SELECT * FROM plain WHERE id = 250", "plain"),
    ("row replaced", "UPDATE plain SET (id, name) = (7, 'name 7') WHERE id = 8", "plain"),
    ("value changed", "UPDATE plain SET price = price + 0.01 WHERE id = 250", "plain"),
    (
        "values swapped between rows",
        "UPDATE plain SET name = CASE id WHEN 3 THEN 'name 4' ELSE 'name 3' END WHERE id IN (3, 4)",
        "plain",
    ),
    (
        "values swapped between columns",
        'UPDATE "Odd ""name"".x" SET "select" = 1, "a""b" = 1',
        'Odd "name".x',
    ),
    ("null became empty", "UPDATE plain SET name = '' WHERE id IS NULL", "plain"),
    ("empty became null", "UPDATE plain SET name = NULL WHERE id = 501", "plain"),
    ("array flattened", "UPDATE plain SET tags = ARRAY['a,' || id] WHERE id = 9", "plain"),
    ("scale lost", "ALTER TABLE plain ALTER price TYPE numeric; UPDATE plain SET price = trim_scale(price)", "plain"),
    ("instant moved", "UPDATE plain SET seen = seen + interval '1 microsecond' WHERE id = 77", "plain"),
    ("last digit of a float", "UPDATE floats SET f = 0.3 WHERE f < 1", "floats"),
    ("empty row lost", "DELETE FROM columnless WHERE ctid = '(0,1)'", "columnless"),
    ("table emptied", "TRUNCATE floats", "floats"),
    ("row appeared", "INSERT INTO empty VALUES (NULL)", "empty"),
    ("table missing", "DROP TABLE empty", "empty"),
    ("table added", "CREATE TABLE extra ()", "extra"),
    ("column renamed", "ALTER TABLE computed RENAME a TO c", "computed"),
    ("partition's row changed", "UPDATE monthly SET v = 1000 WHERE v = 3", "monthly_1"),
    ("hash partition's row changed", "UPDATE hashed SET v = 'w' WHERE k = 3", "hashed"),
    ("child's row moved to its parent", "WITH d AS (DELETE FROM child WHERE a = 3 RETURNING a) INSERT INTO parent TABLE d", "parent"),
    ("sequence advanced", "SELECT nextval('counter')", "counter"),
    ("sequence not called", "SELECT setval('counter', 1, false)", "counter"),
    ("large object changed", "SELECT lo_put(70003, 2400000, 'x')", ""),
    ("large object cut", "SELECT lo_truncate(lo_open(70001, 131072), 4)", ""),
    ("large object lost", "SELECT lo_unlink(70002)", ""),
    ("large object under another number", "SELECT lo_unlink(70002), lo_from_bytea(70009, '\\x00')", ""),
]  # fmt: skip


@pytest.fixture(scope="module")
def original(pg15, shared_database):
    """A database with every kind of content, which no test changes."""
    source = shared_database(pg15)
    fill(source)
    return source


@pytest.fixture
def twins(original, pg15, database):
    """The original, and a database with the same content whose rows lie in another order."""
    target = database(pg15, options=f'TEMPLATE "{original.dbname}"')
    execute(
        target,
        "CREATE TABLE again AS TABLE plain; TRUNCATE plain;"
        "INSERT INTO plain SELECT * FROM again ORDER BY id DESC; DROP TABLE again",
    )
    return original, target


def fill(conninfo: ConnInfo, content: str = CONTENT) -> None:
    execute(conninfo, content)


def execute(conninfo: ConnInfo, statements: str) -> None:
    with psycopg.connect(conninfo.connect_string(), autocommit=False) as connection:
        connection.execute(statements.encode())


def different(comparisons: list[TableComparison]) -> set[str]:
    return {comparison.name for comparison in comparisons if not comparison.is_equal}


def test_equal_content_in_another_order_is_equal(twins):
    comparisons = compare_databases(*twins)
    assert different(comparisons) == set()
    rows = {
        comparison.name: comparison.source_rows for comparison in comparisons if comparison.kind == "table"
    }
    assert rows == {
        "plain": 502, "empty": 0, "columnless": 7, "computed": 20, "floats": 2, 'Odd "name".x': 1,
        "monthly_1": 62, "monthly_2": 38, "hashed": 40, "parent": 1, "child": 2,
    }  # fmt: skip
    assert all(comparison.source_rows == comparison.target_rows for comparison in comparisons)


@pytest.mark.parametrize(("damage", "name"), [pytest.param(*rest, id=title) for title, *rest in DAMAGES])
def test_damage_is_seen(twins, damage, name):
    source, target = twins
    execute(target, damage)
    allowed = {name, "child"} if name == "parent" else {name}
    assert different(compare_databases(source, target)) == allowed
    assert different(compare_databases(target, source)) == allowed


def test_a_missing_table_has_no_row_count(twins):
    source, target = twins
    execute(target, "DROP TABLE empty")
    (missing,) = [c for c in compare_databases(source, target) if c.name == "empty"]
    assert (missing.source_rows, missing.target_rows, missing.is_equal) == (0, None, False)


def test_rows_in_another_hash_partition_are_equal(twins):
    source, target = twins
    execute(
        target,
        "CREATE TABLE kept AS TABLE hashed; DROP TABLE hashed;"
        "CREATE TABLE hashed (k int, v text) PARTITION BY HASH (k);"
        "CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 1, REMAINDER 0);"
        "INSERT INTO hashed TABLE kept; DROP TABLE kept",
    )
    assert different(compare_databases(source, target)) == set()


def test_releases_agree(pg18, cluster, database):
    source, target = database(pg18), database(cluster)
    fill(source)
    fill(target)
    assert different(compare_databases(source, target)) == set()


def test_settings_of_role_and_database_do_not_matter(pg15, twins):
    source, target = twins
    name = sql.Identifier(target.dbname or "")
    with psycopg.connect(pg15.conninfo(), autocommit=True) as admin:
        for setting in (
            "TimeZone TO 'Asia/Tokyo'", "DateStyle TO 'German'", "extra_float_digits TO 0",
            "IntervalStyle TO 'iso_8601'", "bytea_output TO 'escape'",
        ):  # fmt: skip
            admin.execute(sql.SQL("ALTER DATABASE {} SET {}").format(name, sql.SQL(setting)))
    assert different(compare_databases(source, target)) == set()


@pytest.mark.parametrize(
    ("encoding", "literal"),
    [("LATIN1", "U&'caf\\00E9'"), ("WIN1252", "U&'\\20AC 5'"), ("EUC_JP", "U&'\\65E5\\672C'")],
)
def test_encodings_are_compared_by_character(pg15, database, encoding, literal):
    options = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    source, target = database(pg15, options=options), database(pg15)
    for side in (source, target):
        execute(side, f"CREATE TABLE words (word text); INSERT INTO words VALUES ({literal})")
    assert different(compare_databases(source, target)) == set()
    execute(target, "UPDATE words SET word = word || '!'")
    assert different(compare_databases(source, target)) == {"words"}


def test_bytes_without_an_encoding_are_compared_as_they_are(pg15, database):
    options = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    source, target = database(pg15, options=options), database(pg15, options=options)
    for side, word in ((source, b"\xff\xfe"), (target, b"\xff\xfd")):
        with psycopg.connect(side.connect_string(), client_encoding="SQL_ASCII") as connection:
            connection.execute(b'CREATE TABLE "caf\xe9" AS SELECT \'' + word + b"' AS word")
    assert different(compare_databases(source, target)) == {r"caf\xe9"}
    assert different(compare_databases(source, source)) == set()


def test_a_table_that_may_not_be_read_is_an_error(pg15, twins):
    source, target = twins
    execute(target, "CREATE ROLE compare_reader LOGIN; GRANT pg_read_all_data TO compare_reader")
    try:
        execute(target, "CREATE TABLE locked (id int); ALTER TABLE locked ENABLE ROW LEVEL SECURITY")
        reader = ConnInfo.parse(pg15.conninfo(target.dbname or "", user="compare_reader"))
        with pytest.raises(PostgresError, match=r"row-level security|permission denied"):
            compare_databases(source, reader)
    finally:
        execute(target, "DROP ROLE compare_reader")


def test_extension_tables_count_only_for_their_configuration(pg15, database):
    source, target = database(pg15), database(pg15)
    for side in (source, target):
        execute(
            side,
            "CREATE EXTENSION hstore; CREATE TABLE of_extension (id int); ALTER EXTENSION hstore ADD TABLE of_extension",
        )
    execute(source, "INSERT INTO of_extension VALUES (1)")
    assert different(compare_databases(source, target)) == set()
    for side in (source, target):
        execute(
            side,
            "UPDATE pg_extension SET extconfig = ARRAY['of_extension'::regclass::oid], extcondition = ARRAY['WHERE id > 1']"
            " WHERE extname = 'hstore'",
        )
    assert different(compare_databases(source, target)) == set()
    execute(target, "INSERT INTO of_extension VALUES (2)")
    assert different(compare_databases(source, target)) == {"of_extension"}
