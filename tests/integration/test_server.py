"""Throwaway servers start anywhere, survive their own crash, and leave nothing behind."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
from pathlib import Path

import psycopg
import pytest
import trustme

from pgstow.core.errors import ProcessFailed, UsageError
from pgstow.core.secrets import Secret
from pgstow.postgres import server
from pgstow.postgres.server import Cluster, ServerBinaries, TcpAccess, TlsFiles, embedded_server
from pgstow.postgres.throwaway_settings import throwaway_settings
from support.made_servers import with_initdb

PASSWORD = "it's \\ a secret"


@pytest.fixture(autouse=True)
def made_anew():
    with with_initdb():
        yield


def value(conninfo: str, statement: str) -> object:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def owner_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def descendants(pid: int) -> set[int]:
    children = {
        int(stat.parent.name)
        for stat in Path("/proc").glob("[0-9]*/stat")
        if (text := read(stat)) and int(text.rpartition(")")[2].split()[1]) == pid
    }
    return children.union(*(descendants(child) for child in children))


def read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_every_release_runs_in_private_as_nobody_special(cluster):
    major = int(str(value(cluster.conninfo(), "SHOW server_version_num"))) // 10000
    assert major == cluster.version[0]
    assert value(cluster.conninfo(), "SHOW listen_addresses") == ""
    assert value(cluster.conninfo(), "SHOW server_encoding") == "UTF8"
    assert value(cluster.conninfo(), "SHOW max_locks_per_transaction") == "1024"
    assert cluster.socket_dir.stat().st_mode & 0o777 == 0o700
    assert cluster.data_dir.stat().st_mode & 0o777 == 0o700
    assert owner_of(cluster.pid) != 0
    assert owner_of(cluster.pid) == (os.geteuid() or pwd.getpwnam("nobody").pw_uid)


@pytest.mark.parametrize("major", [16, 18])
def test_settings_for_one_restore_are_accepted(major: int) -> None:
    wanted = throwaway_settings(memory_bytes=1 << 30, cpus=2)
    with (
        Cluster(embedded_server(major), settings=wanted) as cluster,
        psycopg.connect(cluster.conninfo()) as session,
    ):
        rows = session.execute(
            "SELECT name, setting FROM pg_settings WHERE sourcefile LIKE '%throwaway.conf'"
        )
        in_force = dict(rows.fetchall())
    assert wanted.keys() <= in_force.keys()
    assert in_force["shared_buffers"] == str((128 << 20) // 8192)


def test_nothing_is_left_behind():
    before = accounts()
    with Cluster(embedded_server(18)) as cluster:
        pid, folders = cluster.pid, (cluster.data_dir.parent, cluster.socket_dir)
        processes = {pid} | descendants(pid)
        session = psycopg.connect(cluster.conninfo())
        assert len(processes) > 3
    session.close()
    assert not any(folder.exists() for folder in folders)
    assert not [process for process in processes if read(Path(f"/proc/{process}/cmdline"))]
    assert accounts() == before


def accounts() -> list[str]:
    return sorted(entry.pw_name for entry in pwd.getpwall())


def test_nothing_is_left_behind_when_the_block_fails():
    folders = []

    def fail() -> None:
        with Cluster(embedded_server(18)) as cluster:
            folders.extend([cluster.data_dir.parent, cluster.socket_dir])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert folders
    assert not any(folder.exists() for folder in folders)


def test_a_wrong_setting_is_told_with_the_log_and_cleaned_up(tmp_path):
    parent = reachable(tmp_path)
    broken = Cluster(embedded_server(18), settings={"shared_buffers": "as much as you like"}, parent=parent)
    with pytest.raises(ProcessFailed, match="as much as you like"), broken:
        pass
    assert list(parent.iterdir()) == []
    assert not broken.is_running


def reachable(folder: Path) -> Path:
    """Open a folder of pytest's to the account that servers run as."""
    for path in (folder, *folder.parents[:3]):
        if os.geteuid() == 0 and path.is_relative_to("/tmp/pytest-of-root"):
            path.chmod(path.stat().st_mode | 0o011)
    folder.chmod(0o777)
    return folder


