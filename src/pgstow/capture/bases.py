"""The earlier backup, the *base*, that a new one is compared with: which, and where it is read.

It is the same backup in every destination that has it, so it is read from the first one that can give it. What is taken
over from it has to be in all of them: ``Base.is_held()``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from pgstow.capture.destinations import Destinations, OpenDestination
from pgstow.catalog.backups import BackupFiles, BackupRecord
from pgstow.catalog.manifest import Manifest, Selection
from pgstow.core.errors import Interrupted, PgstowError, RepositoryDamaged
from pgstow.repository import BlobIds, FileNode

__all__ = ["Base", "choose_base"]

T = TypeVar("T")

_BASES_LOOKED_AT = 30
_PARTIAL_LOOKED_AT = 300  # of the same name, beside those: there may be many between two whole ones


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Base:
    """A backup whose unchanged ranges may be taken over; ``copies`` are what destinations, by name, have of it."""

    record: BackupRecord
    manifest: Manifest
    copies: Sequence[tuple[str, BackupFiles]]
    destinations: Destinations

    def member(self, name: str) -> FileNode | None:
        """Return a file of the backup, None if it has none of that name. Raises RepositoryDamaged."""
        return self._from_any(lambda files: files.member(name))

    def read(self, name: str) -> bytes:
        """Return a small file whole. Raises RepositoryDamaged when no destination that is left can give it."""
        return self._from_any(lambda files: files.read(name))

    def is_held(self, content: BlobIds, size_bytes: int) -> bool:
        """Whether every destination that is left has these blobs, of ``size_bytes`` together."""
        return self.destinations.hold(content, size_bytes)

    def _from_any(self, read: Callable[[BackupFiles], T]) -> T:
        """Return what the first destination says that can; one that is damaged only here stays in the run."""
        damage: RepositoryDamaged | None = None
        for name, files in self.copies:
            if not self.destinations.is_alive(name):
                continue
            try:
                return read(files)
            except RepositoryDamaged as exc:
                damage = damage or exc
            except Interrupted:
                raise
            except PgstowError as exc:
                self.destinations.drop(name, exc)
        raise damage or RepositoryDamaged("no destination that is left has it")


def choose_base(
    destinations: Destinations,
    records: Mapping[str, Sequence[BackupRecord]],
    *,
    name: str,
    system_identifier: str | None,
    database_oid: int,
    selection: Selection,
) -> tuple[Base | None, tuple[str, ...]]:
    """Return the backup of this very database that a new one is compared with, and the ids that must not be one.

    ``records`` are those of each destination, by its name. The newest one that holds all that is ``selection``ed is
    chosen; only where there is none the newest of all, which may lack tables that are then read whole. The manifest
    decides, not the name, under which one merely looks first: a renamed database keeps its base. Nothing from before
    an alarm can be a base, in whichever destination it was raised: what differed may have been taken over from backup
    to backup. Clocks do not decide alone: what looks newest by the server's must not be older by that of the machine which
    made the backups, or one from a day when a clock was ahead would stay the base for ever, and hide the alarms since.
    """
    distrusted: set[str] = set()
    alarmed: datetime | None = None  # when an alarm was raised last
    best: Base | None = None
    second_best: Base | None = None
    if system_identifier is None:
        return None, ()

    def may_be_newer(record: BackupRecord) -> bool:
        return best is None or (record.name == best.record.name and _made(record) > _made(best.record))

    for base in _candidates(destinations, records, name, system_identifier, may_be_newer):
        record, manifest = base.record, base.manifest
        if manifest.server.database_oid != database_oid:
            continue
        distrusted |= set(manifest.reuse.distrusted)
        if alarmed is not None and record.time < alarmed:
            distrusted.add(record.id)
        if manifest.reuse.is_base and record.id not in distrusted:
            if not manifest.is_partial or manifest.selection == selection:
                best = base if best is None or _follows(manifest, best.manifest) else best
            second_best = second_best or base
        if manifest.reuse.alarms:
            alarmed = max(alarmed, record.time) if alarmed else record.time
            if best is not None and best.record.id != record.id and _follows(manifest, best.manifest):
                distrusted.add(best.record.id)
    chosen = best or second_best
    is_doubtful = chosen is not None and chosen.record.id in distrusted  # by one that a clock put behind it
    return None if is_doubtful else chosen, tuple(sorted(distrusted))


def _made(record: BackupRecord) -> datetime:
    """Return when a backup was made by the clock of the machine that made it; its own time is the server's."""
    return record.snapshot.summary.backup_end if record.snapshot.summary else record.time


def _follows(one: Manifest, other: Manifest) -> bool:
    """Whether the server had not given out fewer transaction ids, which are later whatever any clock says."""
    return (one.server.next_xid or 0) >= (other.server.next_xid or 0)


def _candidates(
    destinations: Destinations,
    records: Mapping[str, Sequence[BackupRecord]],
    name: str,
    system_identifier: str,
    is_wanted: Callable[[BackupRecord], bool],
) -> Iterator[Base]:
    """Yield the backups of a server whose manifests can be read: those under the name first, the newest first.

    What is not wanted when its turn comes is not read.
    """
    found: dict[str, list[tuple[OpenDestination, BackupRecord]]] = {}
    for one in destinations.alive:
        for record in records.get(one.name, ()):
            if record.system_identifier == system_identifier:
                found.setdefault(record.id, []).append((one, record))
    newest = sorted(found.values(), key=lambda each: (each[0][1].name == name, each[0][1].time), reverse=True)
    left = {False: _BASES_LOOKED_AT, True: _PARTIAL_LOOKED_AT}
    for each in newest:
        record = each[0][1]
        if not is_wanted(record):
            continue
        left[is_between := record.is_partial and record.name == name] -= 1
        if (
            left[is_between] < 0
        ):  # an alarm may be among those that are not looked at: nothing older is a base then
            return
        copies = [(one.name, BackupFiles(one.repository, record)) for one, record in each]
        manifest = _manifest(destinations, copies)
        if manifest is not None:
            yield Base(record=record, manifest=manifest, copies=copies, destinations=destinations)


def _manifest(destinations: Destinations, copies: Sequence[tuple[str, BackupFiles]]) -> Manifest | None:
    for name, files in copies:
        if not destinations.is_alive(name):
            continue
        try:
            return files.manifest
        except RepositoryDamaged:
            continue
        except Interrupted:
            raise
        except PgstowError as exc:
            destinations.drop(name, exc)
    return None
