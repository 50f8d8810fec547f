"""What an entry says beyond its fields."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pgstow.core.errors import ArchiveError
from pgstow.postgres.archive.toc import Toc, TocEntry

__all__ = [
    "copy_columns",
    "copy_target",
    "copy_target_parts",
    "is_load_via_root",
    "large_object_ids",
    "list_file",
    "split_columns",
    "unquote",
]

# fmtId() quotes every name that is not plain; inside quotes a quote is doubled and all else is itself.
NAME = rb'(?:[a-z_][a-z0-9_$]*+|"(?:[^"]|"")*+")'
QUALIFIED_NAME = rb"%b(?:\.%b)?+" % (NAME, NAME)
_COPY = re.compile(
    rb"COPY (?P<target>%b) (?P<columns>\(%b(?:, %b)*+\))? FROM stdin;\n" % (QUALIFIED_NAME, NAME, NAME)
)
_LOAD_VIA_ROOT = b"-- load via partition root "
_OID_LINES = re.compile(rb"(?:[0-9]{1,10}\n)*+")


def copy_columns(entry: TocEntry) -> bytes:
    """Return the column list of a table-data entry with its parentheses, exactly as pg_dump wrote it.

    Empty for a table without columns to save: COPY is then written without a list.
    """
    return _copy(entry)["columns"] or b""


def split_columns(columns: bytes) -> list[bytes]:
    """Return the names in a column list without its parentheses, as they are written."""
    return [found[0] for found in re.finditer(NAME, columns)]


def copy_target(entry: TocEntry) -> bytes:
    """Return the qualified, quoted name of the table that the entry's rows are loaded into.

    The rows are those of ``entry.namespace``.``entry.tag``: a partition, if the target is its root.
    """
    return _copy(entry)["target"]


def copy_target_parts(entry: TocEntry) -> tuple[bytes, bytes]:
    """Return schema and name of the table that the entry's rows are loaded into, as they are, without quotes."""
    *schema, name = (unquote(part) for part in split_columns(copy_target(entry)))
    return (schema[0] if schema else entry.namespace or b""), name


def _copy(entry: TocEntry) -> re.Match[bytes]:
    match = _COPY.fullmatch(entry.copy_stmt or b"")
    if match is None:
        raise ArchiveError(f"{entry} has no COPY statement of the known form")
    return match


def is_load_via_root(entry: TocEntry) -> bool:
    """Return whether a partition's rows are loaded through its root, which may spread them differently."""
    return (entry.defn or b"").startswith(_LOAD_VIA_ROOT)


def large_object_ids(toc: Toc, entry: TocEntry) -> tuple[int, ...]:
    """Return the OIDs of the large objects whose contents the BLOBS entry stands for, in pg_dump's order.

    From 1.16 on it depends on a BLOB METADATA entry that lists them; before, one BLOBS entry stands for all.
    """
    if toc.header.version < (1, 16, 0):
        return tuple(sorted(other.oid for other in toc.entries if other.desc == b"BLOB"))
    entries = toc.by_id()
    groups = [entries[i] for i in entry.dependencies if i in entries and entries[i].desc == b"BLOB METADATA"]
    if len(groups) != 1:
        raise ArchiveError(f"{entry} depends on {len(groups)} BLOB METADATA entries instead of one")
    return metadata_oids(groups[0])


def metadata_oids(entry: TocEntry) -> tuple[int, ...]:
    """Return the OIDs that a BLOB METADATA entry lists."""
    listed = entry.defn or b""
    if not _OID_LINES.fullmatch(listed):
        raise ArchiveError(f"{entry} does not list large objects one per line")
    return tuple(int(line) for line in listed.split())


def unquote(name: bytes) -> bytes:
    """Return the name that ``name``, quoted or plain, stands for."""
    return name[1:-1].replace(b'""', b'"') if name.startswith(b'"') else name


def list_file(entries: Iterable[TocEntry]) -> bytes:
    """Return a list for ``pg_restore -L`` that selects exactly ``entries``, in this order.

    pg_restore reads the number; the rest, as in its own ``-l``, is for people.
    """
    return b"".join(_list_line(entry) for entry in entries)


def _list_line(entry: TocEntry) -> bytes:
    words = (entry.desc, entry.namespace or b"-", entry.tag, entry.owner or b"")
    text = b" ".join(words).replace(b"\n", b" ").replace(b"\r", b" ")
    return b"%d; %d %d %s\n" % (entry.dump_id, entry.catalog_oid, entry.oid, text)
