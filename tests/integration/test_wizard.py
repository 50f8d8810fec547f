"""pgstow init --wizard on real databases: what it sees there, and what it must not do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from pgstow.app.demo_database import load_demo
from pgstow.app.wizard import WizardReport, write_first_file
from pgstow.config.reading import read_settings
from pgstow.core.errors import ConnectionFailed, PgstowError, PoolerRefused, UsageError
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.first_look import tables_by_size
from pgstow.postgres.inspection import inspection_session
from pgstow.postgres.server import Cluster
from support import restoring

DatabaseFactory = Callable[..., ConnInfo]


def execute(source: ConnInfo, *statements: str) -> None:
    restoring.execute(source, "; ".join(statements))


def wizard(source: ConnInfo, output: Path) -> WizardReport:
    return write_first_file(source, location="/srv/backups", output=output)


def test_marketplace(pg15: Cluster, database: DatabaseFactory, tmp_path: Path) -> None:
    source = database(pg15, "market")
    load_demo(source, scale=0.01)
    output = tmp_path / "pgstow.yaml"
    report = wizard(source, output)
    assert report.database == "market"
    assert set(report.critical) >= {"public.wallet_ledger", "public.bookings", "public.accounting_entries"}
    assert report.must_contain[0] == "auth.users"
    settings = read_settings(output)
    ledger = next(each for each in settings.databases["market"].critical if each.name == "wallet_ledger")
    assert ledger.time_column == "created_at"
    assert not any(
        "bookings_2026" in name for name in report.critical
    )  # the partitioned table stands for them


def test_what_is_seen_of_tables(cluster: Cluster, database: DatabaseFactory) -> None:
    """On every release: partitions count for their table, tables of extensions and temporary ones are left out."""
    source = database(cluster)
    execute(
        source,
        "CREATE TABLE plain (id int, at timestamptz, day date, gone timestamptz, was timestamp)",
        "ALTER TABLE plain DROP COLUMN gone",
        "CREATE INDEX ON plain (was, at)",
        "CREATE INDEX ON plain (at) WHERE id > 5",
        "CREATE TABLE parts (id int, at timestamptz) PARTITION BY RANGE (id)",
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (1000000) PARTITION BY RANGE (id)",
        "CREATE TABLE parts_1_1 PARTITION OF parts_1 FOR VALUES FROM (0) TO (1000000)",
        "INSERT INTO parts SELECT i, now() FROM generate_series(1, 5000) i",
        'CREATE TABLE "Odd ""name" ("at time" timestamptz)',
        "CREATE VIEW seen AS SELECT * FROM plain",
    )
    with inspection_session(source) as session:
        tables = {each.name: each for each in tables_by_size(session)}
        assert next(iter(tables)) == "parts"
    assert set(tables) == {"plain", "parts", 'Odd "name'}
    assert tables["parts"].size_bytes > 100_000
    assert [(each.name, each.is_indexed) for each in tables["plain"].time_columns] == [
        ("at", False),
        ("was", True),
    ]


def test_supabase_and_a_role_that_may_do_nothing(
    pg17: Cluster, database: DatabaseFactory, tmp_path: Path
) -> None:
    source = database(pg17, "shop-9 ü")
    execute(
        source,
        "CREATE SCHEMA auth",
        "CREATE TABLE auth.users (id int)",
        "CREATE TABLE wallet_ledger (id int, note text)",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
    )
    with psycopg.connect(source.connect_string(), autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS supabase_admin")
        admin.execute("DROP ROLE IF EXISTS nobody_here")
        admin.execute("CREATE ROLE supabase_admin")
        admin.execute("CREATE ROLE nobody_here LOGIN")
    try:
        limited = ConnInfo(params={**source.params, "user": "nobody_here"})
        report = wizard(limited, tmp_path / "pgstow.yaml")
    finally:
        execute(source, "DROP ROLE supabase_admin")
        execute(source, "DROP ROLE nobody_here")
    assert report.is_supabase
    assert report.database == "shop-9-"
    assert report.must_contain == ("auth.users", "public.wallet_ledger")
    assert "Files in Storage" in (tmp_path / "pgstow.yaml").read_text()


def test_nothing_is_overwritten_and_nothing_is_left_when_it_fails(
    pg15: Cluster, database: DatabaseFactory, tmp_path: Path
) -> None:
    source = database(pg15)
    output = tmp_path / "pgstow.yaml"
    output.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        wizard(source, output)
    assert output.read_text() == "mine"
    dangling = tmp_path / "link.yaml"
    dangling.symlink_to(tmp_path / "nothing")
    with pytest.raises(UsageError, match="is there already"):
        wizard(source, dangling)
    with pytest.raises(ConnectionFailed):
        wizard(ConnInfo.parse("host=127.0.0.1 port=1 dbname=shop"), tmp_path / "other.yaml")
    with pytest.raises(PoolerRefused):
        wizard(
            ConnInfo.parse("postgresql://u@aws-0-x.pooler.supabase.com:6543/postgres"),
            tmp_path / "other.yaml",
        )
    with pytest.raises(UsageError, match="is not a kind of repository location"):
        write_first_file(source, location="ftp://x", output=tmp_path / "other.yaml")
    with pytest.raises(PgstowError, match="cannot be written: No such file"):
        wizard(source, tmp_path / "no" / "pgstow.yaml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.yaml", "pgstow.yaml"]
