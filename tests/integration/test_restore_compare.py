"""Reading back what was restored: nothing but the very rows of the backup passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

import pytest

from pgstow.core.errors import ContentMismatch
from pgstow.core.progress import SilentProgress
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.raw import RawSession
from pgstow.postgres.server import Cluster
from pgstow.restore import contents
from support.backups import capture_into, files_of, memory_repository, tools_for
from support.dumps import dump
from support.every_kind import create_every_kind
from support.restoring import assert_equal_rows, bring_back, execute

Databases = Callable[..., ConnInfo]

STOCK = (
    "CREATE TABLE stock AS SELECT i, 'item ' || i AS name, NULL::text AS note FROM generate_series(1, 5000) i"
)

MEDDLING = {
    "a lost row": ("DELETE FROM stock WHERE i = 3", "has 4999 rows instead of 5000"),
    "a row too many": ("INSERT INTO stock VALUES (0, 'x')", "has 5001 rows instead of 5000"),
    "a changed value": ("UPDATE stock SET name = 'item 8' WHERE i = 7", "has other values"),
    "NULL and empty": ("UPDATE stock SET note = '' WHERE i = 7", "has other values"),
    "a doubled row for a lost one": (
        "DELETE FROM stock WHERE i = 3; INSERT INTO stock SELECT * FROM stock WHERE i = 4",
        "has other values",
    ),
    "values that changed places": (
        "UPDATE stock SET name = CASE i WHEN 1 THEN 'item 2' ELSE 'item 1' END WHERE i IN (1, 2)",
        "has other values",
    ),
}


class Meddler(SilentProgress):
    """Runs statements in the target after all was loaded."""

    def __init__(self, target: ConnInfo, statements: str) -> None:
        self._target, self._statements = target, statements

    def phase(self, name: str) -> None:
        if name.startswith("comparing"):
            execute(self._target, self._statements)


class EarlyMeddler(SilentProgress):
    """Runs statements in the target as soon as a table is loaded, while the restore goes on."""

    def __init__(self, target: ConnInfo, statements: str) -> None:
        self._target, self._statements = target, statements
        self.is_done = False

    def advance(self, *, rows: int = 0, size_bytes: int = 0) -> None:
        if rows and not self.is_done:
            self.is_done = True
            execute(self._target, self._statements)


def make_room(target: ConnInfo) -> None:
    """Drop a database of the fixture, so that a restore can make it anew."""
    execute(target.with_database("postgres"), f"DROP DATABASE {target.dbname}")


@pytest.mark.parametrize("meddling", sorted(MEDDLING))
@pytest.mark.parametrize("part_pages", [contents._PART_PAGES, 5])
def test_what_is_not_the_backups_is_found(
    meddling: str,
    part_pages: int,
    pg15: Cluster,
    database: Databases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(contents, "_PART_PAGES", part_pages)
    source, target = database(pg15), database(pg15)
    execute(source, STOCK)
    statements, complaint = MEDDLING[meddling]
    with pytest.raises(ContentMismatch, match=rf"public\.stock {complaint}"):
        bring_back(
            dump(source, tools_for(source), tmp_path / "dump"),
            target,
            compare=True,
            progress=Meddler(target, statements),
        )


@pytest.mark.parametrize("part_pages", [contents._PART_PAGES, 3])
def test_rows_of_every_kind_are_equal(
    part_pages: int, cluster: Cluster, database: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "_PART_PAGES", part_pages)
    source, target = database(cluster), database(cluster)
    create_every_kind(source)
    repository = memory_repository()
    report = bring_back(files_of(repository, capture_into(repository, source)), target, compare=True)
    assert report.is_compared
    assert "counts" not in report.timings_s
    assert {(one.schema, one.name) for one in report.compared} == {
        tuple(one.loaded_via.split(".")) if one.loaded_via else (one.schema, one.name)
        for one in report.tables
    }
    assert all(one.is_equal and one.rows == one.expected_rows for one in report.compared)
    assert sum(one.rows for one in report.compared) == sum(one.rows for one in report.tables)
    assert_equal_rows(source, target)


def test_differences_are_reported_where_that_was_asked_for(
    pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    source, target = database(pg15), database(pg15)
    execute(source, STOCK)
    execute(source, 'CREATE TABLE "Odd name" AS TABLE stock; CREATE TABLE fine AS TABLE stock')
    report = bring_back(
        dump(source, tools_for(source), tmp_path / "dump"),
        target,
        compare=True,
        report_differences=True,
        progress=Meddler(target, 'DELETE FROM stock WHERE i = 3; UPDATE "Odd name" SET note = i WHERE i = 5'),
    )
    assert not report.is_compared
    assert [(one.name, one.rows, one.expected_rows, one.is_equal) for one in report.compared] == [
        ("Odd name", 5000, 5000, False),
        ("fine", 5000, 5000, True),
        ("stock", 4999, 5000, False),
    ]
    assert {one.schema for one in report.compared} == {"public"}
    assert all(one.seconds > 0 for one in report.compared)


def test_partitions_with_columns_in_another_order_that_go_in_through_their_root(
    pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    """The partitions are hashed by an enum, so pg_dump loads through the root; one was attached with its own order."""
    source = database(pg15)
    execute(
        source,
        """CREATE TYPE mood AS ENUM ('sad', 'fine', 'glad');
        CREATE TABLE diary (day int, mood mood, said text) PARTITION BY HASH (mood);
        CREATE TABLE diary_0 PARTITION OF diary FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE diary_1 (said text, mood mood, day int);
        ALTER TABLE diary ATTACH PARTITION diary_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        INSERT INTO diary SELECT i, (enum_range(NULL::mood))[1 + i % 3], E'tab\\t' || i FROM generate_series(1, 300) i""",
    )
    files = dump(source, tools_for(source), tmp_path / "dump")

    target = database(pg15)
    assert bring_back(files, target, compare=True).is_compared
    assert_equal_rows(source, target)

    other = database(pg15)
    with pytest.raises(ContentMismatch, match=r"public\.diary has other values"):
        bring_back(
            files,
            other,
            compare=True,
            progress=Meddler(other, "UPDATE diary SET day = 0, said = said || day WHERE day = 7"),
        )


def test_partitions_of_one_root_of_which_only_some_go_in_through_it(
    pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    """Only below a level that is hashed by an enum does pg_dump go through the root; whose other partitions stand alone."""
    source = database(pg15)
    execute(
        source,
        """CREATE TYPE mood AS ENUM ('sad', 'fine', 'glad');
        CREATE TABLE diary (day int, mood mood, said text) PARTITION BY LIST (day);
        CREATE TABLE diary_1 PARTITION OF diary FOR VALUES IN (1);
        CREATE TABLE diary_2 PARTITION OF diary FOR VALUES IN (2) PARTITION BY HASH (mood);
        CREATE TABLE diary_2a PARTITION OF diary_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE diary_2b PARTITION OF diary_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        INSERT INTO diary SELECT 1 + i % 2, (enum_range(NULL::mood))[1 + i % 3], i FROM generate_series(1, 300) i""",
    )
    files = dump(source, tools_for(source), tmp_path / "dump")
    counted, compared, other = database(pg15), database(pg15), database(pg15)

    assert bring_back(files, counted).rows == 300
    make_room(compared)
    report = bring_back(files, compared, create=True, compare=True)
    assert [(one.name, one.rows, one.is_equal) for one in report.compared] == [
        ("diary", 150, True),
        ("diary_1", 150, True),
    ]
    assert_equal_rows(source, compared)

    for changed, table in ((1, "diary_1"), (2, "diary")):
        meddler = Meddler(other, f"UPDATE diary SET said = '' WHERE day = {changed}")
        with pytest.raises(ContentMismatch, match=rf": public\.{table} has other values in some of its 150"):
            bring_back(files, other, compare=True, clean=True, confirm=other.dbname, progress=meddler)


@pytest.mark.parametrize("meddling", sorted(MEDDLING))
def test_tables_that_are_read_while_others_load(
    meddling: str,
    pg15: Cluster,
    database: Databases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A database that the restore makes itself; its only table is read before anything else happens."""
    monkeypatch.setattr(contents, "_PART_PAGES", 5)
    source, target = database(pg15), database(pg15)
    execute(source, STOCK)
    statements, complaint = MEDDLING[meddling]
    files = dump(source, tools_for(source), tmp_path / "dump")
    make_room(target)
    meddler = EarlyMeddler(target, statements)
    with pytest.raises(ContentMismatch, match=rf"public\.stock {complaint}"):
        bring_back(files, target, progress=meddler, create=True, compare=True)
    assert meddler.is_done


