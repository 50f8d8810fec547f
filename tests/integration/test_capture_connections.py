"""Every way to reach a server: TLS, client certificates, service files, pgpass, poolers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import trustme
from psycopg.conninfo import make_conninfo

from pgstow.app.backup import BackupRequest, backup
from pgstow.catalog.manifest import ServerRecord
from pgstow.core.errors import ConnectionFailed, GaveWay, PoolerRefused
from pgstow.core.progress import SilentProgress
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster, TcpAccess, TlsFiles
from support.backups import capture_into, memory_repository, tools_for
from support.pgbouncer import pgbouncer

DatabaseFactory = Callable[..., ConnInfo]
PASSWORD = "open sesame"


def take(source: ConnInfo, cluster: Cluster) -> str | None:
    """Back up through ``source``; return the TLS version the manifest records."""
    return recorded(source, cluster).tls


def recorded(source: ConnInfo, cluster: Cluster) -> ServerRecord:
    """Back up through ``source``; return what the manifest records of the server."""
    tools = tools_for(ConnInfo.parse(cluster.conninfo()))
    taken = backup(BackupRequest(source=source, name="x"), memory_repository(), [tools], SilentProgress())
    assert [(record.name, record.rows) for record in taken.manifest.tables] == [("t", 1000)]
    return taken.manifest.server


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def served(make_cluster: Callable[..., Cluster], authority: trustme.CA, tmp_path: Path) -> Cluster:
    """A server with TLS, a password, and a table of 1000 rows."""
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "server.crt")
    certificate.private_key_pem.write_to_path(tmp_path / "server.key")
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    tls = TlsFiles(
        certificate=tmp_path / "server.crt", key=tmp_path / "server.key", client_authority=tmp_path / "ca.crt"
    )
    cluster = make_cluster(15, tcp=TcpAccess(password=Secret(PASSWORD), tls=tls))
    with psycopg.connect(cluster.conninfo(), autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    return cluster


def test_tls_verified_in_full_is_used_and_recorded(served: Cluster, tmp_path: Path) -> None:
    source = served.tcp_conninfo(
        password=PASSWORD, sslmode="verify-full", sslrootcert=str(tmp_path / "ca.crt")
    )
    server = recorded(ConnInfo.parse(source), served)
    assert (server.tls, server.via) == ("TLSv1.3", "loopback")


def test_server_with_another_certificate_is_refused(served: Cluster, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.crt")
    source = served.tcp_conninfo(
        password=PASSWORD, sslmode="verify-full", sslrootcert=str(tmp_path / "other.crt")
    )
    with pytest.raises(ConnectionFailed, match="certificate") as caught:
        take(ConnInfo.parse(source), served)
    assert PASSWORD not in f"{caught.value} {caught.value.hint}"


def test_wrong_password_is_told_without_it(served: Cluster) -> None:
    with pytest.raises(ConnectionFailed, match="password") as caught:
        take(ConnInfo.parse(served.tcp_conninfo(password="guess123")), served)
    assert "guess123" not in f"{caught.value} {caught.value.hint}"


def test_service_file_and_pgpass(served: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = ConnInfo.parse(served.tcp_conninfo()).params
    (tmp_path / "services").write_text(
        f"[prod]\nhost={parts['host']}\nport={parts['port']}\nuser=postgres\ndbname=postgres\n"
    )
    passes = tmp_path / "pgpass"
    passes.write_text(f"{parts['host']}:{parts['port']}:*:postgres:{PASSWORD}\n")
    passes.chmod(0o600)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    monkeypatch.setenv("PGPASSFILE", str(passes))
    take(ConnInfo.parse("service=prod"), served)


def test_client_certificate(
    make_cluster: Callable[..., Cluster], authority: trustme.CA, tmp_path: Path, served: Cluster
) -> None:
    client = authority.issue_cert("client", common_name="postgres")
    client.cert_chain_pems[0].write_to_path(tmp_path / "client.crt")
    client.private_key_pem.write_to_path(tmp_path / "client.key")
    (tmp_path / "client.key").chmod(0o600)
    assert served.tcp is not None
    strict = make_cluster(15, tcp=served.tcp, hba=("hostssl all all 127.0.0.1/32 cert",))
    with psycopg.connect(strict.conninfo(), autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    source = strict.tcp_conninfo(
        sslmode="verify-full",
        sslrootcert=str(tmp_path / "ca.crt"),
        sslcert=str(tmp_path / "client.crt"),
        sslkey=str(tmp_path / "client.key"),
    )
    assert take(ConnInfo.parse(source), strict) == "TLSv1.3"
    with pytest.raises(ConnectionFailed):
        take(ConnInfo.parse(make_conninfo(source, sslcert="/nonexistent", sslkey="/nonexistent")), strict)


def test_session_pooler_is_fine_and_a_transaction_pooler_is_refused(
    pg15: Cluster, database: DatabaseFactory
) -> None:
    source = database(pg15)
    with psycopg.connect(source.connect_string(), autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    with pgbouncer(pg15, source.dbname or "", pool_mode="session") as pooled:
        take(pooled, pg15)
    with pgbouncer(pg15, source.dbname or "", pool_mode="transaction") as pooled:
        with pytest.raises(PoolerRefused) as caught:
            take(pooled, pg15)
        assert caught.value.hint


def test_behind_a_session_pooler_the_backup_gives_way_too(pg15: Cluster, database: DatabaseFactory) -> None:
    """The pooler invents the process ids that it tells its clients."""
    source = database(pg15)
    with psycopg.connect(source.connect_string(), autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT i, repeat('x', 1000) AS f FROM generate_series(1, 20000) AS i"
        )

    def queue(step: str) -> None:
        if step == "catalog read":
            threading.Thread(target=lock, daemon=True).start()

    def lock() -> None:
        with psycopg.connect(source.connect_string()) as connection:
            connection.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")

    with (
        pgbouncer(pg15, source.dbname or "", pool_mode="session", default_pool_size="20") as pooled,
        pytest.raises(GaveWay, match="had waited"),
    ):
        capture_into(
            memory_repository(), pooled, checkpoint=queue, max_blocking_s=1, limit_rate=300_000, attempts=1
        )
