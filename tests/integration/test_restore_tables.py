"""Restoring chosen tables and schemas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pgstow.core.errors import RestoreError, TargetRefused, UsageError
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from support.backups import tools_for
from support.dumps import DumpFiles, content_of, dump
from support.every_kind import HOSTILE, create_every_kind
from support.restoring import bring_back, execute, fetch

Databases = Callable[..., ConnInfo]

SHOP = """
    CREATE SCHEMA app;
    CREATE TYPE app.state AS ENUM ('new', 'paid');
    CREATE DOMAIN app.money AS numeric(12, 2) CHECK (VALUE >= 0);
    CREATE FUNCTION app.stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
    CREATE FUNCTION app.code(int) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1::text';
    CREATE SEQUENCE app.numbers START 500;
    CREATE TABLE app.customers (id int PRIMARY KEY, name text);
    CREATE TABLE app.orders (
        id serial PRIMARY KEY, other int GENERATED ALWAYS AS IDENTITY, number int DEFAULT nextval('app.numbers'),
        customer int CONSTRAINT of_customer REFERENCES app.customers, state app.state, total app.money CHECK (total < 1000));
    COMMENT ON CONSTRAINT of_customer ON app.orders IS 'who ordered';
    COMMENT ON TABLE app.orders IS 'orders'; COMMENT ON COLUMN app.orders.total IS 'total';
    CREATE INDEX by_code ON app.orders (app.code(customer)); CREATE STATISTICS app.both ON customer, state FROM app.orders;
    CREATE TRIGGER stamped BEFORE UPDATE ON app.orders FOR EACH ROW EXECUTE FUNCTION app.stamp();
    ALTER TABLE app.orders ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON app.orders USING (id > 0);
    CREATE RULE quiet AS ON DELETE TO app.orders DO INSTEAD NOTHING;
    GRANT SELECT ON app.orders TO PUBLIC;
    CREATE TABLE app."orders of_customer" (id int PRIMARY KEY REFERENCES app.orders);
    CREATE VIEW app.paid AS SELECT * FROM app.orders WHERE state = 'paid';
    CREATE MATERIALIZED VIEW app.sums AS SELECT sum(total) FROM app.orders;
    CREATE PUBLICATION pub FOR TABLE app.orders;
    CREATE TABLE public.elsewhere (id int);
    INSERT INTO app.customers SELECT i, 'name' || i FROM generate_series(1, 20) i;
    INSERT INTO app.orders (customer, state, total) SELECT i, 'paid', i FROM generate_series(1, 20) i;
    INSERT INTO app."orders of_customer" SELECT generate_series(1, 5); REFRESH MATERIALIZED VIEW app.sums
