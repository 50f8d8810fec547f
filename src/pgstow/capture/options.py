"""What a backup is asked to do, and what it reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pgstow.catalog.assertions import Assertion
from pgstow.catalog.manifest import Manifest, Selection
from pgstow.core.errors import Interrupted, PgstowError
from pgstow.repository import WriterStats

__all__ = ["CaptureOptions", "CapturedBackup", "DestinationResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureOptions:
    """Choices of one backup. Sizes are bytes, times seconds."""

    name: str
    kind: str
    label: str | None = None
    set_id: str | None = None
    selection: Selection = field(default_factory=Selection)
    must_contain: tuple[str, ...] = ()  # SCHEMA.TABLE or SCHEMA.*: without it the backup fails
    time_columns: Mapping[str, str] = field(default_factory=dict)  # SCHEMA.TABLE: column
    assertions: tuple[Assertion, ...] = ()
    question_timeout_s: float = 60.0  # for each of those two
    jobs: int = 2
    limit_rate: int | None = None  # bytes of table data per second, all jobs together
    split_big_tables: bool = False
    role_passwords: bool = False
    max_blocking_s: float = 30.0  # how long others may wait for our locks; 0: never give way
    lock_timeout_s: float = 60.0
    stall_timeout_s: float = 900.0
    attempts: int = 3
    full_read: bool = False  # read everything, and compare with what would have been reused
    full_read_every: int = 7

    @property
    def lock_wait_s(self) -> float:
        """How long one lock may be waited for: not longer than others may wait behind those we have."""
        return min(self.lock_timeout_s, self.max_blocking_s) if self.max_blocking_s else self.lock_timeout_s


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationResult:
    """What became of a backup in one destination: it is there under ``snapshot_id``, or ``error`` says why not."""

    name: str
    location: str | None  # None where it could not be opened
    snapshot_id: str | None = None
    stats: WriterStats  # what was new there
    error: PgstowError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedBackup:
    """A backup that was published in one destination at least.

    ``interrupted`` is set where that was asked for when it was too late for this backup: nothing else is to be begun.
    """

    manifest: Manifest
    snapshot_id: str  # in the first destination that has it
    destinations: tuple[DestinationResult, ...] = ()
    interrupted: Interrupted | None = None

    @property
    def is_everywhere(self) -> bool:
        """Whether every destination has it."""
        return all(each.error is None for each in self.destinations)
