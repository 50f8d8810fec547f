"""What the tables of a partial backup stand on, and its archive lacks: schemas, types, functions, extensions.

pg_dump leaves them out where tables are chosen. The last whole backup of the same database has them, and its table of contents
says which of them each table needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgstow.postgres.archive import Toc, TocEntry
from pgstow.postgres.raw import RawSession
from pgstow.postgres.target import quoted
from pgstow.restore.extensions import needing_extensions
from pgstow.restore.selection import is_about_database
from pgstow.restore.tables import needs_of, object_key

__all__ = ["Foundation", "create_missing_schemas", "foundation_of"]

_THERE_ANYWAY = {b"", b"public", b"pg_catalog", b"information_schema"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """Definitions that are made before those of the archive itself. ``origin`` says in words which backup they are from."""

    toc: Toc
    entries: tuple[TocEntry, ...] = ()
    origin: str = ""

    def without_extensions(self, missing: frozenset[str]) -> tuple[TocEntry, ...]:
        """Return the entries but those that need one of these extensions."""
        gone = needing_extensions(self.toc, missing)
        return tuple(entry for entry in self.entries if entry.dump_id not in gone)


def foundation_of(archive: Toc, whole: Toc, *, origin: str) -> Foundation:
    """Return what the objects of ``archive`` need, as the archive of a ``whole`` backup of the same database has it.

    What has changed in between is as it was then: a table that has got a column of a new type cannot be made.
    """
    wanted = {key for entry in archive.entries if not is_about_database(entry) and (key := object_key(entry))}
    return Foundation(toc=whole, entries=needs_of(whole, wanted), origin=origin)


def create_missing_schemas(session: RawSession, archive: Toc) -> None:
    """Create the schemas that an archive of chosen tables names and does not hold; they belong to whoever connects."""
    named = {entry.namespace or b"" for entry in archive.entries} - _THERE_ANYWAY
    for schema in sorted(named - {entry.tag for entry in archive.entries if entry.desc == b"SCHEMA"}):
        session.execute(
            b"CREATE SCHEMA IF NOT EXISTS " + quoted(session, schema),
            doing=f"creating schema {session.decode(schema)}",
        )
