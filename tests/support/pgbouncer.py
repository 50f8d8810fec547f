"""A real pgbouncer before a throwaway server."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pgstow.core.process import running
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster


@contextlib.contextmanager
def pgbouncer(cluster: Cluster, dbname: str, *, pool_mode: str, **settings: str) -> Iterator[ConnInfo]:
    """Run a pool before ``cluster`` and yield how to connect through it; it is gone after the block."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.fail("pgbouncer is not installed; run scripts/install-test-tools", pytrace=False)
    owner = cluster.data_dir.stat()  # who may enter the server's socket folder
    with TemporaryDirectory(prefix="pgbouncer-", dir="/tmp") as name:
        folder = Path(name)
        (folder / "users.txt").write_text('"postgres" ""\n')
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={cluster.socket_dir} port={cluster.port} user=postgres\n[pgbouncer]\n"
            f"unix_socket_dir = {folder}\nlisten_port = 6432\nlisten_addr =\nauth_type = trust\n"
            f"auth_file = {folder}/users.txt\npool_mode = {pool_mode}\nlogfile =\npidfile =\n"
            + "".join(f"{key} = {value}\n" for key, value in settings.items())
        )
        for path in (folder, *folder.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)
        user = owner.st_uid if os.geteuid() == 0 else None
        with running(
            [program, folder / "pgbouncer.ini"],
            stdout=None,
            user=user,
            group=pwd.getpwuid(user).pw_gid if user is not None else None,
        ) as process:
            _await(folder / ".s.PGSQL.6432", process.poll)
            yield ConnInfo.parse(f"host={folder} port=6432 user=postgres dbname={dbname}")


def _await(path: Path, poll: object) -> None:
    assert callable(poll)
    while True:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(os.fspath(path))
            return
        assert poll() is None, "pgbouncer ended at once"
        time.sleep(0.02)
