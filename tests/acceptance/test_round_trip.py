"""The main job through the installed command: every server release, both kinds of store, both ways back.

Buckets with the oldest and the newest release: a store knows nothing of releases.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from conftest import MAJORS, OUTER_MAJORS
from pgstow.assurance.compare import compare_databases
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster, TcpAccess
from support.backups import tools_for
from support.command import Pgstow
from support.every_kind import create_every_kind
from support.restic import Restic
from support.s3 import S3Bucket

DatabaseFactory = Callable[..., ConnInfo]

PASSWORD = "correct horse"


def dump(conninfo: ConnInfo) -> list[str]:
    """Return pg_dump's definitions without what is random; rows have no order, so they are compared elsewhere."""
    with conninfo.tool_env(PGTZ="UTC") as env:
        text = subprocess.run(
            [tools_for(conninfo).pg_dump, "--schema-only"],
            env={**os.environ, **env},
            check=True,
            capture_output=True,
        ).stdout.decode()
    return [line for line in text.split("\n") if not line.startswith(("\\restrict", "\\unrestrict"))]


def assert_equal(source: ConnInfo, target: ConnInfo) -> None:
    compared = compare_databases(source, target)
    assert compared
    assert [found for found in compared if not found.is_equal] == []
    assert dump(source) == dump(target)


@pytest.fixture(
    params=[
        *((major, "folder") for major in MAJORS),
        *((major, "s3") for major in OUTER_MAJORS),
    ],
    ids=lambda way: f"pg{way[0]}-{way[1]}",
)
def way(request: pytest.FixtureRequest) -> tuple[int, str]:
    """Which release, and which kind of store."""
    chosen: tuple[int, str] = request.param
    return chosen


@pytest.fixture
def cluster(way: tuple[int, str], request: pytest.FixtureRequest) -> Cluster:
    shared: Cluster = request.getfixturevalue(f"pg{way[0]}")
    return shared


