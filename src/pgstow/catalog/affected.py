"""From the paths that damage reaches to the words a person knows: tables, large objects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pgstow.catalog.backups import BackupFiles
from pgstow.core.errors import ArchiveError, RepositoryDamaged

__all__ = ["affected_contents", "lost_contents"]

_LARGE_OBJECT = re.compile(r"blob_([0-9]+)\.dat")
_LISTING = re.compile(r"blobs[_0-9]*\.toc")


def affected_contents(files: BackupFiles, paths: Iterable[str]) -> tuple[str, ...]:
    """Return what of a backup ``paths`` touch: ``schema.table``, ``large object OID``, ``large objects``, ``globals``.

    Paths begin with the backup's own folder (``/shop/archive/3456.dat``); a folder stands for all that is in it.
    A page-range index counts for its table. Names come from the manifest, else from the table of contents; where
    neither can be read the paths are all there is.
    """
    names = {path.lstrip("/").partition("/")[2].rstrip("/") for path in paths}
    tables = _tables_by_member(files)
    if names & {"", "archive"}:  # a folder that holds everything
        return tuple(sorted(set(tables.values())))
    found: set[str] = set()
    for name in names:
        if name == "ranges":
            found |= {table for member, table in tables.items() if member.startswith("ranges/")}
        elif name in tables:
            found.add(tables[name])
        else:
            found |= set(_other(name))
    return tuple(sorted(found))


def _other(name: str) -> Iterator[str]:
    leaf = name.rpartition("/")[2]
    if match := _LARGE_OBJECT.fullmatch(leaf):
        yield f"large object {match[1]}"
    elif _LISTING.fullmatch(leaf):
        yield "large objects"
    elif name == "globals.sql":
        yield "globals"


def _tables_by_member(files: BackupFiles) -> dict[str, str]:
    try:
        found = {}
        for record in files.manifest.tables:
            table = f"{record.schema_}.{record.name}"
            found[record.member] = table
            if record.ranges is not None:
                found[record.ranges] = table
        return found
    except RepositoryDamaged:
        return _tables_of_archive(files)


def _tables_of_archive(files: BackupFiles) -> dict[str, str]:
    try:
        toc = files.toc
    except (RepositoryDamaged, ArchiveError):
        return {}
    return {
        f"archive/{(entry.file_name or b'').decode('ascii', 'replace')}": (
            f"{(entry.namespace or b'').decode(errors='replace')}.{entry.tag.decode(errors='replace')}"
        )
        for entry in toc.entries
        if entry.file_name and entry.desc == b"TABLE DATA"
    }


def lost_contents(files: BackupFiles) -> tuple[str, ...]:
    """Return what a backup should hold and does not, as far as the index tells; named as by ``affected_contents()``."""
    manifest = files.manifest
    lost = {f"{record.schema_}.{record.name}" for record in manifest.tables if files.missing(record.member)}
    listings = [name for name, _ in files.members() if _LISTING.fullmatch(name.rpartition("/")[2])]
    objects = [name for name, _ in files.members() if _LARGE_OBJECT.fullmatch(name.rpartition("/")[2])]
    if len(objects) != manifest.large_objects.count or (objects and not listings):
        lost.add("large objects")
    lost |= {text for name in (*listings, *objects) if files.missing(name) for text in _other(name)}
    if manifest.globals.is_captured and files.missing("globals.sql"):
        lost.add("globals")
    return tuple(sorted(lost))
