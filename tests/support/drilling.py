"""Records of drills, made up."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any, Literal

from pgstow.catalog.drills import DrillRecord
from support.policies import NOW

__all__ = ["drill_record"]


def drill_record(
    outcome: Literal["passed", "failed", "interrupted"] = "passed",
    *,
    ago: timedelta = timedelta(days=3),
    **more: Any,
) -> DrillRecord:
    """Return a drill of a daily backup of ``shop`` that began so long ago and took 50 minutes."""
    started: datetime = NOW - ago
    is_passed = outcome == "passed"
    values: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "plan": "drill",
        "selected": "rotate",
        "backup_id": str(uuid.uuid4()),
        "backup_name": "shop",
        "backup_kind": "daily",
        "snapshot_taken": started - timedelta(hours=7),
        "source_version": "16.4",
        "repository": "/srv/local",
        "started": started,
        "finished": started + timedelta(minutes=51),
        "host": "h",
        "by": "pgstow",
        "place": "throwaway",
        "server": "16.4",
        "is_isolated": True,
        "is_removed": True,
        "outcome": outcome,
        "error_code": None if is_passed else "drill_failed",
        "error": None if is_passed else "table public.ledger is not what was backed up",
        "hint": None if is_passed else "drill an older backup",
        "restored_s": 2400.0,
        "proven_s": 3000.0 if is_passed else None,
        "lost_s": 7 * 3600.0,
        "rows": 1000,
        "size_bytes": 10 * 1024**3,
    }
    return DrillRecord(**(values | more))
