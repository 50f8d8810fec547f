"""Folders that drills, imports, restores and connections work in, and the removal of those that killed ones left behind.

    pgstow-drill-XXXXXXXX/      of mode 0700, or 0711 where root lets another account run the server
        lock                    locked as long as the drill's process lives, whatever happens to it
        pgstow-XXXXXXXX/data    of the server
    pgstow-restore-XXXXXXXX/    the archive's table of contents, for pg_restore
    pgstow-connection-XXXXXXXX/ what a client program is to be told and its arguments must not show

The kernel drops the lock with the process, so a folder whose lock can be had belongs to nobody any more. One that holds
something and no lock was not made here, whatever its name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from pgstow.core.errors import Interrupted, PgstowError
from pgstow.core.process import run

__all__ = ["Workspace", "remove_leftovers", "working_folder"]

Kind = Literal["drill", "restore", "connection"]

_LOCK = "lock"
_NEW_LOCK = f"{_LOCK}.new"
_UNLOCKED_FOR_S = 3600.0  # an empty folder without a lock is that of a run that begins, unless it is this old
_END_S = 30.0
_POLL_S = 0.05
_STILL_CHANGING = (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST)
_IN_USE = (errno.EWOULDBLOCK, errno.EACCES)


class Workspace:
    """A folder of our own that is recognised as left behind once this process has ended."""

    def __init__(self, parent: Path, kind: Kind = "drill") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=_prefix(kind), dir=parent))
        self._lock: int | None = None
        try:
            if kind == "drill" and os.geteuid() == 0:
                self.folder.chmod(0o711)  # the server's account must get through to its own folder
            self._lock = _new_lock(self.folder)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """End what still runs in it and delete it; nothing happens the second time.

        Raises OSError, PgstowError; the folder is nobody's then, and the next drill tries again.
        """
        try:
            if self.folder.exists():
                _remove(self.folder)
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None


@contextlib.contextmanager
def working_folder(parent: Path, note: Callable[[str], object], kind: Kind = "drill") -> Iterator[Path]:
    """Give a folder of our own for a block, having removed what killed runs of this kind left behind."""
    remove_leftovers(parent, note, kind)
    workspace = Workspace(parent, kind)
    try:
        yield workspace.folder
    finally:
        workspace.remove()


def remove_leftovers(parent: Path, note: Callable[[str], object], kind: Kind = "drill") -> None:
    """Remove the folders of one kind and of this account whose process has ended, and end their servers.

    What cannot be removed is told; nothing that may be in use, or that is somebody else's, is touched.
    """
    for folder in sorted(parent.glob(f"{_prefix(kind)}*")):
        try:
            with _abandoned(folder) as is_abandoned:
                if is_abandoned:
                    _remove(folder)
                    note(f"removed what a {kind} that was killed had left in {folder}")
        except FileNotFoundError:  # another run was quicker
            continue
        except Interrupted:
            raise
        except (OSError, PgstowError) as exc:
            note(f"what a {kind} that was killed left in {folder} cannot be removed: {exc}")


def _prefix(kind: Kind) -> str:
    return f"pgstow-{kind}-"


def _new_lock(folder: Path) -> int:
    """Return the descriptor of a lock that appears in the folder only when it is held."""
    unlocked = folder / _NEW_LOCK
    descriptor = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unlocked.rename(folder / _LOCK)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def _abandoned(folder: Path) -> Iterator[bool]:
    """Say whether a folder is ours and nobody's any more, and keep others away from it for the block."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        yield False
        return
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        is_old = time.time() - found.st_mtime > _UNLOCKED_FOR_S
        yield is_old and all(path.name == _NEW_LOCK for path in folder.iterdir())
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if exc.errno not in _IN_USE:
                raise
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """End the server and delete the folder, the lock last: without it nobody would know that it was left behind.

    Who was killed while initdb ran left that at work. It ends when it misses its files, and until then makes new ones.
    """
    for pid_file in folder.glob("*/data/postmaster.pid"):
        _end_server(pid_file)
    deadline = time.monotonic() + _END_S
    while True:
        try:
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != _LOCK:
                    path.unlink()
            break
        except OSError as exc:
            if exc.errno not in _STILL_CHANGING or time.monotonic() > deadline or not folder.exists():
                raise
            time.sleep(_POLL_S)
    shutil.rmtree(folder)


def _end_server(pid_file: Path) -> None:
    """End the server that a postmaster.pid names, if it runs; PgstowError if it will not end."""
    lines = pid_file.read_text(errors="replace").splitlines()
    if not lines or not lines[0].isdigit():
        return
    pid, data = int(lines[0]), pid_file.parent
    for number in (signal.SIGQUIT, signal.SIGKILL):
        if not _is_server_of(pid, data):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + _END_S
        while _is_server_of(pid, data) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    if _is_server_of(pid, data):
        raise PgstowError(f"its server, process {pid}, does not end")


def _is_server_of(pid: int, data: Path) -> bool:
    """Whether the process is a server on this data directory: its number may be somebody else's by now."""
    words = _command_line(pid)
    return words is not None and os.fsencode(data) in words


def _command_line(pid: int) -> bytes | None:
    """Return how a process was started; None if there is no such process (or one that has ended and was not waited for)."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes() or None
        except (FileNotFoundError, ProcessLookupError):
            return None
    try:
        return run(["ps", "-o", "command=", "-p", str(pid)])
    except PgstowError as exc:
        if exc.facts.get("exit_status") == 1:
            return None
        raise
