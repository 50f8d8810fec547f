"""Due times that were handed out: each to one run at a time, and none twice.

One row of ``schedules`` per plan and database says until when its due times are settled; moving that on is a
compare-and-swap, so of all hosts that see a due run one hands it out. Its row in ``dues`` then goes from *queued* to
*running* and to *settled*; a run whose host died, that was interrupted, or whose failure may pass, is queued again as the
next attempt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pgstow.state.database import StateDatabase
from pgstow.state.schema import METADATA, Moment

__all__ = ["DueKey", "DueState", "Dues", "OpenDue"]

DueState = Literal["queued", "running", "settled"]
_LONGEST_REST = timedelta(hours=1)  # what was set further ahead than this was set by a wrong clock


@dataclass(frozen=True, slots=True, kw_only=True)
class DueKey:
    """One due time of one plan for one database (None for jobs that concern repositories)."""

    plan: str
    database: str | None
    due: datetime

    def __str__(self) -> str:
        subject = f"{self.plan}/{self.database}" if self.database else self.plan
        return f"{subject} due {self.due:%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDue:
    """A due time whose run has not come to its end. ``runs`` are the attempts that began, ``host`` carries out the last.

    So many ``failures`` of them came to an end by themselves; the next one does not begin ``not_before``.
    """

    key: DueKey
    state: DueState
    attempt: int
    runs: tuple[str, ...]
    host: str | None
    coalesced: int = 0
    failures: int = 0
    not_before: datetime | None = None

    def is_resting(self, now: datetime) -> bool:
        """Whether its next attempt is to begin later."""
        if self.state != "queued" or self.not_before is None:
            return False
        return now < self.not_before <= now + _LONGEST_REST


_SCHEDULES = sa.Table(
    "schedules",
    METADATA,
    sa.Column("plan", sa.String, primary_key=True),
    sa.Column("database", sa.String, primary_key=True),  # "" for None
    sa.Column("schedule", sa.String, nullable=False),
    sa.Column("settled_until", Moment, nullable=False),
)
_DUES = sa.Table(
    "dues",
    METADATA,
    sa.Column("plan", sa.String, primary_key=True),
    sa.Column("database", sa.String, primary_key=True),
    sa.Column("due", Moment, primary_key=True),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("runs", sa.JSON, nullable=False),
    sa.Column("host", sa.String),
    sa.Column("coalesced", sa.Integer, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("not_before", Moment),
    sa.Index("dues_by_state", "state"),
)


class Dues:
    """The due times in a state database."""

    def __init__(self, state: StateDatabase) -> None:
        self._state = state

    def settled_until(self, plan: str, database: str | None, schedule: str, now: datetime) -> datetime:
        """Return until when the due times are settled. A schedule that is new or was changed begins ``now``."""
        mine = _schedule_is(plan, database)
        with self._state.begin() as connection:
            row = connection.execute(sa.select(_SCHEDULES).where(mine)).one_or_none()
            if row is not None and row.schedule == schedule:
                return cast("datetime", row.settled_until)
            if row is not None:
                connection.execute(
                    sa.update(_SCHEDULES).where(mine).values(schedule=schedule, settled_until=now)
                )
                return now
        with self._state.begin() as connection:
            _insert_new(
                connection,
                _SCHEDULES,
                {"plan": plan, "database": database or "", "schedule": schedule, "settled_until": now},
            )
            row = connection.execute(sa.select(_SCHEDULES).where(mine)).one()
            return cast("datetime", row.settled_until)

    def set_back(self, plan: str, database: str | None, *, settled_until: datetime, to: datetime) -> None:
        """Settle from an earlier moment on, if nobody else did meanwhile."""
        with self._state.begin() as connection:
            _move(connection, plan, database, settled_until, to)

    def settled(self, plan: str, database: str | None) -> tuple[datetime, str] | None:
        """Return until when the due times are settled, and by which schedule; None if none was seen yet."""
        query = sa.select(_SCHEDULES).where(_schedule_is(plan, database))
        with self._state.begin() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else (row.settled_until, row.schedule)

    def hand_out(
        self,
        key: DueKey,
        *,
        settled_until: datetime,
        schedule: str | None = None,
        coalesced: int = 0,
        is_missed: bool = False,
    ) -> bool:
        """Queue a due time, or settle it at once as missed; False if another host did, or if it was handed out before.

        ``schedule`` is by which it was due, where another one may have been written down.
        """
        row = {
            **_columns(key),
            "state": "settled" if is_missed else "queued",
            "attempt": 1,
            "runs": [],
            "host": None,
            "coalesced": coalesced,
            "failures": 0,
            "not_before": None,
        }
        with self._state.begin() as connection:
            if not _move(connection, key.plan, key.database, settled_until, key.due):
                return False
            if schedule is not None:
                mine = sa.update(_SCHEDULES).where(_schedule_is(key.plan, key.database))
                connection.execute(mine.values(schedule=schedule))
            return _insert_new(connection, _DUES, row)

    def open(self) -> list[OpenDue]:
        """Return every due time whose run has not ended, oldest first."""
        query = sa.select(_DUES).where(_DUES.c.state != "settled").order_by(_DUES.c.due)
        with self._state.begin() as connection:
            return [_open_due(row) for row in connection.execute(query)]

    def get(self, key: DueKey) -> OpenDue | None:
        """Return one, ended or not; None if it was never handed out."""
        with self._state.begin() as connection:
            row = connection.execute(sa.select(_DUES).where(_due_is(key))).one_or_none()
        return None if row is None else _open_due(row)

    def take(self, key: DueKey, *, run_id: str, host: str) -> OpenDue | None:
        """Make a queued due time this run's own; None if it is not queued. ``runs`` are those before this one."""
        with self._state.begin() as connection:
            row = connection.execute(sa.select(_DUES).where(_due_is(key)).with_for_update()).one_or_none()
            if row is None or row.state != "queued":
                return None
            taken = sa.update(_DUES).where(_due_is(key), _DUES.c.state == "queued")
            connection.execute(taken.values(state="running", runs=[*row.runs, run_id], host=host))
            return replace(_open_due(row), state="running", host=host)

    def settle(self, key: DueKey, *, host: str | None) -> bool:
        """End a due time whose run ``host`` carries out (None: that is only queued); False if it is not its own any more."""
        state = "queued" if host is None else "running"
        mine = sa.update(_DUES).where(_due_is(key), _DUES.c.state == state)
        if host is not None:
            mine = mine.where(_DUES.c.host == host)
        with self._state.begin() as connection:
            return bool(connection.execute(mine.values(state="settled", host=None)).rowcount)

    def queue_again(
        self, seen: OpenDue, *, not_before: datetime | None = None, has_failed: bool = False
    ) -> OpenDue | None:
        """Queue the next attempt at what ``seen`` shows, and return it; None if it is not so any more.

        ``has_failed``: the last one came to an end by itself.
        """
        as_seen = sa.update(_DUES).where(
            _due_is(seen.key),
            _DUES.c.attempt == seen.attempt,
            _DUES.c.state == seen.state,
            _DUES.c.host.is_not_distinct_from(seen.host),
        )
        following = replace(
            seen,
            state="queued",
            attempt=seen.attempt + 1,
            host=None,
            failures=seen.failures + has_failed,
            not_before=not_before,
        )
        changed = ("state", "attempt", "host", "failures", "not_before")
        values = {name: getattr(following, name) for name in changed}
        with self._state.begin() as connection:
            done = connection.execute(as_seen.values(values))
            return following if done.rowcount and seen.state != "settled" else None

    def forget(self, *, settled_before: datetime, before: datetime) -> None:
        """Remove settled due times older than ``settled_before``, and whatever is older than ``before``.

        A due time of a plan that is in nobody's settings any more stays open.
        """
        is_settled = sa.and_(_DUES.c.state == "settled", _DUES.c.due < settled_before)
        with self._state.begin() as connection:
            connection.execute(sa.delete(_DUES).where(sa.or_(is_settled, _DUES.c.due < before)))


