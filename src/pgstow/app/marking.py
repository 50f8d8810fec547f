"""The use cases: hold and release a backup, say that a database is gone.

Each holds a shared lock while it writes: an expiry, which needs the exclusive one, comes before or after, and knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from pgstow.app.auditing import note_access
from pgstow.app.holding import Waits
from pgstow.catalog.backups import BackupRecord, find_backup, list_backups
from pgstow.core.errors import BackupNotFound, RepositoryDamaged, UsageError
from pgstow.core.progress import Progress
from pgstow.repository import Hold, Repository, Retirement

__all__ = ["Released", "hold_backup", "release_backup", "retire_database"]

_SHORTEST = 4  # characters of an id, as for backups that are there


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The holds that were ended, and the backup they were of; None where something removed it in spite of them."""

    backup_id: str
    backup: BackupRecord | None
    holds: tuple[Hold, ...]


def hold_backup(
    repository: Repository,
    backup: str,
    progress: Progress,
    *,
    by: str,
    reason: str,
    until: date | None,
    wait_s: float = 0.0,
) -> tuple[BackupRecord, Hold]:
    """Keep a backup whatever the rules say; return it and the hold, which is durable."""
    _require_reason(reason)
    with repository.lock(wait_s=wait_s, on_wait=Waits(progress)) as lock:
        record = find_backup(repository, backup, progress.note)
        note_access(subjects=[record.id, record.name])
        now = repository.holdings().now(lock)
        if until is not None and until < now.date():
            raise UsageError(f"--until: {until} is over", hint="write a day that is still to come")
        repository.marks().hold(record.id, at=now, by=by, reason=reason, until=until)
    return record, Hold(backup_id=record.id, since=now, by=by, reason=reason, until=until)


def release_backup(
    repository: Repository, backup: str, progress: Progress, *, by: str, reason: str, wait_s: float = 0.0
) -> Released:
    """End every hold of a backup, also of one that is gone. UsageError if it was not held."""
    _require_reason(reason)
    with repository.lock(wait_s=wait_s, on_wait=Waits(progress)) as lock:
        holds = repository.marks().holds()
        record, backup_id = _held(repository, backup, holds, progress)
        note_access(subjects=[backup_id] if record is None else [record.id, record.name])
        held = holds.get(backup_id, [])
        if not held:
            raise UsageError(f"backup {record} is not held", hint="pgstow list shows what is")
        now = repository.holdings().now(lock)
        repository.marks().release(backup_id, at=now, by=by, reason=reason)
    return Released(backup_id=backup_id, backup=record, holds=tuple(held))


def _held(
    repository: Repository, text: str, holds: Mapping[str, Sequence[Hold]], progress: Progress
) -> tuple[BackupRecord | None, str]:
    """Return the backup that ``text`` names and its id; without the backup where only its holds are left."""
    try:
        record = find_backup(repository, text, progress.note)
    except BackupNotFound:
        left = [each for each in holds if len(text) >= _SHORTEST and each.startswith(text)]
        if len(left) != 1:
            raise
        return None, left[0]
    return record, record.id


def retire_database(
    repository: Repository,
    name: str,
    progress: Progress,
    *,
    by: str,
    reason: str,
    is_undone: bool,
    wait_s: float = 0.0,
) -> Retirement:
    """Say that a database is gone, or with ``is_undone`` that it is not; return what was written or undone."""
    _require_reason(reason)
    with repository.lock(wait_s=wait_s, on_wait=Waits(progress)) as lock:
        _require_backups(repository, name, progress)
        marks = repository.marks()
        known = marks.retirements([name]).get(name)
        if is_undone and known is None:
            raise UsageError(f"{name} is not retired")
        now = repository.holdings().now(lock)
        marks.retire(name, at=now, by=by, reason=reason, is_undone=is_undone)
    return Retirement(name=name, when=now, by=by, reason=reason)


def _require_backups(repository: Repository, name: str, progress: Progress) -> None:
    damaged: list[RepositoryDamaged] = []
    records = list_backups(repository, damaged=damaged)
    for exc in damaged:
        progress.note(f"{exc.message}: which backup that was is unknown")
    if all(record.name != name for record in records):
        raise BackupNotFound(f"there is no backup of {name}", hint="pgstow list shows what there is")


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise UsageError("--reason is empty", hint="say why: it is shown with every plan")
