"""What the demonstration did, as facts: the command line renders it for people and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["DemoBackup", "DemoReport", "DemoStep", "TableProof"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoStep:
    """One thing the demonstration did, and how long it took."""

    title: str  # a finished action, such as "restored the second backup into shop_restored"
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoBackup:
    """One of the backups it made."""

    title: str  # such as "first backup"
    id: str
    tables: int
    rows: int
    size_bytes: int  # plain bytes of the whole backup
    new_bytes: int  # plain bytes that the repository did not have yet
    stored_bytes: int  # what those took in the repository, compressed and encrypted
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TableProof:
    """One table of the source compared with the restored one, by content."""

    table: str  # schema.name
    source_rows: int
    restored_rows: int
    is_equal: bool
    source_digest: str  # order-independent digest over every row; "" when there is none
    restored_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """Everything the report shows. ``is_proven`` is what the exit status says."""

    server: str  # such as "PostgreSQL 18.4 (embedded)"
    database_bytes: int  # pg_database_size of the source
    repository: str  # where it is
    repository_bytes: int  # all its objects together, after every backup
    password_file: str | None  # where the repository's password was left; None when all was removed
    is_kept: bool  # the repository is still there after the demonstration
    backups: tuple[DemoBackup, ...]
    changes: tuple[str, ...]  # what was changed between the backups, one line each
    steps: tuple[DemoStep, ...]
    restore_seconds: float
    proofs: tuple[TableProof, ...]
    checks: tuple[DemoStep, ...] = ()  # other things proven, such as large objects, sequences, restic check
    next_commands: tuple[str, ...] = field(default=())  # ready to be pasted into a shell
    seconds: float

    @property
    def is_proven(self) -> bool:
        """Every table was compared and is equal."""
        return bool(self.proofs) and all(proof.is_equal for proof in self.proofs)
