"""Running one command line and saying what it cost."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pgstow.core.process import Process, running

__all__ = ["Measurement", "MemorySample", "Pipeline", "Steps", "folder_bytes", "measure", "server_cpu_s"]

Pipeline = tuple[tuple[str, ...], ...]  # commands whose stdout feeds the next one's stdin
Steps = tuple[Pipeline, ...]  # run one after another

_SAMPLES_A_SECOND: Final = 10
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySample:
    """Memory of all processes of a tool together, ``after_s`` seconds into the command."""

    after_s: float
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one command line cost, its start-up included.

    ``cpu_s`` is processor time of the tool's own processes, ``server_cpu_s`` that of every process of the
    server during the same time. Memory is the proportional set size of every process that descends
    from the command line, ten times a second.
    """

    wall_s: float
    cpu_s: float
    server_cpu_s: float
    samples: tuple[MemorySample, ...]

    @property
    def peak_bytes(self) -> int:
        return max((sample.bytes for sample in self.samples), default=0)


def measure(
    steps: Steps, *, env: Mapping[str, str], folder: Path, server_pid: int | None = None
) -> Measurement:
    """Run the steps in ``folder`` and return their cost; ProcessFailed if any program of any of them fails."""
    server_before = server_cpu_s(server_pid) if server_pid else 0.0
    cpu_before = _children_cpu_s()
    with _MemorySampler() as sampler:
        started = time.perf_counter()
        for pipeline in steps:
            _run(pipeline, env=env, folder=folder, sampler=sampler)
        wall_s = time.perf_counter() - started
    return Measurement(
        wall_s=wall_s,
        cpu_s=_children_cpu_s() - cpu_before,
        server_cpu_s=server_cpu_s(server_pid) - server_before if server_pid else 0.0,
        samples=tuple(sampler.samples),
    )


def _run(pipeline: Pipeline, *, env: Mapping[str, str], folder: Path, sampler: _MemorySampler) -> None:
    """Run one pipeline; what the last program prints goes to ``stdout.log``, as nobody reads it."""
    with ExitStack() as stack:
        log = stack.enter_context((folder / "stdout.log").open("ab"))
        processes: list[Process] = []
        for number, command in enumerate(pipeline, start=1):
            is_last = number == len(pipeline)
            process = stack.enter_context(
                running(
                    command,
                    env=env,
                    cwd=folder,
                    stdin=processes[-1].stdout.fileno() if processes else subprocess.DEVNULL,
                    stdout=log if is_last else subprocess.PIPE,
                )
            )
            if processes:
                processes[-1].stdout.close()  # else the writer would never hear that its reader is gone
            processes.append(process)
            sampler.watch(process.pid)
        for process in processes:
            process.check()


class _MemorySampler:
    """Samples the memory of the watched processes and of all their descendants, from a thread."""

    def __init__(self) -> None:
        self.samples: list[MemorySample] = []
        self._roots: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-sampler", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def watch(self, pid: int) -> None:
        self._roots.append(pid)

    def _sample(self) -> None:
        started = time.perf_counter()
        while not self._stop.wait(1 / _SAMPLES_A_SECOND):
            total = sum(_resident_bytes(pid) for pid in _with_descendants(list(self._roots)))
            self.samples.append(MemorySample(after_s=time.perf_counter() - started, bytes=total))


def _with_descendants(pids: Iterable[int]) -> set[int]:
    found: set[int] = set()
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += _children(pid)
    return found


def _children(pid: int) -> list[int]:
    """Return the children of every thread of a process; nothing once it has ended."""
    children: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_text().split())
    except OSError:  # it ended meanwhile
        pass
    return children


def _resident_bytes(pid: int) -> int:
    """Return the proportional set size of a process: pages it shares count by its share of them."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:  # it ended meanwhile
        pass
    return 0


def _children_cpu_s() -> float:
    """Return the processor time of every child that has ended and been waited for, with its own such children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def server_cpu_s(postmaster: int) -> float:
    """Return the processor time a server has used: the postmaster, its living children, and those it has reaped."""
    own = _cpu_ticks(postmaster)
    return (sum(own) + sum(sum(_cpu_ticks(child)) for child in _children(postmaster))) / _TICKS_A_SECOND


def _cpu_ticks(pid: int) -> list[int]:
    """Return utime, stime, cutime and cstime of a process. Source: proc(5), fields 14 to 17 of stat."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it ended meanwhile, and its time is its parent's cutime now
        return []
    return [int(field) for field in after_name[11:15]]


def folder_bytes(folder: Path) -> int:
    """Return the length of all files below a folder together; of a file, its own."""
    if folder.is_file():
        return folder.stat().st_size
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
