"""Leases: one run at a time backs up a database, and a run that was taken for dead cannot publish.

restic's locks keep prunes and backups apart, but they do not fence: a process that was stopped for an hour goes on
as if nothing had happened. A lease is an object ``pgstow/leases/DATABASE/NUMBER`` of twenty digits. The highest
number, the *fencing number*, is the lease. Creating the next one, which the store lets only one process do, takes it
over; the old holder sees that its number is no longer the highest, and its run is voided first (``claims``).

The holder writes its own object again every five minutes: the object's time, by the store's clock, is its
heartbeat. A lease is dead when it was released, when its process has ended for certain, or half an hour after its
last heartbeat. The highest number is never removed, so that numbers only grow; lower ones mean nothing.

Where nobody may overwrite or delete, a heartbeat, and a release, is the next number with the same run, created as if it were taken
over; all numbers stay then, until somebody who may prunes.

Where the store cannot create conditionally, a lease is written, and after a while read again: of two that were written
at once the last stands, and the other gives way; what a slower put overwrote is noticed at the next refresh and before
publishing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable
from datetime import UTC

from pgstow.core.errors import ObjectExists, RepositoryLocked, StoreDenied, StoreError
from pgstow.repository.claims import claim_run, claim_run_blindly, confirm_claim, void_run
from pgstow.repository.files import SealedFiles
from pgstow.repository.found_leases import (
    FoundLease,
    changes_hands,
    find_lease,
    lease_name,
    lease_numbers,
    lease_session,
)
from pgstow.repository.holder import Holder
from pgstow.repository.lock import age_text
from pgstow.repository.lock_times import LockTimes
from pgstow.repository.renewal import Renewed
from pgstow.store.api import Store
from pgstow.store.clock import store_now
from pgstow.store.probing import NOT_IMPLEMENTED

__all__ = ["Lease", "seize_lease"]

_TRIES = 10


def seize_lease(
    files: SealedFiles, found: FoundLease, holder: Holder, times: LockTimes, *, run_id: str, is_forced: bool
) -> None:
    """End a lease: its run is voided and the lease is free. RepositoryLocked if it is alive, unless ``is_forced``."""
    lease = Lease(
        files,
        folder=found.folder,
        database=found.database or "",
        run_id=run_id,
        holder=holder,
        times=times,
        may_seize=is_forced,
    )
    with lease:
        pass


class Lease(Renewed):
    """A held lease. Made by ``Repository.lease()``.

    A lease of one of the runs that this one ``supersedes`` is taken over however alive its holder seems: they were given
    up, and cannot publish from then on.
    """

    _how_lost = "taken over"

    def __init__(
        self,
        files: SealedFiles,
        *,
        folder: str,
        database: str,
        run_id: str,
        holder: Holder,
        times: LockTimes,
        is_early: bool = False,
        may_seize: bool = False,
        supersedes: Collection[str] = (),
    ) -> None:
        super().__init__(
            f"the lease of {database}", times, session=lease_session(folder, run_id), is_early=is_early
        )
        self._files = files
        self._folder = folder
        self._database = database
        self._run_id = run_id
        self._holder = holder
        self._may_seize = may_seize
        self._supersedes = frozenset(supersedes)
        self._started = times.now()
        self._number = 0
        self._is_conditional = True
        self._is_write_once = False  # nobody may overwrite or delete

    @property
    def number(self) -> int:
        """The fencing number, once ``check()`` has passed."""
        return self._number

    def claim(self) -> None:
        """Reserve the right to publish, right before the snapshot is written; RepositoryLocked if it is gone."""
        self.confirm()
        if self._is_conditional:
            claim_run(self._files, self._run_id, lease=self._number, database=self._database)
        else:
            sealed = claim_run_blindly(self._files, self._run_id, lease=self._number, database=self._database)
            self._times.sleep(self._times.blind_settle_s)
            confirm_claim(self._files, self._run_id, sealed)
            self.confirm()
        self.check()

    def _settle(self) -> None:
        for _ in range(_TRIES):
            begun_s = self._times.clock_s()
            found = find_lease(self._files, self._folder)
            if found is not None:
                self._end(found)
            number = found.number + 1 if found is not None else 1
            try:
                self._create(number)
            except ObjectExists:  # someone else was faster: see who
                continue
            older = lease_numbers(self._files, self._folder)
            if (
                max(older, default=0) > number
            ):  # what we had seen was old, and that number had been removed again
                _remove(self._files.store, [lease_name(self._folder, number)])
                continue
            self._number, self._renewed_s = number, begun_s
            _remove(self._files.store, [lease_name(self._folder, each) for each in older if each < number])
            return
        raise changes_hands()

    def _end(self, found: FoundLease) -> None:
        """Raise RepositoryLocked if the lease is held, else make sure that its run cannot publish any more."""
        is_dead = found.run_id in self._supersedes or found.is_dead(
            self._holder, lambda: store_now(self._files.store), self._times
        )
        if not (is_dead or self._may_seize):
            raise self._held(found)
        if not found.is_released and found.run_id:
            void_run(self._files, found.run_id, by=str(self._holder))

    def _held(self, found: FoundLease) -> RepositoryLocked:
        age_s = (store_now(self._files.store) - found.info.modified).total_seconds()
        who = str(found.holder) if found.holder is not None else "a holder whose lease cannot be read"
        since = f" since {found.started}" if found.started else ""
        alias = f", under the name {found.database}," if found.database not in (None, self._database) else ""
        return RepositoryLocked(
            f"{self._database} is being backed up{alias} by {who}{since} (run {found.run_id}),"
            f" lease renewed {age_text(age_s)} ago",
            hint="--wait DURATION waits for it; half an hour after its process has died another run takes over,"
            " and pgstow repo unlock --all ends it at once",
            run=found.run_id,
            lease=found.number,
        )

    def _create(self, number: int) -> None:
        """Make ``number`` ours; ObjectExists if it is another's.

        The condition is asked twice: a store that accepts the second put does not know it. One that denies the second alone
        lets nobody overwrite, under whatever condition.
        """
        name, content = lease_name(self._folder, number), self._content()
        try:
            self._files.store.put(name, content, if_absent=True)
            with contextlib.suppress(ObjectExists, StoreDenied):
                self._files.store.put(name, content, if_absent=True)
                self._is_conditional = False
        except StoreDenied as exc:
            if name not in {info.name for info in self._files.store.list(self._folder)}:
                raise
            raise ObjectExists(f"{name} was written by another run") from exc
        except StoreError as exc:
            if exc.facts.get("http_status") != NOT_IMPLEMENTED:
                raise
            self._files.store.put(name, content)
            self._is_conditional = False
        if not self._is_conditional:
            self._times.sleep(self._times.blind_settle_s)
            if self._files.store.get(name) != content:
                raise ObjectExists(f"{name} was written by another run")

    def _renew(self) -> None:
        self._write_again(self._content())

    def _write_again(self, content: bytes) -> None:
        """Write the lease anew, under the next number where nobody may overwrite; ObjectExists if that is another's."""
        if not self._is_write_once:
            try:
                self._files.store.put(lease_name(self._folder, self._number), content)
            except StoreDenied:
                self._is_write_once = True
            else:
                return
        number = self._number + 1
        self._files.store.put(lease_name(self._folder, number), content, if_absent=True)
        self._number = number  # not one more than it is now: who confirms meanwhile may have found it

    def _release(self) -> None:
        # A lower number that comes back means nothing, so it is only looked for where something is amiss.
        is_doubtful = self._lost is not None or not self._is_conditional
        if self._number and (not is_doubtful or self._is_ours()):
            self._write_again(self._content(is_released=True))

    def _is_ours(self) -> bool:
        """Whether ours is still the highest number."""
        if not self._is_conditional:  # another run may have written the same number, later than we looked
            found = find_lease(self._files, self._folder)
            return found is not None and (found.number, found.run_id) == (self._number, self._run_id)
        number = self._number  # before the look: a heartbeat beside it may go on to the next one
        newest = max(lease_numbers(self._files, self._folder), default=0)
        if self._is_write_once and newest == number + 1:  # ours, if only the reply was lost, or is on its way
            found = find_lease(self._files, self._folder)
            if found is not None and (found.number, found.run_id) == (newest, self._run_id):
                self._number = number = newest
        return newest == number

    def _content(self, *, is_released: bool = False) -> bytes:
        fields = {
            "state": "released" if is_released else "held",
            "database": self._database,
            "run": self._run_id,
            "started": self._started.astimezone(UTC).isoformat(timespec="seconds"),
            "hostname": self._holder.hostname,
            "username": self._holder.username,
            "pid": self._holder.pid,
            **self._holder.marks(),
        }
        return self._files.seal(json.dumps(fields).encode())


def _remove(store: Store, names: Iterable[str]) -> None:
    """Remove lower numbers as far as that can be done: they mean nothing where they stay."""
    with contextlib.suppress(StoreError):
        for name in names:
            store.delete(name)
