"""The service as its users run it: a settings file, processes of the real command, and a look at what they wrote down."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from pgstow.catalog.backups import BackupRecord, list_backups
from pgstow.config.reading import read_settings
from pgstow.core.secrets import Secret
from pgstow.jobs.dispatch import SHAPE
from pgstow.postgres.conninfo import ConnInfo
from pgstow.repository import Repository
from pgstow.state.database import StateDatabase, open_state
from pgstow.state.dues import Dues, OpenDue
from pgstow.state.hosts import HostRow, Hosts
from pgstow.state.runs import RunRecord, Runs
from pgstow.store.local import LocalStore
from support.command import Pgstow
from support.waiting import PATIENCE_S, until

__all__ = ["PASSWORD", "PATIENCE_S", "Served", "Site", "has_pending", "until"]

TESTS = Path(__file__).parent.parent
PASSWORD = "correct horse"


@dataclass
class Site:
    """One settings file, and what it is about: sources by name, one repository, a state database (None: SQLite).

    Each plan is daily, for all sources, and was due five minutes ago once ``make_due()`` has been called.
    """

    folder: Path
    sources: Mapping[str, ConnInfo]
    state_url: str | None = None
    limit_rate: str | None = None
    limits: Mapping[str, int] = field(
        default_factory=lambda: {"per_server": 8, "per_repository": 8, "workers": 4}
    )
    repositories: str = ""  # further ones, as YAML
    of_each_database: str = ""  # further settings, as YAML
    more: str = ""  # further settings of the whole file, as YAML
    secrets: Mapping[str, str] = field(default_factory=dict)  # variables that these refer to
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.repository_folder = self.folder / "repository"
        self.settings_path = self.folder / "pgstow.yaml"
        due = datetime.now(UTC) - timedelta(minutes=5)
        self.cron = f"{due.minute} {due.hour} * * *"
        self.due = due.replace(second=0, microsecond=0)
        if not self.repository_folder.exists():
            Repository.init(LocalStore(self.repository_folder), Secret(PASSWORD), hostname="h", username="u")
        self.write_settings()

    def write_settings(self, *, plans: str | None = None) -> None:
        """Write the settings file."""
        rate = f"    limit_rate: {self.limit_rate}\n" if self.limit_rate else ""
        databases = "".join(
            f"  {name}:\n    url: {source.connect_string()}\n{rate}{self.of_each_database}"
            for name, source in self.sources.items()
        )
        limits = "".join(f"  {name}: {value}\n" for name, value in self.limits.items())
        state = f"state: {self.state_url}\n" if self.state_url else ""
        plans = plans or f'  nightly:\n    kind: daily\n    schedule: "{self.cron}"\n    catch_up: 12h\n'
        self.settings_path.write_text(
            f"databases:\n{databases}"
            f"repositories:\n  main:\n    location: {self.repository_folder}\n    password: ${{TEST_PASSWORD}}\n"
            f"{self.repositories}plans:\n{plans}limits:\n{limits}{state}{self.more}"
        )

    @property
    def environ(self) -> dict[str, str]:
        return {
            "TEST_PASSWORD": PASSWORD,
            **self.secrets,
            "PGSTOW_CONFIG": str(self.settings_path),
            "PGSTOW_STATE_DIR": str(self.folder / "state"),
            "PGSTOW_CACHE_DIR": str(self.folder / "cache"),
        }

    @property
    def pgstow(self) -> Pgstow:
        return Pgstow(self.environ)

    def environ_of_changed(self) -> dict[str, str]:
        """Return the environment of commands that ``stopping_run`` changes: they load modules of the tests, too."""
        path = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
        return self.pgstow.environment({"PYTHONPATH": os.pathsep.join(path)})

    # -- processes

    def serve(self, *options: str, has_stops: bool = False, shape: int = SHAPE) -> Served:
        """Start a ``pgstow serve`` of this site; one that ``has_stops`` has runs that stop themselves (``stopping_run``)."""
        log = self.folder / f"serve-{len(self.processes)}.log"
        command = Pgstow.command()
        if has_stops or shape != SHAPE:
            what = "serve" if has_stops else "serve-on"
            command = [sys.executable, "-m", "support.stopping_run", what, str(shape), "--"]
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*command, "serve", "--dead-after", "6s", *options],
                env=self.environ_of_changed(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.processes.append(process)
        return Served(process=process, log=log)

    @contextlib.contextmanager
    def ending_everything(self) -> Iterator[None]:
        """Leave no process behind."""
        try:
            yield
        finally:
            with contextlib.suppress(Exception), contextlib.closing(self.state()) as state:
                for host in Hosts(state).all():
                    if str(self.folder) in _environment_of(host.pid):  # a number may be another's by now
                        os.kill(host.pid, signal.SIGKILL)
            for process in self.processes:
                process.kill()
                process.wait()

    # -- what was written down

    def state(self) -> StateDatabase:
        return open_state(Secret(self.state_url) if self.state_url else None, self.environ)

    def make_due(self, plan: str = "nightly", *, hours: float = 1.0, schedule: str | None = None) -> None:
        """Let a plan be due: nothing was settled for so many hours. ``schedule`` where the file cannot be asked."""
        schedule = schedule or str(read_settings(self.settings_path).plans[plan].schedule)
        with contextlib.closing(self.state()) as state:
            dues, since = Dues(state), state.now() - timedelta(hours=hours)
            for name in self.sources:
                settled = dues.settled_until(plan, name, schedule, since)
                dues.set_back(plan, name, settled_until=settled, to=since)

    def is_scheduled(self) -> bool:
        """Whether a service has looked at the schedules."""
        with contextlib.closing(self.state()) as state, state.begin() as connection:
            return connection.execute(sa.text("SELECT 1 FROM schedules")).first() is not None

    def runs(self, outcome: str | None = None) -> list[RunRecord]:
        """Return the history, newest first."""
        with contextlib.closing(self.state()) as state:
            return [one for one in Runs(state).find() if outcome in (None, one.outcome)]

    def open_dues(self) -> list[OpenDue]:
        with contextlib.closing(self.state()) as state:
            return Dues(state).open()

    def end_pauses(self) -> None:
        """Let the time pass after which what failed is tried again."""
        with contextlib.closing(self.state()) as state, state.begin() as connection:
            connection.execute(sa.text("UPDATE dues SET not_before = NULL"))

    def hosts(self) -> list[HostRow]:
        with contextlib.closing(self.state()) as state:
            return Hosts(state).all()

    def backups(self) -> list[BackupRecord]:
        return list_backups(Repository.open(LocalStore(self.repository_folder), Secret(PASSWORD)))


def _state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def has_pending(pid: int, number: signal.Signals) -> bool:
    """Whether a stopped process will get this signal when it goes on."""
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    return bool((int(status["ShdPnd"], 16) | int(status["SigPnd"], 16)) & 1 << (number - 1))


def _environment_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return ""


@dataclass
class Served:
    """A ``pgstow serve``; its log holds what its runs said too."""

    process: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, part: str) -> None:
        """Wait until the log holds this."""
        until(lambda: part in self.text() or self._must_live(), lambda: f"log says {part!r}: {self.text()}")

    def _must_live(self) -> bool:
        assert self.process.poll() is None, self.text()
        return False

    def runs(self, plan: str = "") -> list[int]:
        """Return the process ids of the runs that this host began, of one plan or all."""
        begun = re.findall(rf"^{plan}.*begun, attempt [0-9]+ \(process ([0-9]+)\)", self.text(), re.MULTILINE)
        return [int(found) for found in begun]

    def let_all_end(self) -> bool:
        """Let what has stopped go on, if need be again and again; return whether every run has ended."""
        for pid in self.runs():
            if _state_of(pid) == "T":
                os.kill(pid, signal.SIGCONT)
        ended = re.findall(
            r": (?:done|partly done|gave way|failed .*|ended by .*)$", self.text(), re.MULTILINE
        )
        return len(ended) == len(self.runs())

    def stopped_runs(self, count: int, plan: str = "") -> list[int]:
        """Wait until so many runs of this host (of a plan) have stopped themselves, and return their process ids."""

        def find() -> list[int]:
            self._must_live()
            found = [pid for pid in self.runs(plan) if _state_of(pid) == "T"]
            return found if len(found) == count else []

        found: list[int] = until(find, lambda: f"{count} runs that stop: {self.text()}")
        return found

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)
