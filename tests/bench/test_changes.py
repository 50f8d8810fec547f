"""The cases about reading only what changed, with a tiny database: everybody is measured, and truly so."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from bench import machine
from bench.cases import Bench
from bench.changes import changes_case
from bench.growth import distance_case, growth_case
from bench.marketplace import load
from bench.results import Results
from bench.servers import create_database, drop_database
from bench.targets import judge
from pgstow.postgres.server import Cluster

ROWS = 60_000


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(
        programs=machine.find_programs(),
        chosen=frozenset({"pgstow", "restic-0.18"}),
        runs=1,
        work=tmp_path,
        results=Results(options={"command": "a test", "runs": 1}, machine={}, settings={}),
        progress=Console(file=io.StringIO()),
    )


@pytest.fixture(scope="module")
def marketplace(pg15: Cluster) -> Iterator[str]:
    source = create_database(pg15, "bench_changes")
    load(source, ROWS)
    yield source
    drop_database(pg15, "bench_changes")


def test_every_change_is_measured(bench: Bench, pg15: Cluster, marketplace: str) -> None:
    changes_case(bench, pg15, marketplace, ROWS)
    results = bench.results
    assert results.failures == []
    read = {(s.case, s.contestant): s.entries[0].read_bytes for s in results.series if s.has("read_bytes")}
    everything = read["unchanged", "full-read"]
    assert everything
    assert everything > 5_000_000
    assert (
        read["unchanged", "pgstow"] < everything / 10
    )  # the smallest table has no ranges and is always read
    assert read["everywhere", "pgstow"] == read["everywhere", "into-empty"]
    assert 0 < read["updated", "pgstow"] < read["everywhere", "pgstow"]
    assert 0 < read["appended", "pgstow"] < everything
    stored = {(s.case, s.contestant): s.entries[0].stored_bytes for s in results.series}
    assert stored["everywhere", "pgstow"] == pytest.approx(stored["everywhere", "into-empty"], rel=0.1)
    sent = {(entry.what, entry.title): entry.server_bytes for entry in results.traffic}
    assert sent["everything", "restic 0.18.0"] > everything
    assert sent["everything", "pgstow --full-read"] > everything
    assert sent["unchanged", "pgstow"] < everything
    assert {entry.what for entry in results.traffic} == {"everything", "unchanged", "appended", "updated"}
    judged = [target for target in judge(results) if target.is_about_changes and "50 ms" not in target.name]
    assert [target.name for target in judged if target.value is None] == []


def test_distance_is_measured_and_late(bench: Bench, pg15: Cluster, marketplace: str) -> None:
    distance_case(bench, pg15, marketplace)
    assert bench.results.failures == []
    seconds = {(s.case, s.contestant): s.median("wall_s") for s in bench.results.series}
    assert len(seconds) == 6
    assert seconds["first-distance", "late"] > seconds["first-distance", "bucket"]
    assert not list(bench.work.glob("contestants/*/*"))  # nothing is left for whoever comes after


def test_growth_is_measured(bench: Bench, pg15: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.marketplace._LEDGER_ROWS_MADE", 20_000)
    growth_case(bench, pg15, (10_000_000,))
    assert bench.results.failures == []
    (entry,) = bench.results.growth
    assert entry.rows == pytest.approx(10_000_000 / 152, rel=0.01)
    assert entry.database_bytes > 10_000_000
    assert entry.first_requests["PUT"] >= 4  # lock, pack, index, snapshot
    assert entry.again_requests["GET"] > entry.first_requests["GET"]
    assert 0 < entry.index_bytes < entry.repository_bytes
