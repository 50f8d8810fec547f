"""The objects of leases: which there are, and what the highest one of a database says."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgstow.core.errors import ObjectNotFound, RepositoryDamaged, RepositoryLocked
from pgstow.repository.files import SealedFiles
from pgstow.repository.holder import Holder
from pgstow.repository.lock_times import LockTimes
from pgstow.repository.renewal import Trace
from pgstow.store.api import ObjectInfo, Store

__all__ = [
    "LEASES",
    "FoundLease",
    "LeasedDatabase",
    "changes_hands",
    "find_lease",
    "lease_folder",
    "lease_name",
    "lease_numbers",
    "lease_session",
    "remove_old_leases",
]

LEASES = "pgstow/leases/"

_NUMBER = re.compile(r"[0-9]{20}")
_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedDatabase:
    """What a lease is for: ``identity`` tells databases apart, ``name`` is for people."""

    identity: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLease:
    """The highest lease of a database. What an unreadable one does not tell is None."""

    folder: str
    number: int
    info: ObjectInfo
    is_released: bool
    database: str | None
    run_id: str | None
    trace: Trace
    started: str | None

    @property
    def holder(self) -> Holder | None:
        return self.trace.holder

    def is_dead(self, observer: Holder, now: Callable[[], datetime], times: LockTimes) -> bool:
        """Whether it may be taken over; ``now`` is as in ``Trace.why_dead()``."""
        return self.is_released or self.trace.why_dead(observer, now, times) is not None


def lease_folder(repository_id: str, database: LeasedDatabase) -> str:
    """Return where a database's leases are. Names of objects are not secret, so it tells nothing to who has no key."""
    mixed = hashlib.sha256(f"{repository_id} {database.identity}".encode()).hexdigest()
    return f"{LEASES}{mixed[:32]}/"


def find_lease(files: SealedFiles, folder: str) -> FoundLease | None:
    """Return the highest lease in a folder, or None if there never was one."""
    for _ in range(_TRIES):
        numbers = lease_numbers(files, folder)
        if not numbers:
            return None
        number = max(numbers)
        try:
            content = files.store.get(lease_name(folder, number))
        except ObjectNotFound:  # a higher one is there now, or an unlucky try has been taken back
            continue
        return _decode(files, folder, number, numbers[number], content)
    raise changes_hands()


def remove_old_leases(store: Store) -> int:
    """Remove the lower numbers, which runs that may not delete have left; return how many there were."""
    folders: defaultdict[str, list[str]] = defaultdict(list)
    for info in store.list(LEASES):
        folder, _, leaf = info.name.rpartition("/")
        if _NUMBER.fullmatch(leaf):
            folders[folder].append(info.name)
    lower = [name for names in folders.values() for name in sorted(names)[:-1]]
    for name in lower:
        store.delete(name)
    return len(lower)


def lease_session(folder: str, run_id: str) -> str:
    """Return what a lease is to its process: a run holds one in each of its destinations."""
    return f"{folder}{run_id}"


def lease_numbers(files: SealedFiles, folder: str) -> dict[int, ObjectInfo]:
    found = {info.name.removeprefix(folder): info for info in files.store.list(folder)}
    return {int(leaf): info for leaf, info in found.items() if _NUMBER.fullmatch(leaf)}


def lease_name(folder: str, number: int) -> str:
    return f"{folder}{number:020d}"


def _decode(files: SealedFiles, folder: str, number: int, info: ObjectInfo, content: bytes) -> FoundLease:
    fields: dict[str, Any] = {}
    holder = None
    with contextlib.suppress(RepositoryDamaged, ValueError, TypeError, KeyError, AttributeError):
        fields = json.loads(files.unseal(info.name, content))
        holder = Holder.described(
            pid=int(fields["pid"]),
            hostname=str(fields["hostname"]),
            username=str(fields["username"]),
            marks=fields,
        )
    return FoundLease(
        folder=folder,
        number=number,
        info=info,
        is_released=fields.get("state") == "released",
        database=fields.get("database"),
        run_id=fields.get("run"),
        trace=Trace(
            holder=holder,
            session=lease_session(folder, str(fields.get("run"))) if fields.get("run") else None,
            renewed=info.modified,
        ),
        started=fields.get("started"),
    )


def changes_hands() -> RepositoryLocked:
    return RepositoryLocked(
        "the lease of the database keeps changing hands",
        hint="another backup of it is at work; try again later",
    )
