"""Evaluating the rules regularly, in a service, without ever being in its way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pgstow.app.alert_facts import alert_policy
from pgstow.app.alerts import check_alerts, open_channels
from pgstow.app.observation import KnownDrills, opened_history
from pgstow.config.settings import Settings
from pgstow.core.errors import PgstowError
from pgstow.monitor.channels import Channel
from pgstow.monitor.messages import Words, blind, seeing_again

__all__ = ["AlertWatch"]

_SHARED_S = 45.0  # a host that evaluated so recently did it for all
_BLIND_S = 300.0  # a state database that restarts is no event
_HANGS_S = 900.0  # no look at any number of repositories takes so long


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blindness:
    """Since when, by two clocks, nobody could be told anything, and why."""

    since: datetime
    since_s: float
    why: str


class AlertWatch:
    """Called about once a minute: starts an evaluation in a thread of its own, unless the last one is still at it.

    A store or a channel that hangs then delays alerts, and neither backups nor heartbeats. Failures are noted: the next
    call tries again. What fails for five minutes, or has not come to an end after fifteen, is told past the state database
    to whoever is told first of alerts: that nobody looks must not be taken for that nothing is wrong.
    """

    def __init__(
        self,
        load: Callable[[], Settings],
        environ: Mapping[str, str],
        note: Callable[[str], None],
        *,
        hostname: str = "this machine",
        drills: KnownDrills | None = None,
        channels: Callable[[Settings], Mapping[str, Channel]] | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._environ = environ
        self._note = note
        self._hostname = hostname
        self._drills = drills
        self._channels = channels or (lambda settings: open_channels(settings, environ))
        self._clock_s = clock_s
        self._thread: threading.Thread | None = None
        self._teller: threading.Thread | None = None
        # The end of a look that hung may come while it is being told: what follows belongs together.
        self._lock = threading.Lock()
        self._begun_s: float | None = None  # of the look that is under way
        self._blindness: _Blindness | None = None
        self._told: set[str] = set()  # channels that heard of it

    def __call__(self, _now: datetime) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._begun_s = self._clock_s()
            self._thread = threading.Thread(target=self._check, name="alerts", daemon=True)
            self._thread.start()
        elif self._hangs() and (self._teller is None or not self._teller.is_alive()):
            self._teller = threading.Thread(target=self._tell_blindness, name="alerts-blind", daemon=True)
            self._teller.start()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the evaluation that is under way has ended."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _check(self) -> None:
        try:
            settings = self._load()
            with opened_history(settings, self._environ) as history:
                report = check_alerts(
                    settings, self._environ, history, unless_within_s=_SHARED_S, drills=self._drills
                )
        except PgstowError as exc:
            self._ends_blind(exc.message)
            return
        except Exception as exc:  # noqa: BLE001  a bug in one rule would end all alerts, and nobody would know
            self._ends_blind(f"{type(exc).__name__}: {exc}".split("\n", 1)[0])
            return
        self._tell_end()
        for failure in report.failures if report is not None else ():
            self._note(f"the alert {failure.title!r} did not reach {failure.channel}: {failure.error}")

    # -- what is told past the state database

    def _hangs(self) -> bool:
        """Whether the look under way should have ended long ago; then nobody sees anything."""
        with self._lock:
            hangs_s = 0.0 if self._begun_s is None else self._clock_s() - self._begun_s
            if hangs_s > _HANGS_S:
                self._fails("the look that began then has not come to an end", ago_s=hangs_s)
        return hangs_s > _HANGS_S

    def _ends_blind(self, why: str) -> None:
        with self._lock:
            self._begun_s = None
            self._fails(why)
        self._tell_blindness()

    def _fails(self, why: str, *, ago_s: float = 0.0) -> None:
        before = self._blindness
        if before is None or before.why != why:
            self._note(f"alerts could not be evaluated: {why}")
        self._blindness = _Blindness(
            since=before.since if before else datetime.now(UTC) - timedelta(seconds=ago_s),
            since_s=before.since_s if before else self._clock_s() - ago_s,
            why=why,
        )

    def _tell_blindness(self) -> None:
        found = self._blindness
        if found is None or self._clock_s() - found.since_s < _BLIND_S:
            return
        took = self._send(blind(self._hostname, found.why, found.since), without=frozenset(self._told))
        with self._lock:
            is_over = self._blindness is None or self._blindness.since != found.since
            if not is_over:
                self._told |= took
        # It ended while it was being told: who heard of it by then knows nothing of the end.
        if is_over and took:
            self._send(seeing_again(self._hostname, found.since), only=took)

    def _tell_end(self) -> None:
        with self._lock:
            found, told = self._blindness, self._told
            self._begun_s, self._blindness, self._told = None, None, set()
        if found is not None:
            self._note("alerts are evaluated again")
        if found is not None and told:
            self._send(seeing_again(self._hostname, found.since), only=told)

    def _send(
        self, said: Words, *, without: frozenset[str] = frozenset(), only: set[str] | None = None
    ) -> set[str]:
        """Send over the channels of whoever is told first of alerts; return those that took it."""
        try:
            settings = self._load()
            channels = self._channels(settings)
        except PgstowError as exc:
            self._note(f"nobody could be told: {exc.message}")
            return set()
        contacts = alert_policy(settings).contacts
        first_s = min((contact.after_s for contact in contacts), default=0.0)
        chosen = {name for each in contacts if each.after_s == first_s for name in each.channels}
        took = set()
        for name in sorted((chosen if only is None else only) - without):
            if (channel := channels.get(name)) is None:
                continue
            error = channel.send(said.title, said.body, is_critical=said.is_critical)
            if error is None:
                took.add(name)
            else:
                self._note(f"the alert {said.title!r} did not reach {name}: {error}")
        return took
