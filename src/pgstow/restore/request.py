"""What a restore is asked to do, and what it reads from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from pgstow.catalog.manifest import Manifest
from pgstow.core.errors import UsageError
from pgstow.postgres.archive import Toc
from pgstow.repository import FileNode

__all__ = ["ArchiveFiles", "RestoreOptions"]


class ArchiveFiles(Protocol):
    """One backup's files, as ``pgstow.catalog.backups.BackupFiles`` gives them.

    ``stream`` and ``read`` give exactly the bytes that were saved or raise RepositoryDamaged; several
    streams may be open at once, in several threads.
    """

    @property
    def manifest(self) -> Manifest:
        """The backup's own account of what it holds."""

    @property
    def toc(self) -> Toc:
        """The archive's table of contents, in its directory form."""

    def member(self, name: str) -> FileNode | None:
        """Return the file ``name`` (``archive/3456.dat``), or None if the backup has no such file."""

    def missing(self, name: str) -> str | None:
        """Return why a file is known to be unreadable before it is read; None if nothing speaks against it."""

    def pieces(self, name: str) -> Iterator[tuple[int, bytes]]:
        """Yield size and SHA-256 of each piece that a file is stored in, in order, without reading it."""

    def stream(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a file in order, in pieces of any size."""

    def read(self, name: str) -> bytes:
        """Return a small file whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """Choices of one restore."""

    tables: tuple[str, ...] = ()  # SCHEMA.TABLE, or TABLE where only one schema has it
    schemas: tuple[str, ...] = ()
    schema_only: bool = False
    data_only: bool = False
    no_owner: bool = False
    no_privileges: bool = False
    clean: bool = False  # drop what the archive holds first; with ``create``: the database itself
    create: bool = False
    confirm: str | None = None  # the target database's name, typed by a person
    compare: bool = False  # read every row back and compare it with the backup's
    optional_extensions: frozenset[str] = (
        frozenset()
    )  # where the server lacks one, it and what needs it is skipped
    report_differences: bool = False  # with compare: tables that differ are no error but reported
    jobs: int = 2
    build_bytes: int | None = None  # memory for each index that is built; None: by the server's own settings
    disconnect_others: bool = False  # with clean and create: end the sessions that use the old database
    stall_timeout_s: float = 900.0  # longest time the target may take no rows

    @property
    def is_selective(self) -> bool:
        """Whether only chosen tables or schemas are restored."""
        return bool(self.tables or self.schemas)

    def check(self) -> None:
        """UsageError where choices contradict each other."""
        if self.schema_only and self.data_only:
            raise UsageError("--schema-only and --data-only leave nothing to restore")
        if self.data_only and (self.clean or self.create):
            other = "--clean" if self.clean else "--create"
            raise UsageError(
                f"--data-only loads into tables that exist and cannot be combined with {other}",
                hint="leave out --data-only to have the tables made as well",
            )
        if self.compare and self.schema_only:
            raise UsageError("--compare compares rows, and --schema-only restores none")
        if self.jobs < 1:
            raise UsageError(f"--jobs is {self.jobs}", hint="give at least 1")
