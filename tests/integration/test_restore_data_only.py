"""Loading rows into tables that are there already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgstow.core.errors import RestoreError, TargetRefused
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from support.backups import tools_for
from support.dumps import DumpFiles, dump
from support.every_kind import create_every_kind
from support.restoring import assert_equal_rows, bring_back, execute, fetch

Databases = Callable[..., ConnInfo]

SHOP = """
    CREATE TABLE log (what text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.log VALUES (TG_NAME); RETURN NEW; END $$;
    CREATE TABLE a_orders (id int PRIMARY KEY, customer int, previous int REFERENCES a_orders);
    CREATE TABLE customers (id serial PRIMARY KEY, name text);
    ALTER TABLE a_orders ADD FOREIGN KEY (customer) REFERENCES customers;
    INSERT INTO customers (name) SELECT 'name' || i FROM generate_series(1, 50) i;
    INSERT INTO a_orders SELECT i, 51 - i, nullif((i + 1) % 51, 0) FROM generate_series(1, 50) i;
    CREATE TRIGGER usual AFTER INSERT ON customers FOR EACH ROW EXECUTE FUNCTION note();
    CREATE TRIGGER always AFTER INSERT ON customers FOR EACH ROW EXECUTE FUNCTION note();
    ALTER TABLE customers ENABLE ALWAYS TRIGGER always;
    CREATE TRIGGER replica AFTER INSERT ON customers FOR EACH ROW EXECUTE FUNCTION note();
    ALTER TABLE customers ENABLE REPLICA TRIGGER replica;
    CREATE TRIGGER never AFTER INSERT ON customers FOR EACH ROW EXECUTE FUNCTION note();
    ALTER TABLE customers DISABLE TRIGGER never;
"""
STATES = "SELECT tgname, tgenabled::text FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"


@pytest.fixture
def source(pg15: Cluster, database: Databases) -> ConnInfo:
    made = database(pg15)
    execute(made, SHOP)
    return made


@pytest.fixture
def files(source: ConnInfo, tmp_path: Path) -> DumpFiles:
    return dump(source, tools_for(source), tmp_path / "dump")


@pytest.fixture
def target(files: DumpFiles, pg15: Cluster, database: Databases) -> ConnInfo:
    """A database with the tables and without the rows."""
    made = database(pg15)
    bring_back(files, made, schema_only=True)
    return made


def test_rows_of_every_kind(cluster: Cluster, database: Databases, tmp_path: Path) -> None:
    source, target = database(cluster), database(cluster)
    create_every_kind(source)
    files = dump(source, tools_for(source), tmp_path / "dump")
    bring_back(files, target, schema_only=True)
    execute(target, "SELECT lo_unlink(oid) FROM pg_largeobject_metadata")

    report = bring_back(files, target, data_only=True)

    assert_equal_rows(source, target)
    assert not any(table.is_frozen for table in report.tables)
    assert report.large_objects == 3
    assert fetch(target, "SELECT obj_description(900001, 'pg_largeobject')") == [("a large object",)]


def test_a_superuser_loads_as_a_replica(files: DumpFiles, source: ConnInfo, target: ConnInfo) -> None:
    bring_back(files, target, data_only=True)

    assert_equal_rows(source, target)
    assert fetch(target, "SELECT * FROM log") == []  # not even triggers that fire on replicas, or always
    assert fetch(target, STATES) == fetch(source, STATES)
    assert fetch(target, "SELECT nextval('customers_id_seq')") == [(51,)]


@pytest.fixture
def owner(pg15: Cluster, target: ConnInfo) -> Iterator[ConnInfo]:
    """The target as its owner, who is no superuser, reaches it."""
    admin = ConnInfo.parse(pg15.conninfo())
    execute(admin, f'CREATE ROLE shopkeeper LOGIN; ALTER DATABASE "{target.dbname}" OWNER TO shopkeeper')
    for table in ("log", "a_orders", "customers"):
        execute(target, f"ALTER TABLE {table} OWNER TO shopkeeper")
    yield ConnInfo.parse(pg15.conninfo(target.dbname or "", user="shopkeeper"))
    execute(target, f'ALTER DATABASE "{target.dbname}" OWNER TO postgres; DROP OWNED BY shopkeeper CASCADE')
    execute(admin, "DROP ROLE shopkeeper")


def test_an_owner_loads_in_the_order_of_foreign_keys(
    files: DumpFiles, source: ConnInfo, target: ConnInfo, owner: ConnInfo
) -> None:
    bring_back(files, owner, data_only=True)

    assert_equal_rows(source, target)
    assert fetch(target, "SELECT * FROM log") == []
    assert fetch(target, STATES) == fetch(source, STATES)


def test_an_owner_is_refused_where_foreign_keys_go_in_circles(
    files: DumpFiles, target: ConnInfo, owner: ConnInfo
) -> None:
    execute(target, "ALTER TABLE customers ADD latest int CONSTRAINT back REFERENCES a_orders")

    with pytest.raises(
        TargetRefused, match=r"circle: a_orders_customer_fkey of public.a_orders, back of public\.customers$"
    ) as refused:
        bring_back(files, owner, data_only=True)
    assert "session_replication_role" in str(refused.value.hint)
    assert fetch(target, "SELECT count(*) FROM customers") == [(0,)]


def test_a_right_to_be_a_replica_is_used(files: DumpFiles, target: ConnInfo, owner: ConnInfo) -> None:
    execute(target, "GRANT SET ON PARAMETER session_replication_role TO shopkeeper")
    execute(target, "ALTER TABLE customers ADD latest int REFERENCES a_orders")

    assert bring_back(files, owner, data_only=True).rows == 100
    execute(target, "REVOKE SET ON PARAMETER session_replication_role FROM shopkeeper")


def test_rows_that_are_there_are_never_mixed_or_removed(files: DumpFiles, target: ConnInfo) -> None:
    execute(target, "INSERT INTO log VALUES ('mine')")

    with pytest.raises(TargetRefused, match=r"rows already in public\.log"):
        bring_back(files, target, data_only=True)

    assert fetch(target, "SELECT * FROM log") == [("mine",)]
    assert fetch(target, "SELECT count(*) FROM customers") == [(0,)]
    assert bring_back(files, target, data_only=True, tables=("customers", "a_orders")).rows == 100
    assert fetch(target, "SELECT * FROM log") == [("mine",)]


def test_rows_that_no_one_may_see_count_as_rows(files: DumpFiles, target: ConnInfo, owner: ConnInfo) -> None:
    execute(
        target,
        "INSERT INTO log VALUES ('hidden'); ALTER TABLE log ENABLE ROW LEVEL SECURITY; ALTER TABLE log FORCE ROW LEVEL SECURITY",
    )

    with pytest.raises(Exception, match="row-level security"):
        bring_back(files, owner, data_only=True)
    assert fetch(target, "SELECT * FROM log") == [("hidden",)]


def test_a_table_that_is_not_there(files: DumpFiles, target: ConnInfo) -> None:
    execute(target, "DROP TABLE log")

    with pytest.raises(TargetRefused, match=r"has no table public\.log"):
        bring_back(files, target, data_only=True)


def test_large_objects_of_the_same_number(
    pg18: Cluster, pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    for number, cluster in enumerate((pg15, pg18)):
        source, target = database(cluster), database(cluster)
        execute(source, "SELECT lo_from_bytea(900001, 'theirs')")
        execute(target, "SELECT lo_from_bytea(900001, 'mine')")
        files = dump(source, tools_for(source), tmp_path / str(number))

        with pytest.raises(TargetRefused, match="same number: 900001"):
            bring_back(files, target, data_only=True)
        assert fetch(target, "SELECT lo_get(900001)") == [(b"mine",)]


def test_a_failed_load_says_what_is_in(files: DumpFiles, target: ConnInfo) -> None:
    execute(target, "ALTER TABLE a_orders ADD CONSTRAINT early CHECK (id < 40)")

    with pytest.raises(
        RestoreError, match=r'loading public\.a_orders, line 40: .*violates check constraint "early"$'
    ) as failed:
        bring_back(files, target, data_only=True, jobs=1)

    assert failed.value.facts["table"] == "public.a_orders"
    assert failed.value.facts["constraint"] == "early"
    assert "1 of 3 tables loaded: TRUNCATE them before trying again" in str(failed.value.hint)
    assert fetch(target, "SELECT (SELECT count(*) FROM a_orders), (SELECT count(*) FROM customers)") == [
        (0, 50)
    ]
    assert dict(fetch(target, STATES))["usual"] == "O"
