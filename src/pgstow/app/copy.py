"""The use cases of ``pgstow repo copy`` and ``repo rekey``: backups into another repository."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pgstow.app.auditing import note_access
from pgstow.app.holding import Waits
from pgstow.app.opening import make_repository, open_repository
from pgstow.app.reading import reading
from pgstow.assurance.verify import VerifyReport, verify
from pgstow.catalog.backups import BackupRecord, backup_record, backups_among, list_backups, resolve
from pgstow.core.errors import NoRepository, RepositoryDamaged, RepositoryLocked, UsageError, WrongPassword
from pgstow.core.progress import Progress
from pgstow.core.secrets import Secret
from pgstow.repository import Repository, RepositoryLock, Snapshot
from pgstow.upkeep.catch_up import plan_catch_up
from pgstow.upkeep.copy import CopyReport, copy_snapshots, refuse_same
from pgstow.upkeep.copy_marks import copy_marks
from pgstow.upkeep.copy_present import PresentSnapshots

__all__ = [
    "CatchUp",
    "RekeyReport",
    "catch_up",
    "copy_repository",
    "open_or_make",
    "open_other",
    "rekey_repository",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RekeyReport:
    """A repository of which there is a copy under a new master key."""

    copy: CopyReport
    missing: tuple[Snapshot, ...]  # snapshots of the source that the copy lacks
    verified: VerifyReport

    @property
    def is_complete(self) -> bool:
        """Whether the old repository is no longer needed."""
        return self.copy.is_complete and not self.missing and self.verified.is_sound


def open_other(
    location: str,
    password: Secret,
    environ: Mapping[str, str],
    *,
    role: str,
    password_flag: str,
    hint: str,
    on_retry: Callable[[str], None],
) -> Repository:
    """Return a second repository; what is wrong with it or its password is said with its ``role``.

    ``hint`` says what to do if there is none.
    """
    try:
        return open_repository(location, password, environ, on_retry=on_retry)
    except WrongPassword as exc:
        raise WrongPassword(
            f"{role}: {exc.message}",
            hint=f"its password is given by {password_flag}-file or {password_flag}-command",
        ) from exc
    except NoRepository as exc:
        raise NoRepository(f"{role}: {exc.message}", hint=hint) from exc


def copy_repository(
    source: Repository, target: Repository, backups: Sequence[str], progress: Progress, *, dry_run: bool
) -> CopyReport:
    """Copy the backups that the texts name, or every snapshot when there are none, that ``target`` has not.

    Snapshots of restic's own are among them. Both repositories are locked, shared.
    """

    def choose(found: _Found) -> _Found:
        if not backups:
            return found
        records = backups_among(found.snapshots)
        chosen = {record.id: record.snapshot for record in (resolve(records, text) for text in backups)}
        return _Found(snapshots=list(chosen.values()))  # nobody asked for the damaged ones

    return _copy(source, target, choose, progress, dry_run=dry_run)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatchUp:
    """What a target that missed backups is to be brought; see ``plan_catch_up()``."""

    names: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    since: datetime | None = None
    is_wanted: Callable[[BackupRecord], bool] = lambda _: True  # whether retention would keep it there


def catch_up(
    source: Repository,
    target: Repository,
    wish: CatchUp,
    progress: Progress,
    *,
    dry_run: bool = False,
    wait_s: float = 0.0,
) -> CopyReport:
    """Copy the backups that ``target`` missed; what has expired there stays away, and so does what restic made.

    Snapshots that cannot be read, in the source or in the target, do not stop it: what they are is unknown, and a backup
    that is in the target already is not brought twice. Both repositories are locked, shared; each may be waited for.
    """

    def choose(found: _Found) -> _Found:
        planned = plan_catch_up(
            backups_among(found.snapshots),
            list_backups(target, damaged=[]),
            names=wish.names,
            kinds=wish.kinds,
            since=wish.since,
            is_wanted=wish.is_wanted,
        )
        return _Found(snapshots=[record.snapshot for record in planned], damaged=found.damaged)

    return _copy(source, target, choose, progress, dry_run=dry_run, wait_s=wait_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Snapshots to copy, and what is said of those that cannot be read."""

    snapshots: Sequence[Snapshot]
    damaged: Sequence[RepositoryDamaged] = ()


def _copy(
    source: Repository,
    target: Repository,
    choose: Callable[[_Found], _Found],
    progress: Progress,
    *,
    dry_run: bool,
    wait_s: float = 0.0,
) -> CopyReport:
    refuse_same(source, target)
    damaged: list[RepositoryDamaged] = []
    waits = Waits(progress)
    with (
        reading(source, progress.note, wait_s=wait_s, on_wait=waits) as check_source,
        _lock_target(target, wait_s=wait_s, waits=waits) as target_lock,
    ):
        check_source()
        if not dry_run:
            target.store.remove_stale_temporaries()  # of copies that were killed: nothing else may ever write here
        # Before the index is read: what a listed snapshot needs is then in it, also beside running backups.
        snapshots = source.snapshots(damaged=damaged)
        chosen = choose(_Found(snapshots=snapshots, damaged=damaged))
        report = copy_snapshots(
            source,
            target,
            chosen.snapshots,
            target_lock=target_lock,
            damaged=chosen.damaged,
            dry_run=dry_run,
            progress=progress,
        )
    copied = [record.id for each in report.copied if (record := backup_record(each.snapshot))]
    note_access(subjects=copied, source=source.store.location, target=target.store.location)
    return report


@contextlib.contextmanager
def _lock_target(target: Repository, *, wait_s: float, waits: Waits) -> Iterator[RepositoryLock]:
    """Hold a shared lock on the target; RepositoryLocked says that it is the target's."""
    with contextlib.ExitStack() as held:
        try:
            lock = held.enter_context(target.lock(wait_s=wait_s, on_wait=waits))
        except RepositoryLocked as exc:
            raise RepositoryLocked(f"target: {exc.message}", hint=exc.hint, **exc.facts) from exc
        yield lock


def open_or_make(
    location: str,
    password: Secret,
    environ: Mapping[str, str],
    *,
    source: Repository,
    hostname: str,
    username: str,
    on_retry: Callable[[str], None],
) -> Repository:
    """Return the repository at ``location`` with a master key that is not the source's, made if there is none.

    An earlier, interrupted run may have made it.
    """
    try:
        target = open_repository(location, password, environ, on_retry=on_retry)
    except NoRepository:
        return make_repository(
            location, password, environ, hostname=hostname, username=username, on_retry=on_retry
        )
    except WrongPassword as exc:
        raise WrongPassword(
            f"target: {exc.message}",
            hint="to go on with an interrupted run give the new password it began with; else choose another place",
        ) from exc
    refuse_same(source, target)
    if source.shares_key_with(target):
        raise UsageError(
            f"the repository at {target.store.location} has the same master key",
            hint="give a place where there is no repository yet",
        )
    return target


def rekey_repository(
    source: Repository, target: Repository, progress: Progress, *, read_data: bool
) -> RekeyReport:
    """Copy everything into ``target``, holds and proofs too, and check that everything is there.

    Raises what ``copy_repository()`` does. Running it again goes on where it ended.
    """
    report = copy_repository(source, target, (), progress, dry_run=False)
    progress.phase("looking for what is missing")
    present = PresentSnapshots(target)
    missing = tuple(snapshot for snapshot in source.snapshots(damaged=[]) if not present.has(snapshot))
    with target.lock() as lock:
        copy_marks(source, target, lock, progress)
        verified = verify(target, read_data=read_data, progress=progress)
    return RekeyReport(copy=report, missing=missing, verified=verified)
