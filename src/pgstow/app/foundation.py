"""Where a backup of chosen tables gets what its tables need: from a whole backup of the same database, in the same repository."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pgstow.catalog.backups import BackupFiles, BackupRecord, list_backups
from pgstow.core.errors import RepositoryDamaged
from pgstow.repository import Repository
from pgstow.restore.foundation import Foundation, foundation_of

__all__ = ["foundation_for"]

_LOOKED_AT = 5  # whole backups; the nearest that can be read is taken


def foundation_for(
    repository: Repository, record: BackupRecord, files: BackupFiles, note: Callable[[str], object]
) -> Foundation | None:
    """Return what is to be made before the tables of ``record``; None for a backup that was not limited to tables.

    Where no other backup has it, nothing but their schemas. ``note`` hears of backups that cannot be read.
    """
    if not files.manifest.selection.tables:
        return None
    for number, other in enumerate(_nearest_first(list_backups(repository, damaged=[]), record)):
        if number == _LOOKED_AT:
            break
        theirs = BackupFiles(repository, other)
        try:
            is_useful = not theirs.manifest.selection.tables and _may_be_read_with(theirs, files)
            if is_useful:
                return foundation_of(files.toc, theirs.toc, origin=f"backup {other}")
        except RepositoryDamaged as exc:
            note(f"definitions cannot be taken from backup {other}: {exc.message}")
    return Foundation(toc=files.toc)


def _nearest_first(records: list[BackupRecord], of: BackupRecord) -> Iterator[BackupRecord]:
    """Yield other backups of the database: those before it, the newest first, then those after it; whole ones before others."""
    mine = [
        one
        for one in records
        if (one.name, one.system_identifier) == (of.name, of.system_identifier)
        and one.id != of.id
        and not one.is_damaged
        and not (one.is_partial and one.kind == of.kind)
    ]
    before = [one for one in reversed(mine) if one.time <= of.time]
    after = [one for one in mine if one.time > of.time]
    yield from sorted([*before, *after], key=lambda one: one.is_partial)


def _may_be_read_with(theirs: BackupFiles, files: BackupFiles) -> bool:
    """Whether a pg_restore that reads this archive reads theirs as well."""
    return theirs.toc.header.version[:2] <= files.toc.header.version[:2]
