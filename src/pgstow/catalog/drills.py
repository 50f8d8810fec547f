"""Drills: what restoring a backup showed, kept in the repository of that backup.

    pgstow/drills/TIME-ID     TIME is 20261121T020000Z, when the drill began; sealed JSON

A record is a documented, versioned contract (docs/drills.md). Readers accept unknown keys of the same ``format``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["CheckOutcome", "CheckRecord", "DrillRecord", "PhaseRecord", "TableProof"]

DRILL_FORMAT = 1
# unknown: it could not be found out, which is never a pass. skipped: there was nothing to check, or it was declared optional.
CheckOutcome = Literal["pass", "fail", "unknown", "skipped"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class PhaseRecord(_Record):
    """Phases may overlap: ``begun_s`` and ``seconds`` count from the start of the drill and of the phase."""

    name: (
        str  # fetch | pre-data | data | large-objects | post-data | analyze | content | checks | clean-up ...
    )
    begun_s: float
    seconds: float


class TableProof(_Record):
    """A table, and whether what the restored server gives back is what the repository holds."""

    schema_: str = Field(alias="schema")
    name: str
    rows: int
    size_bytes: int
    load_s: float
    is_equal: bool
    digest: str | None = None

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class CheckRecord(_Record):
    """One thing that was checked. ``subject`` is what it is about (a table, an index, an assertion's name)."""

    code: str  # content | row_counts | newest_rows | sequences | constraints | indexes | roles | extensions | settings | assertion
    subject: str | None = None
    outcome: CheckOutcome
    severity: Literal["error", "warning"] = "error"
    message: str
    expected: str | None = None
    found: str | None = None
    seconds: float = 0.0


class DrillRecord(_Record):
    """One drill, whatever became of it: a drill that fails is the one that matters."""

    format: int = DRILL_FORMAT
    id: str
    plan: str | None = None
    selected: str  # how the backup was chosen: named | latest | random | oldest | rotate
    backup_id: str
    backup_name: str
    backup_kind: str
    snapshot_taken: datetime
    source_version: str
    repository: str  # its location, without secrets
    started: datetime
    finished: datetime
    host: str
    by: str
    place: str  # throwaway | database
    server: str  # where it was restored: version, and the host of a given server
    is_isolated: bool  # nobody else could reach it
    is_removed: bool  # everything that was made for the drill is gone
    outcome: Literal["passed", "failed", "interrupted"]
    error_code: str | None = None
    error: str | None = None
    hint: str | None = None
    restored_s: float | None = None  # until the database could be used
    proven_s: float | None = None  # until every check had passed: the achieved RTO
    rto_target_s: float | None = None
    rpo_target_s: float | None = None
    lost_s: float  # from the moment that the backup shows to the start of the drill
    rows: int = 0
    size_bytes: int = 0  # of all rows, as text
    restored_bytes: int | None = None  # of the database that came of it
    phases: tuple[PhaseRecord, ...] = ()
    tables: tuple[TableProof, ...] = ()
    checks: tuple[CheckRecord, ...] = ()
    tools: dict[str, str] = {}
    manifest_sha256: str | None = None
    notes: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def issues(self) -> tuple[CheckRecord, ...]:
        """What did not pass, and was neither skipped nor optional."""
        return tuple(one for one in self.checks if one.outcome in {"fail", "unknown"})

    @property
    def is_passed(self) -> bool:
        return self.outcome == "passed"
