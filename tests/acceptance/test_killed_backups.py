"""A backup that is killed at what it writes, and the one after it; and one that is interrupted."""

from __future__ import annotations

import signal
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
from support.killing import AT_WRITES, Killing, noting
from support.repositories import init_repository
from support.restic import PASSWORD, Restic
from support.waiting import until

DatabaseFactory = Callable[..., ConnInfo]


@pytest.fixture
def source(pg15: Cluster, database: DatabaseFactory) -> ConnInfo:
    conninfo = database(pg15)
    with psycopg.connect(conninfo.connect_string(), autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE a AS SELECT i, md5(i::text) || md5((-i)::text) AS f FROM generate_series(1, 60000) i"
        )
        connection.execute(
            "CREATE TABLE b AS SELECT i, repeat(md5(i::text), 20) AS f FROM generate_series(1, 9000) i"
        )
    return conninfo


def sessions(source: ConnInfo) -> int:
    with psycopg.connect(source.connect_string()) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgstow%' AND datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_killed_at_a_write_then_repeated(
    source: ConnInfo, tmp_path: Path, restic_binaries: list[Restic]
) -> None:
    """Whatever had been acknowledged is there and whole, and the next run needs no help; PGSTOW_ALL_FAULTS=1 tries every write."""
    template, folder = tmp_path / "template", tmp_path / "folder"
    init_repository(LocalStore(template / "repository"))
    backup = ("backup", source.connect_string(), "--name", "shop", "--json")
    good = at(template)(*backup)
    assert good.code == 0, good.stderr
    acknowledged = {good.json()["backups"][0]["id"]}
    with psycopg.connect(source.connect_string(), autocommit=True) as connection:
        connection.execute(
            "UPDATE a SET f = md5(f) || md5(i::text) WHERE i % 7 = 0"
        )  # something new to upload
    pgstow, store = at(folder), LocalStore(folder / "repository")
    command = Killing(pgstow, backup, template=template, folder=folder)
    for number, kill in enumerate(command.kills("backup", AT_WRITES, tries=6)):
        with noting(kill):
            repeated = command.again()
            assert repeated.code == 0, repeated.stderr
            assert list(Path(store.location).glob("tmp/*")) == [], "of dead runs too"
            listed = {each["id"] for each in pgstow("list", "--json").json()["backups"]}
            assert acknowledged | {repeated.json()["backups"][0]["id"]} <= listed
            assert pgstow("verify", "--read-data").code == 0
            restic = restic_binaries[number % len(restic_binaries)]
            restic(folder / "repository", "check", "--read-data", "--no-lock")


def at(folder: Path) -> Pgstow:
    return Pgstow({"PGSTOW_REPOSITORY": str(folder / "repository"), "PGSTOW_PASSWORD": PASSWORD})


def test_interrupt_is_tidy(source: ConnInfo, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    Repository.init(LocalStore(folder), Secret(PASSWORD), hostname="h", username="u")
    pgstow = Pgstow({"PGSTOW_REPOSITORY": str(folder), "PGSTOW_PASSWORD": PASSWORD})
    with pgstow.start("backup", source.connect_string(), "--name", "shop", "--limit-rate", "500K") as process:
        while sessions(source) < 3:  # leader and readers are at work
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
    assert process.returncode == 130
    assert b"nothing was published" in stderr
    assert b"Traceback" not in stderr
    until(lambda: sessions(source) == 0, "the end of its sessions")
    assert not list((folder / "locks").glob("*"))
    assert not list((folder / "tmp").glob("*"))
    assert not list((folder / "snapshots").glob("*"))
    assert pgstow("backup", source.connect_string(), "--name", "shop").code == 0
