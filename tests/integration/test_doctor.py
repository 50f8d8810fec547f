"""The doctor's findings against servers that have what it looks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from pgstow.app.doctor import RepositoryToCheck, diagnose
from pgstow.app.findings import DoctorReport, Finding, Level
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.postgres.tools import ClientTools, find_tools
from pgstow.repository import Repository
from pgstow.store.local import LocalStore
from pgstow.store.memory import MemoryStore
from support.pgbouncer import pgbouncer

DatabaseFactory = Callable[..., ConnInfo]

TOOLS = find_tools("/usr/bin:/bin")
PASSWORD = Secret("correct horse")


def execute(conninfo: ConnInfo, *statements: str) -> None:
    with psycopg.connect(conninfo.connect_string(), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def look(
    conninfo: ConnInfo, *, tools: list[ClientTools] = TOOLS, repository: RepositoryToCheck | None = None
) -> DoctorReport:
    return diagnose(conninfo, tools=tools, repository=repository)


def finding(report: DoctorReport, code: str) -> Finding:
    found = [each for each in report.findings if each.code == code]
    assert len(found) == 1, f"{code}: {found}"
    return found[0]


def codes(report: DoctorReport, level: Level) -> set[str]:
    return {each.code for each in report.findings if each.level is level}


@pytest.fixture
def role(pg15: Cluster) -> Iterator[str]:
    """A role that may log in and nothing else."""
    name = 'poor "role"'
    with psycopg.connect(pg15.conninfo(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    yield name
    with psycopg.connect(pg15.conninfo(), autocommit=True) as admin:
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def as_role(conninfo: ConnInfo, role: str) -> ConnInfo:
    return replace(conninfo, params={**conninfo.params, "user": role})


def test_superuser_of_every_release_can_back_up(
    cluster: Cluster, database: DatabaseFactory, tmp_path: Path
) -> None:
    source = database(cluster)
    execute(source, "CREATE TABLE t (id serial PRIMARY KEY)", "SELECT lo_create(0)")
    store = LocalStore(tmp_path / "repository")
    Repository.init(store, PASSWORD, hostname="h", username="u")
    place = RepositoryToCheck(store=store, folder=tmp_path / "repository", password=PASSWORD)
    report = look(source, repository=place)
    assert report.would_work
    assert codes(report, Level.UNKNOWN) == set()
    assert codes(report, Level.PROBLEM) == set()
    assert finding(report, "client_tools").level is not Level.PROBLEM
    assert {
        "clock", "connections", "database_size", "extensions", "free_space", "globals",
        "large_objects_readable", "lock_table", "pooler", "privileges", "repository", "row_security",
        "sequences_readable", "tables_readable", "tls",
    } <= codes(report, Level.OK)  # fmt: skip
    assert f"PostgreSQL {cluster.version[0]}.{cluster.version[1]}" in finding(report, "server_version").text


def test_poor_role_is_told_everything_it_cannot_read(
    pg15: Cluster, database: DatabaseFactory, role: str
) -> None:
    source = database(pg15)
    execute(
        source,
        'CREATE TABLE "odd\nname" (id serial)',
        "CREATE SCHEMA hidden",
        "CREATE TABLE hidden.t (id int)",
        "CREATE TABLE secured (id int)",
        "ALTER TABLE secured ENABLE ROW LEVEL SECURITY",
        "GRANT SELECT ON secured, hidden.t TO PUBLIC",
        "SELECT lo_create(0)",
    )
    report = look(as_role(source, role))
    assert not report.would_work
    assert finding(report, "tables_readable").level is Level.PROBLEM
    assert set(finding(report, "tables_readable").names) == {'public."odd\nname"', "hidden.t"}
    assert finding(report, "row_security").names == ("public.secured",)
    assert finding(report, "sequences_readable").names == ('public."odd\nname_id_seq"',)
    assert finding(report, "large_objects_readable").text == "1 large object cannot be read"
    assert codes(report, Level.PROBLEM) == {
        "tables_readable",
        "row_security",
        "sequences_readable",
        "large_objects_readable",
    }
    assert finding(report, "privileges").level is Level.WARNING
    assert finding(report, "globals").level is Level.WARNING


def test_role_that_reads_everything_is_enough(pg15: Cluster, database: DatabaseFactory, role: str) -> None:
    source = database(pg15)
    execute(source, "CREATE TABLE t (id serial)", 'GRANT pg_read_all_data TO "poor ""role"""')
    report = look(as_role(source, role))
    assert report.would_work
    assert finding(report, "privileges").level is Level.OK


