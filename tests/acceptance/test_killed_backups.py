"""A backup that is killed at any point, and the one after it."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.repository import Repository
from pgstow.store.local import LocalStore
from support.command import Pgstow
from support.restic import Restic

DatabaseFactory = Callable[..., ConnInfo]

PASSWORD = "correct horse"
ROUNDS = 12


@pytest.fixture
def source(pg15: Cluster, database: DatabaseFactory) -> ConnInfo:
    conninfo = database(pg15)
    with psycopg.connect(conninfo.connect_string(), autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE a AS SELECT i, md5(i::text) || md5((-i)::text) AS f FROM generate_series(1, 250000) i"
        )
        connection.execute(
            "CREATE TABLE b AS SELECT i, repeat(md5(i::text), 20) AS f FROM generate_series(1, 30000) i"
        )
    return conninfo


def sessions(source: ConnInfo) -> int:
    with psycopg.connect(source.connect_string()) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgstow%' AND datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_killed_at_any_point_then_repeated(
    source: ConnInfo, tmp_path: Path, restic_binaries: list[Restic]
) -> None:
    folder = tmp_path / "repository"
    Repository.init(LocalStore(folder), Secret(PASSWORD), hostname="h", username="u")
    pgstow = Pgstow({"PGSTOW_REPOSITORY": str(folder), "PGSTOW_PASSWORD": PASSWORD})
    good = pgstow("backup", source.connect_string(), "--name", "shop", "--json")
    assert good.code == 0, good.stderr
    acknowledged = {good.json()["backups"][0]["id"]}
    chance = random.Random(42)
    killed = 0
    for _ in range(ROUNDS):
        with psycopg.connect(source.connect_string(), autocommit=True) as connection:
            connection.execute(
                "UPDATE a SET f = md5(f) || md5(i::text) WHERE i % 7 = 0"
            )  # something new to upload
        with pgstow.start("backup", source.connect_string(), "--name", "shop", "--json") as process:
            try:
                process.wait(chance.uniform(0.3, 2.2))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                killed += 1
            process.communicate()
    assert killed >= ROUNDS // 3, "too few backups were killed for this to mean anything"
    repeated = pgstow("backup", source.connect_string(), "--name", "shop", "--json")
    assert repeated.code == 0, repeated.stderr
    acknowledged.add(repeated.json()["backups"][0]["id"])
    assert not list((folder / "tmp").glob("*")), "temporary files of dead runs are gone after the next run"
    listed = {backup["id"] for backup in pgstow("list", "--json").json()["backups"]}
    assert acknowledged <= listed
    assert pgstow("verify", "--read-data").code == 0
    for restic in restic_binaries:
        restic(folder, "check", "--read-data", "--no-lock")


def test_interrupt_is_tidy(source: ConnInfo, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    Repository.init(LocalStore(folder), Secret(PASSWORD), hostname="h", username="u")
    pgstow = Pgstow({"PGSTOW_REPOSITORY": str(folder), "PGSTOW_PASSWORD": PASSWORD})
    with pgstow.start("backup", source.connect_string(), "--name", "shop", "--limit-rate", "1M") as process:
        while sessions(source) < 3:  # leader and readers are at work
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
    assert process.returncode == 130
    assert b"nothing was published" in stderr
    assert b"Traceback" not in stderr
    assert sessions(source) == 0
    assert not list((folder / "locks").glob("*"))
    assert not list((folder / "tmp").glob("*"))
    assert not list((folder / "snapshots").glob("*"))
    assert pgstow("backup", source.connect_string(), "--name", "shop").code == 0
