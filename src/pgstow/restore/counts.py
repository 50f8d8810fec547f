"""After the load: statistics for the planner, and every table counted against the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg import errors as pgerrors

from pgstow.core.errors import ContentMismatch, PostgresError
from pgstow.core.progress import Progress
from pgstow.postgres import loading
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.loading import LoadTable
from pgstow.postgres.raw import RawSession, open_raw
from pgstow.restore.load import load_settings
from pgstow.restore.load_tasks import LoadTask
from pgstow.restore.request import ArchiveFiles
from pgstow.restore.workers import Workers

__all__ = ["Expectation", "analyze_tables", "check_counts", "expectations"]

_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """How many rows a table must have. Rows that an extension made itself count only if they match ``condition``; so do those of a root."""

    table: LoadTable
    rows: int
    condition: bytes | None = None


def expectations(session: RawSession, tasks: Sequence[LoadTask]) -> list[Expectation]:
    """Return what to find after the load, asked before it: an extension's own rows are there already.

    Partitions that are loaded through their root are counted together, at the root.
    """
    rows: dict[bytes, int] = {}
    first: dict[bytes, LoadTask] = {}
    for task in tasks:
        name = task.table.qualified
        rows[name] = rows.get(name, 0) + task.record.rows
        first.setdefault(name, task)
    found = []
    for name, task in first.items():
        condition = task.condition.encode(session.codec) if task.condition else None
        before = loading.count_rows(session, task.table, condition) if task.table.is_extension_owned else 0
        found.append(Expectation(table=task.table, rows=rows[name] + before, condition=condition))
    return found


def check_counts(
    files: ArchiveFiles, target: ConnInfo, expected: Sequence[Expectation], *, jobs: int, progress: Progress
) -> None:
    """Count every table; ContentMismatch naming all that do not have the rows they must have."""
    wrong: list[str] = []

    def work(session: RawSession, one: Expectation) -> None:
        found = _counted(session, one)
        if found != one.rows:
            wrong.append(f"{session.decode(one.table.qualified)} has {found} instead of {one.rows}")
        progress.advance(rows=one.rows)

    with Workers[Expectation](jobs, _opener(files, target)) as workers:
        workers.each(expected, work)
    if wrong:
        wrong.sort()
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ContentMismatch(
            f"row counts differ from the backup: {', '.join(wrong[:_SHOWN])}{more}",
            hint="nobody else may write to the target during a restore; run pgstow verify --read-data on the backup",
            tables=wrong,
        )


def _counted(session: RawSession, one: Expectation) -> int:
    try:
        return loading.count_rows(session, one.table, one.condition)
    except PostgresError as exc:
        if exc.facts.get("sqlstate") != pgerrors.InsufficientPrivilege.sqlstate:
            raise
        try:
            return loading.count_rows_despite_policies(session, one.table, one.condition)
        except PostgresError:
            raise exc from None  # somebody else's table, or another right that is missing


def analyze_tables(files: ArchiveFiles, target: ConnInfo, names: Sequence[bytes], *, jobs: int) -> None:
    """Gather the planner's statistics for the tables, the largest first."""
    if not names:
        return

    with Workers[bytes](jobs, _opener(files, target)) as workers:
        listed: list[bytes] = []
        workers.each([b""], lambda session, _: listed.extend(loading.analyzable_tables(session, names)))
        workers.each(listed, loading.analyze)


def _opener(files: ArchiveFiles, target: ConnInfo) -> _Opener:
    return _Opener(files, target, load_settings(files.manifest))


@dataclass(frozen=True, slots=True)
class _Opener:
    files: ArchiveFiles
    target: ConnInfo
    settings: Mapping[str, str]

    def __call__(self) -> RawSession:
        return open_raw(self.target, encoding=self.files.toc.encoding, settings=self.settings)
