"""The history of runs: what was tried, by whom, and how it ended."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, cast

import sqlalchemy as sa

from pgstow.state.database import StateDatabase
from pgstow.state.schema import METADATA, Moment

__all__ = ["DestinationResult", "Outcome", "RunRecord", "Runs"]

_FORGETTING = 0x7067_7374_6F79  # an advisory lock's number
# abandoned: its host died; missed: its catch-up window had passed when somebody could have run it.
Outcome = Literal["running", "done", "partial", "failed", "interrupted", "abandoned", "missed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationResult:
    """How a backup ended in one repository: its snapshot, or the error.

    ``caught_up`` are the ids of earlier backups that it had missed and was brought after that.
    """

    repository: str
    snapshot_id: str | None = None
    error_code: str | None = None
    error: str | None = None
    caught_up: tuple[str, ...] = ()

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> DestinationResult:
        """Return what was written down, also by a version that did not know of ``caught_up``."""
        return cls(**{**fields, "caught_up": tuple(fields.get("caught_up", ()))})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One attempt at one plan for one database (None for jobs that concern a repository).

    ``due`` is None for what a person or cron started. ``tables`` maps schema.table to (rows, bytes).
    """

    id: str
    plan: str | None
    job: str
    kind: str
    database: str | None
    due: datetime | None
    started: datetime
    host: str
    finished: datetime | None = None
    outcome: Outcome = "running"
    backup_id: str | None = None  # that was made, or drilled
    drill_id: str | None = None
    size_bytes: int | None = None
    new_bytes: int | None = None
    stored_bytes: int | None = None
    tables: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    destinations: tuple[DestinationResult, ...] = ()
    error_code: str | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()


_MOST_AT_ONCE = 500  # values in one query

