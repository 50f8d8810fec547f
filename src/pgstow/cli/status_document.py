"""How databases stand, as a JSON document."""

from __future__ import annotations

from typing import Any

from pgstow.catalog.backups import BackupRecord
from pgstow.catalog.drills import DrillRecord
from pgstow.cli.output import Output
from pgstow.cli.records import record_document
from pgstow.core.errors import PgstowError
from pgstow.monitor.facts import AlertFacts, RepositoryFacts
from pgstow.monitor.findings import id_of
from pgstow.monitor.levels import Reason
from pgstow.monitor.recovery import RecoveryStanding
from pgstow.monitor.rto import RestoreForecast
from pgstow.monitor.standing import DestinationStanding, KindStanding, TableStanding, age_s
from pgstow.monitor.storage import StorageFacts
from pgstow.monitor.verdict import DatabaseVerdict, Verdict
from pgstow.state.runs import RunRecord

__all__ = ["reason_document", "status_document"]


def status_document(verdict: Verdict, output: Output) -> dict[str, Any]:
    """Return everything that is known, and what is wrong with it."""
    facts = verdict.facts
    return {
        "now": facts.now.isoformat(),
        "level": verdict.level.value,
        "reasons": [reason_document(reason, name, output) for name, reason in verdict.all_reasons],
        "databases": [_database(each, output) for each in verdict.databases],
        "repositories": [_repository(each, output) for each in facts.repositories.values()],
        "history_error": _error(facts.runs_error, output),
        "alerts": None if facts.alerts is None else [_alert(each, output) for each in facts.alerts],
    }


def reason_document(reason: Reason, database: str | None, output: Output) -> dict[str, Any]:
    """Return a reason as it appears in JSON documents."""
    return {
        "level": reason.level.value,
        "code": reason.code,
        "database": database,
        "text": output.scrub(reason.text),
        "look": reason.look,
    }


def _error(error: PgstowError | None, output: Output) -> dict[str, Any] | None:
    return None if error is None else output.error_document(error)


def _backup(record: BackupRecord | None) -> dict[str, Any] | None:
    return None if record is None else record_document(record)


def _database(verdict: DatabaseVerdict, output: Output) -> dict[str, Any]:
    standing = verdict.standing
    return {
        "name": verdict.name,
        "level": verdict.level.value,
        "known": standing.is_known,
        "newest": _backup(standing.newest),
        "rpo_seconds": standing.database.rpo_s,
        "achieved_rpo_seconds": standing.achieved_rpo_s,
        "longest_gap_seconds": standing.longest_gap_s,
        "kinds": [_kind(each, output) for each in standing.kinds],
        "tables": [_table(each, verdict) for each in standing.tables],
        "rto_seconds": standing.database.rto_s,
        "achieved_rto_seconds": standing.recovery.achieved_rto_s,
        "achieved_rto_representative": standing.recovery.is_representative,
        "restore_forecast": _forecast(standing.recovery.forecast),
        "restore_trend_seconds_per_month": standing.recovery.trend_s_per_month,
        "drills": _drills(standing.recovery, output),
    }


def _forecast(forecast: RestoreForecast | None) -> dict[str, Any] | None:
    if forecast is None:
        return None
    return {
        "size_bytes": forecast.size_bytes,
        "seconds": round(forecast.seconds, 1),
        "low_seconds": round(forecast.low_s, 1),
        "high_seconds": round(forecast.high_s, 1),
        "fixed_seconds": round(forecast.fixed_s, 1),
        "rows_seconds": round(forecast.rows_s, 1),
        "index_seconds": round(forecast.index_s, 1),
        "drills": forecast.samples,
        "extrapolated": forecast.is_extrapolated,
        "basis": forecast.basis,
    }


