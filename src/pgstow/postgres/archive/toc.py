"""The table of contents of an archive, whatever file it came from."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum

from pgstow.core.errors import ArchiveError

__all__ = ["CUSTOM_FORMAT", "DIRECTORY_FORMAT", "ArchiveHeader", "Section", "Toc", "TocEntry"]

CUSTOM_FORMAT = 1
DIRECTORY_FORMAT = 3  # pg_dump writes tar's number: toc.dat of both is the same

_SETTING = re.compile(rb"SET \w+ = '((?:[^']|'')*)';\s*")
_SEARCH_PATH = re.compile(rb"SELECT pg_catalog\.set_config\('search_path', '((?:[^']|'')*)', false\);\s*")


class Section(IntEnum):
    """When pg_restore handles an entry."""

    NONE = 1  # comments and privileges go with the object they are about
    PRE_DATA = 2
    DATA = 3
    POST_DATA = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveHeader:
    """What stands before the TOC."""

    version: tuple[int, int, int]
    format: int
    compression: int  # 1.15 and newer: the algorithm, 0 is none; older: the zlib level, 0 is none
    created: tuple[int, int, int, int, int, int, int]  # struct tm: sec min hour mday mon year-1900 isdst
    dbname: bytes | None
    server_version: bytes | None
    pg_dump_version: bytes | None

    @property
    def is_compressed(self) -> bool:
        return self.compression != 0

    @property
    def created_local(self) -> datetime | None:
        """The creation time in the zone of the dumping machine, which is not recorded; None if it is none."""
        second, minute, hour, day, month, year, _ = self.created
        try:
            return datetime(year + 1900, month + 1, day, hour, minute, min(second, 59))  # noqa: DTZ001
        except (ValueError, OverflowError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TocEntry:
    """One object of the TOC. ``file_name`` is None in custom archives, ``b""`` where there is no data."""

    dump_id: int
    has_data: bool
    catalog_oid: int
    oid: int
    tag: bytes
    desc: bytes
    section: Section
    defn: bytes | None
    drop_stmt: bytes | None
    copy_stmt: bytes | None
    namespace: bytes | None
    tablespace: bytes | None
    table_am: bytes | None
    relkind: int
    owner: bytes | None
    with_oids: bool
    dependencies: tuple[int, ...]
    file_name: bytes | None

    def __str__(self) -> str:
        where = f"{self.namespace.decode(errors='backslashreplace')}." if self.namespace else ""
        kind, tag = self.desc.decode(errors="backslashreplace"), self.tag.decode(errors="backslashreplace")
        return f"{kind} {where}{tag} (entry {self.dump_id})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Toc:
    """Header and entries in archive order, which is a valid order to create the objects in."""

    header: ArchiveHeader
    entries: tuple[TocEntry, ...]

    def by_id(self) -> dict[int, TocEntry]:
        """Return the entries by dump id."""
        return {entry.dump_id: entry for entry in self.entries}

    def table_data(self) -> tuple[TocEntry, ...]:
        """Return the entries that stand for rows of a table."""
        return tuple(entry for entry in self.entries if entry.has_data and entry.desc == b"TABLE DATA")

    def large_object_data(self) -> tuple[TocEntry, ...]:
        """Return the entries that stand for contents of large objects."""
        return tuple(entry for entry in self.entries if entry.has_data and entry.desc == b"BLOBS")

    def filled_views(self) -> tuple[int, ...]:
        """Return the OIDs of the materialized views that a restore fills."""
        return tuple(entry.oid for entry in self.entries if entry.desc == b"MATERIALIZED VIEW DATA")

    @property
    def encoding(self) -> str:
        """The encoding of every string in the archive, by PostgreSQL's name for it."""
        return self._setting(b"ENCODING", _SETTING).decode("ascii", "backslashreplace")

    @property
    def has_standard_strings(self) -> bool:
        """Whether string literals of the archive take a backslash as itself."""
        return self._setting(b"STDSTRINGS", _SETTING) == b"on"

    @property
    def search_path(self) -> bytes:
        """The search_path under which the archive's statements are right."""
        return self._setting(b"SEARCHPATH", _SEARCH_PATH)

    def _setting(self, desc: bytes, pattern: re.Pattern[bytes]) -> bytes:
        for entry in self.entries:
            if entry.desc == desc:
                match = pattern.fullmatch(entry.defn or b"")
                if match is None:
                    break
                return match[1].replace(b"''", b"'")
        raise ArchiveError(f"the archive does not state its {desc.decode()}")

    def select(self, predicate: Callable[[TocEntry], bool]) -> Toc:
        """Return the TOC of the entries that ``predicate`` accepts and of the session's settings."""
        return replace(self, entries=tuple(e for e in self.entries if is_session_setting(e) or predicate(e)))

    def without_data(self) -> Toc:
        """Return the TOC without the entries that need a member file."""
        return self.select(lambda entry: not entry.has_data)

    def as_directory(self) -> Toc:
        """Return this TOC as ``pg_dump -Fd -Z0`` would have written it, down to the member names.

        Source: PostgreSQL pg_backup_directory.c, _ArchiveEntry and _WriteExtraToc.
        """
        header = replace(self.header, format=DIRECTORY_FORMAT, compression=0)
        names = (_member_name(entry, header.version) for entry in self.entries)
        entries = (replace(e, file_name=name) for e, name in zip(self.entries, names, strict=True))
        return Toc(header=header, entries=tuple(entries))


def is_session_setting(entry: TocEntry) -> bool:
    """Return whether the entry sets up the session that replays the others."""
    return entry.desc in {b"ENCODING", b"STDSTRINGS", b"SEARCHPATH"}


def _member_name(entry: TocEntry, version: tuple[int, int, int]) -> bytes:
    if not entry.has_data:
        return b""
    if entry.desc != b"BLOBS":
        return b"%d.dat" % entry.dump_id
    return b"blobs_%d.toc" % entry.dump_id if version >= (1, 16, 0) else b"blobs.toc"
