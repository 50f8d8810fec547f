"""What the plans of each kind do: back up, drill, verify, let backups expire."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from pgstow.app.backup import BackupRequest, Destination, backup_to
from pgstow.app.holding import Waits
from pgstow.app.plan_drill import DrillResult, carry_out_drill
from pgstow.app.plan_parts import PlanParts
from pgstow.app.plan_retention import newest_attempts
from pgstow.app.retention import RetentionRequest, apply_retention
from pgstow.assurance.sample import PackSample
from pgstow.assurance.verify import verify
from pgstow.capture import options as capture_options
from pgstow.capture.options import CapturedBackup
from pgstow.catalog.backups import backups_among
from pgstow.catalog.drills import DrillRecord
from pgstow.catalog.manifest import Selection
from pgstow.config.settings import DatabaseSettings, PlanSettings, RepositorySettings
from pgstow.core.errors import Interrupted, PgstowError, RepositoryDamaged, UsageError
from pgstow.monitor.recovery import is_of_place
from pgstow.postgres.names import QualifiedName
from pgstow.repository import Repository
from pgstow.retention import RetentionPolicies
from pgstow.state.runs import DestinationResult
from pgstow.upkeep.expire import ExpiryPlan
from pgstow.upkeep.prune_plan import PruneOptions

__all__ = ["JobResult", "back_up", "drill_one", "find_published", "look_after_repositories"]

CRITICAL = "critical"
_VERIFIED_SHARE = "10%"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What a job achieved, per repository; ``error`` is the first that stopped one.

    ``reached`` are the repositories that have the backup, open, by their names.
    """

    destinations: tuple[DestinationResult, ...]
    captured: CapturedBackup | None = None
    drill: DrillRecord | None = None
    warnings: tuple[str, ...] = ()
    error: PgstowError | None = None
    tables: dict[str, tuple[int, int]] = field(default_factory=dict)
    reached: Mapping[str, Repository] = field(default_factory=dict)


def back_up(
    plan: PlanSettings,
    database: DatabaseSettings,
    parts: PlanParts,
    *,
    run_id: str,
    supersedes: Sequence[str],
    label: str | None,
    wait_s: float,
) -> JobResult:
    """Make one backup; its id is ``run_id``. What ``supersedes`` names was given up and is not waited for."""
    request = BackupRequest(
        source=parts.source(database),
        name=database.name,
        kind=plan.kind,
        label=label or plan.label,
        selection=_selection(plan, database),
        must_contain=_required(plan, database),
        time_columns={
            f"{one.schema}.{one.name}": one.time_column for one in database.critical if one.time_column
        },
        assertions=database.assertions,
        jobs=database.jobs,
        limit_rate=database.limit_rate,
        role_passwords=database.role_passwords,
        max_blocking_s=database.max_blocking_s,
        full_read_every=database.full_read_every,
        wait_s=wait_s,
        username=parts.username,
        backup_id=run_id,
        supersedes=tuple(supersedes),
    )
    opened: dict[str, Repository] = {}

    def open_(one: RepositorySettings) -> Repository:
        opened[one.name] = parts.repository(one)
        return opened[one.name]

    destinations = [Destination(name=one.name, open=partial(open_, one)) for one in parts.destinations(plan)]
    taken = backup_to(request, destinations, parts.tools, parts.progress)
    return JobResult(
        captured=taken,
        destinations=tuple(_result(one) for one in taken.destinations),
        warnings=_warnings(taken),
        tables={f"{t.schema_}.{t.name}": (t.rows, t.size_bytes) for t in taken.manifest.tables},
        reached={one.name: opened[one.name] for one in taken.destinations if one.snapshot_id is not None},
    )


def drill_one(plan: PlanSettings, database: DatabaseSettings, parts: PlanParts) -> JobResult:
    """Drill one backup of a database; a drill that did not pass is the error of the result."""
    drilled = carry_out_drill(plan, database, parts)
    return JobResult(
        destinations=(_drilled_from(drilled),),
        drill=drilled.record,
        warnings=drilled.warnings,
        error=drilled.error,
    )


def _drilled_from(drilled: DrillResult) -> DestinationResult:
    """Return the repository; with the error where the way to a restore failed, and not the backup."""
    record = drilled.record
    if not is_of_place(record.error_code):
        return DestinationResult(repository=drilled.repository)
    return DestinationResult(repository=drilled.repository, error_code=record.error_code, error=record.error)


def _warnings(taken: CapturedBackup) -> tuple[str, ...]:
    """Return what rules of alerts recognize by its beginning."""
    manifest = taken.manifest
    return (
        *(f"reuse alarm: {alarm}" for alarm in manifest.reuse.alarms),
        *(f"{warning.code}: {warning.message}" for warning in manifest.warnings),
    )


