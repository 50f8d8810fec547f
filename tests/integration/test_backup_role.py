"""The role of deploy/sql/backup-role.sql: a backup by it is whole, and it can change nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from pgstow.app.doctor import diagnose
from pgstow.app.findings import Level
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.postgres.tools import find_tools
from support.command import Pgstow

DatabaseFactory = Callable[..., ConnInfo]

ROLE_SQL = (Path(__file__).parent.parent.parent / "deploy" / "sql" / "backup-role.sql").read_text()
TABLES = """
CREATE SCHEMA private AUTHORIZATION owner_of_things;
SET ROLE owner_of_things;
CREATE TABLE private.ledger (id serial PRIMARY KEY, tenant text, amount numeric);
INSERT INTO private.ledger (tenant, amount) SELECT 't' || i % 3, i FROM generate_series(1, 300) i;
ALTER TABLE private.ledger ENABLE ROW LEVEL SECURITY;
ALTER TABLE private.ledger FORCE ROW LEVEL SECURITY;
CREATE POLICY nobody ON private.ledger USING (tenant = current_setting('app.tenant', true));
RESET ROLE;
REVOKE ALL ON SCHEMA private FROM PUBLIC;
"""


@pytest.fixture(params=["pg15", "pg18"])
def server(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    cluster: Cluster = request.getfixturevalue(request.param)
    with psycopg.connect(cluster.conninfo(), autocommit=True) as admin:
        admin.execute(ROLE_SQL)
        admin.execute("CREATE ROLE owner_of_things")
    yield cluster
    with psycopg.connect(cluster.conninfo(), autocommit=True) as admin:
        admin.execute("DROP ROLE pgstow, owner_of_things")


@pytest.fixture
def shop(server: Cluster, database: DatabaseFactory) -> ConnInfo:
    source = database(server, "guarded_shop")
    with psycopg.connect(source.connect_string(), autocommit=True) as admin:
        admin.execute(TABLES)
    return source


def levels(source: str) -> dict[str, Level]:
    """Return what the doctor says, by the codes of its findings."""
    report = diagnose(ConnInfo.parse(source), tools=find_tools("/usr/bin:/bin"), repository=None)
    return {finding.code: finding.level for finding in report.findings}


@pytest.fixture
def pgstow(tmp_path: Path) -> Pgstow:
    made = Pgstow(
        {"PGSTOW_REPOSITORY": str(tmp_path / "repository"), "PGSTOW_PASSWORD": "correct horse battery"}
    )
    assert made("init").code == 0
    return made


def test_backup_by_the_role_is_whole(
    server: Cluster, shop: ConnInfo, pgstow: Pgstow, database: DatabaseFactory
) -> None:
    source = server.conninfo("guarded_shop", user="pgstow")
    found = levels(source)
    for code in ("privileges", "tables_readable", "row_security", "sequences_readable", "globals"):
        assert found[code] is Level.OK, code
    ended = pgstow("backup", source, "--json")
    assert ended.code == 0, ended.stdout
    assert ended.json()["backups"][0]["warnings"] == []
    target = database(server, "guarded_copy")
    assert pgstow("restore", "latest", "--to", target.connect_string()).code == 0
    with psycopg.connect(target.connect_string()) as copy:
        assert copy.execute("SELECT count(*), sum(amount) FROM private.ledger").fetchone() == (300, 45150)


def test_it_changes_nothing(server: Cluster, shop: ConnInfo) -> None:
    with psycopg.connect(server.conninfo("guarded_shop", user="pgstow"), autocommit=True) as session:
        for statement in ("CREATE TABLE t (i int)", "DELETE FROM private.ledger"):
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                session.execute(statement)
        session.execute("SET default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("DELETE FROM private.ledger")


def test_large_objects_need_one_line_more(server: Cluster, shop: ConnInfo, pgstow: Pgstow) -> None:
    source = server.conninfo("guarded_shop", user="pgstow")
    (line,) = re.findall(r"^--   (ALTER ROLE .* lo_compat_privileges .*;)$", ROLE_SQL, re.MULTILINE)
    with psycopg.connect(shop.connect_string(), autocommit=True) as admin:
        admin.execute("SELECT lo_from_bytea(0, 'large')")
        assert levels(source)["large_objects_readable"] is Level.PROBLEM
        refused = pgstow("backup", source)
        assert refused.code == 1
        assert "HINT: pgstow doctor names everything" in refused.stderr
        admin.execute(line)
    assert Level.PROBLEM not in levels(source).values()
    ended = pgstow("backup", source, "--json")
    assert ended.code == 0, ended.stdout
    assert ended.json()["backups"][0]["large_objects"] == 1
