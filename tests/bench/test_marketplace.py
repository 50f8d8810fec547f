"""The bench's databases: each change is the one its table of results speaks of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql

from bench.marketplace import (
    TABLES,
    append_one_percent,
    count_ledger_rows,
    grow_ledgers,
    load,
    update_everywhere,
    update_one_percent,
)
from bench.servers import create_database, drop_database
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster

ROWS = 60_000
PAGES_PER_RANGE = 128


@pytest.fixture(scope="module")
def marketplace(pg15: Cluster) -> Iterator[str]:
    """Changed by every test; what a test says holds whatever was changed before."""
    source = create_database(pg15, "bench_marketplace")
    load(source, ROWS)
    yield source
    drop_database(pg15, "bench_marketplace")


def rows_by_range(source: str, table: str) -> dict[int, int]:
    statement = sql.SQL("SELECT (ctid::text::point)[0]::int / {}, count(*) FROM {} GROUP BY 1")
    with psycopg.connect(source) as connection:
        return dict(connection.execute(statement.format(PAGES_PER_RANGE, sql.Identifier(table))).fetchall())


def all_ranges(source: str) -> dict[str, dict[int, int]]:
    return {table.name: rows_by_range(source, table.name) for table in TABLES}


def test_an_update_everywhere_leaves_no_range_as_it_was(marketplace: str) -> None:
    for round_ in range(2):
        before = all_ranges(marketplace)
        update_everywhere(marketplace, round_)
        after = all_ranges(marketplace)
        for table, ranges in before.items():
            for number in sorted(ranges)[:-1]:  # the last one may get the new versions of as many rows
                assert after[table].get(number, 0) < ranges[number], (table, number)
            assert sum(after[table].values()) == sum(ranges.values())


def test_rows_are_added_at_the_end(marketplace: str) -> None:
    before = all_ranges(marketplace)
    for round_ in range(2):  # no number comes twice
        append_one_percent(marketplace, ROWS, round_)
    after = all_ranges(marketplace)
    for table, ranges in before.items():
        added = 2 * (sum(ranges.values()) // 100)
        assert sum(after[table].values()) == sum(ranges.values()) + added
        elsewhere = sum(
            after[table][number] - rows for number, rows in ranges.items() if number < max(ranges)
        )
        assert 0 <= elsewhere < added / 10, table  # a few rows fit where the loading left room


def test_an_update_of_one_percent_is_of_the_largest_table_only(marketplace: str) -> None:
    before = all_ranges(marketplace)
    rows = sum(before["wallet_ledger"].values())
    for round_ in range(2):
        assert update_one_percent(marketplace, round_) == pytest.approx(rows / 100, abs=1)
    after = all_ranges(marketplace)
    assert after["wallet_ledger"] != before["wallet_ledger"]
    assert {name: after[name] for name in after if name != "wallet_ledger"} == {
        name: before[name] for name in before if name != "wallet_ledger"
    }


def test_ledgers_grow_in_place_and_hold_no_row_twice(
    pg15: Cluster, database: Callable[..., ConnInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.marketplace._LEDGER_ROWS_MADE", 3000)
    source = pg15.conninfo(database(pg15).dbname)
    grow_ledgers(source, 1_500_000)
    small = count_ledger_rows(source)
    grow_ledgers(source, 6_000_000)
    large = count_ledger_rows(source)
    assert large == pytest.approx(4 * small, rel=0.01)
    ids = " UNION ALL ".join(f"SELECT id FROM ledger_{part}" for part in range(4))
    with psycopg.connect(source) as connection:
        found = connection.execute(
            f"SELECT count(*), count(DISTINCT id) FROM ({ids}) AS all_of_them"
        ).fetchone()
        size = connection.execute(
            "SELECT sum(pg_table_size(oid)) FROM pg_class WHERE relname ~ '^ledger_'"
        ).fetchone()
    assert found == (large, large)
    assert size is not None
    assert 5_000_000 < size[0] < 7_500_000
