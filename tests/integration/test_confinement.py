"""A confined server can do nothing to the machine, not even for its own superuser."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from conftest import server_binaries
from pgstow.core.confinement import Confinement, call_confined, can_confine, program_files
from pgstow.postgres.server import Cluster

pytestmark = pytest.mark.skipif(not can_confine(), reason="this system has no Landlock")


@pytest.fixture(scope="module")
def confined() -> Iterator[Cluster]:
    with Cluster(server_binaries(15), is_confined=True, has_network=False) as cluster:
        assert cluster.is_confined
        yield cluster


@pytest.fixture
def session(confined: Cluster) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with contextlib.closing(psycopg.connect(confined.conninfo(), autocommit=True)) as connection:
        yield connection


def test_its_superuser_runs_no_programs(session: psycopg.Connection[tuple[object, ...]]) -> None:
    with pytest.raises(psycopg.Error, match="could not (execute command|close pipe)"):
        session.execute("COPY (SELECT 1) TO PROGRAM 'true'")


def test_its_superuser_writes_nothing_outside_of_its_folders(
    session: psycopg.Connection[tuple[object, ...]], confined: Cluster, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    there = tmp_path / "there"
    there.touch()
    there.chmod(0o666)
    for path in (tmp_path / "new", there):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="for writing: Permission denied"):
            session.execute(f"COPY (SELECT 1) TO '{path}'".encode())
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    inside = confined.data_dir / "inside"
    session.execute(f"COPY (SELECT 1) TO '{inside}'".encode())
    assert inside.read_text() == "1\n"


def test_it_reaches_nobody_by_the_network(session: psycopg.Connection[tuple[object, ...]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        session.execute("CREATE EXTENSION IF NOT EXISTS dblink")
        port = listening.getsockname()[1]
        with pytest.raises(psycopg.Error, match="Permission denied"):
            session.execute(f"SELECT dblink_connect('host=127.0.0.1 port={port} connect_timeout=5')".encode())
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_its_superuser_sees_no_secrets_of_ours(
    session: psycopg.Connection[tuple[object, ...]], confined: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSTOW_TEST_SECRET", "do-not-tell")
    with contextlib.closing(session):
        confined.restart()
    seen = Path(f"/proc/{confined.pid}/environ").read_bytes()
    assert b"do-not-tell" not in seen
    assert b"LC_ALL=C" in seen


def test_what_it_does_for_us_goes_on(confined: Cluster) -> None:
    """Parallel queries use shared memory; a server that is stopped and started is as confined as before."""
    with contextlib.closing(psycopg.connect(confined.conninfo(), autocommit=True)) as connection:
        connection.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 20000) i")
        connection.execute(
            "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0"
        )
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (20000,)
    confined.restart()
    assert confined.is_confined


def test_we_are_not_confined_ourselves(tmp_path: Path) -> None:
    programs = program_files(Path("/bin/true"))
    assert programs is not None
    nothing = Confinement(writable=(), runnable=programs, has_network=False)

    def run() -> int:
        with pytest.raises(PermissionError):
            (tmp_path / "x").write_text("x")
        with pytest.raises(PermissionError):
            subprocess.run(["/bin/ls"], check=False)
        return subprocess.run(["/bin/true"], check=False).returncode

    assert call_confined(nothing, run) == 0
    (tmp_path / "x").write_text("x")
    with pytest.raises(FileNotFoundError):
        call_confined(nothing, _raising(FileNotFoundError))


def _raising(error: type[Exception]) -> Callable[[], None]:
    def raising() -> None:
        raise error

    return raising


def test_a_script_in_a_programs_place_cannot_be_judged(tmp_path: Path) -> None:
    script = tmp_path / "postgres"
    script.write_text("#!/bin/sh\n")
    assert program_files(script) is None
    assert program_files(tmp_path / "missing") is None
