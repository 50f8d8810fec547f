"""A process's place among the hosts of a state database: it says again and again that it is alive."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Self

from pgstow.core.errors import StateError
from pgstow.repository.holder import Holder
from pgstow.state.database import StateDatabase
from pgstow.state.hosts import HostRow, Hosts, Role
from pgstow.state.runs import Runs

__all__ = ["DEAD_AFTER_S", "Presence", "bury", "describe_host"]

DEAD_AFTER_S = 30.0
_PATIENCE = 10.0
_BEATS = 6  # within the time after which silence counts as death


def describe_host(role: Role, *, shape: int, dead_after_s: float) -> HostRow:
    """Return what this process enters; its id is never used again."""
    me = Holder.current()
    return HostRow(
        id=f"{me.lock_hostname}-{me.pid}-{Runs.new_id()[:8]}",
        role=role,
        shape=shape,
        hostname=me.hostname,
        pid=me.pid,
        marks=me.marks(),
        dead_after_s=dead_after_s,
    )


def _clock_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Presence:
    """Beats in the background for the length of a block, and leaves at its end.

    Entering raises StateError if the first beat fails; later failures pass: the database may come back.
    """

    def __init__(
        self, state: StateDatabase, host: HostRow, *, clock_s: Callable[[], float] = _clock_s
    ) -> None:
        self.host = host
        self.hosts = Hosts(state)
        self._clock_s = clock_s
        self._steady_since_s = 0.0
        self._last_s = 0.0
        self._last_offset_s = 0.0
        self._tolerance_s = host.dead_after_s / 2
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="presence", daemon=True)

    def __enter__(self) -> Self:
        self.beat()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(self.host.dead_after_s)  # a beat may hang in a database that fell silent
        with contextlib.suppress(StateError):  # silence says the same, later
            self.hosts.leave(self.host.id)

    def may_judge(self, now: datetime) -> bool:
        """Whether others may be judged by their silence at ``now``, by the database's clock.

        Only if every beat of ours came through for as long as it takes to be taken for dead, and that clock went as ours
        does: else it may have been the database that was away or set, or this process that was stopped.
        """
        since_last_s = self._clock_s() - self._last_s
        return (
            since_last_s <= self._tolerance_s
            and self._last_s - self._steady_since_s >= self.host.dead_after_s
            and abs(self._offset_s(now) - self._last_offset_s) <= self._tolerance_s
        )

    def beat(self) -> None:
        """Say that this process is alive. Raises StateError."""
        begun_s = self._clock_s()
        offset_s = self._offset_s(self.hosts.beat(self.host))
        is_late = begun_s - self._last_s > self._tolerance_s
        if is_late or abs(offset_s - self._last_offset_s) > self._tolerance_s:
            self._steady_since_s = begun_s
        self._last_s, self._last_offset_s = begun_s, offset_s

    def _offset_s(self, now: datetime) -> float:
        return now.timestamp() - self._clock_s()

    def _keep(self) -> None:
        while not self._ended.wait(self.host.dead_after_s / _BEATS):
            with contextlib.suppress(StateError):
                self.beat()


def bury(presence: Presence, state: StateDatabase) -> list[HostRow]:
    """Declare dead who certainly is, and who was silent for too long as far as we may judge; return them.

    A process of this machine is looked up: one that was killed need not be waited for. A single run, which has not
    watched for long, takes only ten times the silence for death.
    """
    now, me = state.now(), Holder.current()
    patience = 1.0 if presence.may_judge(now) else _PATIENCE if presence.host.role == "run" else math.inf
    dead = []
    for host in presence.hosts.all():
        if host.is_dead or host.id == presence.host.id:
            continue
        process = Holder.described(pid=host.pid, hostname=host.hostname, username="", marks=host.marks)
        is_gone = process.is_gone(me) or host.is_silent(now, patience=patience)
        if is_gone and presence.hosts.declare_dead(host):
            dead.append(host)
            _abandon(host, state, now)
    presence.hosts.forget_old(now)
    return dead


def _abandon(host: HostRow, state: StateDatabase, now: datetime) -> None:
    """Write down that the run of a dead process was cut off; whoever takes its place may find that it had published."""
    record = Runs(state).get(host.run) if host.run is not None else None
    if record is not None and record.outcome == "running":
        ended = replace(
            record, outcome="abandoned", finished=now, error_code="abandoned", error="its process was killed"
        )
        Runs(state).save(ended, only_if_running=True)