@pytest.mark.parametrize("how", ["kill", "immediate", "fast"])
def test_committed_rows_survive_its_end(make_cluster, how):
    cluster = make_cluster(18)
    value(cluster.conninfo(), "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    processes = {cluster.pid} | descendants(cluster.pid)
    if how == "kill":
        cluster.kill()
    else:
        cluster.stop(how)
    assert not cluster.is_running
    assert not [process for process in processes if read(Path(f"/proc/{process}/cmdline"))]
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(cluster.conninfo())
    cluster.start()
    assert value(cluster.conninfo(), "SELECT sum(n) FROM kept") == 500500


def test_settings_can_change_at_a_restart(make_cluster):
    cluster = make_cluster(15, settings={"application_name": "it's \\ odd"})
    assert (
        value(cluster.conninfo(), "SELECT setting FROM pg_settings WHERE name = 'shared_buffers'") == "4096"
    )
    cluster.restart(settings={"shared_buffers": "16MB"})
    assert (
        value(cluster.conninfo(), "SELECT setting FROM pg_settings WHERE name = 'shared_buffers'") == "2048"
    )


def test_a_standby_follows(make_cluster):
    primary = make_cluster(15)
    standby = make_cluster(15, standby_of=primary)
    value(primary.conninfo(), "CREATE TABLE t AS SELECT 7 AS n")
    lsn = value(primary.conninfo(), "SELECT pg_current_wal_lsn()::text")
    with psycopg.connect(standby.conninfo(), autocommit=True) as connection:
        while connection.execute("SELECT pg_last_wal_replay_lsn() < %s::pg_lsn", (lsn,)).fetchone() == (
            True,
        ):
            pass
        assert connection.execute("SELECT n, pg_is_in_recovery() FROM t").fetchone() == (7, True)
    assert value(standby.conninfo(), "SHOW max_locks_per_transaction") == "1024"


def test_tcp_wants_the_password(make_cluster):
    cluster = make_cluster(18, tcp=TcpAccess(password=Secret(PASSWORD)))
    assert value(cluster.tcp_conninfo(password=PASSWORD), "SELECT 1") == 1
    for wrong in ({}, {"password": "guess"}):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(cluster.tcp_conninfo(**wrong))
    cluster.restart()
    assert value(cluster.tcp_conninfo(password=PASSWORD), "SHOW listen_addresses") == "127.0.0.1"
    assert "secret" not in (cluster.data_dir / "postgresql.conf").read_text()


def test_a_port_that_somebody_else_takes_is_not_insisted_on(make_cluster, monkeypatch):
    free_port = server._free_port
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = iter([taken.getsockname()[1]])
        monkeypatch.setattr(server, "_free_port", lambda host: next(found, None) or free_port(host))
        cluster = make_cluster(15, tcp=TcpAccess(password=Secret(PASSWORD)))
        assert cluster.port != taken.getsockname()[1]
    assert value(cluster.tcp_conninfo(password=PASSWORD), "SELECT 1") == 1


def test_tls_is_verified_in_full(make_cluster, tmp_path):
    files, authority = certificates(tmp_path)
    cluster = make_cluster(15, tcp=TcpAccess(password=Secret(PASSWORD), tls=files))
    full = {"password": PASSWORD, "sslmode": "verify-full", "sslrootcert": str(authority)}
    assert (
        value(cluster.tcp_conninfo(**full), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        is True
    )
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        psycopg.connect(cluster.tcp_conninfo(password=PASSWORD, sslmode="disable"))
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        psycopg.connect(cluster.tcp_conninfo(**{**full, "sslrootcert": str(other)}))


def certificates(folder: Path) -> tuple[TlsFiles, Path]:
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    paths = [folder / name for name in ("server.pem", "server.key", "ca.pem")]
    server.cert_chain_pems[0].write_to_path(str(paths[0]))
    server.private_key_pem.write_to_path(str(paths[1]))
    authority.cert_pem.write_to_path(str(paths[2]))
    return TlsFiles(certificate=paths[0], key=paths[1], client_authority=paths[2]), paths[2]


def test_without_tcp_there_is_no_port(pg18):
    with pytest.raises(UsageError, match="no port"):
        pg18.tcp_conninfo()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can lock the server's account out of a folder")
def test_programs_out_of_reach_are_copied(tmp_path):
    embedded = embedded_server(18)
    top = Path(os.path.commonpath([part.parent for part in embedded.bundle]))
    hidden = tmp_path / "hidden"
    for part in embedded.bundle:
        shutil.copytree(part, hidden / part.relative_to(top), symlinks=True)
    hidden.chmod(0o700)
    binaries = ServerBinaries(
        version=embedded.version,
        bin_dir=hidden / embedded.bin_dir.relative_to(top),
        bundle=tuple(hidden / part.relative_to(top) for part in embedded.bundle),
    )
    with Cluster(binaries) as cluster:
        program = Path(f"/proc/{cluster.pid}/exe").readlink()
        assert program.is_relative_to(cluster.data_dir.parent)
        assert value(cluster.conninfo(), "CREATE EXTENSION vector") is None
        assert value(cluster.conninfo(), "SELECT '[1,2]'::vector <-> '[4,6]'") == 5.0
    assert not program.exists()
    with (
        pytest.raises(ProcessFailed, match="Permission denied"),
        Cluster(ServerBinaries(version=binaries.version, bin_dir=binaries.bin_dir)),
    ):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as somebody else")
@pytest.mark.parametrize(
    ("account", "message"), [("root", "does not run as root"), ("no-such-one", "no account")]
)
def test_an_unfit_account_is_refused(account, message):
    with pytest.raises(UsageError, match=message):
        Cluster(embedded_server(18), account=account)


def test_a_long_temporary_folder_does_not_break_the_socket(monkeypatch, tmp_path):
    long = reachable(tmp_path) / ("x" * 100)
    long.mkdir()
    long.chmod(0o777)
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with Cluster(embedded_server(18)) as cluster:
        assert cluster.data_dir.is_relative_to(long)
        assert value(cluster.conninfo(), "SELECT 1") == 1
