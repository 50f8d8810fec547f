"""What a restore has done."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = [
    "ComparedTable",
    "RestoreReport",
    "RestoredTable",
    "Skipped",
    "TargetIdentity",
    "UnsetForeignKey",
    "WorkSpan",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetIdentity:
    """Which database was restored into, as the server itself says."""

    host: str
    port: int
    database: str
    database_oid: int | None  # None: not created yet
    system_identifier: str | None  # None where the connection may not see it
    server_version: str
    server_version_num: int
    user: str
    is_superuser: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedTable:
    """A table of the target, or a partitioned one as a whole, and whether its rows are those that were sent.

    ``seconds`` is the time its sessions spent reading it back.
    """

    schema: str
    name: str
    rows: int
    expected_rows: int
    is_equal: bool
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredTable:
    """A table whose rows were loaded, and counted afterwards."""

    schema: str
    name: str
    rows: int
    size_bytes: int
    seconds: float
    is_frozen: bool  # loaded with COPY FREEZE
    loaded_via: str | None = None  # the partition root, which spread the rows itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Something of the archive that was not restored.

    ``is_loss`` when it was asked for and the target lacks it now.
    """

    what: str
    why: str
    is_loss: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsetForeignKey:
    """A foreign key that the target refused."""

    table: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkSpan:
    """A kind of work: when it began after the start of the restore, how long after that the last of it ended.

    Kinds overlap. ``busy_s`` is the time that was spent on it by all sessions together.
    """

    name: str
    begun_s: float
    seconds: float
    busy_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """The outcome of a restore that ended well, or nearly."""

    backup_id: str
    backup_name: str
    snapshot_taken: datetime  # the moment the restored data is from
    target: TargetIdentity
    created_database: bool
    tables: tuple[RestoredTable, ...]
    rows: int
    size_bytes: int
    large_objects: int
    objects: int  # entries of the archive that were restored, rows of tables included
    timings_s: dict[str, float]  # by phase, in order; "total" last
    spans: tuple[WorkSpan, ...] = ()  # what the phases were spent on
    compared: tuple[ComparedTable, ...] = ()
    is_compared: bool = False  # every row was read back and is the one that was sent
    skipped: tuple[Skipped, ...] = ()
    unset_foreign_keys: tuple[UnsetForeignKey, ...] = ()
    missing_roles: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_partial(self) -> bool:
        """Whether something that was asked for could not be restored; the command then exits with 3."""
        return bool(self.unset_foreign_keys) or any(skipped.is_loss for skipped in self.skipped)