@pytest.fixture
def role(cluster: Cluster) -> str:
    with psycopg.connect(cluster.conninfo(), autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'kinds_owner'").fetchone():
            connection.execute("CREATE ROLE kinds_owner")
    return "kinds_owner"


@pytest.fixture
def store(
    way: tuple[int, str], request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[str, Mapping[str, str], str]:
    """(location for pgstow, environment, location for restic)."""
    if way[1] == "folder":
        return str(tmp_path / "repository"), {}, str(tmp_path / "repository")
    bucket: S3Bucket = request.getfixturevalue("s3_bucket")
    return bucket.location, bucket.environ, bucket.restic_location


def test_everything_comes_back(
    cluster: Cluster,
    database: DatabaseFactory,
    role: str,
    store: tuple[str, Mapping[str, str], str],
    newest_restic: Restic,
    tmp_path: Path,
) -> None:
    location, environ, restic_location = store
    source = database(cluster)
    create_every_kind(source, role=role)
    pgstow = Pgstow({"PGSTOW_REPOSITORY": location, "PGSTOW_PASSWORD": PASSWORD, **environ})
    for arguments in (("init",), ("backup", source.connect_string(), "--name", "shop")):
        ended = pgstow(*arguments)
        assert ended.code == 0, ended.stderr
    target = source.with_database(f"{source.dbname}_restored")
    try:
        restored = pgstow("restore", "shop@latest", "--to", target.connect_string(), "--create", "--json")
        assert restored.code == 0, restored.stdout + restored.stderr
        assert_equal(source, target)
        assert pgstow("verify", "--read-data").code == 0
        restic = newest_restic.with_environ(**environ)
        restic(restic_location, "check", "--read-data")
        restic(restic_location, "rewrite", "--exclude", "/nothing/matches/this")
        assert len(restic.json(restic_location, "snapshots")) == 1, "rewrite found every tree canonical"
    finally:
        drop(cluster, target)
    by_hand = database(cluster)
    restic(restic_location, "restore", "latest", "--path", "/shop", "--target", tmp_path / "recovered")
    with by_hand.tool_env() as env:
        subprocess.run(
            [
                tools_for(source).pg_restore,
                "-j2",
                "-d",
                by_hand.dbname or "",
                tmp_path / "recovered/shop/archive",
            ],
            env={**os.environ, **env},
            check=True,
        )
    assert_equal(source, by_hand)
    with psycopg.connect(source.connect_string(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(role)))


def drop(cluster: Cluster, conninfo: ConnInfo) -> None:
    with psycopg.connect(cluster.conninfo(), autocommit=True) as connection:
        name = sql.Identifier(conninfo.dbname or "")
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


def test_every_database_of_a_server(make_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    own = make_cluster(15)
    with psycopg.connect(own.conninfo(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE shop")
        connection.execute('CREATE DATABASE "odd name/with, things"')
        connection.execute("CREATE DATABASE closed ALLOW_CONNECTIONS false")
    pgstow = Pgstow({"PGSTOW_REPOSITORY": str(tmp_path / "r"), "PGSTOW_PASSWORD": PASSWORD})
    assert pgstow("init").code == 0
    ended = pgstow("backup", own.conninfo(), "--all-databases", "--json")
    assert ended.code == 0, ended.stderr
    taken = ended.json()["backups"]
    assert {backup["name"] for backup in taken} == {"postgres", "shop", "odd_name_with_things"}
    assert len({backup["set_id"] for backup in taken}) == 1
    listed = pgstow("list", "--json").json()["backups"]
    assert {backup["id"] for backup in listed} == {backup["id"] for backup in taken}
    ambiguous = pgstow("show", "latest")
    assert (ambiguous.code, "NAME@latest" in ambiguous.stderr) == (1, True)


def test_one_failing_database_makes_the_set_partial(
    make_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    own = make_cluster(15)
    with psycopg.connect(own.conninfo(), autocommit=True) as connection:
        connection.execute("CREATE ROLE reader LOGIN")
        connection.execute("CREATE DATABASE secret")
    with psycopg.connect(own.conninfo("secret"), autocommit=True) as connection:
        connection.execute("CREATE TABLE hidden (id int)")
    pgstow = Pgstow({"PGSTOW_REPOSITORY": str(tmp_path / "r"), "PGSTOW_PASSWORD": PASSWORD})
    assert pgstow("init").code == 0
    ended = pgstow("backup", own.conninfo(user="reader"), "--all-databases", "--json")
    assert ended.code == 3
    document = ended.json()
    assert document["status"] == "partial"
    assert [failure["database"] for failure in document["failures"]] == ["secret"]
    assert "hidden" in document["failures"][0]["error"]["message"]


def test_a_name_belongs_to_one_server(
    pg15: Cluster, pg16: Cluster, database: DatabaseFactory, tmp_path: Path
) -> None:
    production, staging = database(pg15), database(pg16)
    pgstow = Pgstow({"PGSTOW_REPOSITORY": str(tmp_path / "r"), "PGSTOW_PASSWORD": PASSWORD})
    assert pgstow("init").code == 0
    assert pgstow("backup", production.connect_string(), "--name", "shop").code == 0
    refused = pgstow("backup", staging.connect_string(), "--name", "shop")
    assert refused.code == 1
    assert "system identifier" in refused.stderr
    assert "--new-source" in refused.stderr
    assert pgstow("backup", staging.connect_string(), "--name", "shop", "--new-source").code == 0


def test_two_inits_at_once_make_one_repository(tmp_path: Path) -> None:
    pgstow = Pgstow({"PGSTOW_REPOSITORY": str(tmp_path / "r"), "PGSTOW_PASSWORD": PASSWORD})
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(pgstow("init").code)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [0, 1, 1, 1]
    assert pgstow("list").code == 0
    assert len(list((tmp_path / "r" / "keys").iterdir())) == 1


def test_secrets_are_nowhere(
    make_cluster: Callable[..., Cluster], tmp_path: Path, restic_binaries: list[Restic]
) -> None:
    """Not in output, not in the manifest, not in the repository's plain names; argv is tested beside the command."""
    secret, repository_secret = "tcp-s3cr3t-tcp", "repo-s3cr3t-repo"
    own = make_cluster(15, tcp=TcpAccess(password=Secret(secret)))
    url = own.tcp_conninfo(password=secret, sslmode="disable")
    pgstow = Pgstow({"PGSTOW_REPOSITORY": str(tmp_path / "r"), "PGSTOW_PASSWORD": repository_secret})
    outputs = [
        pgstow("init", "--json"),
        pgstow("backup", url, "--name", "x", "--json", "--verbose"),
        pgstow("show", "x@latest", "--json"),
        pgstow("list", "--json"),
        pgstow("backup", url.replace("tcp-s3cr3t-tcp", "wrong-s3cr3t"), "--name", "x"),
        pgstow("doctor", url, "--json"),
    ]
    said = "".join(ended.stdout + ended.stderr for ended in outputs)
    assert [ended.code for ended in outputs[:4]] == [0, 0, 0, 0]
    files = restic_binaries[-1].with_environ(RESTIC_PASSWORD=repository_secret)
    manifest = files(tmp_path / "r", "dump", "latest", "/x/manifest.json").decode()
    assert json.loads(manifest)["server"]["host"].startswith("database postgres at 127.0.0.1")
    for text in (said, manifest):
        assert "s3cr3t" not in text
