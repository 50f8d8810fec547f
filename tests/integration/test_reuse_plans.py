"""What asking for fingerprints costs: which plans the server makes of the questions, and how much memory answers take."""

from __future__ import annotations

import contextlib
import itertools
import tracemalloc
from collections.abc import Callable

import pytest

from pgstow.capture.destinations import Destination, Destinations
from pgstow.capture.ranges import PageRange, encode_ranges
from pgstow.capture.reuse import KnownTable, same_ranges
from pgstow.core.progress import SilentProgress
from pgstow.postgres import catalogs
from pgstow.postgres.archive import TABLE_DATA_TRAILER
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.fingerprints import (
    Fingerprint,
    Fingerprints,
    PageBounds,
    range_fingerprints,
    scan_settings,
)
from pgstow.postgres.server import Cluster
from pgstow.postgres.session import CAPTURE_SETTINGS, connect
from pgstow.repository import BlobIds, BlobKind, FileNode
from support.backups import memory_repository
from support.restoring import execute

Databases = Callable[..., ConnInfo]


@pytest.mark.parametrize("bounds", [None, PageBounds(first=128, pages=128, is_last=False)])
def test_ranges_one_by_one_are_tid_range_scans(
    cluster: Cluster, database: Databases, monkeypatch: pytest.MonkeyPatch, bounds: PageBounds | None
) -> None:
    """And each page is read once, whatever the database has switched off: no range makes the server scan the whole table."""
    source = database(cluster)
    for plan in ("tidscan", "hashagg"):
        execute(source, f"ALTER DATABASE {source.dbname} SET enable_{plan} = off")
    execute(
        source,
        "CREATE TABLE t AS SELECT i, repeat('x', 200) AS f FROM generate_series(1, 20000) i; ANALYZE t",
    )
    with contextlib.closing(connect(source, settings=CAPTURE_SETTINGS)) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        connection.execute(scan_settings(by_tid=True))
        (found,) = connection.execute("SELECT 'public.t'::regclass::oid").fetchone() or ()
        facts = catalogs.table_facts(connection, [found])[found]
        pages = facts.heap_bytes // 8192
        asked: list[bytes] = []

        def answer(query: bytes) -> list[tuple[int, int, str, int, bool]]:
            asked.append(query)
            return []

        with monkeypatch.context() as patch:
            patch.setattr(type(connection), "execute", lambda _, query: answer(query))
            range_fingerprints(connection, facts, pages=pages, per_range=64, bounds=bounds, one_by_one=True)
        (query,) = asked
        plan = [
            catalogs.text(line)
            for (line,) in connection.execute(b"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, COSTS OFF) " + query)
        ]
        by_range = range_fingerprints(
            connection, facts, pages=pages, per_range=64, bounds=bounds, one_by_one=True
        )
        at_once = range_fingerprints(connection, facts, pages=pages, per_range=64, bounds=bounds)
    assert list(by_range) == list(at_once)
    text = "\n".join(plan)
    assert "Tid Range Scan on" in text
    assert "Seq Scan" not in text
    read = bounds.pages if bounds else pages
    (buffers,) = itertools.islice((line for line in plan if "Buffers:" in line), 1)
    touched = sum(
        int(part.partition("=")[2]) for part in buffers.split() if part.startswith(("hit=", "read="))
    )
    assert read <= touched <= read + len(by_range) + 20


def test_the_index_of_a_hundred_million_rows_stays_small() -> None:
    """Its ranges are compared with no more in memory than the index and the list of blobs themselves."""
    count = 20_000
    repository = memory_repository()
    with repository.writer() as writer:
        blob = writer.save(BlobKind.DATA, b"5000 rows\n").id
        trailer = writer.save(BlobKind.DATA, TABLE_DATA_TRAILER).id
        writer.flush()
    repository.load_index()
    one = PageRange(rows=5000, sum=7, xor=-7, size_bytes=10, blobs=1)
    index = encode_ranges(128, one.encode() * count)
    node = FileNode(
        name="1.dat",
        size_bytes=10 * count + len(TABLE_DATA_TRAILER),
        content=BlobIds(blob * count + trailer),
        modified=None,
    )
    prints = Fingerprints(count)
    for place in range(count):
        prints[place] = Fingerprint(5000, 7, -7)
    tracemalloc.start()
    destinations = Destinations([Destination.of(repository)], SilentProgress())
    known = KnownTable(is_held=destinations.hold, node=node, index=index)
    known.check(128)
    same = same_ranges(known, prints, 0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert same == b"\x01" * count
    assert most < 300_000  # a dozen bytes per range, where an object each would be hundreds
