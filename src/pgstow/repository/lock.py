"""Locks: files that tell restic and other pgstow processes who is using the repository.

Any number of shared locks, or one exclusive lock. A lock is written, then after a short wait all are listed:
whoever sees a conflict removes its own. Locks are refreshed every five minutes (a new file, then the old one
goes) and restic takes one that is half an hour old for dead.
Source: restic doc/design.rst, "Locks"; restic internal/repository/lock.go, lock_file.go.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgstow.core.errors import (
    ObjectNotFound,
    RepositoryDamaged,
    RepositoryLocked,
    StoreDenied,
    StoreError,
)
from pgstow.repository import gojson
from pgstow.repository.files import FileKind, SealedFiles, list_ids
from pgstow.repository.holder import Holder
from pgstow.repository.lock_times import LockTimes
from pgstow.repository.renewal import Renewed, Trace
from pgstow.store.api import ObjectInfo
from pgstow.store.clock import store_now

__all__ = ["FoundLock", "RepositoryLock", "age_text", "decode_lock"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLock:
    """A lock file in the repository. Its trace has no holder if pgstow did not write it."""

    id: str
    info: ObjectInfo
    is_exclusive: bool
    who: str
    trace: Trace


class RepositoryLock(Renewed):
    """A held lock. Made by ``Repository.lock()``; it is settled after the second look at the others' locks."""

    _how_lost = "removed"

    def __init__(
        self,
        files: SealedFiles,
        *,
        is_exclusive: bool,
        holder: Holder,
        times: LockTimes,
        is_early: bool = False,
    ) -> None:
        super().__init__("the repository lock", times, session=uuid.uuid4().hex, is_early=is_early)
        self._files = files
        self._is_exclusive = is_exclusive
        self._holder = holder
        self._id = ""
        self._old_ids: list[str] = []  # of files that should be gone
        self._written_at = times.now()
        self._own_info: ObjectInfo | None = None  # of our own file, in the newest listing
        self._skew_s: float | None = None
        self._stays = False

    @property
    def id(self) -> str:
        """The name of the lock's present file; each refresh gives it another."""
        return self._id

    @property
    def skew_s(self) -> float | None:
        """Seconds that this machine's clock is ahead of the store's; None before the lock is settled, or unknown."""
        return self._skew_s

    @property
    def stays(self) -> bool:
        """Whether a lock file could not be removed because that is not allowed; others take it for dead in time."""
        return self._stays

    def _begin(self) -> None:
        self._refuse_conflicts(self._others())
        super()._begin()
        self._write()

    def _settle(self) -> None:
        try:
            self._times.sleep(self._times.settle_s)
            self._refuse_conflicts(self._remove_dead(self._others()))
        except Exception:
            with contextlib.suppress(StoreError):  # others must not wait for what will not be used
                self._files.remove(FileKind.LOCK, self._id)
            raise
        if self._own_info is not None:
            self._skew_s = (self._written_at - self._own_info.modified).total_seconds()

    def _renew(self) -> None:
        old_id = self._id
        self._write()
        self._old_ids.append(old_id)
        with contextlib.suppress(StoreError):  # tried again with the next one
            self._remove_old()

    def _release(self) -> None:
        if self._id:  # else it was never written, as far as we were told
            self._remove(self._id)
        self._remove_old()

    def _remove(self, lock_id: str) -> None:
        try:
            self._files.remove(FileKind.LOCK, lock_id)
        except StoreDenied:
            self._stays = True
            raise

    def _remove_old(self) -> None:
        while self._old_ids:
            self._files.remove(FileKind.LOCK, self._old_ids[0])
            del self._old_ids[0]

    def _is_ours(self) -> bool:
        """Whether the lock's file is still there."""
        for _ in range(2):  # a refresh may replace the file between the two lines below
            name = FileKind.LOCK.name_of(self._id)
            try:
                self._files.store.stat(name)
            except ObjectNotFound:
                if name != FileKind.LOCK.name_of(self._id):
                    continue
                return False
            return True
        return True

    def _write(self) -> None:
        self._written_at = self._times.now()
        content = _encode(
            self._holder, session=self._session, is_exclusive=self._is_exclusive, moment=self._written_at
        )
        self._id = self._files.save(FileKind.LOCK, content)

    def _others(self) -> list[FoundLock]:
        """Return all other locks. RepositoryLocked if one stays unreadable: it may be an exclusive one."""
        for tries_left in reversed(range(self._times.unreadable_tries)):
            try:
                return list(self._list_others())
            except (RepositoryDamaged, ValueError) as exc:
                if not tries_left:
                    raise RepositoryLocked(
                        f"a lock file cannot be read: {exc}",
                        hint="when nothing else uses the repository, remove it: pgstow repo unlock --all",
                    ) from exc
            self._times.sleep(self._times.settle_s * 5)
        return []

    def _list_others(self) -> Iterator[FoundLock]:
        for lock_id, info in list_ids(self._files.store, FileKind.LOCK):
            if lock_id == self._id:
                self._own_info = info
                continue
            if info.size_bytes == 0:  # a put that was cut off, as restic sees it
                continue
            content = self._files.load_present(FileKind.LOCK, lock_id)
            if content is not None:
                yield decode_lock(lock_id, info, content)

    def _refuse_conflicts(self, others: list[FoundLock]) -> None:
        for other in others:
            if not (self._is_exclusive or other.is_exclusive) or self._is_dead(other):
                continue
            age_s = (self._store_now() - other.info.modified).total_seconds()
            how = "exclusively " if other.is_exclusive else ""
            raise RepositoryLocked(
                f"repository is locked {how}by {other.who}, lock refreshed {age_text(age_s)} ago",
                hint="wait until it has finished; if that process is dead for certain: pgstow repo unlock --all",
                lock=other.id,
            )

    def _is_dead(self, other: FoundLock) -> bool:
        """Whether a lock of pgstow's is left over."""
        trace = other.trace
        return (
            trace.holder is not None
            and trace.why_dead(self._holder, self._store_now, self._times) is not None
        )

    def _store_now(self) -> datetime:
        """Return the store's time, which our own file tells at no cost once it is written."""
        return store_now(self._files.store) if self._own_info is None else self._own_info.modified

    def _remove_dead(self, others: list[FoundLock]) -> list[FoundLock]:
        dead = [other for other in others if self._is_dead(other)]
        with contextlib.suppress(StoreDenied):  # they stay, all of them, and nobody takes them for alive
            for other in dead:
                self._remove(other.id)
        return [other for other in others if other not in dead]