def _move(
    connection: Connection, plan: str, database: str | None, settled_until: datetime, to: datetime
) -> bool:
    moved = sa.update(_SCHEDULES).where(
        _schedule_is(plan, database), _SCHEDULES.c.settled_until == settled_until
    )
    return bool(connection.execute(moved.values(settled_until=to)).rowcount)


def _insert_new(connection: Connection, table: sa.Table, row: dict[str, Any]) -> bool:
    """Insert a row unless its primary key is there; return whether it was not."""
    columns = {name: sa.literal(value, table.c[name].type) for name, value in row.items()}
    is_there = sa.exists().where(*(table.c[c.name] == row[c.name] for c in table.primary_key.columns))
    source = sa.select(*columns.values()).where(~is_there)
    try:
        with connection.begin_nested():
            return bool(connection.execute(sa.insert(table).from_select(list(columns), source)).rowcount)
    except sa.exc.IntegrityError:  # another host was faster
        return False


def _schedule_is(plan: str, database: str | None) -> sa.ColumnElement[bool]:
    return sa.and_(_SCHEDULES.c.plan == plan, _SCHEDULES.c.database == (database or ""))


def _due_is(key: DueKey) -> sa.ColumnElement[bool]:
    return sa.and_(*(_DUES.c[name] == value for name, value in _columns(key).items()))


def _columns(key: DueKey) -> dict[str, Any]:
    return {"plan": key.plan, "database": key.database or "", "due": key.due}


def _open_due(row: sa.Row[Any]) -> OpenDue:
    return OpenDue(
        key=DueKey(plan=row.plan, database=row.database or None, due=row.due),
        state=row.state,
        attempt=row.attempt,
        runs=tuple(row.runs),
        host=row.host,
        coalesced=row.coalesced,
        failures=row.failures,
        not_before=row.not_before,
    )
