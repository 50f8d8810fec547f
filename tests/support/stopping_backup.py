"""A backup in a process of its own that stops itself before a chosen request to its store.

``python -m support.stopping_backup FOLDER SOURCE METHOD PREFIX SHIFT EXPIRY_S``: SIGSTOP comes before the first
``METHOD`` of an object below ``PREFIX``. SHIFT is a file that holds the seconds by which this process's clock is ahead.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgstow.app.backup import BackupRequest, backup
from pgstow.core.errors import PgstowError
from pgstow.core.progress import SilentProgress
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.tools import find_tools
from pgstow.repository import LockTimes, Repository
from pgstow.store.local import LocalStore
from support.repositories import WatchedStore
from support.restic import PASSWORD

__all__ = ["stopped_backup"]


@contextmanager
def stopped_backup(
    folder: Path, source: ConnInfo, method: str, prefix: str, shift: Path, *, expiry_s: float = 1350.0
) -> Iterator[subprocess.Popen[bytes]]:
    """Start such a backup of ``shop`` and wait until it has stopped."""
    arguments = [str(folder), source.connect_string(), method, prefix, str(shift), str(expiry_s)]
    shift.write_text("0")
    process = subprocess.Popen(
        [sys.executable, "-m", "support.stopping_backup", *arguments],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                process.returncode = os.waitstatus_to_exitcode(status)
                output = process.communicate()
                raise AssertionError(f"it ended before it could be stopped: {output}")
            yield process
        finally:
            if process.returncode is None:
                process.kill()


def main() -> int:
    folder, source, method, prefix, shift, expiry_s = sys.argv[1:]
    store = WatchedStore(inner=LocalStore(Path(folder)))
    repository = Repository.open(store, Secret(PASSWORD))
    may_stop = iter([True])

    def before(called: str, name: str) -> None:
        if called == method and name.startswith(prefix) and next(may_stop, False):
            os.kill(os.getpid(), signal.SIGSTOP)

    store.before = before
    repository.lock_times = LockTimes(
        refresh_s=min(300.0, float(expiry_s) / 10),
        expiry_s=float(expiry_s),
        clock_s=lambda: time.clock_gettime(time.CLOCK_BOOTTIME) + float(Path(shift).read_text()),
    )
    request = BackupRequest(source=ConnInfo.parse(source), name="shop")
    try:
        taken = backup(request, repository, find_tools(os.environ["PATH"]), SilentProgress())
    except PgstowError as exc:
        print(json.dumps({"error": exc.message, "hint": exc.hint}))
        return exc.exit_code
    print(json.dumps({"id": taken.manifest.backup_id}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
