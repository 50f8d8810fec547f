"""The use case: be one host of the service until asked to stop."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pgstow.app.alert_watch import AlertWatch
from pgstow.app.metrics import MetricsBoard, MetricsKeeper
from pgstow.app.observation import KnownDrills
from pgstow.app.run_due import scheduled_runs
from pgstow.config.keeping import forget_copies
from pgstow.config.settings import Settings
from pgstow.core.errors import PgstowError, StateError
from pgstow.jobs.cleaning import Cleaning
from pgstow.jobs.dispatch import SHAPE, Order
from pgstow.jobs.engine import Engine
from pgstow.jobs.presence import DEAD_AFTER_S, Presence, describe_host
from pgstow.jobs.service import Scheduled, Service, ServiceParts
from pgstow.jobs.workers import Workers
from pgstow.monitor.exporter import serve_metrics
from pgstow.repository.holder import Holder
from pgstow.state.database import StateDatabase
from pgstow.state.spool import Spool

__all__ = ["SHORTEST_WAIT_S", "ServeReport", "ServeRequest", "Serving"]

# Longer than it takes until the lock of a process that was killed elsewhere is stale.
SHORTEST_WAIT_S = 45 * 60.0
_LOOKS = 6  # within the time after which a silent host is dead
_LONGEST_LOOK_S = 5.0
_FAREWELL_S = 30.0  # for an alert that is being told while the service stops


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeRequest:
    """How to serve. ``load`` reads the settings and returns where a copy of them is kept for the runs.

    ``program`` is how this pgstow is called, before the command's name; references of the settings are resolved in
    ``environ``.
    """

    load: Callable[[], tuple[Settings, Path]]
    program: Sequence[str]
    folder: Path  # for what belongs to this machine
    environ: Mapping[str, str]
    note: Callable[[str], None]
    grace_s: float = 600.0
    dead_after_s: float = DEAD_AFTER_S
    shape: int = SHAPE


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeReport:
    """What this host did: how many runs ended with which exit status."""

    host_id: str
    started: datetime
    stopped: datetime
    ended: Mapping[int, int]


class _Current:
    """The settings in force."""

    def __init__(self, request: ServeRequest) -> None:
        self._request = request
        self.settings, self.copy = request.load()

    def reload(self) -> None:
        """Read them again; ones that are wrong are told, and the old ones stay."""
        try:
            self.settings, self.copy = self._request.load()
        except PgstowError as exc:
            self._request.note(f"the settings were not read again, the old ones stay: {exc.message}")
        else:
            self._request.note(f"settings read again from {self.settings.path}")

    def scheduled(self) -> list[Scheduled]:
        return scheduled_runs(list(self.settings.plans.values()))


class Serving:
    """A host of the service that has been prepared; ``run()`` serves."""

    def __init__(self, request: ServeRequest) -> None:
        self._request = request
        self._current = _Current(request)
        self.workers = Workers(self._command, request.note)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._current.settings

    def run(self, state: StateDatabase, wait: Callable[[], Literal["stop", "reload"]]) -> ServeReport:
        """Serve until ``wait()`` says stop; then give what is under way its grace, interrupt it, and leave."""
        request, started = self._request, datetime.now(UTC)
        host = describe_host("serve", shape=request.shape, dead_after_s=request.dead_after_s)
        engine = Engine(
            state,
            host_id=host.id,
            workers=self.settings.limits.workers,
            carry_out=self.workers.carry_out,
            note=request.note,
            shape=request.shape,
        )
        with (
            _only_one(request.folder, state),
            self._watching() as on_tick,
            Presence(state, host) as presence,
            engine.working(),
        ):
            parts = ServiceParts(
                state=state,
                dispatcher=engine,
                presence=presence,
                spool=Spool(request.folder / "spool"),
                scheduled=self._current.scheduled,
                note=request.note,
                on_tick=on_tick,
                clean=Cleaning(state, engine, lambda: forget_copies(request.folder, self._current.copy)),
                look_every_s=min(_LONGEST_LOOK_S, request.dead_after_s / _LOOKS),
                shape=request.shape,
            )
            with Service(parts).running():
                plans = len({one.plan for one in self._current.scheduled()})
                request.note(
                    f"serving {self.settings.path}: plans with a schedule: {plans}; state in {state.where}"
                )
                while wait() == "reload":
                    self._current.reload()
            request.note("stopping")
            engine.take_no_more()
            self.workers.stop(request.grace_s)
        return ServeReport(
            host_id=host.id, started=started, stopped=datetime.now(UTC), ended=dict(self.workers.ended)
        )

    @contextlib.contextmanager
    def _watching(self) -> Iterator[Sequence[Callable[[datetime], None]]]:
        """Give what is called about once a minute: alerts and metrics; these are answered meanwhile, where that is wanted."""
        request, monitoring = self._request, self.settings.monitoring
        board = MetricsBoard(monitoring.textfile)
        drills = KnownDrills()
        metrics = MetricsKeeper(
            board, lambda: self.settings, request.environ, note=request.note, drills=drills
        )
        alerts = AlertWatch(
            lambda: self.settings,
            request.environ,
            request.note,
            hostname=Holder.current().hostname,
            drills=drills,
        )
        with contextlib.ExitStack() as stack:
            if monitoring.listen is not None:
                stack.enter_context(serve_metrics(monitoring.listen, board.text))
            yield [alerts, metrics] if monitoring.listen or monitoring.textfile else [alerts]
            alerts.wait(_FAREWELL_S)

    def _command(self, order: Order) -> list[str]:
        """Return how a run is called: as a person would, for its due time."""
        key = order.key
        options = {
            "--due": key.due.isoformat(),
            "--wait": f"{self._patience_s(order):.0f}s",
            "--dead-after": f"{self._request.dead_after_s}s",
            "--config": str(self._current.settings.path),
            "--settings-copy": str(self._current.copy),
        }
        if key.database is not None:
            options["--database"] = key.database
        pairs = [part for pair in options.items() for part in pair]
        return [*self._request.program, "run", key.plan, *pairs, "--quiet"]

    def _patience_s(self, order: Order) -> float:
        """Return how long a run may wait for others: for as long as it may be caught up, or a stale lock takes.

        A drill gives way at once to another one, and is tried again later: it must not keep a worker from a backup.
        """
        plan = self._current.settings.plans.get(order.key.plan)
        if plan is not None and plan.job == "drill":
            return 0.0
        window_s = plan.schedule.catch_up_s if plan is not None and plan.schedule is not None else 0.0
        left_s = window_s - (datetime.now(UTC) - order.key.due).total_seconds()
        return max(SHORTEST_WAIT_S, left_s)


@contextlib.contextmanager
def _only_one(folder: Path, state: StateDatabase) -> Iterator[None]:
    """Refuse a second service on a state database that is a file: it is for one host, and a host needs only one."""
    if state.is_shared:
        yield
        return
    with (folder / "serve.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise StateError(
                f"another pgstow serve uses {state.where}",
                hint="one is enough for one machine; for several, give them a PostgreSQL database as state:",
            ) from exc
        yield
