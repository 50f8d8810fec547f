"""Choosing entries of the archive.

pg_restore's own ``--table`` takes the table and leaves indexes, constraints, sequences and types behind, so
the choice is made here, entry by entry, and handed over as a list.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgstow.postgres.archive import Section, Toc, TocEntry
from pgstow.restore.report import Skipped
from pgstow.restore.request import RestoreOptions

__all__ = ["PRIVILEGES", "Selection", "is_about_database", "select_whole", "without_unwanted_kinds"]

PRIVILEGES = {b"ACL", b"ACL LANGUAGE", b"DEFAULT ACL"}
_SESSION = {b"ENCODING", b"STDSTRINGS", b"SEARCHPATH"}
_DATABASE = {b"DATABASE", b"DATABASE PROPERTIES"}
_LARGE_OBJECTS = {b"BLOB", b"BLOB METADATA"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What of an archive is restored, in archive order."""

    entries: tuple[TocEntry, ...]
    foreign_keys: tuple[TocEntry, ...] = ()  # tried one by one, and reported where they cannot be set
    brought: frozenset[int] = frozenset()  # dump ids of what nobody asked for but something needs
    conflicts: tuple[TocEntry, ...] = ()  # what the target already has
    skipped: tuple[Skipped, ...] = ()
    is_whole: bool = True

    @property
    def table_data(self) -> tuple[TocEntry, ...]:
        return tuple(entry for entry in self.entries if entry.has_data and entry.desc == b"TABLE DATA")

    @property
    def large_object_data(self) -> tuple[TocEntry, ...]:
        return tuple(entry for entry in self.entries if entry.has_data and entry.desc == b"BLOBS")


def select_whole(toc: Toc, options: RestoreOptions, *, holds_chosen_tables: bool = False) -> Selection:
    """Return everything that belongs into the database; what is about the database itself is not among it.

    Where the archive ``holds_chosen_tables`` alone, foreign keys may point to tables that it has not.
    """
    entries = tuple(e for e in toc.entries if e.desc not in _SESSION and not is_about_database(e))
    entries = without_unwanted_kinds(toc, entries, options)
    if not holds_chosen_tables:
        return Selection(entries=entries)
    keys = tuple(entry for entry in entries if entry.desc == b"FK CONSTRAINT")
    apart = {key.dump_id for key in keys}
    remarks = {e.dump_id for e in entries if e.section is Section.NONE and apart & set(e.dependencies)}
    return Selection(entries=tuple(e for e in entries if e.dump_id not in apart | remarks), foreign_keys=keys)


def is_about_database(entry: TocEntry) -> bool:
    """Return whether the entry is about the database: created, owned, commented on, granted, set."""
    return entry.desc in _DATABASE or (entry.section is Section.NONE and entry.tag.startswith(b"DATABASE "))


def without_unwanted_kinds(
    toc: Toc, entries: tuple[TocEntry, ...], options: RestoreOptions
) -> tuple[TocEntry, ...]:
    """Return the entries that --schema-only, --data-only and --no-privileges leave."""
    if options.no_privileges:
        entries = tuple(entry for entry in entries if entry.desc not in PRIVILEGES)
    if options.schema_only or options.data_only:
        data = _data_ids(toc)
        entries = tuple(entry for entry in entries if (entry.dump_id in data) == options.data_only)
    return entries


def _data_ids(toc: Toc) -> set[int]:
    """Return what --data-only restores: rows, sequence values, and large objects with all that is said of them."""
    data: set[int] = set()
    for entry in toc.entries:
        about_data = entry.section is Section.NONE and any(one in data for one in entry.dependencies)
        if entry.section is Section.DATA or entry.desc in _LARGE_OBJECTS or about_data:
            data.add(entry.dump_id)
    return data
