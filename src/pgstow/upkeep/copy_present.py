"""Which snapshots of a source a target has already."""

from __future__ import annotations

from pgstow.catalog.backups import backup_record
from pgstow.core.errors import RepositoryDamaged
from pgstow.repository import Repository, Snapshot

__all__ = ["PresentSnapshots", "identity_of"]


class PresentSnapshots:
    """The snapshots of a repository, found again under the names they had elsewhere.

    A backup is known by its run, whatever became of its tags; a whole one is not here where all that is left of it is what a
    repair kept. A snapshot of restic's own making is known by the id
    it first had, as long as it still says the same: ``restic tag`` makes another one of it.
    Source: restic cmd/restic/cmd_copy.go.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._seen: set[str] = set()
        self._runs: set[str] = set()
        self._whole_runs: set[str] = set()
        self._originals: dict[str, list[Snapshot]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take note of snapshots that others wrote meanwhile. One that cannot be read counts as absent."""
        damaged: list[RepositoryDamaged] = []
        for snapshot in self._repository.snapshots(damaged=damaged, except_ids=self._seen):
            self._note(snapshot)

    def _note(self, snapshot: Snapshot) -> None:
        record = backup_record(snapshot)
        if record is not None:
            self._runs.add(record.id)
            if not record.is_damaged:
                self._whole_runs.add(record.id)
        for name in (snapshot.id, snapshot.original):
            if name:
                self._originals.setdefault(name, []).append(snapshot)
        if snapshot.id:
            self._seen.add(snapshot.id)

    def has(self, snapshot: Snapshot) -> bool:
        """Whether a snapshot of another repository is here."""
        record = backup_record(snapshot)
        if record is not None:
            return record.id in (self._runs if record.is_damaged else self._whole_runs)
        mine = _substance(snapshot)
        named = self._originals.get(snapshot.original or snapshot.id or "", ())
        return any(_substance(each) == mine for each in named)


def identity_of(snapshot: Snapshot) -> str:
    """Return what is the same for a snapshot and all copies of it that say the same, and for nothing else."""
    record = backup_record(snapshot)
    first = record.id if record is not None else snapshot.original or snapshot.id
    return repr((first, *_substance(snapshot)))


def _substance(snapshot: Snapshot) -> tuple[object, ...]:
    return (
        snapshot.time,
        snapshot.tree,
        snapshot.hostname,
        snapshot.username,
        snapshot.uid,
        snapshot.gid,
        sorted(snapshot.paths),
        sorted(snapshot.tags),
        snapshot.excludes,
    )
