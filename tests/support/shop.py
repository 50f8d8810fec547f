"""A database whose every backup is compared with what pg_dump makes of it at that moment."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pgstow.capture.options import CapturedBackup
from pgstow.catalog.manifest import Manifest, TableRecord
from pgstow.postgres.conninfo import ConnInfo
from pgstow.repository import Repository
from pgstow.store.memory import MemoryStore
from support.backups import PASSWORD, capture_into, files_of, memory_repository, pg_dump_directory, tools_for
from support.restoring import execute, fetch

__all__ = ["Shop", "ranges", "table"]


class Shop:
    """A database and a repository; each backup is compared with pg_dump."""

    def __init__(self, source: ConnInfo, folder: Path, *, admin: ConnInfo | None = None) -> None:
        self.source = source
        self.repository: Repository = memory_repository()
        self._folder = folder
        self._admin = admin or source  # runs statements and pg_dump where ``source`` may not
        self._backups = 0

    def fork(self) -> Shop:
        """Return a shop of the same database whose repository holds what this one holds, and goes its own way."""
        store = MemoryStore()
        for found in self.repository.store.list(""):
            store.put(found.name, self.repository.store.get(found.name))
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        twin = Shop(self.source, folder, admin=self._admin)
        twin.repository = Repository.open(store, PASSWORD)
        return twin

    def run(self, statements: str) -> None:
        execute(self._admin, statements)

    def ask(self, query: str) -> str:
        """Return the one value of a query, as text."""
        return str(fetch(self._admin, query)[0][0])

    def flush(self) -> None:
        """Commit something for certain, and everything before it."""
        self.run("SET synchronous_commit = on; SELECT pg_current_xact_id()")

    def backup(self, **options: Any) -> Manifest:
        """Back up; whatever was reused, the archive must be what pg_dump makes."""
        manifest, differing = self.compare(**options)
        assert not differing
        return manifest

    def compare(self, **options: Any) -> tuple[Manifest, list[str]]:
        """Back up, and return the manifest and the members that are not what pg_dump makes."""
        taken: CapturedBackup = capture_into(self.repository, self.source, **options)
        self._backups += 1
        files = files_of(self.repository, taken)
        expected = pg_dump_directory(
            tools_for(self.source), self._admin, self._folder / f"dump{self._backups}"
        )
        differing = [
            name
            for name, data in expected.items()
            if name != "toc.dat" and b"".join(files.stream(f"archive/{name}")) != data
        ]
        return files.manifest, differing


def table(manifest: Manifest, name: str = "ledger") -> TableRecord:
    (record,) = [record for record in manifest.tables if record.name == name]
    return record


def ranges(manifest: Manifest, name: str = "ledger") -> tuple[int, int]:
    """Return (ranges reused, ranges in all)."""
    record = table(manifest, name)
    return record.reused_ranges, -(-record.pages // max(record.pages_per_range, 1))