_RUNS = sa.Table(
    "runs",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("plan", sa.String),
    sa.Column("job", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("database", sa.String),
    sa.Column("due", Moment),
    sa.Column("started", Moment, nullable=False),
    sa.Column("host", sa.String, nullable=False),
    sa.Column("finished", Moment),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("backup_id", sa.String),
    sa.Column("drill_id", sa.String),
    sa.Column("size_bytes", sa.BigInteger),
    sa.Column("new_bytes", sa.BigInteger),
    sa.Column("stored_bytes", sa.BigInteger),
    sa.Column("tables", sa.JSON, nullable=False),
    sa.Column("destinations", sa.JSON, nullable=False),
    sa.Column("error_code", sa.String),
    sa.Column("error", sa.String),
    sa.Column("warnings", sa.JSON, nullable=False),
    sa.Index("runs_by_database", "database", "started"),
    sa.Index("runs_by_plan", "plan", "due"),
)


class Runs:
    """The runs in a state database."""

    def __init__(self, state: StateDatabase) -> None:
        self._state = state

    @staticmethod
    def new_id() -> str:
        return str(uuid.uuid4())

    def save(self, record: RunRecord, *, only_if_running: bool = False) -> None:
        """Write a run, or what became of it since: durable when this returns.

        ``only_if_running`` leaves a record alone that tells how the run ended already. That it was abandoned is a guess: whoever
        was silent for too long may come back and end well.
        """
        row = _row(record)
        update = sa.update(_RUNS).where(_RUNS.c.id == record.id)
        if only_if_running:
            guesses = ("abandoned",) if record.outcome in ("done", "partial") else ()
            update = update.where(_RUNS.c.outcome.in_(("running", *guesses)))
        with self._state.begin() as connection:
            if connection.execute(update.values(row)).rowcount:
                return
            if connection.execute(sa.select(_RUNS.c.id).where(_RUNS.c.id == record.id)).first() is None:
                connection.execute(sa.insert(_RUNS).values(row))

    def get(self, run_id: str) -> RunRecord | None:
        with self._state.begin() as connection:
            row = connection.execute(sa.select(_RUNS).where(_RUNS.c.id == run_id)).one_or_none()
        return None if row is None else _record(row)

    def find(
        self,
        *,
        database: str | None = None,
        plan: str | None = None,
        job: str | None = None,
        kind: str | None = None,
        since: datetime | None = None,
        due: datetime | None = None,
        limit: int = 1000,
        with_tables: bool = True,
    ) -> list[RunRecord]:
        """Return the newest runs that fit, newest first; an argument of None asks for nothing.

        ``with_tables`` False leaves out what most of a run's record is: its tables, see ``tables_of()``.
        """
        wanted = {"database": database, "plan": plan, "job": job, "kind": kind}
        columns = [column for column in _RUNS.columns if with_tables or column is not _RUNS.c.tables]
        query = sa.select(*columns).order_by(_RUNS.c.started.desc(), _RUNS.c.id).limit(limit)
        for column, value in wanted.items():
            if value is not None:
                query = query.where(_RUNS.c[column] == value)
        if since is not None:
            query = query.where(_RUNS.c.started >= since)
        if due is not None:
            query = query.where(_RUNS.c.due == due)
        with self._state.begin() as connection:
            return [_record(row) for row in connection.execute(query)]

    def forget(self, *, before: datetime, newest_kept: int, most: int) -> int:
        """Remove runs that began before that moment, and return how many: at most so many, the oldest first.

        The newest of each plan and database stay, however old.
        """
        of_one = (_RUNS.c.plan, _RUNS.c.job, _RUNS.c.kind, _RUNS.c.database)
        rank = sa.func.row_number().over(partition_by=of_one, order_by=_RUNS.c.started.desc())
        ranked = sa.select(_RUNS.c.id, _RUNS.c.started, rank.label("rank")).subquery()
        old = (
            sa.select(ranked.c.id)
            .where(ranked.c.started < before, ranked.c.rank > newest_kept)
            .order_by(ranked.c.started)
            .limit(most)
        )
        with self._state.alone(_FORGETTING) as connection:
            return connection.execute(sa.delete(_RUNS).where(_RUNS.c.id.in_(old))).rowcount

    def tables_of(self, run_ids: Sequence[str]) -> dict[str, Mapping[str, tuple[int, int]]]:
        """Return rows and bytes of the tables of these runs, by their ids."""
        found: dict[str, Mapping[str, tuple[int, int]]] = {}
        with self._state.begin() as connection:
            for start in range(0, len(run_ids), _MOST_AT_ONCE):
                some = run_ids[start : start + _MOST_AT_ONCE]
                query = sa.select(_RUNS.c.id, _RUNS.c.tables).where(_RUNS.c.id.in_(some))
                found |= {row.id: _tables(row.tables) for row in connection.execute(query)}
        return found


def _tables(value: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, int]]:
    return {name: (rows, size) for name, (rows, size) in value.items()}


def _row(record: RunRecord) -> dict[str, Any]:
    row = {column.name: _storable(getattr(record, column.name)) for column in _RUNS.columns}
    row["tables"] = {name: list(sizes) for name, sizes in record.tables.items()}
    row["warnings"] = list(record.warnings)
    row["destinations"] = [
        {name: getattr(one, name) for name in ("repository", "snapshot_id", "error_code", "error")}
        | ({"caught_up": list(one.caught_up)} if one.caught_up else {})
        for one in record.destinations
    ]
    return row


def _storable(value: object) -> object:
    """Return text that every kind of database takes: what a server or a tool says may hold anything."""
    if not isinstance(value, str):
        return value
    return value.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _record(row: sa.Row[Any]) -> RunRecord:
    values = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's documented name for it
    values["tables"] = _tables(values.get("tables", {}))
    values["warnings"] = tuple(values["warnings"])
    values["destinations"] = tuple(DestinationResult.of(one) for one in values["destinations"])
    values["outcome"] = cast("Outcome", values["outcome"])
    return RunRecord(**values)
