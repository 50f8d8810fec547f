"""The private PostgreSQL servers of the bench, the same for every contestant."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from pgstow.core.errors import ToolMissing
from pgstow.core.process import run
from pgstow.postgres.server import Cluster, ServerBinaries, find_servers

__all__ = [
    "SETTINGS",
    "ServerBlock",
    "create_database",
    "database_bytes",
    "drop_database",
    "kept_server",
    "server",
    "server_binaries",
    "settle",
]

ServerBlock = AbstractContextManager[Cluster]

# What differs from PostgreSQL's defaults. fsync stays on, as it does for anybody who wants a backup.
# Checkpoints and autovacuum are kept out of the measured time, which is too short to average them out.
SETTINGS: Final = {
    "fsync": "on",
    "shared_buffers": "512MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "max_locks_per_transaction": "1024",
}
_PREFERRED_MAJOR: Final = 15
_CLIENT_PROGRAMS: Final = ("pg_dump", "pg_restore", "createdb")
_KEPT_MARK: Final = "kept.txt"


def server_binaries() -> ServerBinaries:
    """Return PostgreSQL 15 as packaged, else the newest packaged server; ToolMissing when there is none."""
    packaged = [found for found in find_servers(os.environ.get("PATH", "")) if _is_complete(found)]
    if not packaged:
        raise ToolMissing("no PostgreSQL server is installed", hint="apt-get install postgresql")
    return max(packaged, key=lambda binaries: (binaries.version[0] == _PREFERRED_MAJOR, binaries.version))


def _is_complete(found: ServerBinaries) -> bool:
    """Whether this is a whole package with its client programs: not a folder of links, not the embedded server."""
    return not found.bundle and all((found.bin_dir / name).is_file() for name in _CLIENT_PROGRAMS)


@contextmanager
def server(parent: Path, *, settings: Mapping[str, str] = SETTINGS) -> Iterator[Cluster]:
    """Run an empty server below ``parent`` for the length of a block."""
    parent.mkdir(parents=True, exist_ok=True)
    with Cluster(server_binaries(), settings=settings, parent=parent, account=_account()) as cluster:
        yield cluster


@contextmanager
def kept_server(
    parent: Path, kept: Path | None, mark: str, fill: Callable[[Cluster], None]
) -> Iterator[Cluster]:
    """Run a server that ``fill`` has filled, taking it from the folder ``kept`` if that holds one of this ``mark``.

    A copy is put there before the server is handed out, so what the block changes does not last.
    """
    with server(parent) as cluster:
        if kept and (kept / _KEPT_MARK).is_file() and (kept / _KEPT_MARK).read_text() == mark:
            cluster.stop()
            shutil.rmtree(cluster.data_dir)
            _copy(kept / "data", cluster.data_dir)
            cluster.start()
        else:
            fill(cluster)
            if kept:
                cluster.stop()
                shutil.rmtree(kept, ignore_errors=True)
                kept.mkdir(parents=True)
                _copy(cluster.data_dir, kept / "data")
                (kept / _KEPT_MARK).write_text(mark)
                cluster.start()
        yield cluster


def _copy(source: Path, target: Path) -> None:
    """Copy a data directory with its owner, which shutil does not keep."""
    run(["cp", "-a", "--reflink=auto", source, target])


def _account() -> str:
    """Return whom root runs servers as: the package's own account where there is one."""
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


def create_database(cluster: Cluster, name: str) -> str:
    """Make an empty database, in place of one of that name; return its connection string."""
    drop_database(cluster, name)
    with psycopg.connect(cluster.conninfo(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return cluster.conninfo(name)


def drop_database(cluster: Cluster, name: str) -> None:
    with psycopg.connect(cluster.conninfo(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def database_bytes(conninfo: str) -> int:
    """Return what the database takes on the server's disk."""
    with psycopg.connect(conninfo) as connection:
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row is not None
    return int(row[0])


def settle(*clusters: Cluster) -> None:
    """Write everything to disk, so that nobody pays for what was done before."""
    for cluster in clusters:
        with psycopg.connect(cluster.conninfo(), autocommit=True) as connection:
            connection.execute("CHECKPOINT")
    os.sync()
