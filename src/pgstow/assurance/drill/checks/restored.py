"""A restored database as its checks see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from pgstow.assurance.drill.context import CheckContext
from pgstow.catalog.drills import CheckRecord
from pgstow.catalog.manifest import Manifest
from pgstow.postgres.archive import Toc, TocEntry
from pgstow.postgres.raw import RawSession
from pgstow.restore.naming import described, text
from pgstow.restore.request import ArchiveFiles

__all__ = ["Check", "Restored"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What the backup holds, what of it was left out on purpose, and what the server has.

    ``left_out`` are the dump ids of extensions that may be absent and are, and of all that depends on them.
    """

    context: CheckContext
    left_out: AbstractSet[int] = frozenset()
    installed: Mapping[str, str]  # version by extension
    version_num: int

    @property
    def files(self) -> ArchiveFiles:
        return self.context.files

    @property
    def manifest(self) -> Manifest:
        return self.context.files.manifest

    @property
    def toc(self) -> Toc:
        return self.context.files.toc

    def entries(self, *kinds: bytes) -> list[TocEntry]:
        """Return what of these kinds must have come back, in archive order."""
        return [one for one in self.toc.entries if one.desc in kinds and one.dump_id not in self.left_out]

    def text(self, name: bytes | None) -> str:
        """Return a name of the archive for people."""
        return text(name, self.toc.encoding)

    def described(self, entry: TocEntry) -> str:
        """Return an entry as people call it."""
        return described(entry, self.toc.encoding)

    def qualified(self, entry: TocEntry) -> str:
        """Return schema and name for people."""
        return f"{self.text(entry.namespace)}.{self.text(entry.tag)}"

    def is_unset(self, entry: TocEntry) -> bool:
        """Whether it is a foreign key to a table that was not restored: the restore has said that it could not be set."""
        if entry.desc != b"FK CONSTRAINT":
            return False
        constraint = self.qualified(entry)
        return any(
            f"{one.table} {one.name}" == constraint for one in self.context.restored.unset_foreign_keys
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something to find out with one session. ``codes`` are what its records are about, also when it cannot be found out.

    ``cost`` orders checks, the longest first; it is in bytes that the server has to read.
    """

    codes: tuple[str, ...]
    run: Callable[[Restored, RawSession], Iterable[CheckRecord]]
    cost: float = 0.0
    subject: str | None = None
