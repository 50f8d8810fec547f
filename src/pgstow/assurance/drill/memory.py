"""The memory of this machine or container, and whether a throwaway server will do with it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pgstow.core.errors import TargetRefused

__all__ = ["Memory", "memory_of", "refuse_too_little_memory", "usable_cpus"]

_MIB = 1 << 20
_SESSION_BYTES = 12 * _MIB  # of a session of the server, besides what an index is built with
_OURS_BYTES = 64 * _MIB  # what this process takes on besides while it loads
_FIELD = re.compile(r"^(\w+):?\s+([0-9]+)", re.MULTILINE)
# Pages of files, which the kernel gives up when somebody needs memory. Version 2 of control groups, then 1.
_FILE_PAGES = (("inactive_file", "active_file"), ("total_inactive_file", "total_active_file"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What there is, and what of it is to be had now. Both heed the limits of containers and services."""

    total_bytes: int
    available_bytes: int


def memory_of(root: Path = Path("/")) -> Memory:
    """Return the memory that this process may use. ``root`` is where /proc and /sys are; what these do not say is not guessed."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    known = _fields(root / "proc/meminfo")
    if "MemTotal" in known:
        total = known["MemTotal"] * 1024
    available = total
    if "MemAvailable" in known:  # where it is short, others are moved into swap space
        available = (known["MemAvailable"] + known.get("SwapFree", 0)) * 1024
    for folder in _control_groups(root):
        limit, used = _limit_and_use(folder)
        if limit is not None:
            total = min(total, limit)
            available = min(available, max(limit - used, 0))
    return Memory(total_bytes=total, available_bytes=min(available, total))


def _control_groups(root: Path) -> Iterator[Path]:
    """Yield the folders of the control groups that this process is in, innermost first, up to the one that limits all."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    places = [("sys/fs/cgroup", "/"), ("sys/fs/cgroup/memory", "/")]
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            places.append(("sys/fs/cgroup", path))
        elif "memory" in controllers.split(","):
            places.append(("sys/fs/cgroup/memory", path))
    seen = set[Path]()
    for top, path in places:
        steps = [step for step in path.split("/") if step not in ("", "..")]
        for count in range(len(steps), -1, -1):
            folder = root.joinpath(top, *steps[:count])
            if folder not in seen:
                seen.add(folder)
                yield folder


def _limit_and_use(folder: Path) -> tuple[int | None, int]:
    """Return the limit of a control group, None if it has none, and what of that cannot be had any more."""
    for limit_file, use_file in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit, used = _number(folder / limit_file), _number(folder / use_file)
        if limit is not None:
            pages = _fields(folder / "memory.stat")
            of_files = max(sum(pages.get(name, 0) for name in names) for names in _FILE_PAGES)
            return limit, max((used or 0) - of_files, 0)
    return None, 0


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # else "max"


def _fields(path: Path) -> Mapping[str, int]:
    try:
        text = path.read_text()
    except OSError:
        return {}
    return {name: int(number) for name, number in _FIELD.findall(text)}


def refuse_too_little_memory(memory: Memory, *, shared_buffers: int, build_bytes: int, jobs: int) -> None:
    """Raise TargetRefused if server and sessions will take more memory than there is: the system would end one of them."""
    needed_bytes = shared_buffers + jobs * (build_bytes + _SESSION_BYTES) + _OURS_BYTES
    if memory.available_bytes < needed_bytes:
        raise TargetRefused(
            f"{memory.available_bytes // _MIB} MiB of memory are available, and a drill with {jobs} jobs takes"
            f" about {needed_bytes // _MIB} MiB",
            hint="give this machine or container more memory, try --jobs 1, or let the drill make its database on a server"
            " with --on URL",
            available_bytes=memory.available_bytes,
            needed_bytes=needed_bytes,
        )


def usable_cpus() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
