"""Backups of chosen tables, and tables that a backup must contain."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
import pytest

from pgstow.app.backup import BackupRequest, backup
from pgstow.app.restore import restore as restore_backup
from pgstow.capture.options import CapturedBackup
from pgstow.catalog.backups import BackupFiles, list_backups, resolve
from pgstow.catalog.manifest import Manifest, Selection
from pgstow.core.errors import BackupNotFound, MissingTable, UsageError
from pgstow.core.progress import SilentProgress
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.names import QualifiedName, parse_qualified
from pgstow.postgres.server import Cluster
from pgstow.postgres.tools import ClientTools
from pgstow.repository import Repository
from pgstow.restore import RestoreOptions
from support.backups import capture_into, files_of, memory_repository, pg_dump_directory, tools_for
from support.restoring import execute, fetch

DatabaseFactory = Callable[..., ConnInfo]

MADE = """
CREATE SCHEMA auth;
CREATE TABLE auth.users (id serial PRIMARY KEY, name text);
INSERT INTO auth.users (name) SELECT 'user ' || i FROM generate_series(1, 50) i;
CREATE SEQUENCE shared_numbers;
CREATE TABLE wallets (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, owner int);
INSERT INTO wallets (owner) SELECT i FROM generate_series(1, 50) i;
CREATE TABLE ledger (id int DEFAULT nextval('shared_numbers') PRIMARY KEY, wallet int REFERENCES wallets, note text)
    WITH (autovacuum_enabled = off);