def _selection(plan: PlanSettings, database: DatabaseSettings) -> Selection:
    if plan.kind == CRITICAL:
        if not database.critical:
            raise UsageError(f"database {database.name} has no critical tables in the settings")
        return Selection(tables=tuple(str(QualifiedName(one.schema, one.name)) for one in database.critical))
    return Selection(
        schemas=database.schemas,
        exclude_schemas=database.exclude_schemas,
        exclude_tables=database.exclude_tables,
        exclude_table_data=database.exclude_table_data,
    )


def _required(plan: PlanSettings, database: DatabaseSettings) -> tuple[str, ...]:
    """Return what a backup must contain; one of the critical tables has to name these, and is refused without one."""
    return () if plan.kind == CRITICAL else database.must_contain


def _result(one: capture_options.DestinationResult) -> DestinationResult:
    return DestinationResult(
        repository=one.name,
        snapshot_id=one.snapshot_id,
        error_code=one.error.code if one.error is not None else None,
        error=one.error.message if one.error is not None else None,
    )


def find_published(
    plan: PlanSettings, parts: PlanParts, earlier: Sequence[str]
) -> dict[str, list[DestinationResult]]:
    """Make sure that none of the ``earlier`` runs can publish any more; return those that had, and where.

    In this order: a run that publishes in between would be done twice.
    """
    found: dict[str, list[DestinationResult]] = {}
    errors: list[PgstowError] = []
    places = parts.destinations(plan)
    for one in places:
        try:
            for run_id, snapshot in _published_in(parts.repository(one), earlier):
                found.setdefault(run_id, []).append(
                    DestinationResult(repository=one.name, snapshot_id=snapshot)
                )
        except Interrupted:
            raise
        except PgstowError as exc:  # the others tell; what this one has is caught up or found later
            errors.append(exc)
            parts.progress.note(f"whether {one.name} has the backup of an earlier attempt is unknown: {exc}")
    if len(errors) == len(places):
        raise errors[0]
    return found


def _published_in(repository: Repository, earlier: Sequence[str]) -> list[tuple[str, str | None]]:
    for run_id in earlier:
        repository.void_run(run_id)
    damaged: list[RepositoryDamaged] = []
    records = backups_among(repository.snapshots(damaged=damaged))
    return [(record.id, record.snapshot.id) for record in records if record.id in earlier]


def look_after_repositories(plan: PlanSettings, parts: PlanParts, *, wait_s: float) -> JobResult:
    """Verify the repositories of a plan, or let their backups expire; one that fails does not stop the others."""
    work = _WORK[plan.job]
    results: list[DestinationResult] = []
    errors: list[PgstowError] = []
    for one in parts.destinations(plan):
        parts.progress.note(f"repository {one.name}")
        try:
            work(plan, one, parts, wait_s)
            results.append(DestinationResult(repository=one.name))
        except Interrupted:
            raise
        except PgstowError as exc:
            errors.append(exc)
            results.append(DestinationResult(repository=one.name, error_code=exc.code, error=exc.message))
    return JobResult(destinations=tuple(results), error=errors[0] if errors else None)


def _verify(_plan: PlanSettings, one: RepositorySettings, parts: PlanParts, wait_s: float) -> None:
    repository: Repository = parts.repository(one)
    with repository.lock(wait_s=wait_s, on_wait=Waits(parts.progress)):
        report = verify(
            repository, read_data=True, sample=PackSample.parse(_VERIFIED_SHARE), progress=parts.progress
        )
    if not report.is_sound:
        first = report.problems[0]
        raise RepositoryDamaged(
            f"repository {one.name}: {len(report.problems)} problems, such as: {first.message}",
            hint="pgstow verify tells all of them, pgstow repo repair makes whole what can be",
        )


def _let_expire(_plan: PlanSettings, one: RepositorySettings, parts: PlanParts, wait_s: float) -> None:
    applied = apply_retention(
        parts.repository(one),
        RetentionRequest(
            policy=RetentionPolicies(default=parts.settings.retention),
            history=lambda: newest_attempts(parts.settings, parts.state, repository=one.name),
        ),
        parts.progress,
        planned=None,
        prune=PruneOptions(),
        show=lambda plan: _tell(plan, parts),
        wait_s=wait_s,
    )
    if applied.prune_error is not None:
        raise applied.prune_error


def _tell(plan: ExpiryPlan, parts: PlanParts) -> None:
    for note in plan.notes:
        parts.progress.note(note)


_WORK: dict[str, Callable[[PlanSettings, RepositorySettings, PlanParts, float], None]] = {
    "verify": _verify,
    "retention": _let_expire,
}
