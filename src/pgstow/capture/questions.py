"""What a backup asks the database besides its rows: newest rows, and assertions of its owner.

It is asked under the backup's own snapshot, so that what is restored later can be held against it. An answer that cannot be
had is a warning: no backup fails for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Event

from psycopg import errors as pgerrors

from pgstow.capture.chosen import look_up
from pgstow.catalog.assertions import Assertion, contradiction
from pgstow.catalog.manifest import NewestOfPartitioned, NewestRow, RecordedValue, Warning_
from pgstow.core.errors import ConnectionFailed, PostgresError
from pgstow.postgres.encodings import decoded, encoded
from pgstow.postgres.names import QualifiedName, parse_qualified
from pgstow.postgres.questions import answer
from pgstow.postgres.raw import RawSession
from pgstow.postgres.relations import leaves_of, user_relations
from pgstow.postgres.session import Connection, translated

__all__ = [
    "Answer",
    "LockQueued",
    "Question",
    "TimeColumn",
    "ask",
    "in_order",
    "newest_by_table",
    "newest_of_partitioned",
    "plan_questions",
    "recorded_values",
    "warnings_of",
]

_LOCK_WAIT_S = 1.0  # behind a queued exclusive lock, which itself may wait for us
# The snapshot itself is lost then, or the session with it: that is no matter of this query.
_FATAL = {pgerrors.SerializationFailure.sqlstate, pgerrors.DeadlockDetected.sqlstate}


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeColumn:
    """A column whose newest value says how fresh a table is; ``oid`` is the table's."""

    table: QualifiedName
    oid: int
    column: str
    is_partitioned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A query that gives one value, and what the value is of."""

    sql: bytes
    about: TimeColumn | Assertion


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """``value`` as PostgreSQL prints it, None for NULL; or ``error``, why there is none."""

    about: TimeColumn | Assertion
    value: str | None = None
    error: str | None = None


class LockQueued(Exception):
    """The query would have to wait behind an exclusive lock; whoever holds our locks may ask it."""


def plan_questions(
    connection: Connection,
    time_columns: Mapping[str, str],
    assertions: Sequence[Assertion],
    *,
    captured: Collection[int],
    encoding: str,
) -> tuple[list[Question], list[Warning_]]:
    """Return what to ask, and warnings about what cannot be asked. ``captured`` are the tables whose rows are saved.

    Newest rows of other tables are of no interest: there are none in the backup.
    """
    questions: list[Question] = []
    warnings: list[Warning_] = []
    for assertion in assertions:
        try:
            questions.append(Question(sql=encoded(assertion.sql, encoding), about=assertion))
        except UnicodeEncodeError:
            warnings.append(_unasked(assertion, f"its query cannot be written in {encoding}"))
    if time_columns:
        columns, more = _time_columns(connection, time_columns, captured, encoding)
        warnings += more
        questions += [Question(sql=_newest_query(each, encoding), about=each) for each in columns]
    return questions, warnings


def _time_columns(
    connection: Connection, wanted: Mapping[str, str], captured: Collection[int], encoding: str
) -> tuple[list[TimeColumn], list[Warning_]]:
    names = {parse_qualified(name): column for name, column in wanted.items()}
    with translated("looking for tables with a time column"):
        found, missing = look_up(list(names), user_relations(connection, encoding))
        oids = [relation.oid for relations in found.values() for relation in relations]
        leaves = leaves_of(connection, oids, encoding)
    columns = []
    for name, relations in found.items():
        for relation in relations:
            own = {leaf.oid for leaf in leaves if leaf.root == relation.oid}
            if not own.isdisjoint(captured):
                is_partitioned = relation.kind == "p"
                columns.append(
                    TimeColumn(
                        table=name, oid=relation.oid, column=names[name], is_partitioned=is_partitioned
                    )
                )
    warnings = [Warning_(code="newest_row", message=f"no newest row was recorded: {why}") for why in missing]
    return columns, warnings


def _newest_query(column: TimeColumn, encoding: str) -> bytes:
    table = f"{_quoted(column.table.schema)}.{_quoted(column.table.name or '')}"
    only = "" if column.is_partitioned else "ONLY "  # what inherits from it is a table of its own
    return encoded(f"SELECT pg_catalog.max({_quoted(column.column)}) FROM {only}{table}", encoding)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def ask(
    session: RawSession,
    question: Question,
    *,
    encoding: str,
    timeout_s: float,
    stop: Event,
    is_last_try: bool,
) -> Answer:
    """Return the answer, or why there is none.

    Raises LockQueued unless it ``is_last_try``, and PostgresError where not the query but the backup is at its end.
    """
    try:
        value = answer(session, question.sql, timeout_s=timeout_s, lock_timeout_s=_LOCK_WAIT_S)
    except ConnectionFailed:
        raise
    except PostgresError as exc:
        state = exc.facts.get("sqlstate")
        if stop.is_set() or state in _FATAL:
            raise
        if state == pgerrors.LockNotAvailable.sqlstate and not is_last_try:
            raise LockQueued from exc
        return Answer(about=question.about, error=exc.message)
    return Answer(about=question.about, value=None if value is None else decoded(value, encoding))


def in_order(answers: Iterable[Answer], questions: Iterable[Question]) -> list[Answer]:
    """Return the answers in the order of their questions: they come as they please."""
    places = {id(question.about): place for place, question in enumerate(questions)}
    return sorted(answers, key=lambda one: places[id(one.about)])


def newest_by_table(answers: Iterable[Answer]) -> dict[int, NewestRow]:
    """Return the newest values of tables that hold rows themselves, by OID."""
    return {
        one.about.oid: NewestRow(column=one.about.column, value=one.value)
        for one in answers
        if isinstance(one.about, TimeColumn) and not one.about.is_partitioned and one.error is None
    }


def newest_of_partitioned(answers: Iterable[Answer]) -> tuple[NewestOfPartitioned, ...]:
    """Return the newest values of partitioned tables."""
    return tuple(
        NewestOfPartitioned(
            schema_=one.about.table.schema,
            name=one.about.table.name or "",
            column=one.about.column,
            value=one.value,
        )
        for one in answers
        if isinstance(one.about, TimeColumn) and one.about.is_partitioned and one.error is None
    )


def recorded_values(answers: Iterable[Answer], assertions: Sequence[Assertion]) -> tuple[RecordedValue, ...]:
    """Return what the assertions gave, in their own order."""
    given = {one.about.name: one for one in answers if isinstance(one.about, Assertion)}
    return tuple(
        RecordedValue(name=each.name, sql=each.sql, value=found.value, error=found.error)
        for each in assertions
        if (found := given.get(each.name)) is not None
    )


def warnings_of(answers: Iterable[Answer]) -> Iterator[Warning_]:
    """Yield what was not to be had, and which assertions do not hold of the source itself."""
    for one in answers:
        if isinstance(one.about, Assertion):
            why = contradiction(one.about, one.value)
            if one.error is not None:
                yield _unasked(one.about, one.error)
            elif why is not None:
                message = f"the assertion {one.about.name} does not hold in the source: {why}"
                yield Warning_(code="assertion", message=message)
        elif one.error is not None:
            what = f"the newest {one.about.column} of {one.about.table} was not recorded"
            yield Warning_(code="newest_row", message=f"{what}: {one.error}")


def _unasked(assertion: Assertion, why: str) -> Warning_:
    return Warning_(code="assertion", message=f"the assertion {assertion.name} has no value: {why}")