def test_row_security_does_not_bind_the_owner_unless_forced(
    pg15: Cluster, database: DatabaseFactory, role: str
) -> None:
    source = database(pg15)
    execute(
        source,
        "CREATE TABLE mine (id int)",
        'ALTER TABLE mine OWNER TO "poor ""role"""',
        "ALTER TABLE mine ENABLE ROW LEVEL SECURITY",
    )
    assert finding(look(as_role(source, role)), "row_security").level is Level.OK
    execute(source, "ALTER TABLE mine FORCE ROW LEVEL SECURITY")
    assert finding(look(as_role(source, role)), "row_security").level is Level.PROBLEM
    execute(source, "DROP TABLE mine")


def test_foreign_tables_other_databases_and_unfinished_indexes(
    pg15: Cluster, database: DatabaseFactory
) -> None:
    source, other = database(pg15), database(pg15)
    execute(
        source,
        "CREATE EXTENSION postgres_fdw",
        "CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw",
        "CREATE FOREIGN TABLE remote (id int) SERVER away",
        "CREATE TABLE t (id int)",
        "INSERT INTO t VALUES (1), (1)",
    )
    with pytest.raises(psycopg.errors.UniqueViolation):
        execute(source, "CREATE UNIQUE INDEX CONCURRENTLY broken ON t (id)")
    report = look(source)
    assert report.would_work
    assert finding(report, "foreign_tables").names == ("public.remote",)
    assert other.dbname in finding(report, "other_databases").names
    assert finding(report, "invalid_indexes").names == ("public.broken",)
    assert finding(report, "extensions").names == ("postgres_fdw 1.1",)
    assert "only a superuser" in finding(report, "extensions").text


def test_transaction_pooler_is_a_problem_with_its_remedy(pg15: Cluster) -> None:
    with pgbouncer(pg15, "postgres", pool_mode="transaction") as pool:
        report = look(pool)
    assert codes(report, Level.PROBLEM) == {"pooler"}
    assert "pool_mode = session" in (finding(report, "pooler").remedy or "")
    with pgbouncer(pg15, "postgres", pool_mode="session") as pool:
        assert finding(look(pool), "pooler").text == "a session pooler stands before the server"


def test_unreachable_server_is_a_problem_not_an_error() -> None:
    report = look(ConnInfo.parse("postgresql://u:hunter22@127.0.0.1:1/db"))
    assert codes(report, Level.PROBLEM) == {"connection"}
    assert "hunter22" not in repr(report)


def test_client_tools_must_be_there_and_new_enough(pg18: Cluster) -> None:
    source = ConnInfo.parse(pg18.conninfo())
    assert finding(look(source, tools=[]), "client_tools").level is Level.PROBLEM
    old = [tool for tool in TOOLS if tool.version[0] < 18]
    report = look(source, tools=old)
    assert finding(report, "client_tools").level is Level.PROBLEM
    assert "release 18 or newer" in finding(report, "client_tools").text
    assert not report.would_work


def test_repository_that_is_missing_locked_away_or_full_of_room(pg15: Cluster, tmp_path: Path) -> None:
    source = ConnInfo.parse(pg15.conninfo())
    store = LocalStore(tmp_path / "repository")
    place = RepositoryToCheck(store=store, folder=tmp_path / "repository", password=PASSWORD)
    for password in (PASSWORD, None):
        report = look(source, repository=replace(place, password=password))
        assert finding(report, "repository").level is Level.PROBLEM
        assert finding(report, "repository").remedy == "pgstow init makes one"
    Repository.init(store, PASSWORD, hostname="h", username="u")
    assert finding(look(source, repository=place), "repository").level is Level.OK
    assert finding(look(source, repository=place), "free_space").level is Level.OK
    wrong = look(source, repository=replace(place, password=Secret("wrong")))
    assert finding(wrong, "repository").level is Level.PROBLEM
    assert (
        finding(look(source, repository=replace(place, password=None)), "repository").level is Level.UNKNOWN
    )