def test_a_database_that_others_know_by_its_name_is_read_at_the_end(
    pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    """An application that reconnects to the database which replaced its own writes before the restore is over."""
    source, target = database(pg15), database(pg15)
    execute(source, STOCK)
    files = dump(source, tools_for(source), tmp_path / "dump")
    with pytest.raises(ContentMismatch, match=r"public\.stock has 4999 rows instead of 5000"):
        bring_back(
            files,
            target,
            progress=Meddler(target, "DELETE FROM stock WHERE i = 3"),
            create=True,
            clean=True,
            confirm=target.dbname,
            compare=True,
        )


def test_what_is_read_early_and_what_at_the_end(
    pg15: Cluster, database: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables with keys, an index, a partitioned table that is loaded through its root, and one that nobody fills."""
    monkeypatch.setattr(contents, "_PART_PAGES", 5)
    source, target = database(pg15), database(pg15)
    execute(
        source,
        STOCK
        + """; ALTER TABLE stock ADD PRIMARY KEY (i); CREATE INDEX ON stock (name);
        ALTER TABLE stock REPLICA IDENTITY USING INDEX stock_pkey;
        CREATE TABLE moves (i int REFERENCES stock, at timestamptz DEFAULT now(), CHECK (i > 0));
        INSERT INTO moves SELECT 1 + i % 5000 FROM generate_series(1, 9000) i;
        CREATE TABLE nothing (i int);
        CREATE TABLE parted (i int) PARTITION BY HASH (i);
        CREATE TABLE parted_0 PARTITION OF parted FOR VALUES WITH (MODULUS 1, REMAINDER 0);
        INSERT INTO parted SELECT generate_series(1, 100)""",
    )
    files = dump(source, tools_for(source), tmp_path / "dump", "--load-via-partition-root")
    late: list[str] = []
    read = contents.Comparison.read

    def noting(
        self: contents.Comparison, session: RawSession, parts: Sequence[contents.Part], stop: Event
    ) -> None:
        if progress.is_comparing:
            late.extend(part.target.table.qualified.decode() for part in parts)
        read(self, session, parts, stop)

    class Watching(SilentProgress):
        is_comparing = False

        def phase(self, name: str) -> None:
            self.is_comparing = name.startswith("comparing")

    progress = Watching()
    monkeypatch.setattr(contents.Comparison, "read", noting)
    make_room(target)
    report = bring_back(files, target, create=True, compare=True, progress=progress)
    assert late == ["public.parted"]
    assert report.is_compared
    assert [(one.name, one.rows) for one in report.compared] == [
        ("moves", 9000),
        ("nothing", 0),
        ("parted", 100),
        ("stock", 5000),
    ]
    assert {"loading", "content", "indexes", "constraints", "foreign keys"} <= {
        one.name for one in report.spans
    }
    assert_equal_rows(source, target)


def test_everything_is_read_at_the_end_where_users_code_could_still_write(
    pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    """Refreshing the view adds a row to a table that is loaded already: not what the repository holds."""
    source, target = database(pg15), database(pg15)
    execute(
        source,
        """CREATE TABLE visits (i int); INSERT INTO visits VALUES (1);
        CREATE FUNCTION visit() RETURNS int LANGUAGE sql AS 'INSERT INTO public.visits VALUES (2) RETURNING i';
        CREATE MATERIALIZED VIEW visited AS SELECT public.visit(); DELETE FROM visits WHERE i = 2""",
    )
    files = dump(source, tools_for(source), tmp_path / "dump")
    make_room(target)
    with pytest.raises(ContentMismatch, match=r"public\.visits has 2 rows instead of 1"):
        bring_back(files, target, create=True, compare=True)
