"""Who holds a lock: a process, told apart across hosts, containers and reboots."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["Holder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process. What the system does not tell is None, and then nothing is concluded from it."""

    hostname: str
    username: str
    pid: int
    uid: int
    gid: int
    boot_id: str | None
    pid_namespace: str | None
    process_start: str | None  # clock ticks since boot: a pid is used again, this pair is not

    @classmethod
    def current(cls) -> Self:
        """Return this process."""
        uid = os.getuid()
        try:
            username = pwd.getpwuid(uid).pw_name
        except KeyError:  # containers run with uids that have no name
            username = str(uid)
        return cls(
            hostname=socket.gethostname(),
            username=username,
            pid=os.getpid(),
            uid=uid,
            gid=os.getgid(),
            boot_id=_read("/proc/sys/kernel/random/boot_id"),
            pid_namespace=_link("/proc/self/ns/pid"),
            process_start=_process_start(os.getpid()),
        )

    @classmethod
    def described(cls, *, pid: int, hostname: str, username: str, marks: Mapping[str, str | None]) -> Self:
        """Return the process that someone else wrote down; ``marks`` are those of ``marks()``."""
        return cls(
            hostname=hostname,
            username=username,
            pid=pid,
            uid=0,
            gid=0,
            boot_id=marks.get("boot_id"),
            pid_namespace=marks.get("pid_namespace"),
            process_start=marks.get("process_start"),
        )

    def marks(self) -> dict[str, str | None]:
        """Return what tells this process from others with its pid."""
        return {
            "boot_id": self.boot_id,
            "pid_namespace": self.pid_namespace,
            "process_start": self.process_start,
        }

    def __str__(self) -> str:
        return f"PID {self.pid} on {self.hostname} by {self.username}"

    @property
    def lock_hostname(self) -> str:
        """The host name that stands in locks: never the plain one, and different per container and boot.

        ``restic unlock`` looks up the pid of every lock of its own host name: it removes the lock if it sees
        no such process, which in another container says nothing, and else sends the process a SIGHUP,
        which would end us. Source: restic internal/repository/lock_file_unix.go.
        """
        mark = hashlib.sha256(f"{self.boot_id} {self.pid_namespace}".encode()).hexdigest()[:8]
        return f"{self.hostname}-{mark}"

    def is_process(self, other: Holder) -> bool:
        """Whether both certainly are the same process."""
        marks = (self.boot_id, self.pid_namespace, self.process_start, self.pid)
        return None not in marks and marks == (
            other.boot_id,
            other.pid_namespace,
            other.process_start,
            other.pid,
        )

    def is_gone(self, observer: Holder) -> bool:
        """Whether this process has certainly ended, as ``observer`` (the current process) can tell.

        Only pids of the same boot and pid namespace can be looked up; of others nothing is known.
        """
        if None in (self.boot_id, self.pid_namespace):
            return False
        if (self.boot_id, self.pid_namespace) != (observer.boot_id, observer.pid_namespace):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        start = _process_start(self.pid)
        return None not in (start, self.process_start) and start != self.process_start


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip() or None
    except OSError:
        return None


def _link(path: str) -> str | None:
    with contextlib.suppress(OSError):
        return str(Path(path).readlink())
    return None


def _process_start(pid: int) -> str | None:
    """Return field 22 of /proc/PID/stat; the command in field 2 may hold spaces and brackets."""
    stat = _read(f"/proc/{pid}/stat")
    fields = stat.rpartition(")")[2].split() if stat else []
    return fields[19] if len(fields) > 19 else None
