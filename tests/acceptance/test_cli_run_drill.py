"""Plans of kind drill, by ``pgstow run``: restored for real, recorded, judged by status and alerts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from support.service import Site

DatabaseFactory = Callable[..., ConnInfo]

OF_THE_SHOP = """\
    rto: 1h
    rpo: 1d
    critical: [{table: ledger, time_column: booked_at}]
    assertions:
      - {name: the ledger balances, sql: SELECT sum(amount) FROM ledger, equals: "0"}
      - {name: as many rows, sql: SELECT count(*) FROM ledger, same_as_backup: true}
"""
PLANS = """\
  nightly:
    kind: daily
  drill: {}
"""


@pytest.fixture
def site(pg15: Cluster, database: DatabaseFactory, tmp_path: Path) -> Site:
    source = database(pg15)
    with psycopg.connect(source.connect_string(), autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE ledger AS SELECT i AS id, (i % 3) - 1 AS amount, timestamptz '2026-11-20 10:00Z' AS booked_at"
            " FROM generate_series(1, 99) i"
        )
    site = Site(
        folder=tmp_path,
        sources={"shop": source},
        of_each_database=OF_THE_SHOP,
        repositories=f"  offsite:\n    location: {tmp_path}/offsite\n    password: ${{TEST_PASSWORD}}\n",
    )
    site.write_settings(plans=PLANS)
    assert site.pgstow("init", "--repo", "offsite").code == 0
    made = site.pgstow("run", "nightly", "--json")
    assert made.code == 0, made.stderr
    return site


def run_of(document: Any) -> Any:
    (run,) = document["runs"]
    return run


def test_drills_by_plan(site: Site) -> None:
    first = site.pgstow("run", "drill", "--json")
    assert first.code == 0, first.stdout + first.stderr
    print(first.stdout, file=sys.stderr)
    print(site.pgstow("run", "drill").stdout, file=sys.stderr)
    print(site.pgstow("drills", "list", "--repo", "main").stdout, file=sys.stderr)
    print(site.pgstow("status").stdout, file=sys.stderr)
    raise AssertionError
