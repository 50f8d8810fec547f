"""What a drill says beforehand that a database will take is near to what it then takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from pgstow.assurance.drill.room import restored_bytes
from pgstow.catalog.backups import BackupFiles
from pgstow.catalog.manifest import Selection
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from support.backups import capture_into, files_of, memory_repository
from support.restoring import bring_back, execute, fetch

Databases = Callable[..., ConnInfo]

SHAPES = """
CREATE TABLE ordinary AS SELECT i::bigint AS id, md5(i::text) AS name, now() + i * interval '1 s' AS at, i * 1.25 AS amount
    FROM generate_series(1, 20000) i;
ALTER TABLE ordinary ADD PRIMARY KEY (id); CREATE INDEX ON ordinary (name); CREATE INDEX ON ordinary (at);
CREATE TABLE long_values AS SELECT i AS id, repeat(md5(i::text), 4000) AS body FROM generate_series(1, 300) i;
CREATE TABLE random_values AS SELECT i AS id, (SELECT string_agg(md5((i * 1000 + j)::text), '') FROM generate_series(1, 300) j) AS body
    FROM generate_series(1, 300) i;
CREATE TABLE numbers AS SELECT i % 10 AS a, i % 9 AS b, i % 8 AS c, i % 7 AS d, i % 6 AS e, i % 5 AS f, NULL::text AS g, true AS h
    FROM generate_series(1, 40000) i;
CREATE TABLE bloated AS SELECT i AS id, md5(i::text) AS name FROM generate_series(1, 40000) i;
DELETE FROM bloated WHERE id % 8 > 0;
CREATE TABLE documents AS SELECT i AS id, jsonb_build_object('name', md5(i::text), 'tags', jsonb_build_array(i % 9, 'tag' || i % 50)) AS doc
    FROM generate_series(1, 15000) i;
CREATE INDEX ON documents USING gin (doc);
ANALYZE;
CREATE MATERIALIZED VIEW copied AS SELECT * FROM ordinary; CREATE INDEX ON copied (name);
"""


@dataclass(frozen=True, slots=True)
class Restored:
    files: BackupFiles
    target: ConnInfo
    base_bytes: int  # what is said of nothing at all


@pytest.fixture(scope="module")
def restored(pg15: Cluster, shared_database: Databases) -> Restored:
    source, target = shared_database(pg15, "room_source"), shared_database(pg15, "room_target")
    execute(source, SHAPES)
    repository = memory_repository()
    captured = capture_into(repository, source, name="room")
    files = files_of(repository, captured)
    bring_back(files, target)
    nothing = files.manifest.model_copy(update={"tables": (), "materialized_views_bytes": None})
    return Restored(files, target, restored_bytes(nothing, files.toc))


@pytest.mark.parametrize(
    ("table", "at_most"),
    [("ordinary", 1.5), ("long_values", 1.5), ("random_values", 1.5), ("numbers", 1.5), ("bloated", 2.0), ("documents", 1.5)],
)  # fmt: skip
def test_a_table(table: str, at_most: float, restored: Restored) -> None:
    manifest = restored.files.manifest
    (record,) = (one for one in manifest.tables if one.name == table)
    alone = manifest.model_copy(update={"tables": (record,), "materialized_views_bytes": None})
    told = restored_bytes(alone, restored.files.toc) - restored.base_bytes
    (row,) = fetch(
        restored.target,
        f"SELECT pg_total_relation_size('{table}') + coalesce((SELECT max(pg_relation_size(indexrelid)) FROM pg_index"
        f" WHERE indrelid = '{table}'::regclass), 0)",  # which is sorted on disk
    )
    assert 1 / 1.5 <= told / row[0] <= at_most


def test_materialized_views(restored: Restored) -> None:
    manifest = restored.files.manifest
    told = restored_bytes(manifest.model_copy(update={"tables": ()}), restored.files.toc)
    ((taken,),) = fetch(restored.target, "SELECT pg_total_relation_size('copied')")
    assert 1 / 1.5 <= (told - restored.base_bytes) / taken <= 1.5


def test_where_the_source_does_not_say_rows_count_by_their_text(restored: Restored) -> None:
    """As in backups that were made before it was recorded, and in imported archives."""
    manifest = restored.files.manifest
    (record,) = (one for one in manifest.tables if one.name == "long_values")
    older = record.model_copy(update={"heap_bytes": None, "toast_bytes": None, "index_bytes": None})
    told = restored_bytes(manifest.model_copy(update={"tables": (older,)}), restored.files.toc)
    assert told - restored.base_bytes > record.size_bytes


def test_views_that_are_left_out_take_no_room(pg15: Cluster, database: Databases) -> None:
    source = database(pg15)
    execute(
        source,
        """CREATE MATERIALIZED VIEW small AS SELECT 1 AS n; CREATE MATERIALIZED VIEW empty AS SELECT 1 AS n WITH NO DATA;
        CREATE SCHEMA reports; CREATE MATERIALIZED VIEW reports.large AS SELECT repeat('x', 1000) AS f FROM generate_series(1, 2000);
        ANALYZE""",
    )

    def told(selection: Selection) -> int | None:
        return capture_into(
            memory_repository(), source, selection=selection
        ).manifest.materialized_views_bytes

    assert (told(Selection()) or 0) > 2_000_000
    assert told(Selection(exclude_schemas=("reports",))) == 8192