"""


@pytest.fixture
def source(pg15: Cluster, database: Databases) -> ConnInfo:
    made = database(pg15)
    execute(made, SHOP)
    return made


@pytest.fixture
def files(source: ConnInfo, tmp_path: Path) -> DumpFiles:
    return dump(source, tools_for(source), tmp_path / "dump")


def relations(conninfo: ConnInfo) -> set[str]:
    kinds = "('r', 'p', 'v', 'm', 'S')"
    return {
        name
        for (name,) in fetch(
            conninfo,
            f"SELECT relnamespace::regnamespace || '.' || relname FROM pg_class WHERE oid >= 16384 AND relkind IN {kinds}"
            " AND relnamespace <> 'pg_toast'::regnamespace",
        )
    }


def test_a_table_comes_with_all_that_is_its_own(
    cluster: Cluster, database: Databases, tmp_path: Path
) -> None:
    source, target = database(cluster), database(cluster)
    execute(source, SHOP)
    tools = tools_for(source)

    report = bring_back(
        dump(source, tools, tmp_path / "dump"), target, tables=("app.orders", "app.customers")
    )

    of_tables = (
        "--table=app.orders",
        "--table=app.customers",
        "--table=app.orders_*_seq",
        "--table=app.numbers",
    )
    assert content_of(target, tools, *of_tables) == content_of(source, tools, *of_tables)
    assert relations(target) == {
        "app.orders",
        "app.customers",
        "app.orders_id_seq",
        "app.orders_other_seq",
        "app.numbers",
    }
    assert fetch(target, "SELECT nextval('app.numbers'), nextval('app.orders_id_seq')") == [(520, 21)]
    assert fetch(target, "SELECT conname, obj_description(oid) FROM pg_constraint WHERE contype = 'f'") == [
        ("of_customer", "who ordered")
    ]
    assert [table.rows for table in report.tables] == [20, 20]
    assert [each.what for each in report.skipped] == ["publication table app.pub orders"]
    assert not report.is_partial


def test_foreign_keys_that_cannot_be_set_are_said(
    files: DumpFiles, pg15: Cluster, database: Databases
) -> None:
    target = database(pg15)

    report = bring_back(files, target, tables=("orders",))

    (unset,) = report.unset_foreign_keys
    assert (unset.table, unset.name) == ("app.orders", "of_customer")
    assert 'relation "app.customers" does not exist' in unset.reason
    assert report.is_partial
    assert fetch(target, "SELECT count(*) FROM app.orders") == [(20,)]


def test_rows_that_a_foreign_key_misses_are_said(files: DumpFiles, source: ConnInfo) -> None:
    execute(source, "DROP TABLE app.orders CASCADE; DELETE FROM app.customers WHERE id = 7")

    report = bring_back(files, source, tables=("app.orders",), confirm=source.dbname)

    (unset,) = report.unset_foreign_keys
    assert "Key (customer)=(7) is not present" in unset.reason
    # what pointed to it went with DROP ... CASCADE, and is no part of the table
    assert fetch(source, "SELECT count(*) FROM app.orders") == [(20,)]


def test_a_dropped_table_is_brought_back_among_the_others(files: DumpFiles, source: ConnInfo) -> None:
    execute(source, "DROP TABLE app.orders CASCADE; INSERT INTO app.customers VALUES (21, 'newer')")

    report = bring_back(files, source, tables=("app.orders",), confirm=source.dbname)

    assert report.unset_foreign_keys == ()
    assert fetch(source, "SELECT count(*) FROM app.customers") == [(21,)]
    assert fetch(source, "SELECT count(*) FROM app.orders") == [(20,)]


def test_a_table_that_is_there_is_replaced_only_when_confirmed(
    files: DumpFiles, pg15: Cluster, database: Databases
) -> None:
    target = database(pg15)
    everything = ("app.orders", "app.customers", "app.orders of_customer", "public.elsewhere")
    bring_back(files, target, tables=everything)
    execute(
        target,
        "DELETE FROM app.customers WHERE id > 20; INSERT INTO public.elsewhere VALUES (1); UPDATE app.orders SET total = 0",
    )

    with pytest.raises(TargetRefused, match=r"has table app\.orders"):
        bring_back(files, target, tables=("app.orders", "app.orders of_customer"))
    assert fetch(target, "SELECT DISTINCT total FROM app.orders") == [(0,)]

    bring_back(
        files, target, tables=("app.orders", "app.orders of_customer"), clean=True, confirm=target.dbname
    )

    assert fetch(target, "SELECT count(DISTINCT total) FROM app.orders") == [(20,)]
    assert fetch(target, "SELECT count(*) FROM public.elsewhere") == [(1,)]


def test_what_hangs_on_a_replaced_table_is_not_dropped_in_passing(
    files: DumpFiles, pg15: Cluster, database: Databases
) -> None:
    target = database(pg15)
    bring_back(files, target)
    execute(target, "UPDATE app.orders SET total = 0")

    with pytest.raises(
        RestoreError, match=r"cannot drop constraint orders_pkey on table app\.orders because other"
    ) as failed:
        bring_back(files, target, tables=("app.orders",), clean=True, confirm=target.dbname)

    assert "the target was not touched" in str(failed.value.hint)
    assert fetch(target, "SELECT DISTINCT total FROM app.orders") == [(0,)]
    assert fetch(target, "SELECT count(*) FROM pg_policies") == [(1,)]


def test_what_is_there_already_is_not_made_again(
    files: DumpFiles, source: ConnInfo, pg15: Cluster, database: Databases
) -> None:
    target = database(pg15)
    execute(
        target,
        "CREATE SCHEMA app; CREATE TYPE app.state AS ENUM ('new', 'paid', 'more'); CREATE SEQUENCE app.numbers START 9",
    )

    bring_back(files, target, tables=("app.orders", "app.customers"))

    assert fetch(target, "SELECT nextval('app.numbers'), 'more'::app.state::text") == [(9, "more")]


def test_a_table_with_a_name_like_another_ones_constraint(
    files: DumpFiles, pg15: Cluster, database: Databases
) -> None:
    target = database(pg15)

    report = bring_back(files, target, tables=('app."orders of_customer"',))

    assert relations(target) == {"app.orders of_customer"}
    ((table, name),) = [(key.table, key.name) for key in report.unset_foreign_keys]
    assert (table, name) == ("app.orders of_customer", "orders of_customer_id_fkey")


def test_a_whole_schema(files: DumpFiles, source: ConnInfo, pg15: Cluster, database: Databases) -> None:
    target = database(pg15)
    tools = tools_for(source)

    report = bring_back(files, target, schemas=("app",))

    of_schema = ("--schema=app", "--no-publications")
    assert content_of(target, tools, *of_schema) == content_of(source, tools, *of_schema)
    assert "public.elsewhere" not in relations(target)
    assert not report.is_partial
    with pytest.raises(TargetRefused, match=r"has (type|function|table|domain) app\."):
        bring_back(files, target, schemas=("app",))
    bring_back(files, target, schemas=("app",), clean=True, confirm=target.dbname)
    assert content_of(target, tools, *of_schema) == content_of(source, tools, *of_schema)


def test_what_of_a_schema_cannot_be_made_alone_is_left_out_and_said(
    pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    source, target = database(pg15), database(pg15)
    execute(
        source,
        """CREATE SCHEMA app; CREATE TABLE public.far (id int); CREATE TABLE app.near AS SELECT 1 AS id;
        CREATE VIEW app.over AS SELECT * FROM public.far; CREATE VIEW app.above AS SELECT * FROM app.over;
        COMMENT ON VIEW app.above IS 'gone too';
        CREATE POLICY p ON app.near USING (EXISTS (SELECT FROM public.far))""",
    )

    report = bring_back(dump(source, tools_for(source), tmp_path / "dump"), target, schemas=("app",))

    lost = {each.what for each in report.skipped if each.is_loss}
    assert lost == {"view app.over", "view app.above", "policy app.near p"}
    assert report.is_partial
    assert relations(target) == {"app.near"}


def test_a_table_that_needs_another_is_refused_by_name(
    outer_cluster: Cluster, database: Databases, tmp_path: Path
) -> None:
    source, target = database(outer_cluster), database(outer_cluster)
    execute(
        source,
        "CREATE TABLE parent (id int); CREATE TABLE child (more int) INHERITS (parent); CREATE VIEW v AS SELECT * FROM parent",
    )
    files = dump(source, tools_for(source), tmp_path / "dump")

    for name in ("child", "public.v"):
        with pytest.raises(UsageError, match=r"needs table public\.parent") as refused:
            bring_back(files, target, tables=(name,))
        assert "--table public.parent" in str(refused.value.hint)
    assert relations(target) == set()
    bring_back(files, target, tables=("child", "parent", "v"))
    assert relations(target) == {"public.child", "public.parent", "public.v"}


def test_partitions_come_with_their_root(cluster: Cluster, database: Databases, tmp_path: Path) -> None:
    source, target = database(cluster), database(cluster)
    create_every_kind(source)
    tools = tools_for(source)

    bring_back(dump(source, tools, tmp_path / "dump"), target, tables=("app.events",))

    assert relations(target) == {
        "app.events", "app.events_2024", "app.events_2024_a", "app.events_2024_rest", "app.events_rest",
    }  # fmt: skip
    of_events = ("--table=app.events*",)
    assert content_of(target, tools, *of_events) == content_of(source, tools, *of_events)


def test_a_partition_alone_becomes_a_table(
    outer_cluster: Cluster, database: Databases, tmp_path: Path
) -> None:
    source, target = database(outer_cluster), database(outer_cluster)
    create_every_kind(source)

    report = bring_back(
        dump(source, tools_for(source), tmp_path / "dump"), target, tables=("app.events_rest",)
    )

    assert relations(target) == {"app.events_rest"}
    assert fetch(target, "SELECT count(*) > 0, bool_and(at >= '2025-01-01') FROM app.events_rest") == [
        (True, True)
    ]
    assert any("restored as a table of its own" in each.why for each in report.skipped)
    assert not report.is_partial


def test_a_partition_whose_rows_go_through_the_root_cannot_come_alone(
    pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    source, target = database(pg15), database(pg15)
    create_every_kind(source)
    files = dump(source, tools_for(source), tmp_path / "dump", "--load-via-partition-root")

    with pytest.raises(UsageError, match=r"rows of app\.by_hash_0 are loaded through app\.by_hash"):
        bring_back(files, target, tables=("app.by_hash_0",))
    bring_back(files, target, tables=("app.by_hash",))
    assert fetch(target, "SELECT count(*) FROM app.by_hash") == [(60,)]


@pytest.mark.parametrize(
    "spelling", [f"{HOSTILE}.{HOSTILE}", '"{q}"."{q}"'.format(q=HOSTILE.replace('"', '""')), HOSTILE]
)
def test_hostile_names(spelling: str, pg15: Cluster, database: Databases, tmp_path: Path) -> None:
    source, target = database(pg15), database(pg15)
    create_every_kind(source)

    report = bring_back(dump(source, tools_for(source), tmp_path / "dump"), target, tables=(spelling,))

    assert [(table.schema, table.name, table.rows) for table in report.tables] == [(HOSTILE, HOSTILE, 2)]


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"tables": ("app.order",)}, "holds no table app.order", "app.orders"),
        ({"tables": ("App.Orders",)}, "holds no table App.Orders", "app.orders"),
        ({"tables": ("zzz.qqq",)}, "holds no table zzz.qqq", "pgstow show"),
        ({"schemas": ("apps",)}, "holds no schema apps", "app"),
    ],
)
def test_names_the_backup_does_not_have(
    options: dict[str, Any],
    message: str,
    hint: str,
    files: DumpFiles,
    pg15: Cluster,
    database: Databases,
) -> None:
    with pytest.raises(UsageError) as refused:
        bring_back(files, database(pg15), **options)
    assert message in refused.value.message
    assert hint in str(refused.value.hint)


def test_a_name_of_two_tables(pg15: Cluster, database: Databases, tmp_path: Path) -> None:
    source = database(pg15)
    execute(source, "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t (id int); CREATE TABLE b.t (id int)")

    with pytest.raises(UsageError, match=r"t could be any of table a\.t, table b\.t"):
        bring_back(dump(source, tools_for(source), tmp_path / "dump"), database(pg15), tables=("t",))


def test_into_a_new_database(files: DumpFiles, source: ConnInfo) -> None:
    target = source.with_database("only_orders")
    try:
        report = bring_back(files, target, tables=("app.customers",), create=True)

        assert report.created_database
        assert relations(target) == {"app.customers"}
    finally:
        execute(source, "DROP DATABASE IF EXISTS only_orders")


def test_definitions_of_a_table(files: DumpFiles, pg15: Cluster, database: Databases) -> None:
    target = database(pg15)

    report = bring_back(files, target, tables=("app.orders", "app.customers"), schema_only=True)

    assert report.tables == ()
    assert fetch(target, "SELECT count(*) FROM app.orders") == [(0,)]
    assert fetch(target, "SELECT count(*) FROM pg_constraint WHERE contype = 'f'") == [(1,)]
