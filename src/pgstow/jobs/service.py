"""The service's loop: hand out what is due, see to it that what was handed out is carried out, by whichever host.

Every host does the same, again and again; each step is a compare-and-swap in the state database, so it does not matter
which host is faster. While that database is away nothing new begins, and what is under way goes on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pgstow.core.errors import PgstowError
from pgstow.jobs.dispatch import SHAPE, Dispatcher, Order, Standing
from pgstow.jobs.due import ClockWentBack, Due, Missed, decide
from pgstow.jobs.presence import Presence, bury
from pgstow.jobs.retry import Ending, ending_of, missed_text, restart_at
from pgstow.jobs.schedule import Schedule
from pgstow.state.database import StateDatabase
from pgstow.state.dues import DueKey, Dues, OpenDue
from pgstow.state.hosts import HostRow
from pgstow.state.runs import RunRecord, Runs
from pgstow.state.spool import Spool

__all__ = ["Scheduled", "Service", "ServiceParts", "ended_record"]

_EVERY_S = 60.0
_CLEAN_EVERY_S = 3600.0
_ANSWERS_S = 20.0  # a state database that says nothing for longer is away


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
        """What the jitter of its runs is derived from."""
        return f"{self.plan}/{self.database or ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceParts:
    """What the service is made of. ``on_tick`` functions are called about once a minute, with the time of the state
    database (while that is away or silent, of this machine), in a thread of their own; ``clean`` now and then, in another. ``scheduled`` is asked at every look, so that
    settings may change.
    """

    state: StateDatabase
    dispatcher: Dispatcher
    presence: Presence
    spool: Spool
    scheduled: Callable[[], Sequence[Scheduled]]
    note: Callable[[str], None]
    on_tick: Sequence[Callable[[datetime], None]] = ()
    clean: Callable[[datetime], None] = lambda _: None
    look_every_s: float = 5.0
    shape: int = SHAPE


class Service:
    """One host's part in it."""

    def __init__(self, parts: ServiceParts) -> None:
        self._parts = parts
        self._dues = Dues(parts.state)
        self._runs = Runs(parts.state)
        self._known_since: dict[tuple[str, str], datetime] = {}
        self._trouble: str | None = None
        self._stopped = threading.Event()
        self._asking: threading.Thread | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Look around in the background for the length of a block."""
        threads = [
            threading.Thread(
                target=self._loop, args=(self._look_safely, self._parts.look_every_s), daemon=True
            ),
            threading.Thread(target=self._loop, args=(self._tick_safely, _EVERY_S), daemon=True),
            threading.Thread(target=self._loop, args=(self._clean_safely, _CLEAN_EVERY_S), daemon=True),
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
        now = self._shared_now() or datetime.now(UTC)  # what watches tells that too, by this machine's clock
        for function in self._parts.on_tick:
            try:
                function(now)
            except Exception as exc:  # noqa: BLE001  the others are called all the same
                self._parts.note(f"{exc}")

    def _shared_now(self) -> datetime | None:
        """Return the time of the state database; None where it is away, or so silent that one would wait for ever.

        A server that is stopped, or whose disk hangs, keeps its connections: nothing else ends that wait.
        """
        if self._asking is not None and self._asking.is_alive():
            return None
        said: list[datetime] = []

        def ask() -> None:
            with contextlib.suppress(Exception):  # why it failed is told by who looks for due runs
                said.append(self._parts.state.now())

        self._asking = threading.Thread(target=ask, name="state-clock", daemon=True)
        self._asking.start()
        self._asking.join(_ANSWERS_S)
        return said[0] if said else None

    def _clean_safely(self) -> None:
        try:
            self._parts.clean(self._parts.state.now())
        except Exception as exc:  # noqa: BLE001  what is left over is there next time
            self._parts.note(f"what is old was not removed: {exc}".split("\n", 1)[0])

    def look(self) -> None:
        """Do everything that is to be done now. Raises StateError."""
        self._deliver()
        open_dues = self._dues.open()
        standings = self._parts.dispatcher.standing([_order(one) for one in open_dues])
        hosts = self._living()  # read last: who takes something up is there before it does
        is_newest = all(host.shape <= self._parts.shape for host in hosts.values() if host.role == "serve")
        self._look_after(open_dues, standings, hosts, may_submit=is_newest)
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
        self,
        open_dues: Sequence[OpenDue],
        standings: Mapping[str, Standing],
        hosts: Mapping[str, HostRow],
        *,
        may_submit: bool,
    ) -> None:
        now = self._parts.state.now()
        for one in open_dues:
            order, scheduled = _order(one), self._scheduled(one.key)
            standing = standings.get(order.id)
            if scheduled is None or one.is_resting(now):  # a plan that others may have in their settings
                continue
            is_new = standing is None and one.state == "queued"
            if not (is_new or self._is_lost(one, standing, hosts)):
                continue
            if standing is not None and standing.state != "ended":
                self._parts.dispatcher.withdraw(order)
            if (ending := ending_of(one, scheduled.schedule, now)) is not None:
                self._end(one, scheduled, ending)
            elif may_submit and is_new:
                self._parts.dispatcher.submit(order)
            elif may_submit:
                following = self._dues.queue_again(one, not_before=restart_at(one, now))
                if following is not None and not following.is_resting(now):
                    self._parts.dispatcher.submit(_order(following))

    def _is_lost(self, one: OpenDue, standing: Standing | None, hosts: Mapping[str, HostRow]) -> bool:
        """Whether nobody carries out a run any more, and nobody will."""
        if one.state == "running":
            return one.host not in hosts
        if standing is None or standing.state == "ended":
            return True
        if standing.state == "started":
            return standing.host not in hosts
        return not any(host.role == "serve" and host.shape == standing.shape for host in hosts.values())

    def _end(self, one: OpenDue, scheduled: Scheduled, ending: Ending) -> None:
        """Settle what nobody will carry out, unless somebody else did meanwhile."""
        if not self._dues.settle(one.key, host=one.host):
            return
        self._parts.note(f"{one.key}: {ending.error}")
        self._save(scheduled, one.key.due, ending)

    def _scheduled(self, key: DueKey) -> Scheduled | None:
        mine = (
            one for one in self._parts.scheduled() if (one.plan, one.database) == (key.plan, key.database)
        )
        return next(mine, None)

    # -- what is due

    def _hand_out(self, busy: set[tuple[str, str | None]]) -> None:
        now = self._parts.state.now()
        for scheduled in self._parts.scheduled():
            settled_until, begin = self._settled_until(scheduled, now)
            if (scheduled.plan, scheduled.database) in busy:  # the newest due time is for when that has ended
                continue
            decision = decide(scheduled.schedule, scheduled.key, settled_until=begin, now=now)
            if isinstance(decision, ClockWentBack):
                self._parts.note(f"{scheduled.key}: the clock went back from {settled_until} to {now}")
                self._dues.set_back(
                    scheduled.plan, scheduled.database, settled_until=settled_until, to=decision.now
                )
            elif decision is not None:
                self._settle(scheduled, decision, settled_until)
        current = {(one.key, str(one.schedule)) for one in self._parts.scheduled()}
        self._known_since = {one: since for one, since in self._known_since.items() if one in current}

    def _settled_until(self, scheduled: Scheduled, now: datetime) -> tuple[datetime, datetime]:
        """Return until when its due times are settled: by the database, and for the schedule as we have it.

        A schedule that is new begins when it is first seen. Where others have another one for the same plan, each goes by
        its own: they must not begin anew again and again, each after the other, and never come to a due time.
        """
        plan, database, schedule = scheduled.plan, scheduled.database, str(scheduled.schedule)
        known_since = self._known_since.get((scheduled.key, schedule))
        found = self._dues.settled(plan, database) if known_since is not None else None
        if known_since is None or found is None:
            self._known_since[scheduled.key, schedule] = now
            settled_until = self._dues.settled_until(plan, database, schedule, now)
            return settled_until, settled_until
        settled_until, theirs = found
        return settled_until, settled_until if theirs == schedule else max(settled_until, known_since)

    def _settle(self, scheduled: Scheduled, decision: Due | Missed, settled_until: datetime) -> None:
        key = DueKey(plan=scheduled.plan, database=scheduled.database, due=decision.due)
        is_missed = isinstance(decision, Missed)
        is_ours = self._dues.hand_out(
            key,
            settled_until=settled_until,
            schedule=str(scheduled.schedule),
            coalesced=decision.coalesced,
            is_missed=is_missed,
        )
        if not is_ours:
            return
        if is_missed:
            missed = Ending(outcome="missed", error=missed_text(decision.coalesced))
            self._parts.note(f"{key}: {missed.error}")
            self._save(scheduled, key.due, missed)
        else:
            self._parts.dispatcher.submit(Order(key=key, attempt=1))

    def _save(self, scheduled: Scheduled, due: datetime, ending: Ending) -> None:
        host = self._parts.presence.host.hostname
        self._runs.save(ended_record(scheduled, due, ending, now=self._parts.state.now(), host=host))


def ended_record(
    scheduled: Scheduled, due: datetime, ending: Ending, *, now: datetime, host: str
) -> RunRecord:
    """Return the record of a due time that ended without being carried out."""
    return RunRecord(
        id=Runs.new_id(),
        plan=scheduled.plan,
        job=scheduled.job,
        kind=scheduled.kind,
        database=scheduled.database,
        due=due,
        started=now,
        finished=now,
        host=host,
        outcome=ending.outcome,
        error_code=ending.error_code,
        error=ending.error,
    )


def _order(one: OpenDue) -> Order:
    return Order(key=one.key, attempt=one.attempt)
