"""Real processes that are stopped for longer than others wait for them, and then go on: they publish nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgstow.app.backup import BackupRequest, backup
from pgstow.catalog.backups import list_backups
from pgstow.core.errors import RepositoryLocked
from pgstow.core.progress import SilentProgress
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.postgres.tools import ClientTools
from pgstow.repository import Repository
from pgstow.store.local import LocalStore
from support.repositories import init_repository, open_repository
from support.restic import Restic
from support.stopping_backup import stopped_backup

DatabaseFactory = Callable[..., ConnInfo]

HALF_AN_HOUR_S = 31 * 60

# (method, prefix): where the process is stopped, in the order of a backup.
POINTS = [
    ("put", "locks/"),
    ("put", "pgstow/leases/"),
    ("put", "data/"),
    ("put", "index/"),
    ("stat", "locks/"),  # the confirmation before publishing
    ("put", "pgstow/runs/"),
    ("put", "snapshots/"),  # between claim and snapshot
]


@pytest.fixture
def source(pg15: Cluster, database: DatabaseFactory) -> ConnInfo:
    conninfo = database(pg15)
    with psycopg.connect(conninfo.connect_string(), autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT i, md5(i::text) AS f FROM generate_series(1, 2000) i")
    return conninfo


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    init_repository(LocalStore(folder))
    return folder


def take(repository: Repository, source: ConnInfo, tools: list[ClientTools], **options: Any) -> str:
    request = BackupRequest(source=source, name="shop", **options)
    return backup(request, repository, tools, SilentProgress()).manifest.backup_id


def pass_half_an_hour(folder: Path, shift: Path) -> None:
    """Let it be half an hour later, for the stopped process and by the store's clock."""
    shift.write_text(str(HALF_AN_HOUR_S))
    for path in [*(folder / "locks").glob("*"), *(folder / "pgstow" / "leases").rglob("*")]:
        if path.is_file():
            os.utime(path, (path.stat().st_mtime - HALF_AN_HOUR_S,) * 2)


def go_on(process: subprocess.Popen[bytes]) -> tuple[int, Any]:
    process.send_signal(signal.SIGCONT)
    stdout, stderr = process.communicate()
    assert stderr == b""
    return process.returncode, json.loads(stdout)


def published(folder: Path) -> set[str]:
    return {record.id for record in list_backups(open_repository(LocalStore(folder)))}


@pytest.mark.parametrize("is_taken_over", [False, True], ids=["alone", "taken over"])
@pytest.mark.parametrize(("method", "prefix"), POINTS, ids=lambda part: part.strip("/").replace("/", "-"))
def test_who_was_stopped_for_too_long_publishes_nothing(
    source: ConnInfo,
    folder: Path,
    tmp_path: Path,
    client_tools: list[ClientTools],
    newest_restic: Restic,
    method: str,
    prefix: str,
    is_taken_over: bool,
) -> None:
    shift = tmp_path / "shift"
    others: set[str] = set()
    with stopped_backup(folder, source, method, prefix, shift) as process:
        pass_half_an_hour(folder, shift)
        if is_taken_over:
            others.add(take(open_repository(LocalStore(folder)), source, client_tools))
        code, said = go_on(process)
    if prefix == "pgstow/leases/" and is_taken_over and code == 0:
        # It had read nothing yet, found the other's lease released, and took lock and lease after it woke up.
        assert published(folder) == others | {said["id"]}
        return
    assert code == 11, said
    reasons = ("could not be re", "taken over", "taken for dead", "removed by someone else")
    assert any(words in said["error"] for words in reasons), said
    assert published(folder) == others
    if is_taken_over:
        newest_restic(folder, "check")
    others.add(take(open_repository(LocalStore(folder)), source, client_tools))
    assert published(folder) == others


def test_who_is_stopped_for_a_moment_goes_on(source: ConnInfo, folder: Path, tmp_path: Path) -> None:
    with stopped_backup(folder, source, "put", "snapshots/", tmp_path / "shift") as process:
        code, said = go_on(process)
    assert (code, published(folder)) == (0, {said["id"]})


def test_the_clock_goes_on_while_a_process_is_stopped(source: ConnInfo, folder: Path, tmp_path: Path) -> None:
    """The one test of this page in real time."""
    expiry_s = 3.0
    with stopped_backup(folder, source, "put", "data/", tmp_path / "shift", expiry_s=expiry_s) as process:
        time.sleep(expiry_s + 0.1)
        code, said = go_on(process)
    assert (code, published(folder)) == (11, set()), said


def test_a_stopped_process_of_this_machine_is_alive(
    source: ConnInfo, folder: Path, tmp_path: Path, client_tools: list[ClientTools]
) -> None:
    with stopped_backup(folder, source, "put", "data/", tmp_path / "shift") as process:
        with pytest.raises(RepositoryLocked, match=f"shop is being backed up by PID {process.pid} on "):
            take(open_repository(LocalStore(folder)), source, client_tools)
        code, said = go_on(process)
    assert (code, published(folder)) == (0, {said["id"]})


def test_a_process_killed_between_claim_and_snapshot_stands_in_nobody_s_way(
    source: ConnInfo, folder: Path, tmp_path: Path, client_tools: list[ClientTools], newest_restic: Restic
) -> None:
    with stopped_backup(folder, source, "put", "snapshots/", tmp_path / "shift") as process:
        process.kill()
        process.wait()
    taken = take(open_repository(LocalStore(folder)), source, client_tools)
    assert published(folder) == {taken}
    assert list((folder / "locks").glob("*")) == []
    newest_restic(folder, "check", "--read-data")


def test_a_prune_beside_the_stopped_one_leaves_the_others_whole(
    source: ConnInfo, folder: Path, tmp_path: Path, client_tools: list[ClientTools], newest_restic: Restic
) -> None:
    """restic prunes away, without a grace, what only the stopped run refers to."""
    shift = tmp_path / "shift"
    with stopped_backup(folder, source, "put", "snapshots/", shift) as process:
        pass_half_an_hour(folder, shift)
        newest_restic(folder, "unlock", "--remove-all")
        newest_restic(folder, "prune", "--max-unused", "0")
        code, said = go_on(process)
    assert code == 11, said
    assert published(folder) == set()
    assert take(open_repository(LocalStore(folder)), source, client_tools) in published(folder)
    newest_restic(folder, "check", "--read-data")
