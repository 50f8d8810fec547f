"""Drills: what restoring a backup showed, kept in the repository of that backup.

    pgstow/drills/TIME-ID     TIME is 20261121T020000Z, when the drill began; sealed JSON

A record is a documented, versioned contract (docs/drills.md). Readers accept unknown keys of the same ``format``. What it says
of itself gives its name, so that one cannot stand in the place of another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pgstow.core.errors import RepositoryDamaged, UsageError
from pgstow.repository import Repository

__all__ = [
    "OF_THE_PLACE",
    "AuditHead",
    "CheckOutcome",
    "CheckRecord",
    "DrillRecord",
    "Outcome",
    "PhaseRecord",
    "TableProof",
    "find_drill",
    "parse_drill",
    "read_drills",
    "save_drill",
]

DRILL_FORMAT = 1
# What ends a drill before the backup could show what is in it: the machine, a server, the store.
OF_THE_PLACE = frozenset(
    {
        "connection_failed",
        "disk_full",
        "internal",
        "process_failed",
        "repository_locked",
        "store_denied",
        "store_unavailable",
        "target_refused",
        "tool_missing",
    }
)
_FOLDER = "pgstow/drills/"
_TIME = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f-]{8,40}")
_FORGED = "pgstow never made that one: look at who may write to the store, and remove the object"
# unknown: it could not be found out, which is never a pass. skipped: there was nothing to check, or it was declared optional.
CheckOutcome = Literal["pass", "fail", "unknown", "skipped"]
Outcome = Literal["passed", "failed", "interrupted"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class PhaseRecord(_Record):
    """Phases may overlap: ``begun_s`` and ``seconds`` count from the start of the drill and of the phase.

    ``busy_s`` is what the sessions that worked on it spent together; None where there was one.
    """

    name: str  # docs/drills.md has them all
    begun_s: float
    seconds: float
    busy_s: float | None = None


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


class AuditHead(_Record):
    """The newest entry of a chain of the repository's audit trail, as the drill saw it: ``audit verify --anchors`` takes it."""

    repository: str  # its id
    chain: str
    number: int
    digest: str


class DrillRecord(_Record):
    """One drill, whatever became of it: a drill that fails is the one that matters."""

    format: int = DRILL_FORMAT
    id: str
    plan: str | None = None
    selected: str  # how the backup was chosen: named | latest | random | oldest | rotate | file
    seed: str | None = None  # of a random choice: the same seed among the same backups chooses the same one
    backup_id: str
    backup_name: str
    backup_kind: str
    is_partial: bool = False
    snapshot_taken: datetime
    source_version: str
    repository: str  # its location, without secrets
    started: datetime
    finished: datetime
    host: str
    by: str
    place: str  # throwaway | database
    server: str  # where it was restored: version, and the host of a given server; "none was started"
    is_isolated: bool  # nobody else could reach it
    is_removed: bool  # everything that was made for the drill is gone
    outcome: Outcome
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
    heads: tuple[AuditHead, ...] = ()  # of the repository's audit trail when the drill began

    @property
    def issues(self) -> tuple[CheckRecord, ...]:
        """What did not pass, and was neither skipped nor optional."""
        return tuple(one for one in self.checks if one.outcome in {"fail", "unknown"})

    @property
    def is_passed(self) -> bool:
        return self.outcome == "passed"

    @property
    def is_of_place(self) -> bool:
        """Whether what stopped it says nothing about the backup."""
        return self.error_code in OF_THE_PLACE

    @property
    def file_name(self) -> str:
        """Under which it is stored: names sort by time."""
        return f"{self.started.astimezone(UTC):{_TIME}}-{self.id}"

    def to_json(self) -> bytes:
        """Return the bytes that are stored."""
        return self.model_dump_json(by_alias=True, indent=1).encode() + b"\n"


def parse_drill(data: bytes, *, where: str) -> DrillRecord:
    """Return the record in ``data``; RepositoryDamaged, naming ``where``, if it is none, or is too new."""
    _refuse_newer(data, where)
    try:
        return DrillRecord.model_validate_json(data)
    except ValidationError as exc:
        first = exc.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise RepositoryDamaged(f"{where} is no record of a drill: {at}: {first['msg']}", file=where) from exc


class _Format(_Record):
    format: int = DRILL_FORMAT


def _refuse_newer(data: bytes, where: str) -> None:
    """Raise for a format of later versions, whatever else has another form in it."""
    try:
        found = _Format.model_validate_json(data).format
    except ValidationError:
        return
    if found > DRILL_FORMAT:
        raise RepositoryDamaged(
            f"{where} has format {found}, newer than this program understands",
            hint="upgrade pgstow",
            file=where,
        )


def save_drill(repository: Repository, record: DrillRecord) -> None:
    """Store a record; durable and read back on return. Saving it again changes nothing.

    Raises StoreError, and RepositoryLocked when a lock of the repository object is lost.
    """
    repository.records(_FOLDER).save(record.file_name, record.to_json())


def read_drills(
    repository: Repository,
    *,
    since: datetime | None = None,
    damaged: list[RepositoryDamaged] | None = None,
    known: Mapping[str, DrillRecord] | None = None,
) -> list[DrillRecord]:
    """Return the drills that began at or after ``since``, the oldest first; older ones are not fetched.

    The first record that cannot be read, or that stands in the place of another, raises, unless the caller gives a list.
    ``known`` are records of this repository that were read before, by the names of their files: they never change, and what
    is still listed is not read again.
    """
    records = repository.records(_FOLDER)
    first = f"{since.astimezone(UTC):{_TIME}}" if since is not None else ""
    names = [name for name in records.names() if name >= first]
    before = {name: known[name] for name in names if name in known} if known is not None else {}
    found = [one for one in before.values() if since is None or one.started >= since]
    for name, content in records.load(name for name in names if name not in before):
        try:
            if isinstance(content, RepositoryDamaged):
                raise content
            record = _in_its_place(name, content)
            if since is None or record.started >= since:
                found.append(record)
        except RepositoryDamaged as exc:
            if damaged is None:
                raise
            damaged.append(exc)
    return sorted(found, key=lambda record: (record.started, record.id))


def _in_its_place(name: str, content: bytes) -> DrillRecord:
    where = _FOLDER + name
    record = parse_drill(content, where=where)
    if not _NAME.fullmatch(name) or record.file_name != name:
        raise RepositoryDamaged(
            f"{where} is the record of drill {record.id} under another name", hint=_FORGED, file=where
        )
    return record


def find_drill(records: list[DrillRecord], text: str) -> DrillRecord:
    """Return the drill whose id is or begins with ``text``, or for ``latest`` the newest; UsageError if none or several."""
    found = [one for one in records if one.id.startswith(text)] if text != "latest" else records[-1:]
    if not text or not found:
        raise UsageError(f"no drill matches {text!r}", hint="pgstow drills list shows what there is")
    if len(found) > 1:
        raise UsageError(f"{text} is the beginning of {len(found)} drills", hint="write more of the id")
    return found[0]
