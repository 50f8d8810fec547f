"""The service's loop: hand out what is due, see to it that what was handed out is carried out, by whichever host.

Every host does the same, again and again; each step is a compare-and-swap in the state database, so it does not matter
which host is faster. While that database is away nothing new begins, and what is under way goes on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pgstow.core.errors import PgstowError
from pgstow.jobs.dispatch import SHAPE, Dispatcher, Order, Standing
from pgstow.jobs.due import MOST_COUNTED, ClockWentBack, Due, Missed, decide, is_in_window
from pgstow.jobs.presence import Presence, bury
from pgstow.jobs.schedule import Schedule
from pgstow.state.database import StateDatabase
from pgstow.state.dues import DueKey, Dues, OpenDue
from pgstow.state.hosts import HostRow
from pgstow.state.runs import Outcome, RunRecord, Runs
from pgstow.state.spool import Spool

__all__ = ["Scheduled", "Service", "ServiceParts", "coalesced_text", "missed_text", "scheduled_key"]

_MOST_RUNS = 5  # that begin and do not come to an end, killed or interrupted, for one due time
_MOST_STARTS = 20  # that do not even begin
_EVERY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """Something that runs on a schedule: a plan, for one database or (None) for repositories."""

    plan: str
    database: str | None
    job: str
    kind: str
    schedule: Schedule

    @property
    def key(self) -> str:
        return scheduled_key(self.plan, self.database)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceParts:
    """What the service is made of. ``on_tick`` functions are called about once a minute, with the time of the state
    database, in a thread of their own; ``scheduled`` is asked at every look, so that settings may change.
    """

    state: StateDatabase
    dispatcher: Dispatcher
    presence: Presence
    spool: Spool
    scheduled: Callable[[], Sequence[Scheduled]]
    note: Callable[[str], None]
    on_tick: Sequence[Callable[[datetime], None]] = ()
    look_every_s: float = 5.0
    shape: int = SHAPE


class Service:
    """One host's part in it."""

    def __init__(self, parts: ServiceParts) -> None:
        self._parts = parts
        self._dues = Dues(parts.state)
        self._runs = Runs(parts.state)
        self._trouble: str | None = None
        self._stopped = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Look around in the background for the length of a block."""
        threads = [
            threading.Thread(
                target=self._loop, args=(self._look_safely, self._parts.look_every_s), daemon=True
            ),
            threading.Thread(target=self._loop, args=(self._tick_safely, _EVERY_S), daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            for thread in threads:  # one that waits for a database that is away is left behind
                thread.join(self._parts.look_every_s)

    def _loop(self, step: Callable[[], None], every_s: float) -> None:
        while True:
            step()
            if self._stopped.wait(every_s):
                return

    def _look_safely(self) -> None:
        try:
            self.look()
        except PgstowError as exc:
            if exc.message != self._trouble:
                self._parts.note(f"{exc.message}; nothing new begins until this has passed")
            self._trouble = exc.message
        except Exception as exc:  # noqa: BLE001  the service lives on; what it could not do it tries again
            text = f"{type(exc).__name__}: {exc}".split("\n", 1)[0]
            if text != self._trouble:
                self._parts.note(f"looking for due runs failed: {text}")
            self._trouble = text
        else:
            if self._trouble is not None:
                self._parts.note("that has passed")
            self._trouble = None

    def _tick_safely(self) -> None:
        for function in self._parts.on_tick:
            try:
                function(self._parts.state.now())
            except Exception as exc:  # noqa: BLE001  the others are called all the same
                self._parts.note(f"{exc}")

    def look(self) -> None:
        """Do everything that is to be done now. Raises StateError."""
        self._deliver()
        hosts = self._living()
        open_dues = self._dues.open()
        is_newest = all(host.shape <= self._parts.shape for host in hosts.values() if host.role == "serve")
        self._look_after(open_dues, hosts, may_submit=is_newest)
        if is_newest:
            self._hand_out({(one.key.plan, one.key.database) for one in open_dues})

    def _deliver(self) -> None:
        if count := self._parts.spool.deliver(self._runs):
            self._parts.note(f"records of runs that had waited for the state database: {count}")

    def _living(self) -> dict[str, HostRow]:
        for dead in bury(self._parts.presence, self._parts.state):
            self._parts.note(f"process {dead.pid} on {dead.hostname} is gone; its runs begin again")
        return {host.id: host for host in self._parts.presence.hosts.all() if not host.is_dead}

    # -- what was handed out

    def _look_after(
        self, open_dues: Sequence[OpenDue], hosts: dict[str, HostRow], *, may_submit: bool
    ) -> None:
        orders = [_order(one) for one in open_dues]
        standings = self._parts.dispatcher.standing(orders)
        for one, order in zip(open_dues, orders, strict=True):
            standing = standings.get(order.id)
            is_new = standing is None and one.state == "queued"
            if not (is_new or self._is_lost(one, standing, hosts)):
                continue
            if standing is not None and standing.state != "ended":
                self._parts.dispatcher.withdraw(order)
            if not self._is_too_late(one) and may_submit:
                self._submit(one, is_new=is_new)

    def _submit(self, one: OpenDue, *, is_new: bool) -> None:
        if is_new:
            self._parts.dispatcher.submit(_order(one))
        elif len(one.runs) >= _MOST_RUNS or one.attempt - len(one.runs) >= _MOST_STARTS:
            text = f"given up after {one.attempt} attempts that did not come to an end"
            self._end(one, "failed", text, error_code="given_up")
        elif (following := self._dues.queue_again(one)) is not None:
            self._parts.dispatcher.submit(_order(following))

    def _is_too_late(self, one: OpenDue) -> bool:
        """Whether the time to catch it up has passed while nobody carried it out; then it is settled as missed."""
        now = self._parts.state.now()
        scheduled = self._scheduled(one.key)
        if scheduled is None or is_in_window(scheduled.schedule, one.key.due, now):
            return False
        self._end(one, "missed", missed_text(one.coalesced))
        return True

    def _is_lost(self, one: OpenDue, standing: Standing | None, hosts: dict[str, HostRow]) -> bool:
        """Whether nobody carries out a run any more, and nobody will."""
        if one.state == "running":
            return one.host not in hosts
        if standing is None or standing.state == "ended":
            return True
        if standing.state == "started":
            return standing.host not in hosts
        return not any(host.role == "serve" and host.shape == standing.shape for host in hosts.values())

    def _end(self, one: OpenDue, outcome: Outcome, text: str, *, error_code: str | None = None) -> None:
        """Settle what nobody will carry out, unless somebody else did meanwhile."""
        if not self._dues.settle(one.key, host=one.host):
            return
        self._parts.note(f"{one.key}: {text}")
        scheduled = self._scheduled(one.key)
        if scheduled is not None:
            record = self._record(scheduled, one.key.due)
            self._runs.save(replace(record, outcome=outcome, error_code=error_code, error=text))

    def _scheduled(self, key: DueKey) -> Scheduled | None:
        mine = (
            one for one in self._parts.scheduled() if (one.plan, one.database) == (key.plan, key.database)
        )
        return next(mine, None)

    # -- what is due

    def _hand_out(self, busy: set[tuple[str, str | None]]) -> None:
        now = self._parts.state.now()
        for scheduled in self._parts.scheduled():
            settled_until = self._dues.settled_until(
                scheduled.plan, scheduled.database, str(scheduled.schedule), now
            )
            if (scheduled.plan, scheduled.database) in busy:  # the newest due time is for when that has ended
                continue
            decision = decide(scheduled.schedule, scheduled.key, settled_until=settled_until, now=now)
            if isinstance(decision, ClockWentBack):
                self._parts.note(f"{scheduled.key}: the clock went back from {settled_until} to {now}")
                self._dues.set_back(
                    scheduled.plan, scheduled.database, settled_until=settled_until, to=decision.now
                )
            elif decision is not None:
                self._settle(scheduled, decision, settled_until)

    def _settle(self, scheduled: Scheduled, decision: Due | Missed, settled_until: datetime) -> None:
        key = DueKey(plan=scheduled.plan, database=scheduled.database, due=decision.due)
        is_missed = isinstance(decision, Missed)
        is_ours = self._dues.hand_out(
            key, settled_until=settled_until, coalesced=decision.coalesced, is_missed=is_missed
        )
        if not is_ours:
            return
        if is_missed:
            text = missed_text(decision.coalesced)
            self._parts.note(f"{key}: {text}")
            self._runs.save(replace(self._record(scheduled, key.due), outcome="missed", error=text))
        else:
            self._parts.dispatcher.submit(Order(key=key, attempt=1))

    def _record(self, scheduled: Scheduled, due: datetime) -> RunRecord:
        now = self._parts.state.now()
        return RunRecord(
            id=Runs.new_id(),
            plan=scheduled.plan,
            job=scheduled.job,
            kind=scheduled.kind,
            database=scheduled.database,
            due=due,
            started=now,
            finished=now,
            host=self._parts.presence.host.hostname,
        )


def scheduled_key(plan: str, database: str | None) -> str:
    """Return what the jitter of a plan's runs for one database is derived from."""
    return f"{plan}/{database or ''}"


def missed_text(coalesced: int) -> str:
    """Say what it means that a run was missed, and so many due times before it."""
    others = f", like {coalesced_text(coalesced)} before it" if coalesced else ""
    return f"not run{others}: the time in which it could have been caught up had passed"


def coalesced_text(count: int) -> str:
    """Return ``1 due time``, ``2 due times`` or ``1000 due times or more``."""
    return f"{count} due time{'' if count == 1 else 's'}{' or more' if count >= MOST_COUNTED else ''}"


def _order(one: OpenDue) -> Order:
    return Order(key=one.key, attempt=one.attempt)
