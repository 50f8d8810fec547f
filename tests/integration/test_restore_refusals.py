"""What a restore refuses, before it has touched anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pgstow.core.errors import ConnectionFailed, PoolerRefused, TargetRefused, ToolMissing, UsageError
from pgstow.core.progress import SilentProgress
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.postgres.tools import ClientTools
from pgstow.restore import RestoreOptions, restore
from support.backups import tools_for
from support.dumps import DumpFiles, dump
from support.pgbouncer import pgbouncer
from support.restoring import bring_back, execute, fetch

Databases = Callable[..., ConnInfo]
SHOP = """
    CREATE TABLE customers (id int PRIMARY KEY); INSERT INTO customers SELECT generate_series(1, 10);
    CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers); INSERT INTO orders VALUES (1, 1), (2, 10)
"""


@pytest.fixture
def source(pg15: Cluster, database: Databases) -> ConnInfo:
    made = database(pg15)
    execute(made, SHOP)
    return made


@pytest.fixture
def files(source: ConnInfo, tmp_path: Path) -> DumpFiles:
    return dump(source, tools_for(source), tmp_path / "dump")


def objects(conninfo: ConnInfo) -> list[tuple[object, ...]]:
    """Everything that a refused restore must leave as it was."""
    return fetch(
        conninfo,
        "SELECT oid, relname, relfilenode FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
    )


@pytest.mark.parametrize(
    "content",
    [
        "CREATE TABLE t (id int)",
        "CREATE SEQUENCE s",
        "CREATE TYPE e AS ENUM ('a')",
        "CREATE DOMAIN d AS int",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA empty",
        "CREATE VIEW v AS SELECT 1",
        "SELECT lo_create(4711)",
        "CREATE PUBLICATION p",
        "CREATE FOREIGN DATA WRAPPER w",
        "CREATE OPERATOR === (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int)",
    ],
)
@pytest.mark.parametrize("options", [{}, {"clean": True}, {"clean": True, "confirm": ""}])
def test_a_target_that_holds_anything(
    content: str, options: dict[str, Any], files: DumpFiles, pg15: Cluster, database: Databases
) -> None:
    target = database(pg15)
    execute(target, content)
    before = objects(target)

    with pytest.raises(TargetRefused) as refused:
        bring_back(files, target, **{key: value or None for key, value in options.items()})

    assert "is not empty: it holds 1 object (" in refused.value.message
    assert f"--clean --confirm {target.dbname}" in str(refused.value.hint)
    assert objects(target) == before


def test_a_confirmation_without_clean(files: DumpFiles, pg15: Cluster, database: Databases) -> None:
    target = database(pg15)
    execute(target, "CREATE TABLE t (id int)")

    with pytest.raises(TargetRefused, match="is not empty"):
        bring_back(files, target, confirm=target.dbname)


def test_a_confirmation_that_names_another_database(
    files: DumpFiles, pg15: Cluster, database: Databases
) -> None:
    target = database(pg15)
    execute(target, "CREATE TABLE t (id int)")

    with pytest.raises(TargetRefused, match=f"names production, but the target is database {target.dbname}"):
        bring_back(files, target, clean=True, confirm="production")
    assert len(objects(target)) == 1


def test_extensions_and_what_they_bring_do_not_count(
    files: DumpFiles, pg15: Cluster, database: Databases
) -> None:
    target = database(pg15)
    execute(target, "CREATE EXTENSION hstore; CREATE EXTENSION pg_stat_statements")

    assert bring_back(files, target).rows == 12


def test_the_backups_own_source(files: DumpFiles, source: ConnInfo) -> None:
    execute(source, "DROP TABLE orders, customers")  # empty, and still the source

    with pytest.raises(TargetRefused, match="is the one that the backup was made of"):
        bring_back(files, source)

    bring_back(files, source, confirm=source.dbname)
    assert fetch(source, "SELECT count(*) FROM orders") == [(2,)]


@pytest.mark.parametrize("options", [{}, {"clean": True}])
def test_creating_what_exists(
    options: dict[str, Any], files: DumpFiles, pg15: Cluster, database: Databases
) -> None:
    target = database(pg15)
    execute(target, "CREATE TABLE precious (id int)")
    before = objects(target)

    with pytest.raises(TargetRefused, match="exists already"):
        bring_back(files, target, create=True, **options)
    assert objects(target) == before


def test_replacing_a_database_in_use(files: DumpFiles, pg15: Cluster, database: Databases) -> None:
    import psycopg

    target = database(pg15)
    asked: dict[str, Any] = {"create": True, "clean": True, "confirm": target.dbname}
    with psycopg.connect(target.connect_string()) as user:
        with pytest.raises(TargetRefused, match="1 other session is connected"):
            bring_back(files, target, **asked)
        user.execute("SELECT 1")

        bring_back(files, target, disconnect_others=True, **asked)
        with pytest.raises(psycopg.OperationalError):
            user.execute("SELECT 1")


def test_an_older_server(pg15: Cluster, pg16: Cluster, database: Databases, tmp_path: Path) -> None:
    newer = database(pg16)
    execute(newer, SHOP)
    target = database(pg15)

    with pytest.raises(TargetRefused, match="runs PostgreSQL 15, older than the 16"):
        bring_back(dump(newer, tools_for(newer), tmp_path / "newer"), target)
    assert objects(target) == []


def test_a_standby(files: DumpFiles, make_cluster: Callable[..., Cluster]) -> None:
    primary = make_cluster(15)
    standby = make_cluster(15, standby_of=primary)

    with pytest.raises(TargetRefused, match="is a standby"):
        bring_back(files, ConnInfo.parse(standby.conninfo()))


def test_no_pg_restore_that_can_do_it(
    files: DumpFiles, pg15: Cluster, pg16: Cluster, pg18: Cluster, database: Databases, tmp_path: Path
) -> None:
    def with_tools_of(conninfo: ConnInfo, target: ConnInfo, files: DumpFiles) -> None:
        tools: list[ClientTools] = [tools_for(conninfo)]
        restore(files, target, RestoreOptions(), tools=tools, progress=SilentProgress())

    of_18 = ConnInfo.parse(pg18.conninfo())
    with pytest.raises(
        ToolMissing, match=r"reads an archive of pg_dump 15\.\d+ .* and speaks to PostgreSQL 15"
    ):
        with_tools_of(of_18, database(pg15), files)  # pg_restore 17 and newer sets what 16 does not know
    source = database(pg18)
    execute(source, SHOP)
    newest = dump(source, tools_for(source), tmp_path / "newest")
    with pytest.raises(ToolMissing, match=r"reads an archive of pg_dump 18"):
        with_tools_of(ConnInfo.parse(pg16.conninfo()), database(pg18), newest)


def test_a_database_that_is_not_there(files: DumpFiles, pg15: Cluster) -> None:
    with pytest.raises(ConnectionFailed, match="does not exist"):
        bring_back(files, ConnInfo.parse(pg15.conninfo("nowhere")))


@pytest.mark.parametrize(
    "options",
    [
        {"schema_only": True, "data_only": True},
        {"data_only": True, "clean": True},
        {"data_only": True, "create": True},
        {"jobs": 0},
    ],
)
def test_choices_that_contradict_each_other(options: dict[str, Any], files: DumpFiles, pg15: Cluster) -> None:
    with pytest.raises(UsageError):
        bring_back(files, ConnInfo.parse(pg15.conninfo()), **options)


def test_a_transaction_pooler(files: DumpFiles, pg15: Cluster, database: Databases) -> None:
    target = database(pg15)
    tools = [tools_for(target)]

    with pgbouncer(pg15, target.dbname or "", pool_mode="transaction") as pool, pytest.raises(PoolerRefused):
        restore(files, pool, RestoreOptions(), tools=tools, progress=SilentProgress())
    assert objects(target) == []

    with pgbouncer(pg15, target.dbname or "", pool_mode="session") as pool:
        report = restore(files, pool, RestoreOptions(), tools=tools, progress=SilentProgress())
    assert report.rows == 12


# -- what the archive takes for granted


OWNED = """
    CREATE SCHEMA app AUTHORIZATION restore_owner; CREATE TABLE app.t (id int); ALTER TABLE app.t OWNER TO restore_owner;
    CREATE TABLE public.granted (id int); GRANT SELECT ON public.granted TO "restore ""reader""; --" WITH GRANT OPTION;
    ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO "restore ""reader""; --"
