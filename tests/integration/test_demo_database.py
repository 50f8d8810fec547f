"""The demonstration's database has what the demonstration promises to carry."""

from __future__ import annotations

import psycopg
import pytest

from pgstow.app.demo_database import change_demo, demo_balances, load_demo
from pgstow.assurance.compare import compare_databases

KINDS = """
    SELECT (SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND conparentid = 0),
        (SELECT count(*) FROM pg_partitioned_table), (SELECT count(*) FROM pg_largeobject_metadata),
        (SELECT count(*) FROM pg_extension WHERE extname <> 'plpgsql'), (SELECT count(*) FROM pg_policy),
        (SELECT count(*) FROM pg_matviews), (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal)
"""
NAMED = {  # what the two strategies call critical
    "clients", "connectors", "jobs", "user_clients", "schedules", "users",
    "wallet_ledger", "wallet_transactions", "accounting_entries",
}  # fmt: skip


@pytest.fixture(scope="module")
def shop(pg18, shared_database):
    conninfo = shared_database(pg18)
    load_demo(conninfo)
    return conninfo


def test_it_is_large_and_of_every_kind(shop):
    tables = {c.name: c.source_rows or 0 for c in compare_databases(shop, shop) if c.kind == "table"}
    assert tables.keys() >= NAMED
    assert all(tables[name] for name in NAMED)
    assert sum(tables.values()) >= 300_000
    with psycopg.connect(shop.connect_string()) as connection:
        assert connection.execute(KINDS).fetchone() == (16, 1, 3, 1, 1, 1, 1)
        types = {
            name for (name,) in connection.execute("SELECT DISTINCT udt_name FROM information_schema.columns")
        }
    assert {"jsonb", "_text", "_int4", "numeric", "timestamptz", "uuid", "vector", "bytea"} <= types


def test_it_is_the_same_every_time(shop, pg18, database):
    again = database(pg18)
    load_demo(again)
    assert [c for c in compare_databases(shop, again) if not c.is_equal] == []


def test_changes_keep_the_books_right(pg15, database):
    conninfo, untouched = database(pg15), database(pg15)
    for side in (conninfo, untouched):
        load_demo(side, scale=0.02)
    before = demo_balances(conninfo)
    assert before[0] == before[1] > 0
    lines = change_demo(conninfo)
    assert any("new bookings" in line for line in lines)
    ledger, wallets = demo_balances(conninfo)
    assert ledger == wallets
    changed = {
        c.name for c in compare_databases(untouched, conninfo) if c.kind != "sequence" and not c.is_equal
    }
    assert {"", "bookings_2026_12", "wallet_ledger", "wallet_transactions", "wallets", "jobs"} <= changed
    assert "users" not in changed
    change_demo(conninfo)
    assert demo_balances(conninfo)[0] == demo_balances(conninfo)[1]
