"""Bringing holds, proofs, retirements and records of drills into a repository that is to take the place of another."""

from __future__ import annotations

from pgstow.catalog.backups import list_backups
from pgstow.catalog.drills import read_drills, save_drill
from pgstow.core.errors import RepositoryDamaged
from pgstow.core.progress import Progress
from pgstow.repository import Repository, RepositoryLock

__all__ = ["copy_marks"]


def copy_marks(
    source: Repository, target: Repository, target_lock: RepositoryLock, progress: Progress
) -> None:
    """Make ``target`` know what ``source`` knows of the backups that both have. Doing it again adds nothing.

    What cannot be read in the source is held in the target, with that as the reason. History does not travel: neither
    releases nor holds that were released.
    """
    records = list_backups(source, damaged=[])
    both = {record.id for record in records} & {record.id for record in list_backups(target, damaged=[])}
    _copy_holds(source, target, both, target_lock)
    proofs, doubtful = source.marks().proofs(both)
    known, _ = target.marks().proofs(both)
    for proof in proofs:
        if proof not in known:
            target.marks().prove(proof)
    for backup_id in sorted(doubtful):
        progress.note(f"a proof of backup {backup_id} cannot be read and does not travel: drill it again")
    names = {record.name for record in records}
    retired_there = target.marks().retirements(names)
    for name, retired in source.marks().retirements(names).items():
        if name not in retired_there:
            target.marks().retire(name, at=retired.when, by=retired.by, reason=retired.reason)
    _copy_drills(source, target, progress)


def _copy_drills(source: Repository, target: Repository, progress: Progress) -> None:
    """Bring all records of drills, of backups that are gone as well: they are what an auditor asks for."""
    damaged: list[RepositoryDamaged] = []
    there = {drill.id for drill in read_drills(target, damaged=[])}
    for drill in read_drills(source, damaged=damaged):
        if drill.id not in there:
            save_drill(target, drill)
    for exc in damaged:
        progress.note(f"{exc.message}: it does not travel")


def _copy_holds(source: Repository, target: Repository, both: set[str], lock: RepositoryLock) -> None:
    known = target.marks().holds()
    now = target.holdings().now(lock)
    for backup_id, holds in source.marks().holds().items():
        if backup_id not in both:
            continue
        there = {(hold.reason, hold.by, hold.until) for hold in known.get(backup_id, ())}
        for hold in holds:
            reason = (
                hold.reason
                if hold.problem is None
                else f"{hold.problem} in the repository it was copied from"
            )
            by = hold.by or "pgstow repo rekey"
            if (reason, by, hold.until) not in there:
                target.marks().hold(backup_id, at=hold.since or now, by=by, reason=reason, until=hold.until)
