"""From the full record of a drill to what controls ask of it."""

from __future__ import annotations

import hashlib

from pgstow.catalog.drills import DrillRecord
from pgstow.evidence.facts import DrillFacts

__all__ = ["drill_facts"]

_CONTENT = "content"  # the check that compares every row with what the repository holds


def drill_facts(record: DrillRecord, content: bytes, *, repository: str) -> DrillFacts:
    """Return what matters of a record; ``content`` are the bytes of its file in the bundle."""
    outcomes = [check.outcome for check in record.checks]
    compared = [check.outcome for check in record.checks if check.code == _CONTENT]
    # Of a database without rows there is nothing to compare, and the check says so.
    is_compared = "pass" in compared or (bool(compared) and not record.tables)
    is_equal = set(compared) <= {"pass", "skipped"} and all(table.is_equal for table in record.tables)
    return DrillFacts(
        id=record.id,
        sha256=hashlib.sha256(content).hexdigest(),
        repository=repository,
        backup_id=record.backup_id,
        database=record.backup_name,
        kind=record.backup_kind,
        is_partial=record.is_partial,
        started=record.started,
        finished=record.finished,
        outcome=record.outcome,
        error=record.error,
        place=record.place,
        is_isolated=record.is_isolated,
        is_removed=record.is_removed,
        restored_s=record.restored_s,
        proven_s=record.proven_s,
        rto_target_s=record.rto_target_s,
        checks_passed=outcomes.count("pass"),
        checks_failed=outcomes.count("fail"),
        checks_unknown=outcomes.count("unknown"),
        tables_equal=sum(table.is_equal for table in record.tables),
        tables_compared=len(record.tables),
        has_data_checks=is_compared and is_equal,
    )
