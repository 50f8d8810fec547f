"""The error tree.

    PgstowError
    ├── UsageError                 the request itself is wrong
    │   └── ConfigInvalid          ... the settings file is: every problem with its place
    ├── StoreError                 an object store said no
    │   ├── ObjectNotFound         ... the object is not there
    │   ├── ObjectExists           ... create-if-absent lost
    │   ├── StoreDenied            ... credentials or permissions
    │   ├── StoreFull              ... no room left
    │   └── StoreUnavailable       ... may work when tried again
    ├── RepositoryError            the repository as a whole
    │   ├── NoRepository
    │   ├── RepositoryExists
    │   ├── WrongPassword
    │   ├── RepositoryLocked
    │   └── RepositoryDamaged      bytes are missing or are not what they must be
    ├── BackupNotFound
    ├── ProcessFailed              a program we ran failed
    ├── ToolMissing                a PostgreSQL client program is not installed or too old
    ├── PostgresError              the database said no
    │   ├── ConnectionFailed
    │   └── PoolerRefused          a transaction pooler stands between
    ├── ArchiveError               a pg_dump archive that cannot be read
    ├── CaptureError               a backup could not be made
    │   ├── MissingTable           a table that the backup must contain is not there
    │   ├── SourceMoved            the schema changed under the backup; trying again may work
    │   └── GaveWay                the backup stepped aside for a waiting session
    ├── RestoreError               a restore could not be done
    │   ├── TargetRefused          nothing was touched
    │   └── ContentMismatch        what was restored is not what was saved
    ├── DiskFull                   no room left where a drill restores
    ├── DrillFailed                a drill by plan came to its end, and did not pass
    ├── RunUnderWay                another run does it, or holds what this one needs
    ├── StateError                 the service's own database said no; the backups do not depend on it
    └── Interrupted                Ctrl-C or SIGTERM

A new class stands here only where a caller acts differently. Messages are lower case without a full
stop and name the object; ``hint`` says what to do.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ArchiveError",
    "BackupNotFound",
    "CaptureError",
    "ConfigInvalid",
    "ConnectionFailed",
    "ContentMismatch",
    "DiskFull",
    "DrillFailed",
    "GaveWay",
    "Interrupted",
    "MissingTable",
    "NoRepository",
    "ObjectExists",
    "ObjectNotFound",
    "PgstowError",
    "PoolerRefused",
    "PostgresError",
    "ProcessFailed",
    "RepositoryDamaged",
    "RepositoryError",
    "RepositoryExists",
    "RepositoryLocked",
    "RestoreError",
    "RunUnderWay",
    "SourceMoved",
    "StateError",
    "StoreDenied",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "TargetRefused",
    "ToolMissing",
    "UsageError",
    "WrongPassword",
]

Fact = str | int | float | bool | None | list[str]


class PgstowError(Exception):
    """Base of everything pgstow raises on purpose.

    ``code`` is stable and part of the JSON contract; ``exit_code`` is what the command exits with;
    ``facts`` are machine-readable details (never secrets).
    """

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None, **facts: Fact) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts = facts

    def __str__(self) -> str:
        return self.message  # which whoever passes an error on may have made clearer


class UsageError(PgstowError):
    code = "usage"
    exit_code = 2


class ConfigInvalid(UsageError):
    """The settings file is wrong; ``facts["problems"]`` holds one line per problem, each with its place."""

    code = "config"


class StoreError(PgstowError):
    code = "store"


class ObjectNotFound(StoreError):
    code = "object_not_found"


class ObjectExists(StoreError):
    code = "object_exists"


class StoreDenied(StoreError):
    code = "store_denied"


class StoreFull(StoreError):
    code = "store_full"


class StoreUnavailable(StoreError):
    code = "store_unavailable"


class RepositoryError(PgstowError):
    code = "repository"


class NoRepository(RepositoryError):
    code = "no_repository"
    exit_code = 10


class RepositoryExists(RepositoryError):
    code = "repository_exists"


class WrongPassword(RepositoryError):
    code = "wrong_password"
    exit_code = 12


class RepositoryLocked(RepositoryError):
    code = "repository_locked"
    exit_code = 11


class RepositoryDamaged(RepositoryError):
    code = "repository_damaged"


class BackupNotFound(PgstowError):
    code = "backup_not_found"


class ProcessFailed(PgstowError):
    code = "process_failed"


class ToolMissing(PgstowError):
    code = "tool_missing"


class PostgresError(PgstowError):
    code = "postgres"


class ConnectionFailed(PostgresError):
    code = "connection_failed"


class PoolerRefused(PostgresError):
    code = "pooler_refused"


class ArchiveError(PgstowError):
    code = "archive"


class CaptureError(PgstowError):
    code = "capture"


class MissingTable(CaptureError):
    code = "missing_table"


class SourceMoved(CaptureError):
    code = "source_moved"


class GaveWay(CaptureError):
    code = "gave_way"


class RestoreError(PgstowError):
    code = "restore"


class TargetRefused(RestoreError):
    code = "target_refused"


class ContentMismatch(RestoreError):
    code = "content_mismatch"


class DiskFull(PgstowError):
    code = "disk_full"


class DrillFailed(PgstowError):
    """``facts["cause"]`` is the code of the error that ended it; None where it was a check that failed."""

    code = "drill_failed"


class RunUnderWay(PgstowError):
    code = "under_way"
    exit_code = 11


class StateError(PgstowError):
    code = "state"


class Interrupted(PgstowError):
    """``left_behind`` is set by who knows better than the command in general what an interruption leaves behind."""

    code = "interrupted"
    exit_code = 130
    left_behind: str | None = None