"""
ROLES = ("restore_owner", 'restore "reader"; --')


@pytest.fixture
def roleless(pg15: Cluster, database: Databases, tmp_path: Path) -> DumpFiles:
    """A backup of objects whose owner and grantee are no longer there."""
    source = database(pg15)
    quoted = ['"' + role.replace('"', '""') + '"' for role in ROLES]
    execute(source, "".join(f"CREATE ROLE {role};" for role in quoted) + OWNED)
    files = dump(source, tools_for(source), tmp_path / "roleless")
    assert files.manifest.tables
    execute(source, "".join(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role};" for role in quoted))
    return files


def test_missing_roles(roleless: DumpFiles, pg15: Cluster, database: Databases) -> None:
    target = database(pg15)

    with pytest.raises(TargetRefused) as refused:
        bring_back(roleless, target)

    assert refused.value.facts["missing_roles"] == sorted(ROLES)
    assert "globals.sql" in str(refused.value.hint)
    assert "--no-owner" in str(refused.value.hint)
    assert objects(target) == []


def test_missing_roles_do_not_matter_without_owners_and_privileges(
    roleless: DumpFiles, pg15: Cluster, database: Databases
) -> None:
    target = database(pg15)
    with pytest.raises(TargetRefused, match="restore_owner"):
        bring_back(roleless, target, no_privileges=True)
    with pytest.raises(TargetRefused, match="reader"):
        bring_back(roleless, target, no_owner=True)

    report = bring_back(roleless, target, no_owner=True, no_privileges=True)

    assert report.missing_roles == tuple(sorted(ROLES))
    assert fetch(target, "SELECT tableowner FROM pg_tables WHERE tablename = 't'") == [("postgres",)]
    assert fetch(
        target, "SELECT count(*) FROM pg_class WHERE relname = 'granted' AND relacl IS NOT NULL"
    ) == [(0,)]


def test_a_role_that_a_policy_needs(pg15: Cluster, database: Databases, tmp_path: Path) -> None:
    source, target = database(pg15), database(pg15)
    execute(
        source,
        'CREATE ROLE "a, b"; CREATE TABLE t (id int); CREATE POLICY p ON t AS RESTRICTIVE FOR SELECT TO postgres, "a, b" USING (true)',
    )
    files = dump(source, tools_for(source), tmp_path / "policy")
    execute(source, 'DROP POLICY p ON t; DROP ROLE "a, b"')

    with pytest.raises(TargetRefused) as refused:
        bring_back(files, target, no_owner=True, no_privileges=True)
    assert refused.value.facts["missing_roles"] == ["a, b"]


def test_owners_that_the_role_may_not_hand_over_to(
    pg15: Cluster, database: Databases, files: DumpFiles
) -> None:
    admin = ConnInfo.parse(pg15.conninfo())
    execute(admin, "CREATE ROLE plain_user LOGIN")
    try:
        target = database(pg15, options="OWNER plain_user")
        as_user = ConnInfo.parse(pg15.conninfo(target.dbname or "", user="plain_user"))

        with pytest.raises(TargetRefused, match="plain_user may not make objects belong to postgres"):
            bring_back(files, as_user)
        assert objects(target) == []

        assert bring_back(files, as_user, no_owner=True).rows == 12
        assert fetch(target, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == [
            ("plain_user",)
        ]
    finally:
        execute(
            target, f'ALTER DATABASE "{target.dbname}" OWNER TO postgres; DROP OWNED BY plain_user CASCADE'
        )
        execute(admin, "DROP ROLE plain_user")


def test_missing_extensions(pg15: Cluster, pg18: Cluster, database: Databases, tmp_path: Path) -> None:
    source, target = database(pg15), database(pg18)  # the embedded 18 has next to no extensions
    execute(
        source, "CREATE EXTENSION hstore; CREATE TABLE t (h hstore); CREATE TABLE plain AS SELECT 1 AS id"
    )
    files = dump(source, tools_for(source), tmp_path / "hstore")

    with pytest.raises(TargetRefused) as refused:
        bring_back(files, target)
    assert refused.value.facts["missing_extensions"] == ["hstore"]
    assert objects(target) == []

    assert bring_back(files, target, tables=("plain",)).rows == 1  # it does not need it


def test_a_tablespace_the_target_lacks_is_done_without(
    files: DumpFiles, pg15: Cluster, database: Databases, make_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    other = make_cluster(15, settings={"allow_in_place_tablespaces": "on"})
    source = ConnInfo.parse(other.conninfo())
    execute(source, "CREATE TABLESPACE fast LOCATION ''")
    execute(
        source, "CREATE TABLE t TABLESPACE fast AS SELECT 1 AS id; CREATE INDEX i ON t (id) TABLESPACE fast"
    )
    target = database(pg15)

    report = bring_back(dump(source, tools_for(source), tmp_path / "fast"), target)

    assert "lacks the tablespace fast" in report.warnings[0]
    assert fetch(target, "SELECT id FROM t") == [(1,)]


def test_what_only_an_extensions_owner_may_say(pg15: Cluster, database: Databases, tmp_path: Path) -> None:
    admin = ConnInfo.parse(pg15.conninfo())
    source = database(pg15)
    execute(admin, "CREATE ROLE tenant LOGIN")
    try:
        target = database(pg15, options="OWNER tenant")
        execute(source, "CREATE EXTENSION pg_stat_statements; CREATE TABLE t AS SELECT 1 AS id")
        execute(target, "CREATE EXTENSION pg_stat_statements")  # as a provider would, being superuser
        files = dump(source, tools_for(source), tmp_path / "commented")
        as_tenant = ConnInfo.parse(pg15.conninfo(target.dbname or "", user="tenant"))

        report = bring_back(files, as_tenant, no_owner=True)

        assert [(each.what, each.is_loss) for each in report.skipped] == [
            ("comment EXTENSION pg_stat_statements", False)
        ]
        assert fetch(target, "SELECT id FROM t") == [(1,)]
        report = bring_back(files, as_tenant, no_owner=True, clean=True, confirm=target.dbname)
        assert report.rows == 1
    finally:
        execute(target, f'ALTER DATABASE "{target.dbname}" OWNER TO postgres; DROP OWNED BY tenant CASCADE')
        execute(admin, "DROP ROLE tenant")


def test_a_role_that_may_not_make_what_the_archive_holds(
    pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    """It is told before anything is touched, and not by the first table of many."""
    source, target = database(pg15), database(pg15)
    execute(source, "CREATE TABLE t (a int); CREATE SCHEMA app; CREATE TABLE app.u (a int)")
    files = dump(source, tools_for(source), tmp_path / "dump")
    admin = target.with_database("postgres")
    execute(admin, "CREATE ROLE guest LOGIN")
    try:
        as_guest = ConnInfo.parse(pg15.conninfo(target.dbname or "", user="guest"))
        with pytest.raises(TargetRefused, match="guest may not create databases") as caught:
            bring_back(files, as_guest.with_database("made_by_guest"), create=True, no_owner=True)
        assert "CREATEDB" in str(caught.value.hint)
        with pytest.raises(TargetRefused, match="guest may not create schema app in database") as caught:
            bring_back(files, as_guest, no_owner=True)
        assert "GRANT CREATE ON DATABASE" in str(caught.value.hint)
        execute(admin, f'GRANT CREATE ON DATABASE "{target.dbname}" TO guest')
        with pytest.raises(
            TargetRefused, match=r"anything in schema public, and table public\.t belongs"
        ) as caught:
            bring_back(files, as_guest, no_owner=True)
        assert "GRANT CREATE ON SCHEMA public TO guest" in str(caught.value.hint)
        assert objects(target) == []
        execute(target, "GRANT CREATE ON SCHEMA public TO guest")
        assert len(bring_back(files, as_guest, no_owner=True).tables) == 2
    finally:
        execute(target, "DROP OWNED BY guest CASCADE; DROP ROLE guest")