def age_text(age_s: float) -> str:
    """Return how long ago something was, in words."""
    return f"{max(0.0, age_s):.0f} s" if age_s < 120 else f"{age_s / 60:.0f} min"


def _encode(holder: Holder, *, session: str, is_exclusive: bool, moment: datetime) -> bytes:
    fields: dict[str, Any] = {
        "time": gojson.format_time(moment),
        "exclusive": is_exclusive,
        "hostname": holder.lock_hostname,
        "username": holder.username,
        "pid": holder.pid,
    }
    fields |= {name: value for name, value in (("uid", holder.uid), ("gid", holder.gid)) if value}
    fields["pgstow"] = holder.marks() | {"session": session}  # restic ignores fields it does not know
    return gojson.dumps(fields)


def decode_lock(lock_id: str, info: ObjectInfo, content: bytes) -> FoundLock:
    """Return the lock in ``content``; ValueError if it is none."""
    try:
        fields = json.loads(content)
        pid, hostname, username = int(fields["pid"]), str(fields["hostname"]), str(fields["username"])
        ours = fields.get("pgstow")
        holder = (
            None
            if ours is None
            else Holder.described(pid=pid, hostname=hostname, username=username, marks=ours)
        )
        return FoundLock(
            id=lock_id,
            info=info,
            is_exclusive=bool(fields["exclusive"]),
            who=f"PID {pid} on {hostname} by {username}",
            trace=Trace(
                holder=holder,
                session=ours.get("session") if ours is not None else None,
                renewed=info.modified,
            ),
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"lock {lock_id} is malformed") from exc
