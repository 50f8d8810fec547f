"""The dead man's switch of a plan, and remembering how it was reached."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from typing import Protocol

from pgstow.app.alert_facts import ping_target
from pgstow.app.observation import History
from pgstow.config.settings import PlanSettings
from pgstow.core.errors import Interrupted, PgstowError, StateError
from pgstow.monitor.pings import Pings, Signal
from pgstow.state.alerts import AlertBook
from pgstow.state.runs import RunRecord

__all__ = ["PlanPings", "ping_run", "plan_pings"]

_PARTIAL = 3  # the exit status of a run that was done in part; any other than 0 counts as failed


class PlanPings(Protocol):
    """What a run calls at its beginning and end; it never raises."""

    def ping(self, signal: Signal, *, run_id: str, text: str = "") -> str | None:
        """Return None when the service heard, else why it did not."""
        ...


def plan_pings(plan: PlanSettings, environ: Mapping[str, str], history: History) -> PlanPings | None:
    """Return the dead man's switch of a plan; None if it has none. What fails is remembered and becomes an alert."""
    if plan.ping is None:
        return None

    def remember(error: str | None) -> None:
        if history.state is not None:
            # Without the state database nobody can be told by an alert; the switch itself raises its alarm.
            with contextlib.suppress(StateError):
                state = history.state
                AlertBook(state).reached(ping_target(plan.name), error=error, now=state.now())

    try:
        return Pings(plan.ping.resolve(environ), pinged=remember)
    except Interrupted:
        raise
    except PgstowError as exc:
        remember(exc.message)
        return _Unreachable(exc.message)


def ping_run(
    plan: PlanSettings, record: RunRecord, environ: Mapping[str, str], history: History
) -> threading.Thread | None:
    """Tell the dead man's switch of a plan that a run began or ended; None if it has none.

    The thread is at it for at most half a minute. Nobody has to wait for it at the beginning of a run; at its end a
    process does that before it exits.
    """
    pings = plan_pings(plan, environ, history)
    if pings is None:
        return None
    signal = _signal(record)
    text = record.error or ""
    thread = threading.Thread(
        target=lambda: pings.ping(signal, run_id=record.id, text=text), name="ping-run", daemon=True
    )
    thread.start()
    return thread


def _signal(record: RunRecord) -> Signal:
    if record.outcome == "running":
        return "start"
    if record.outcome == "done":
        return "success"
    return _PARTIAL if record.outcome == "partial" else "fail"


class _Unreachable:
    """A dead man's switch whose address cannot be had."""

    def __init__(self, why: str) -> None:
        self._why = why

    def ping(self, signal: Signal, *, run_id: str, text: str = "") -> str | None:  # noqa: ARG002  the Protocol's
        return self._why
