"""What a plan of kind drill does: restore one backup of a database from one of its repositories, and prove it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from pgstow.app.drill import Drilled, drill_and_tell
from pgstow.app.drill_request import DrillRequest, DrillTerms, Strategy
from pgstow.app.plan_parts import PlanParts
from pgstow.assurance.drill.selection import candidates
from pgstow.catalog.backups import list_backups
from pgstow.catalog.drills import DrillRecord, read_drills
from pgstow.config.settings import DatabaseSettings, PlanSettings, RepositorySettings
from pgstow.core.errors import BackupNotFound, DrillFailed, Interrupted, PgstowError
from pgstow.monitor.recovery import unsaved_text
from pgstow.repository import Repository
from pgstow.state.database import state_folder

__all__ = ["DrillResult", "carry_out_drill"]

_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_TOLD = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillResult:
    """A drill that came to its end, and the repository of the settings that its backup is in."""

    repository: str
    record: DrillRecord
    error: DrillFailed | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    settings: RepositorySettings
    opened: Repository
    drilled: datetime  # when the newest drill of the database there began


def carry_out_drill(plan: PlanSettings, database: DatabaseSettings, parts: PlanParts) -> DrillResult:
    """Carry out one drill; its record is durable on return.

    Raises BackupNotFound, errors of the repositories while backups are looked up, and Interrupted.
    """
    warnings: list[str] = []
    chosen = _repository(plan, database, parts, warnings)
    parts.progress.note(f"repository {chosen.settings.name}")
    drilled = drill_and_tell(_request(plan, database, parts), chosen.opened, parts.tools, parts.progress)
    return DrillResult(
        repository=chosen.settings.name,
        record=drilled.record,
        error=_error(drilled.record, chosen.settings.name),
        warnings=(*warnings, *_unsaved(drilled), *_left_over(drilled.record)),
    )


def _request(plan: PlanSettings, database: DatabaseSettings, parts: PlanParts) -> DrillRequest:
    strategy: Strategy = plan.drill.strategy
    return DrillRequest(
        strategy=strategy,
        database=database.name,
        kind=plan.drill.backup_kind,
        server=parts.drill_server(plan),
        assertions=database.assertions,
        optional_extensions=frozenset(database.optional_extensions),
        jobs=database.jobs,
        rto_target_s=database.rto_s,
        # An older backup that is drilled on purpose says nothing of what a loss would cost now.
        rpo_target_s=database.rpo_s if strategy == "latest" else None,
        terms={database.name: DrillTerms(is_partial=database.is_partial)},
        plan=plan.name,
        state_folder=state_folder(parts.environ),
        server_path=parts.environ.get("PATH", ""),
        host=parts.hostname,
        username=parts.username,
    )


def _repository(
    plan: PlanSettings, database: DatabaseSettings, parts: PlanParts, warnings: list[str]
) -> _Candidate:
    """Return the repository whose last drill of the database is longest ago, of those that have a backup to drill.

    One that cannot be looked at is passed over, and told, unless it is the only one.
    """
    places = parts.destinations(plan)
    if len(places) == 1:
        return _Candidate(settings=places[0], opened=parts.repository(places[0]), drilled=_LONG_AGO)
    candidates: list[_Candidate] = []
    errors: list[PgstowError] = []
    for one in places:
        try:
            candidate = _candidate(one, plan, database, parts)
        except Interrupted:
            raise
        except PgstowError as exc:
            errors.append(exc)
            warnings.append(f"repository {one.name} could not be drilled from: {exc.message}")
            continue
        if candidate is not None:
            candidates.append(candidate)
    if not candidates and errors:
        raise errors[0]
    if not candidates:
        what = f"{plan.drill.backup_kind} backup" if plan.drill.backup_kind else "backup"
        raise BackupNotFound(
            f"no repository of plan {plan.name} has a {what} of {database.name}",
            hint="pgstow list shows what there is",
        )
    return min(candidates, key=lambda each: each.drilled)


def _candidate(
    place: RepositorySettings, plan: PlanSettings, database: DatabaseSettings, parts: PlanParts
) -> _Candidate | None:
    opened = parts.repository(place)
    by_intent = {database.name} if database.is_partial else ()
    if not candidates(
        list_backups(opened, damaged=[]),
        plan.drill.strategy,
        database=database.name,
        kind=plan.drill.backup_kind,
        partial_by_intent=by_intent,
    ):
        return None
    begun = [one.started for one in read_drills(opened, damaged=[]) if one.backup_name == database.name]
    return _Candidate(settings=place, opened=opened, drilled=max(begun, default=_LONG_AGO))


def _unsaved(drilled: Drilled) -> list[str]:
    if drilled.unsaved is None:
        return []
    then = f"it waits in {drilled.kept_in}, and the next drill saves it" if drilled.kept_in else "it is lost"
    return [f"{unsaved_text(drilled.record.id)}: {drilled.unsaved.message}; {then}"]


def _left_over(record: DrillRecord) -> list[str]:
    if record.is_removed:
        return []
    return [
        f"drill {record.id} could not remove all that it had made: its report names it, and the next one tries again"
    ]


def _error(record: DrillRecord, repository: str) -> DrillFailed | None:
    """Return the error that a failed drill is; None for one that passed."""
    if record.is_passed:
        return None
    issues = [one.message for one in record.issues if one.severity == "error"]
    unequal = [
        f"table {one.schema_}.{one.name} is not what was backed up"
        for one in record.tables
        if not one.is_equal
    ]
    reasons = [record.error] if record.error is not None else issues or unequal or ["it did not say why"]
    more = f" (and {len(reasons) - _TOLD} more)" if len(reasons) > _TOLD else ""
    return DrillFailed(
        f"the drill of backup {record.backup_id[:8]} of {record.backup_name} failed: "
        f"{'; '.join(reasons[:_TOLD])}{more}",
        hint=f"pgstow drills show {record.id[:8]} --repo {repository} tells everything that was found, and what to do",
        drill=record.id,
        backup=record.backup_id,
        cause=record.error_code,
    )
