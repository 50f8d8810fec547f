"""The use case: collect the metrics of everything in the settings."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client.metrics_core import Metric

from pgstow import __version__
from pgstow.app.observation import History, KnownDrills, observe, opened_history
from pgstow.config.settings import Settings
from pgstow.core.errors import PgstowError, StateError
from pgstow.monitor.control_metrics import control_families
from pgstow.monitor.exporter import write_textfile
from pgstow.monitor.facts import Facts
from pgstow.monitor.metrics import metric_families, metrics_text
from pgstow.monitor.verdict import judge
from pgstow.state.controls import ControlBook, ControlStatus

__all__ = ["MetricsBoard", "MetricsKeeper", "collect_metrics", "metrics_of"]


def collect_metrics(
    settings: Settings,
    environ: Mapping[str, str],
    history: History,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    drills: KnownDrills | None = None,
    note: Callable[[str], None] = lambda _message: None,
    conceal: Callable[[str], None] = lambda _secret: None,
) -> tuple[Facts, list[Metric]]:
    """Look at everything and return what was found, also as metrics."""
    begun = time.monotonic()
    facts = observe(
        settings,
        environ,
        history,
        now=clock(),
        with_contents=True,
        drills=drills,
        note=note,
        conceal=conceal,
    )
    families = metrics_of(facts, collect_seconds=time.monotonic() - begun)
    return facts, [*families, *control_families(_controls(history))]


def _controls(history: History) -> Sequence[ControlStatus]:
    """Return what the newest evidence report came to; that the state database is away is told by other metrics."""
    if history.state is None:
        return ()
    try:
        return ControlBook(history.state).read()
    except StateError:
        return ()


def metrics_of(facts: Facts, *, collect_seconds: float) -> list[Metric]:
    """Return the metrics of facts that were gathered already."""
    return metric_families(judge(facts), version=__version__, collect_seconds=collect_seconds)


class MetricsBoard:
    """The newest metrics, for those who ask often; also as a file, if ``textfile`` is given."""

    def __init__(self, textfile: Path | None) -> None:
        self._textfile = textfile
        self._text = b""
        self._lock = threading.Lock()

    def publish(self, families: Sequence[Metric]) -> None:
        """Make these the newest."""
        text = metrics_text(families)
        with self._lock:
            self._text = text
        if self._textfile is not None:
            write_textfile(self._textfile, text)

    def text(self) -> bytes:
        """Return the newest metrics; nothing before there are any."""
        with self._lock:
            return self._text


class MetricsKeeper:
    """Called with the time about once a minute, collects and publishes when it is time again, in a thread of its own.

    A repository that is away makes a collection take long; meanwhile no other is begun, and whoever calls waits for
    nothing. What fails is told by ``note`` and leaves the old metrics, whose ``pgstow_collect_timestamp_seconds`` tells
    their age.
    """

    def __init__(
        self,
        board: MetricsBoard,
        settings: Callable[[], Settings],
        environ: Mapping[str, str],
        *,
        note: Callable[[str], None],
        drills: KnownDrills | None = None,
        every: timedelta = timedelta(minutes=5),
    ) -> None:
        self._board = board
        self._settings = settings
        self._environ = environ
        self._note = note
        self._drills = drills
        self._every = every
        self._last: datetime | None = None
        self._thread: threading.Thread | None = None

    def __call__(self, now: datetime) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        # A clock that was set back waits for nothing.
        if self._last is not None and timedelta(0) <= now - self._last < self._every:
            return
        self._last = now
        self._thread = threading.Thread(target=self._collect, args=(now,), name="metrics", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the collection that is under way."""
        if self._thread is not None:
            self._thread.join()

    def _collect(self, now: datetime) -> None:
        try:
            settings = self._settings()
            with opened_history(settings, self._environ) as history:
                _, families = collect_metrics(
                    settings,
                    self._environ,
                    history,
                    clock=lambda: now,
                    drills=self._drills,
                    note=self._note,
                )
            self._board.publish(families)
        except PgstowError as exc:
            self._note(f"metrics were not collected: {exc.message}")
        except Exception as exc:  # noqa: BLE001  the age of the old ones tells; the log tells why
            text = f"{type(exc).__name__}: {exc}".split("\n", 1)[0]
            self._note(f"metrics were not collected: {text}")
