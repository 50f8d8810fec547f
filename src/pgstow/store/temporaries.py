"""Names of unfinished files, which say whose they are.

A run that was killed cannot tidy up; the next one can, if it knows that the owner of a file is gone.
The name therefore carries the machine's boot id, the PID namespace, the process id and the time that
process started (ids are reused, all four together are not):

    pgstow-BOOT-NAMESPACE-PID-STARTED-RANDOM
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
from pathlib import Path

__all__ = ["is_stale", "new_temporary_name", "stale_temporaries"]

_NAME = re.compile(r"pgstow-([0-9a-z]+)-([0-9]+)-([0-9]+)-([0-9]+)-[0-9a-f]+")
_UNKNOWN = "unknown"
_FOREIGN_AGE_S = 24 * 3600  # a put takes minutes; a day leaves room for clocks that disagree


def new_temporary_name() -> str:
    """Return a name nobody else uses, marked as belonging to this process."""
    pid = os.getpid()
    return f"pgstow-{_boot_id()}-{_pid_namespace()}-{pid}-{_started(pid)}-{secrets.token_hex(8)}"


def is_stale(name: str, age_s: float) -> bool:
    """Return whether the file ``name``, last written ``age_s`` seconds ago, has no living owner.

    Owners on this boot and PID namespace are looked up; of others only the age is known.
    """
    match = _NAME.fullmatch(name)
    if not match:
        return False
    boot, namespace, pid, started = match.groups()
    if boot != _UNKNOWN and (boot, int(namespace)) == (_boot_id(), _pid_namespace()):
        return not _is_running(int(pid), int(started))
    return age_s > _FOREIGN_AGE_S


def stale_temporaries(folder: Path, now_s: float) -> list[str]:
    """Return the names of unfinished files of a local store whose owners are gone."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in sorted((folder / "tmp").iterdir()):
            with contextlib.suppress(FileNotFoundError):  # finished meanwhile
                if is_stale(path.name, now_s - path.stat().st_mtime):
                    found.append(path.name)
    return found


def _is_running(pid: int, started: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # somebody else's process: it exists
    now_started = _started(pid)
    return now_started in (0, started)  # 0: /proc hides it, so it may be the owner


@functools.cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip().replace("-", "")
    except OSError:
        return _UNKNOWN  # not Linux: owners are then judged by age alone


@functools.cache
def _pid_namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def _started(pid: int) -> int:
    """Return when the process started, in clock ticks since boot; 0 if that cannot be seen."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        # The second field is the program's name in parentheses and may hold anything, so count from its end.
        return int(stat.rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0