INSERT INTO ledger (wallet, note) SELECT i % 50 + 1, repeat('x', 80) FROM generate_series(1, 30000) i;
CREATE INDEX ON ledger (wallet);
CREATE TABLE bookings (id bigint, month int, PRIMARY KEY (id, month)) PARTITION BY RANGE (month);
CREATE TABLE bookings_1 PARTITION OF bookings FOR VALUES FROM (1) TO (2);
CREATE TABLE bookings_2 PARTITION OF bookings FOR VALUES FROM (2) TO (3) PARTITION BY LIST (id);
CREATE TABLE "bookings_2.rest" PARTITION OF bookings_2 DEFAULT;
INSERT INTO bookings SELECT i, 1 + i % 2 FROM generate_series(1, 3000) i;
CREATE TABLE "A*b?.[c]" (i int);
INSERT INTO "A*b?.[c]" VALUES (1);
CREATE TABLE "A*b?.[c]more" (i int);
CREATE TABLE "quoted ""so"" $1" (i int);
CREATE TABLE "größe" (i int);
CREATE TABLE big AS SELECT i, repeat('b', 100) AS filler FROM generate_series(1, 20000) i;
CREATE TABLE nothing_yet (i int);
CREATE VIEW overview AS SELECT * FROM wallets;
SELECT lo_from_bytea(0, 'large');
VACUUM
"""


_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def template(pg15: Cluster, shared_database: DatabaseFactory) -> str:
    name = (
        f"chosen_tables_{next(_numbers)}"  # tests of the module may come in two turns, and the server stays
    )
    made = shared_database(pg15, name)
    for statement in MADE.split(";\n"):
        execute(made, statement)
    return f"TEMPLATE {name}"


@pytest.fixture
def source(pg15: Cluster, database: DatabaseFactory, template: str) -> ConnInfo:
    return database(pg15, options=template)


@pytest.fixture
def repository() -> Repository:
    return memory_repository()


@pytest.fixture
def take(
    source: ConnInfo, repository: Repository, client_tools: list[ClientTools]
) -> Callable[..., CapturedBackup]:
    def taking(*tables: str, **options: Any) -> CapturedBackup:
        kind = "critical" if tables else "daily"
        selection = options.pop("selection", Selection(tables=tables))
        request = BackupRequest(source=source, name="shop", kind=kind, selection=selection, **options)
        return backup(request, repository, client_tools, SilentProgress())

    return taking


Taking = Callable[..., CapturedBackup]


def names(manifest: Manifest) -> set[str]:
    return {f"{table.schema_}.{table.name}" for table in manifest.tables}


def restore(
    repository: Repository, taken: CapturedBackup, target: ConnInfo, tools: list[ClientTools], **options: Any
) -> Any:
    return restore_backup(
        taken.manifest.backup_id, target, RestoreOptions(**options), repository, tools, SilentProgress()
    )


# -- chosen tables


def test_it_is_what_pg_dump_makes_of_them(
    take: Taking, source: ConnInfo, repository: Repository, tmp_path: Path
) -> None:
    taken = take("public.ledger", "public.bookings", "public.wallets", 'public."A*b?.[c]"')
    assert names(taken.manifest) == {
        "public.ledger",
        "public.wallets",
        "public.bookings_1",
        "public.bookings_2.rest",
        "public.A*b?.[c]",
    }
    files = files_of(repository, taken)
    expected = pg_dump_directory(
        tools_for(source),
        source,
        tmp_path / "dump",
        *("-t", "ledger", "-t", "wallets", "-t", "bookings*", "-t", '"A*b?.[c]"', "-t", "shared_numbers"),
    )
    for name, data in expected.items():
        if name != "toc.dat":
            assert b"".join(files.stream(f"archive/{name}")) == data
    assert {f"archive/{name}" for name in expected} == {
        name for name, _ in files.members() if name.startswith("archive/")
    }
    sequences = {entry.tag for entry in files.toc.entries if entry.desc == b"SEQUENCE SET"}
    assert sequences == {b"shared_numbers", b"wallets_id_seq"}


def test_it_is_a_partial_backup_with_a_path_of_its_own(take: Taking, repository: Repository) -> None:
    taken = take("auth.users")
    (record,) = list_backups(repository)
    assert record.is_partial
    assert record.snapshot.paths == ("/shop (critical, partial)",)
    assert taken.manifest.selection.tables == ("auth.users",)
    with pytest.raises(BackupNotFound):
        resolve([record], "latest")


@pytest.mark.parametrize(
    "name", ['public."quoted ""so"" $1"', "public.größe", 'public."A*b?.[c]"', "größe", '"bookings_2.rest"']
)
def test_names_are_exact(take: Taking, name: str) -> None:
    wanted = parse_qualified(name)
    assert names(take(name).manifest) == {f"{wanted.schema}.{wanted.name}"}


def test_what_is_not_there_is_named(take: Taking, repository: Repository) -> None:
    with pytest.raises(MissingTable) as raised:
        take("public.ledger", "public.overview", "public.Ledger", "nowhere.ledger", "public.shared_numbers")
    assert raised.value.facts["tables"] == [
        "public.overview is a view",
        "there is no table public.Ledger",
        "there is no table nowhere.ledger",
        "public.shared_numbers is a sequence",
    ]
    assert list_backups(repository) == []


def test_only_they_are_locked(take: Taking, source: ConnInfo) -> None:
    """An exclusive lock on another table does not concern it."""
    with psycopg.connect(source.connect_string()) as other:
        other.execute("LOCK TABLE big")
        assert take("public.ledger", max_blocking_s=2.0).manifest.attempts == 1


def test_what_becomes_of_others_does_not_matter(source: ConnInfo, repository: Repository) -> None:
    """A TRUNCATE at the worst moment makes a whole backup begin anew, and one of other tables go on."""

    def truncate(step: str) -> None:
        if step == "snapshot exported":
            execute(source, "TRUNCATE big")

    chosen = Selection(tables=("public.ledger",))
    taken = capture_into(repository, source, selection=chosen, checkpoint=truncate)
    assert taken.manifest.attempts == 1


def test_restored_into_a_new_database(
    take: Taking,
    repository: Repository,
    pg15: Cluster,
    database: DatabaseFactory,
    client_tools: list[ClientTools],
) -> None:
    taken = take("public.ledger", "public.wallets", "public.bookings")
    target = database(pg15)
    restore(repository, taken, target, client_tools)
    assert fetch(target, "SELECT count(*), max(id) FROM ledger") == [(30000, 30000)]
    assert fetch(target, "SELECT count(*) FROM bookings") == [(3000,)]
    assert fetch(target, "SELECT nextval('shared_numbers')") == [(30001,)]
    execute(target, "INSERT INTO wallets (owner) VALUES (1)")
    assert fetch(target, "SELECT max(id) FROM wallets") == [(51,)]
    assert fetch(target, "SELECT count(*) FROM pg_constraint WHERE contype = 'f'")[0][0] >= 1


def test_a_foreign_key_to_a_table_outside_is_told(
    take: Taking,
    source: ConnInfo,
    repository: Repository,
    pg15: Cluster,
    database: DatabaseFactory,
    client_tools: list[ClientTools],
) -> None:
    """The rows come, the key cannot be set: the restore says so and is partial."""
    execute(source, "COMMENT ON CONSTRAINT ledger_wallet_fkey ON ledger IS 'to a wallet'")
    taken = take("public.ledger")
    target = database(pg15)
    report = restore(repository, taken, target, client_tools)
    assert report.is_partial
    assert [(key.table, key.name) for key in report.unset_foreign_keys] == [
        ("public.ledger", "ledger_wallet_fkey")
    ]
    assert fetch(target, "SELECT count(*) FROM ledger") == [(30000,)]


def test_restored_into_tables_that_exist(
    take: Taking,
    repository: Repository,
    pg15: Cluster,
    database: DatabaseFactory,
    client_tools: list[ClientTools],
) -> None:
    """Definitions from the last whole backup, rows from the critical one; a key to a table outside is no obstacle."""
    whole, critical = take(), take("public.ledger", "auth.users")
    target = database(pg15)
    restore(repository, whole, target, client_tools, schema_only=True)
    report = restore(repository, critical, target, client_tools, data_only=True)
    assert report.rows == 30050
    assert fetch(target, "SELECT count(*) FROM ledger UNION ALL SELECT count(*) FROM wallets") == [
        (30000,),
        (0,),
    ]


def test_one_table_of_it(
    take: Taking,
    source: ConnInfo,
    repository: Repository,
    client_tools: list[ClientTools],
) -> None:
    taken = take("public.ledger", "auth.users")
    execute(source, "DROP TABLE ledger")
    restore(repository, taken, source, client_tools, tables=("public.ledger",), confirm=source.dbname)
    assert fetch(source, "SELECT count(*) FROM ledger") == [(30000,)]
    assert fetch(
        source, "SELECT count(*) FROM pg_constraint WHERE conrelid = 'ledger'::regclass AND contype = 'f'"
    ) == [(1,)]


# -- which backup is compared with


def test_a_critical_backup_reuses_a_whole_one_and_the_last_critical_one(
    take: Taking, source: ConnInfo
) -> None:
    whole = take()
    execute(source, "UPDATE ledger SET note = 'changed' WHERE id = 5")
    first = take("public.ledger")
    execute(source, "UPDATE ledger SET note = 'again' WHERE id = 29999")
    second = take("public.ledger")
    assert first.manifest.reuse.base == whole.manifest.backup_id
    assert second.manifest.reuse.base == first.manifest.backup_id
    for taken in (first, second):
        (table,) = taken.manifest.tables
        assert 0 < table.reused_bytes < table.size_bytes


def test_a_whole_backup_passes_over_newer_partial_ones(take: Taking) -> None:
    """Else all that is not critical would be read again, every day; however many partial ones there are in between."""
    whole = take()
    take("public.ledger")
    other = take("public.wallets", "public.ledger")
    with patch("pgstow.capture.bases._BASES_LOOKED_AT", 1):
        again = take()
    with patch(
        "pgstow.capture.bases._PARTIAL_LOOKED_AT", 1
    ):  # what the others say of an alarm is not known then
        assert take("public.big").manifest.reuse.base == again.manifest.backup_id
        newest = take("public.wallets")
        assert take().manifest.reuse.base == newest.manifest.backup_id
    assert other.manifest.reuse.base == whole.manifest.backup_id
    assert again.manifest.reuse.base == whole.manifest.backup_id
    reused = {table.name for table in again.manifest.tables if table.reused_ranges}
    assert reused == {"ledger", "big"}


def test_a_whole_backup_uses_a_partial_one_where_there_is_nothing_else(
    take: Taking, repository: Repository, source: ConnInfo, tmp_path: Path
) -> None:
    critical = take("public.ledger")
    whole = take()
    assert whole.manifest.reuse.base == critical.manifest.backup_id
    assert {table.name for table in whole.manifest.tables if table.reused_ranges} == {"ledger"}
    expected = pg_dump_directory(tools_for(source), source, tmp_path / "dump")
    files = files_of(repository, whole)
    assert {name: b"".join(files.stream(f"archive/{name}")) for name in expected if name != "toc.dat"} == {
        name: data for name, data in expected.items() if name != "toc.dat"
    }


# -- what a backup must contain


def test_what_is_there_is_recorded_and_emptiness_told(take: Taking, repository: Repository) -> None:
    taken = take(must_contain=("auth.*", "public.bookings", "public.nothing_yet"))
    assert taken.manifest.must_contain == ("auth.*", "public.bookings", "public.nothing_yet")
    assert [w.message for w in taken.manifest.warnings if w.code == "empty_table"] == [
        "public.nothing_yet, which the backup must contain, has no rows"
    ]
    (record,) = list_backups(repository)
    assert BackupFiles(repository, record).manifest.must_contain == taken.manifest.must_contain


def test_all_that_is_missing_is_named_before_anything_is_read(
    take: Taking, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr("pgstow.capture.logical.read_contents", read)
    with pytest.raises(MissingTable) as raised:
        take(must_contain=("clients", "public.overview", "none.*", "auth.users"))
    assert raised.value.facts["tables"] == [
        "there is no table public.clients",
        "public.overview is a view",
        "schema none has no tables",
    ]
    assert list_backups(repository) == []


@pytest.mark.parametrize(
    ("left_out", "told"),
    [
        (Selection(exclude_table_data=("big",)), ["public.big"]),
        (Selection(exclude_schemas=("auth",)), ["auth.users"]),
        (Selection(schemas=("auth",)), ["public.big", "public.bookings (table public.bookings_1)"]),
        (
            Selection(exclude_table_data=('"bookings_2.rest"',)),
            ['public.bookings (table public."bookings_2.rest")'],
        ),
        (Selection(tables=("public.ledger", "auth.users", "public.bookings")), ["public.big"]),
        (Selection(exclude_tables=("bookings",)), ["public.bookings (itself)"]),
    ],
)
def test_rows_that_would_be_left_out(take: Taking, left_out: Selection, told: list[str]) -> None:
    with pytest.raises(MissingTable) as raised:
        take(selection=left_out, must_contain=("auth.*", "public.big", "bookings"))
    assert sorted(raised.value.facts["tables"] or []) == told  # type: ignore[arg-type]  # a list


def test_a_table_that_became_a_view(take: Taking, source: ConnInfo) -> None:
    take(must_contain=("wallets",))
    execute(
        source, "ALTER TABLE wallets RENAME TO wallets_old; CREATE VIEW wallets AS SELECT * FROM wallets_old"
    )
    with pytest.raises(MissingTable, match=r"public\.wallets is a view"):
        take(must_contain=("wallets",))


# -- requests that make no sense, and names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("auth.users", QualifiedName("auth", "users")),
        ("users", QualifiedName("public", "users")),
        ('"Odd.one"."T"', QualifiedName("Odd.one", "T")),
        ('"a""b".c d', QualifiedName('a"b', "c d")),
        ('s."*"', QualifiedName("s", "*")),
        ("s.*", QualifiedName("s", None)),
    ],
)
def test_names_as_people_write_them(text: str, name: QualifiedName) -> None:
    assert parse_qualified(text, may_be_schema=True) == name
    assert parse_qualified(str(name), may_be_schema=True) == name


@pytest.mark.parametrize("text", ["", ".", "a.", ".b", "a.b.c", '"a', "*", 'a"b.c"d.e'])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(UsageError):
        parse_qualified(text, may_be_schema=True)


def test_a_schema_is_no_table() -> None:
    with pytest.raises(UsageError):
        parse_qualified("auth.*")