def test_room_in_an_object_store_is_unknown(pg15: Cluster) -> None:
    store = MemoryStore()
    Repository.init(store, PASSWORD, hostname="h", username="u")
    place = RepositoryToCheck(store=store, folder=None, password=PASSWORD)
    report = look(ConnInfo.parse(pg15.conninfo()), repository=place)
    assert codes(report, Level.UNKNOWN) == {"free_space"}
    assert report.would_work


def test_clock_of_this_machine_is_compared_with_the_server(pg15: Cluster) -> None:
    ahead = diagnose(
        ConnInfo.parse(pg15.conninfo()),
        tools=TOOLS,
        repository=None,
        clock=lambda: datetime.now(UTC) + timedelta(minutes=20),
    )
    assert finding(ahead, "clock").level is Level.WARNING
    assert "1200 s behind" in finding(ahead, "clock").text


def test_small_lock_table_is_a_problem(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(
        15,
        settings={
            "max_locks_per_transaction": "10",
            "max_connections": "10",
            "max_prepared_transactions": "0",
        },
    )
    source = ConnInfo.parse(cluster.conninfo())
    for start in range(0, 110, 10):  # few locks at a time, as there are few
        execute(source, *(f"CREATE TABLE t{number} (id int)" for number in range(start, start + 10)))
    report = look(source)
    assert finding(report, "lock_table").level is Level.PROBLEM
    assert finding(report, "lock_table").remedy == "raise max_locks_per_transaction from 10 to 40 or more"


def test_standby_says_what_it_lacks(make_cluster: Callable[..., Cluster]) -> None:
    primary = make_cluster(15)
    execute(ConnInfo.parse(primary.conninfo()), "CREATE UNLOGGED TABLE scratch (id int)")
    standby = make_cluster(15, standby_of=primary)
    report = look(ConnInfo.parse(standby.conninfo()))
    assert report.would_work
    assert finding(report, "unlogged_tables").names == ("public.scratch",)
    assert "hot_standby_feedback" in (finding(report, "standby").remedy or "")


def test_exclusive_lock_that_a_backup_would_wait_for(
    pg15: Cluster, database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgstow.app.doctor_checks._SLOW_LOCK_S", 1.0)
    source = database(pg15)
    execute(source, "CREATE TABLE t (id int)")
    with psycopg.connect(source.connect_string()) as holder:
        holder.execute("SELECT pg_sleep(1.2)")
        holder.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        report = look(source)
    assert "has locked public.t exclusively" in finding(report, "blocking_lock").text


def test_supabase_project_is_told_what_no_backup_holds(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(15)
    source = ConnInfo.parse(cluster.conninfo())
    execute(
        source,
        "CREATE ROLE supabase_admin",
        "CREATE SCHEMA storage",
        "CREATE TABLE storage.objects (id int)",
        "INSERT INTO storage.objects VALUES (1), (2)",
        "CREATE SCHEMA vault",
        "CREATE TABLE vault.secrets (id int)",
        "INSERT INTO vault.secrets VALUES (1)",
    )
    report = look(source)
    assert "the 2 files in Storage are in no database backup" in finding(report, "supabase_storage").text
    assert "root key" in finding(report, "supabase_vault").text
    execute(source, "CREATE ROLE limited LOGIN")
    report = look(as_role(source, "limited"))
    assert "the files in Storage are in no database backup" in finding(report, "supabase_storage").text


def test_question_that_a_server_refuses_is_unknown(
    pg15: Cluster, database: DatabaseFactory, role: str
) -> None:
    source = database(pg15)
    execute(source, "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_is_in_recovery() FROM PUBLIC")
    report = look(as_role(source, role))
    assert finding(report, "rows_left_behind").level is Level.UNKNOWN
    assert "permission denied" in finding(report, "rows_left_behind").text
    assert finding(report, "lock_table").level is Level.OK


def test_names_that_are_not_utf8(pg15: Cluster, database: DatabaseFactory, role: str) -> None:
    source = database(pg15, options="ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    with psycopg.connect(source.connect_string(), autocommit=True, client_encoding="SQL_ASCII") as connection:
        connection.execute(b'CREATE TABLE "caf\xe9" (id int)')
    assert finding(look(as_role(source, role)), "tables_readable").names == ('public."caf\\xe9"',)