def _drills(recovery: RecoveryStanding, output: Output) -> dict[str, Any]:
    due = recovery.next_due
    return {
        "known": recovery.is_known,
        "newest": _drill(recovery.newest, output),
        "last_passed": _drill(recovery.last_passed, output),
        "failed": [
            {
                "repository": each.repository,
                "drill": _drill(each.drill, output),
                "reason": output.scrub(each.reason),
            }
            for each in recovery.failed
        ],
        "next_due": due.isoformat() if due else None,
    }


def _drill(drill: DrillRecord | None, output: Output) -> dict[str, Any] | None:
    if drill is None:
        return None
    return {
        "id": drill.id,
        "backup": drill.backup_id,
        "kind": drill.backup_kind,
        "outcome": drill.outcome,
        "started": drill.started.isoformat(),
        "finished": drill.finished.isoformat(),
        "restored_seconds": drill.restored_s,
        "proven_seconds": drill.proven_s,
        "message": output.scrub(drill.error) if drill.error else None,
    }


def _kind(kind: KindStanding, output: Output) -> dict[str, Any]:
    since, due = kind.expected_since, kind.next_due
    return {
        "kind": kind.kind,
        "plans": [plan.plan for plan in kind.plans],
        "known": kind.is_known,
        "newest": _backup(kind.newest),
        "expected_since": since.isoformat() if since else None,
        "missing": kind.is_missing,
        "next_due": due.isoformat() if due else None,
        "last_attempt": None if kind.last_attempt is None else _attempt(kind.last_attempt, output),
        "longest_gap_seconds": kind.longest_gap_s,
        "last_sizes_bytes": list(kind.sizes),
        "growth_per_day_bytes": None if kind.growth is None else round(kind.growth.per_day),
        "destinations": [_destination(each) for each in kind.destinations],
    }


def _attempt(run: RunRecord, output: Output) -> dict[str, Any]:
    return {
        "plan": run.plan,
        "outcome": run.outcome,
        "started": run.started.isoformat(),
        "finished": run.finished.isoformat() if run.finished else None,
        "host": run.host,
        "message": output.scrub(run.error) if run.error else None,
    }


def _destination(place: DestinationStanding) -> dict[str, Any]:
    return {
        "repository": place.repository,
        "known": place.lacks is not None,
        "newest": _backup(place.newest),
        "lacks": [record.id for record in place.lacks or ()],
    }


def _table(table: TableStanding, verdict: DatabaseVerdict) -> dict[str, Any]:
    newest = table.newest
    return {
        "table": table.table,
        "missing": table.is_missing,
        "newest": _backup(newest),
        "newest_row": table.newest_row.iso_text if table.newest_row else None,
        "achieved_rpo_seconds": None if newest is None else age_s(newest, verdict.standing.now),
    }


def _repository(repository: RepositoryFacts, output: Output) -> dict[str, Any]:
    return {
        "name": repository.name,
        "location": output.scrub(repository.location),
        "known": repository.is_known,
        "backups": None if repository.backups is None else len(repository.backups),
        "unreadable": list(repository.unreadable),
        "failure": _error(repository.error or repository.storage_error, output),
        "storage": [_storage(each) for each in repository.storage],
    }


def _storage(storage: StorageFacts) -> dict[str, Any]:
    full = storage.forecast_full
    return {
        "where": storage.where,
        "used_bytes": storage.used_bytes,
        "free_bytes": storage.free_bytes,
        "total_bytes": storage.total_bytes,
        "growth_per_day_bytes": None if storage.growth is None else round(storage.growth.per_day),
        "full": None
        if full is None
        else {
            "at": full.at.isoformat(),
            "earliest": full.earliest.isoformat(),
            "latest": full.latest.isoformat() if full.latest else None,
        },
    }


def _alert(alert: AlertFacts, output: Output) -> dict[str, Any]:
    return {
        "id": id_of(alert.fingerprint),
        "fingerprint": alert.fingerprint,
        "rule": alert.rule,
        "severity": alert.severity,
        "database": alert.database,
        "subject": alert.subject,
        "message": output.scrub(alert.message),
        "since": alert.since.isoformat(),
        "acknowledged": alert.is_acknowledged,
    }
