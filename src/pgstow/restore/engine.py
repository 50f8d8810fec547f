"""The restore, step by step."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pgstow.core.errors import ContentMismatch, Interrupted, PgstowError, PostgresError
from pgstow.core.progress import Progress
from pgstow.postgres import loading
from pgstow.postgres import target as target_sql
from pgstow.postgres.archive import TocEntry, drop_only
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.raw import RawSession, open_raw
from pgstow.postgres.tools import ClientTools
from pgstow.restore.builds import Build, select_builds
from pgstow.restore.contents import Comparison, Part, parts_of, refuse_differences
from pgstow.restore.counts import Expectation, analyze_tables, check_counts, expectations
from pgstow.restore.data_only import load_order
from pgstow.restore.database import apply_database_entries, create_like_source
from pgstow.restore.early import may_be_read_early
from pgstow.restore.foreign_keys import set_foreign_keys
from pgstow.restore.foundation import Foundation, create_missing_schemas
from pgstow.restore.guard import GUARD_SETTINGS, Admission, admit, maintenance_session
from pgstow.restore.large_objects import listed_large_objects, load_large_objects
from pgstow.restore.late import restore_late
from pgstow.restore.load import Loader, load_settings
from pgstow.restore.load_tasks import LoadTask, plan_tasks
from pgstow.restore.losses import refuse_losses
from pgstow.restore.naming import described
from pgstow.restore.report import ComparedTable, RestoredTable, RestoreReport, Skipped, UnsetForeignKey
from pgstow.restore.request import ArchiveFiles, RestoreOptions
from pgstow.restore.sections import Runs, Sections, arrange
from pgstow.restore.selection import is_about_database
from pgstow.restore.sent_rows import ReadTarget, SentRows
from pgstow.restore.timesheet import Timesheet
from pgstow.restore.workers import Workers

__all__ = ["SAID_OF_THE_DATABASE", "restore"]

_MIB = 1 << 20
_ROWS = "rows"
_NAMED = 10
SAID_OF_THE_DATABASE = "settings, privileges and comment of the database itself"
_WHAT_IS_LEFT = (
    "nothing was touched; choose tables that are whole with --table, or another backup"
    " (pgstow show tells what this one has lost)"
)
# What pg_restore's sessions run with besides what it sets itself.
_PG_RESTORE_SETTINGS = (
    "default_transaction_read_only",
    "default_transaction_isolation",
    "lc_monetary",
    "synchronous_commit",
    "statement_timeout",  # it switches them off itself, but after it has asked the first questions
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
)


def restore(
    files: ArchiveFiles,
    target: ConnInfo,
    options: RestoreOptions,
    *,
    tools: Sequence[ClientTools],
    progress: Progress,
    before_touching: Callable[[], object] = lambda: None,
    foundation: Foundation | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RestoreReport:
    """Restore one backup; when this returns, the rows are counted and on the target's disk.

    ``foundation`` is made first, in a database that is new or empty, with the schemas that the archive names and does not hold.
    ``before_touching`` is called when nothing but reading was done, and may raise. Raises TargetRefused while
    nothing is touched yet; later errors say in their hint and facts what was left
    behind. A report that ``is_partial`` names what was asked for and could not be restored.
    """
    run = _Run(
        files=files,
        target=target,
        options=options,
        progress=progress,
        clock=clock,
        started=clock(),
        timesheet=Timesheet(clock),
    )
    run.begin("checking", "checking the target")
    admission = admit(files, target, options, tools, foundation)
    before_touching()
    if not options.schema_only:
        refuse_losses(files, admission.selection.entries, hint=_WHAT_IS_LEFT)
    run.warnings += admission.preflight.warnings
    run.skipped += [*admission.selection.skipped, *admission.preflight.skipped]
    with _explaining(run, admission):
        if options.create:
            _make_database(run, admission)
        else:
            run.skipped += _what_is_said_of_the_database(files)
        with Sections.opened(
            admission.tools,
            target,
            files.toc,
            flags=_flags(options, admission),
            settings=_pg_restore_settings(files),
        ) as sections:
            runs = arrange(files.toc, admission.selection, admission.preflight.left_out)
            _drop(run, admission, sections)
            if foundation is not None:
                _lay_foundation(run, admission, foundation)
            _restore_definitions(run, runs, sections)
            _load_rows(run, admission, runs)
            _restore_other_data(run, admission, runs, sections)
            _restore_the_rest(run, admission, runs, sections)
            run.warnings += sections.messages
        _finish(run, admission)
    return _report(run, admission, runs)


@dataclass(slots=True, kw_only=True)
class _Run:
    """What one restore has done so far."""

    files: ArchiveFiles
    target: ConnInfo
    options: RestoreOptions
    progress: Progress
    clock: Callable[[], float]
    started: float
    timesheet: Timesheet
    timings_s: dict[str, float] = field(default_factory=dict)
    phase: str = ""
    phase_started: float = 0.0
    created_database: bool = False
    is_touched: bool = False
    tasks: list[LoadTask] = field(default_factory=list)
    expected: list[Expectation] = field(default_factory=list)
    comparison: Comparison | None = None
    compared: list[ComparedTable] = field(default_factory=list)
    tables: list[RestoredTable] = field(default_factory=list)
    large_objects: int = 0
    large_object_bytes: int = 0
    built: set[int] = field(default_factory=set)  # dump ids of the post-data section
    analyzed: set[bytes] = field(default_factory=set)
    read_early: set[bytes] = field(default_factory=set)
    unset: list[UnsetForeignKey] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    lost: int = 0  # entries that were tried and refused
    warnings: list[str] = field(default_factory=list)

    def begin(self, phase: str, telling: str) -> None:
        """End the phase under way and start the next."""
        now = self.clock()
        self.end(now)
        self.phase, self.phase_started = phase, now
        self.progress.phase(telling)

    def end(self, now: float) -> None:
        if self.phase:
            self.timings_s[self.phase] = round(
                self.timings_s.get(self.phase, 0.0) + now - self.phase_started, 3
            )
            if self.phase != _ROWS:  # of which each kind of work is told by itself
                self.timesheet.worked(self.phase, self.phase_started, now)
        self.phase = ""

    @contextlib.contextmanager
    def session(self) -> Iterator[RawSession]:
        """Open a session on the target for the length of a block."""
        with contextlib.closing(self.open_session()) as session:
            yield session

    def open_session(self) -> RawSession:
        settings = {**load_settings(self.files.manifest), **GUARD_SETTINGS}
        return open_raw(self.target, encoding=self.files.toc.encoding, settings=settings)


# -- before the rows


def _make_database(run: _Run, admission: Admission) -> None:
    run.begin("creating the database", "creating the database")
    with maintenance_session(run.target, run.files.toc.encoding) as session:
        if admission.replaces:
            target_sql.drop_database(session, admission.database, force=run.options.disconnect_others)
            run.is_touched = True
        run.warnings += create_like_source(
            session, admission.database, run.files.manifest, run.files.toc, run.options
        )
        run.created_database = run.is_touched = True
        run.warnings += apply_database_entries(
            session,
            admission.database,
            run.files.toc,
            run.options,
            connect=lambda: run.open_session().close(),
        )


def _what_is_said_of_the_database(files: ArchiveFiles) -> list[Skipped]:
    """Return what pg_restore, too, restores only into a database it creates."""
    said = [entry for entry in files.toc.entries if is_about_database(entry) and entry.desc != b"DATABASE"]
    why = "the database was there before; --create restores them"
    return [Skipped(what=SAID_OF_THE_DATABASE, why=why)] if said else []


def _flags(options: RestoreOptions, admission: Admission) -> list[str]:
    flags = ["--no-owner"] if options.no_owner else []
    return [*flags, "--no-tablespaces"] if admission.preflight.no_tablespaces else flags


def _pg_restore_settings(files: ArchiveFiles) -> dict[str, str]:
    settings = load_settings(files.manifest)
    return {name: settings[name] for name in _PG_RESTORE_SETTINGS}


def _drop(run: _Run, admission: Admission, sections: Sections) -> None:
    """Drop what stands in the way, across all sections at once: tables hold on to each other by foreign keys."""
    if not run.options.clean or run.options.create:
        return
    run.begin("dropping", "dropping what stands in the way")
    selection = admission.selection
    ours = {entry.dump_id for entry in (*selection.entries, *selection.foreign_keys)}
    droppable = ours - selection.brought - admission.preflight.kept
    sections.drop(drop_only(run.files.toc, keep=lambda entry: entry.dump_id not in droppable))
    run.is_touched = True


def _lay_foundation(run: _Run, admission: Admission, foundation: Foundation) -> None:
    """Make what the tables of a partial backup need and its archive does not hold."""
    run.begin("pre-data", "creating what the tables need")
    run.is_touched = True
    if admission.beneath:
        with Sections.opened(
            admission.tools,
            run.target,
            foundation.toc,
            flags=_flags(run.options, admission),
            settings=_pg_restore_settings(run.files),
        ) as sections:
            sections.restore(admission.beneath)
            run.warnings += sections.messages
        encoding = foundation.toc.encoding
        named = [described(entry, encoding) for entry in admission.beneath]
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        run.warnings.append(
            f"the backup holds chosen tables alone: what they need was made as {foundation.origin} has it"
            f" ({', '.join(named[:_NAMED])}{more})"
        )
    with run.session() as session:
        create_missing_schemas(session, run.files.toc)


def _restore_definitions(run: _Run, runs: Runs, sections: Sections) -> None:
    run.begin("pre-data", "creating tables, types and functions")
    run.is_touched = True
    sections.restore(runs.pre_data)


# -- rows


def _load_rows(run: _Run, admission: Admission, runs: Runs) -> None:
    """Load all rows, and build what can be built as soon as its tables are filled."""
    entries = admission.selection.table_data
    run.begin(_ROWS, "loading rows")
    created = (
        ()
        if run.options.data_only
        else ((e.namespace, e.tag) for e in admission.selection.entries if e.desc == b"TABLE")
    )
    with run.session() as session:
        run.tasks = plan_tasks(session, entries, run.files.manifest, created)
        run.expected = expectations(session, run.tasks)
        if run.options.compare:
            run.comparison = Comparison(
                SentRows(run.tasks),
                run.files.manifest,
                stall_timeout_s=run.options.stall_timeout_s,
                progress=run.progress,
                clock=run.clock,
            )
            run.comparison.take_down_what_was_there(session)
        as_replica = run.options.data_only and loading.may_be_replica(session)
        steps = _steps(session, run.tasks) if run.options.data_only and not as_replica else [run.tasks]
    loader = Loader(
        run.files,
        run.target,
        jobs=run.options.jobs,
        maintenance_work_mem=_maintenance_memory(admission.memory, run.options),
        stall_timeout_s=run.options.stall_timeout_s,
        progress=run.progress,
        encoding=run.files.toc.encoding,
        comparison=run.comparison,
        timesheet=run.timesheet,
    )
    if run.options.data_only:
        loader.respect_triggers(as_replica=as_replica)
    builds = select_builds(run.files.toc, runs.post_data) if run.tasks else []
    early = _read_early(run, admission, runs, builds)
    run.progress.expect(
        rows=sum(task.record.rows for task in run.tasks) + sum(target.rows for target in early),
        size_bytes=sum(task.record.size_bytes for task in run.tasks),
    )
    for step in steps:
        loader.load(step, run.tables, builds=builds, read_back=early)
    run.read_early |= {target.table.qualified for target in early}
    run.built |= {one.entry.dump_id for one in builds}
    run.analyzed |= loader.analyzed


def _read_early(run: _Run, admission: Admission, runs: Runs, builds: Sequence[Build]) -> list[ReadTarget]:
    """Return the tables that are read back while others load: none where others know the database by its name."""
    if run.comparison is None or not run.options.create or admission.replaces:
        return []
    after_rows = [*runs.post_data, *runs.late]
    return may_be_read_early(run.comparison.sent.targets, run.files.toc, after_rows, builds)


def _steps(session: RawSession, tasks: Sequence[LoadTask]) -> list[list[LoadTask]]:
    """Return the tasks in steps that satisfy the foreign keys of the target."""
    oids = list(dict.fromkeys(task.table.oid for task in tasks))
    order = load_order(oids, loading.foreign_keys(session, oids))
    return [[task for task in tasks if task.table.oid in step] for step in map(set, order)]


def _restore_other_data(run: _Run, admission: Admission, runs: Runs, sections: Sections) -> None:
    run.begin("other data", "restoring sequences and large objects")
    sections.restore(runs.data)
    objects = listed_large_objects(run.files, admission.selection.large_object_data)
    recorded = run.files.manifest.large_objects.count
    if admission.selection.large_object_data and len(objects) != recorded:
        raise ContentMismatch(f"the archive lists {len(objects)} large objects, the manifest {recorded}")
    if objects:
        run.progress.expect(size_bytes=sum(each.size_bytes for each in objects))
        load_large_objects(run.files, run.target, objects, jobs=run.options.jobs, progress=run.progress)
    run.large_objects = len(objects)
    run.large_object_bytes = sum(each.size_bytes for each in objects)


# -- after the rows


def _restore_the_rest(run: _Run, admission: Admission, runs: Runs, sections: Sections) -> None:
    run.begin("post-data", "building indexes and constraints")
    memory = _maintenance_memory(admission.memory, run.options)
    left = [entry for entry in runs.post_data if entry.dump_id not in run.built]
    sections.restore(left, jobs=run.options.jobs, maintenance_work_mem=memory)
    if admission.selection.foreign_keys:
        with run.session() as session:
            run.unset += set_foreign_keys(session, run.files.toc, admission.selection.foreign_keys)
    late = restore_late(sections, runs.late, jobs=run.options.jobs, maintenance_work_mem=memory)
    run.lost = len(late.skipped)
    run.skipped += late.skipped
    run.warnings += late.warnings


def _maintenance_memory(memory: target_sql.MemoryFacts, options: RestoreOptions) -> int:
    """Return the memory for each job that builds an index.

    The machine's size cannot be asked for. shared_buffers is commonly a quarter of it or less, so all jobs
    together may take as much once more; 256 MiB in any case, 1 GiB at most. Who knows better says so.
    """
    if options.build_bytes is not None:
        return options.build_bytes
    together = min(max(memory.shared_buffers, 256 * _MIB), 1024 * _MIB)
    return max(together // options.jobs, memory.maintenance_work_mem)


def _finish(run: _Run, admission: Admission) -> None:
    entries = admission.selection.entries
    if not run.options.schema_only:
        run.begin("analyze", "gathering statistics")
        with run.session() as session:
            names = [t.table.qualified for t in run.tasks if t.table.qualified not in run.analyzed]
            views = [(e.namespace or b"", e.tag) for e in entries if e.desc == b"MATERIALIZED VIEW DATA"]
            names += [target_sql.qualified(session, *view) for view in views]
        analyze_tables(run.files, run.target, names, jobs=run.options.jobs)
        _check_rows(run)
    with run.session() as session:
        target_sql.make_durable(session)
    run.end(run.clock())


def _check_rows(run: _Run) -> None:
    """Count the rows of every table, or, where that was asked for, compare them."""
    rows = sum(one.rows for one in run.expected if one.table.qualified not in run.read_early)
    if run.comparison is None:
        run.begin("counts", "counting rows")
        run.progress.expect(rows=rows)
        check_counts(run.files, run.target, run.expected, jobs=run.options.jobs, progress=run.progress)
        return
    run.begin("comparison", "comparing every row with the backup's")
    run.progress.expect(rows=rows)
    _read_the_rest(run, run.comparison)
    run.compared = run.comparison.compared(run.files.toc.encoding)
    if not run.options.report_differences:
        refuse_differences(run.compared)


def _read_the_rest(run: _Run, comparison: Comparison) -> None:
    """Read every table that was not read early, the largest first."""
    late = [one for one in comparison.sent.targets if one.table.qualified not in run.read_early]
    parts = [part for target in sorted(late, key=lambda one: -one.size_bytes) for part in parts_of(target)]
    with Workers[Part](run.options.jobs, run.open_session) as workers:
        workers.each(parts, lambda session, part: comparison.read(session, [part], workers.stopped))


# -- what came of it


def _report(run: _Run, admission: Admission, runs: Runs) -> RestoreReport:
    manifest = run.files.manifest
    entries: Sequence[TocEntry] = [
        *runs.pre_data,
        *runs.data,
        *runs.post_data,
        *runs.late,
        *admission.selection.table_data,
    ]
    return RestoreReport(
        backup_id=manifest.backup_id,
        backup_name=manifest.name,
        snapshot_taken=manifest.snapshot_taken,
        target=admission.identity,
        created_database=run.created_database,
        tables=tuple(sorted(run.tables, key=lambda table: (table.schema, table.name))),
        rows=sum(table.rows for table in run.tables),
        size_bytes=sum(table.size_bytes for table in run.tables) + run.large_object_bytes,
        large_objects=run.large_objects,
        objects=len(entries) + len(admission.selection.foreign_keys) - len(run.unset) - run.lost,
        timings_s={**run.timings_s, "total": round(run.clock() - run.started, 3)},
        spans=run.timesheet.spans(),
        compared=tuple(run.compared),
        is_compared=run.comparison is not None and all(one.is_equal for one in run.compared),
        skipped=tuple(run.skipped),
        unset_foreign_keys=tuple(run.unset),
        missing_roles=admission.preflight.missing_roles,
        warnings=tuple(run.warnings),
    )


@contextlib.contextmanager
def _explaining(run: _Run, admission: Admission) -> Iterator[None]:
    """Add to any error what the restore leaves behind; drop a database that it made and put nothing into."""
    try:
        yield
    except BaseException as exc:
        left = _left_behind(run, admission)
        if isinstance(exc, PgstowError):
            exc.hint = f"{exc.hint}; {left}" if exc.hint else left
            exc.facts["left_behind"] = left
        else:
            exc.add_note(left)
        raise


def _left_behind(run: _Run, admission: Admission) -> str:
    name = admission.identity.database
    if not run.is_touched:
        return "the target was not touched"
    if run.created_database and not run.tables:
        with contextlib.suppress(
            PostgresError, Interrupted
        ):  # then the text below says that it is still there
            with maintenance_session(run.target, run.files.toc.encoding) as session:
                target_sql.drop_database(session, admission.database, force=True)
            replaced = "; the one that was there before is gone" if admission.replaces else ""
            return f"database {name}, which was created for this restore, was dropped again{replaced}"
    loaded = f"{len(run.tables)} of {len(admission.selection.table_data)} tables loaded"
    if run.created_database:
        return f"database {name} was created and is incomplete ({loaded}): drop it, or restore again with --create --clean"
    if run.options.data_only and not run.tables:
        return "no table was loaded: nothing has to be undone"
    if run.options.data_only:
        return f"{loaded}: TRUNCATE them before trying again"
    return f"database {name} is incomplete ({loaded}): restore again with --clean"
