"""Evaluating the rules regularly, in a service, without ever being in its way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime

from pgstow.app.alerts import check_alerts
from pgstow.app.observation import opened_history
from pgstow.config.settings import Settings
from pgstow.core.errors import PgstowError

__all__ = ["AlertWatch"]

_SHARED_S = 45.0  # a host that evaluated so recently did it for all


class AlertWatch:
    """Called about once a minute: starts an evaluation in a thread of its own, unless the last one is still at it.

    A store or a channel that hangs then delays alerts, and neither backups nor heartbeats. Failures are noted: the next
    call tries again.
    """

    def __init__(
        self, load: Callable[[], Settings], environ: Mapping[str, str], note: Callable[[str], None]
    ) -> None:
        self._load = load
        self._environ = environ
        self._note = note
        self._thread: threading.Thread | None = None

    def __call__(self, _now: datetime) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._check, name="alerts", daemon=True)
            self._thread.start()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the evaluation that is under way has ended."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _check(self) -> None:
        try:
            settings = self._load()
            with opened_history(settings, self._environ) as history:
                report = check_alerts(settings, self._environ, history, unless_within_s=_SHARED_S)
        except PgstowError as exc:
            self._note(f"alerts could not be evaluated: {exc.message}")
            return
        for failure in report.failures if report is not None else ():
            self._note(f"the alert {failure.title!r} did not reach {failure.channel}: {failure.error}")
