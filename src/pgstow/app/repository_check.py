"""The use case: look over a whole repository, its backups and everything around them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pgstow.app.findings import Finding, Level, counted, some_of, store_clock_finding
from pgstow.app.reading import unlocked_text
from pgstow.assurance.sample import PackSample
from pgstow.assurance.verify import VerifyReport, verify
from pgstow.catalog.backups import list_backups
from pgstow.core.errors import RepositoryDamaged, StoreDenied, StoreFull
from pgstow.core.progress import Progress
from pgstow.repository import FileKind, Obstacle, Repository, RepositoryLock, find_damaged_keys, list_ids
from pgstow.store.probing import probe_conditional_put
from pgstow.store.temporaries import stale_temporaries

__all__ = ["CheckReport", "check_repository"]

_PENDING = "pgstow/prune/"
_REPAIRS = "pgstow/repairs/"
_OURS = "pgstow/"
_REPAIR = "pgstow repo repair drops what is lost and makes the rest whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """Everything that was looked at."""

    verified: VerifyReport
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing that was found is a problem."""
        return all(finding.level is not Level.PROBLEM for finding in self.findings)

    def count(self, level: Level) -> int:
        """Return how many findings are of one level."""
        return sum(finding.level is level for finding in self.findings)


def check_repository(
    repository: Repository,
    progress: Progress,
    *,
    read_data: bool,
    sample: PackSample | None = None,
    folder: Path | None = None,
    may_write: bool = True,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> CheckReport:
    """Verify all backups, and look at keys, locks and what dead runs left behind.

    ``folder`` is where a local repository lies. Without ``may_write`` no lock is taken, so that a prune beside it could
    look like damage, and nothing is tried out.
    """
    with contextlib.ExitStack() as held:
        lock: RepositoryLock | None = None
        try:
            lock = held.enter_context(repository.lock()) if may_write else None
        except (StoreDenied, StoreFull) as exc:
            progress.note(unlocked_text(exc))
            may_write = False
        findings = [
            _config(repository),
            _keys(repository),
            *_clock_and_locks(repository, lock, clock),
            _conditional_put(repository, may_write=may_write),
            *_leftovers(repository, folder),
            *_holds(repository, clock),
        ]
        verified = verify(repository, read_data=read_data, sample=sample, progress=progress)
    return CheckReport(verified=verified, findings=(*findings, *_of_backups(verified)))


def _config(repository: Repository) -> Finding:
    if repository.config_problem is None:
        return Finding(code="config", level=Level.OK, text="the configuration can be read")
    return Finding(code="config", level=Level.PROBLEM, text=repository.config_problem, remedy=_REPAIR)


def _keys(repository: Repository) -> Finding:
    damaged = find_damaged_keys(repository.store)
    whole = sum(1 for _ in list_ids(repository.store, FileKind.KEY)) - len(damaged)
    if not damaged:
        text = f"{counted(whole, 'key file')}, none of them damaged"
        return Finding(code="keys", level=Level.OK, text=text)
    return Finding(
        code="keys",
        level=Level.PROBLEM,
        text=f"{counted(len(damaged), 'key file')} damaged; newer restics do not open a repository that has one",
        remedy=_REPAIR,
        names=tuple(sorted(damaged)),
    )


def _clock_and_locks(
    repository: Repository, lock: RepositoryLock | None, clock: Callable[[], datetime]
) -> Iterator[Finding]:
    now = clock()
    if lock is None:
        yield Finding(
            code="clock", level=Level.UNKNOWN, text="without writing, the store's clock cannot be asked"
        )
    else:
        now = repository.store.stat(FileKind.LOCK.name_of(lock.id)).modified  # written just now
        yield store_clock_finding(
            (clock() - now).total_seconds(),
            code="clock",
            near="this machine's clock and the store's agree well enough",
        )
    own = FileKind.LOCK.name_of(lock.id) if lock is not None else None
    yield from _locks([obstacle for obstacle in repository.obstacles(now=now) if obstacle.name != own])


def _locks(locks: list[Obstacle]) -> Iterator[Finding]:
    unreadable = [lock for lock in locks if not lock.is_readable]
    live = [lock for lock in locks if lock.is_readable and not lock.is_dead]
    dead = [lock for lock in locks if lock.is_readable and lock.is_dead]
    if not dead and not unreadable:
        text = f"in use by {some_of([lock.who for lock in live])}" if live else "nobody else is at work"
        yield Finding(code="locks", level=Level.OK, text=text, names=tuple(lock.name for lock in live))
    if dead:
        yield Finding(
            code="locks",
            level=Level.WARNING,
            text=f"{counted(len(dead), 'lock')} left behind: {some_of([lock.who for lock in dead])}",
            remedy="pgstow repo unlock removes locks whose owners are gone",
            names=tuple(lock.name for lock in dead),
        )
    if unreadable:
        yield Finding(
            code="locks",
            level=Level.PROBLEM,
            text=f"{counted(len(unreadable), 'lock file')} cannot be read: nobody can take an exclusive lock",
            remedy="when nothing else uses the repository: pgstow repo unlock --all",
            names=tuple(lock.name for lock in unreadable),
        )


def _holds(repository: Repository, clock: Callable[[], datetime]) -> Iterator[Finding]:
    """Yield what is said of backups that are held and gone: restic's own forget does not see holds."""
    unreadable: list[RepositoryDamaged] = []
    known = {record.id for record in list_backups(repository, damaged=unreadable)}
    today = clock().date()
    gone = sorted(
        backup_id
        for backup_id, holds in repository.marks().holds().items()
        if backup_id not in known and any(hold.until is None or hold.until >= today for hold in holds)
    )
    if gone and not unreadable:  # else one of those may be it, which is a problem of its own
        yield Finding(
            code="holds",
            level=Level.WARNING,
            text=f"{counted(len(gone), 'backup')} on hold gone: {some_of(gone)}",
            remedy="restic forget does not see holds; pgstow repo copy brings a backup back from where there is a copy of it",
            names=tuple(gone),
        )


def _conditional_put(repository: Repository, *, may_write: bool) -> Finding:
    code, remedy = "conditional_put", "use a store with conditional writes (S3 itself, GCS, Azure, a folder)"
    if not may_write:
        return Finding(code=code, level=Level.UNKNOWN, text="conditional writes were not tried")
    try:
        works = probe_conditional_put(repository.store)
    except StoreDenied as exc:
        return Finding(code=code, level=Level.UNKNOWN, text=exc.message)
    if works:
        return Finding(
            code=code, level=Level.OK, text="the store keeps create-if-absent apart from overwrite"
        )
    return Finding(
        code=code,
        level=Level.WARNING,
        text="the store ignores the condition of a create-if-absent: two hosts can both believe they were first",
        remedy=remedy,
    )


def _leftovers(repository: Repository, folder: Path | None) -> Iterator[Finding]:
    names = [info.name for info in repository.store.list("")]
    unknown = sorted(name for name in names if not _is_known(name))
    yield Finding(
        code="unknown_objects",
        level=Level.WARNING if unknown else Level.OK,
        text=f"{counted(len(unknown), 'object')} that no repository has: {some_of(unknown)}"
        if unknown
        else "nothing lies about that does not belong here",
        remedy="look at them, and move them elsewhere" if unknown else None,
        names=tuple(unknown),
    )
    pending = sum(name.startswith(_PENDING) for name in names)
    yield Finding(
        code="pending_deletion",
        level=Level.OK,
        text=f"{counted(pending, 'record')} of packs awaiting deletion"
        if pending
        else "no packs await deletion",
    )
    repairs = sorted({name.split("/")[2] for name in names if name.startswith(_REPAIRS)})
    if repairs:
        yield Finding(
            code="repairs",
            level=Level.OK,
            text=f"{counted(len(repairs), 'earlier repair')}, the last at {repairs[-1]}",
            names=tuple(repairs),
        )
    if folder is None:
        return
    stale = stale_temporaries(folder, time.time())
    yield Finding(
        code="temporaries",
        level=Level.WARNING if stale else Level.OK,
        text=f"{counted(len(stale), 'unfinished file')} of runs that died"
        if stale
        else "no unfinished files of dead runs",
        remedy="the next backup removes them" if stale else None,
        names=tuple(stale),
    )


_FOLDERS = {f"{kind.value}/": kind for kind in FileKind}


def _is_known(name: str) -> bool:
    if name == "config" or name.startswith(_OURS):
        return True
    kind = next((kind for start, kind in _FOLDERS.items() if name.startswith(start)), None)
    leaf = name.rpartition("/")[2]
    is_id = len(leaf) == 64 and not set(leaf) - set("0123456789abcdef")
    return kind is not None and is_id and name == kind.name_of(leaf)


def _of_backups(verified: VerifyReport) -> Iterator[Finding]:
    reached = sorted({backup for problem in verified.problems for backup in problem.backups})
    problems = len(verified.problems)
    if not problems:
        how = "every byte read" if verified.has_read_data else "sizes compared"
        text = f"{counted(verified.snapshots, 'snapshot')} whole, {how}"
        yield Finding(code="backups", level=Level.OK, text=text)
    else:
        touched = f"reaching {counted(len(reached), 'backup')}" if reached else "reaching no backup"
        yield Finding(
            code="backups",
            level=Level.PROBLEM,
            text=f"{counted(problems, 'problem')}, {touched}",
            remedy=_REPAIR,
            names=tuple(reached),
        )
    if verified.incomplete:
        yield Finding(
            code="incomplete_backups",
            level=Level.WARNING,
            text=f"{counted(len(verified.incomplete), 'backup')} lost something to damage that was repaired",
            remedy="pgstow show says what each has lost; take new backups of those databases",
            names=verified.incomplete,
        )
    unindexed = verified.unindexed_packs
    yield Finding(
        code="unindexed_packs",
        level=Level.WARNING if unindexed else Level.OK,
        text=f"{counted(unindexed, 'pack')} that no index file lists: left by interrupted runs or repairs"
        if unindexed
        else "every pack is listed in an index file",
        remedy="pgstow repo prune removes them" if unindexed else None,
    )
