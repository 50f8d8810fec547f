"""Marks: what people and drills say about backups, where restic's format has no place for it.

    pgstow/holds/BACKUP/NUMBER      held or released; NUMBER is six digits and counts from 1
    pgstow/retired/HASH/NUMBER      a database is gone, or is not; HASH is made of its name
    pgstow/proofs/BACKUP/RANDOM     a drill restored this backup and found it right

Each is sealed JSON that names what it is about and its own place, so that who can write to the store without having the key
can neither forge one nor use another in its place. Nothing is changed or removed: a release is a further mark, created only
if its number is absent. What cannot be read keeps: an unreadable or missing entry since the last release is a hold, a
retirement that is not certain is none.

Against who may *delete* from the store nothing here helps: he can remove the backup itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from pgstow.core.errors import (
    ObjectExists,
    ObjectNotFound,
    RepositoryDamaged,
    StoreError,
    StoreUnavailable,
    UsageError,
)
from pgstow.repository.files import SealedFiles
from pgstow.repository.reader import ahead
from pgstow.store.probing import NOT_IMPLEMENTED

__all__ = ["Hold", "Marks", "Proof", "Retirement"]

_HOLDS = "pgstow/holds/"
_RETIRED = "pgstow/retired/"
_PROOFS = "pgstow/proofs/"
_FORMAT = 1
_NUMBER = re.compile(r"[0-9]{6}")
_SUBJECT = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")
_MOST = 999_999
_FORGED = "pgstow never made that one: look at who may write to the store, and remove the object"
_TRIES = 10
_READS_AHEAD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A backup must stay. ``until`` is the last day; None: until it is released.

    With a ``problem`` the mark cannot be read, or is missing where one must be, and nothing else is known.
    """

    backup_id: str
    since: datetime | None = None
    by: str = ""
    reason: str = ""
    until: date | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """A database is gone."""

    name: str
    when: datetime
    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A backup was restored and found right; ``what`` was done, in a few words."""

    backup_id: str
    when: datetime
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One mark of a numbered series. None in place of one: it cannot be read."""

    is_set: bool  # held, or gone; else released, or not gone after all
    at: datetime
    by: str
    reason: str
    until: date | None

    def as_hold(self, backup_id: str) -> Hold:
        return Hold(backup_id=backup_id, since=self.at, by=self.by, reason=self.reason, until=self.until)


class Marks:
    """Reads and writes marks. Made by ``Repository.marks()``.

    Every mark is durable and read back when a method that writes it returns. RepositoryLocked, before anything is
    written, when a lock of the repository object is lost.
    """

    def __init__(
        self, files: SealedFiles, repository_id: str, executor: Executor, *, guard: Callable[[], None]
    ) -> None:
        self._files = files
        self._repository_id = repository_id
        self._executor = executor
        self._guard = guard

    # -- holds

    def hold(self, backup_id: str, *, at: datetime, by: str, reason: str, until: date | None = None) -> None:
        """Keep a backup until it is released; with ``until``, to the end of that day."""
        entry = _Entry(is_set=True, at=at, by=by, reason=reason, until=until)
        self._append(f"{_HOLDS}{_checked(backup_id)}/", "hold", backup_id, entry)

    def release(self, backup_id: str, *, at: datetime, by: str, reason: str) -> None:
        """End every hold of a backup, unreadable ones too."""
        entry = _Entry(is_set=False, at=at, by=by, reason=reason, until=None)
        self._append(f"{_HOLDS}{_checked(backup_id)}/", "hold", backup_id, entry)

    def holds(self) -> dict[str, list[Hold]]:
        """Return what is held and not released, the oldest hold first; those whose last day is over are among them."""
        found = {}
        for backup_id, entries in self._series(_HOLDS, "hold").items():
            if held := _in_force(backup_id, entries):
                found[backup_id] = held
        return found

    # -- databases that are gone

    def retire(self, name: str, *, at: datetime, by: str, reason: str, is_undone: bool = False) -> None:
        """Say that a database is gone, or with ``is_undone`` that it is not."""
        entry = _Entry(is_set=not is_undone, at=at, by=by, reason=reason, until=None)
        self._append(f"{_RETIRED}{self._hashed(name)}/", "retirement", name, entry)

    def retirements(self, names: Collection[str]) -> dict[str, Retirement]:
        """Return which of these databases are gone: those whose newest mark can be read and says so."""
        hashes = {self._hashed(name): name for name in names}
        found = {}
        for subject, entries in self._series(_RETIRED, "retirement", subjects=hashes).items():
            last = entries[max(entries)]
            if last is not None and last.is_set:
                name = hashes[subject]
                found[name] = Retirement(name=name, when=last.at, by=last.by, reason=last.reason)
        return found

    def _hashed(self, name: str) -> str:
        """Return what stands for a name: names of objects are not secret, so it tells nothing to who has no key."""
        return hashlib.sha256(f"{self._repository_id} retired {name}".encode()).hexdigest()[:32]

    # -- proofs

    def prove(self, proof: Proof) -> None:
        """Write down that a backup was restored and found right. Call it after everything was compared."""
        name = f"{_PROOFS}{_checked(proof.backup_id)}/{uuid.uuid4().hex}"
        fields = {"format": _FORMAT, "mark": "proof", "of": proof.backup_id, "what": proof.what}
        self._guard()
        sealed = self._files.seal(json.dumps(fields | {"at": _time_text(proof.when)}).encode())
        self._files.store.put(name, sealed)
        if self._files.store.get(name) != sealed:
            raise StoreUnavailable(f"{name} is not what was written", hint="try again")

    def proofs(self, backup_ids: Collection[str]) -> tuple[list[Proof], set[str]]:
        """Return the proofs of these backups, and the ids of those with a proof that cannot be read."""
        names = [
            (backup_id, info.name)
            for info in self._files.store.list(_PROOFS)
            if (backup_id := info.name.removeprefix(_PROOFS).partition("/")[0]) in backup_ids
        ]
        proofs: list[Proof] = []
        doubtful: set[str] = set()
        for backup_id, fields in ahead(self._executor, self._read_one, names, _READS_AHEAD):
            proof = _parse_proof(backup_id, fields)
            if proof is None:
                doubtful.add(backup_id)
            else:
                proofs.append(proof)
        return sorted(proofs, key=lambda proof: (proof.when, proof.backup_id)), doubtful

    # -- numbered series

    def _append(self, folder: str, mark: str, subject: str, entry: _Entry) -> None:
        """Add an entry after the last one, whoever else does so at the same time."""
        for _ in range(_TRIES):
            self._guard()
            number = max(self._numbers(folder), default=0) + 1
            if number > _MOST:
                raise StoreError(f"{folder} has a mark with the highest number there is", hint=_FORGED)
            name = f"{folder}{number:06d}"
            sealed = self._files.seal(json.dumps(_entry_fields(mark, subject, number, entry)).encode())
            with contextlib.suppress(ObjectExists):
                self._create(name, sealed)
                if (
                    self._files.store.get(name) == sealed
                ):  # else the store knows no condition, and another won
                    return
        raise StoreUnavailable(f"{folder} keeps changing", hint="try again")

    def _create(self, name: str, sealed: bytes) -> None:
        try:
            self._files.store.put(name, sealed, if_absent=True)
        except StoreError as exc:
            if exc.facts.get("http_status") != NOT_IMPLEMENTED:
                raise
            self._files.store.put(name, sealed)

    def _numbers(self, folder: str) -> list[int]:
        leaves = (info.name.removeprefix(folder) for info in self._files.store.list(folder))
        return [int(leaf) for leaf in leaves if _NUMBER.fullmatch(leaf)]

    def _series(
        self, folder: str, mark: str, *, subjects: Mapping[str, str] | None = None
    ) -> dict[str, dict[int, _Entry | None]]:
        """Return the entries of each subject by number. ``subjects`` gives what a folder's name stands for, and limits."""
        names: list[tuple[str, str]] = []
        for info in self._files.store.list(folder):
            subject, _, leaf = info.name.removeprefix(folder).partition("/")
            if _NUMBER.fullmatch(leaf) and (subjects is None or subject in subjects):
                names.append((info.name, info.name))
        found: defaultdict[str, dict[int, _Entry | None]] = defaultdict(dict)
        for name, fields in ahead(self._executor, self._read_one, names, _READS_AHEAD):
            subject, _, leaf = name.removeprefix(folder).partition("/")
            meant = subject if subjects is None else subjects[subject]
            found[subject][int(leaf)] = _parse_entry(fields, mark, meant, int(leaf))
        return dict(found)

    def _read_one(self, item: tuple[str, str]) -> tuple[str, Any]:
        """Return the first of ``item`` and what the object named by the second holds; None if it cannot be read."""
        given, name = item
        try:
            return given, json.loads(self._files.unseal(name, self._files.store.get(name)))
        except (RepositoryDamaged, ObjectNotFound, ValueError):
            return given, None


def _checked(backup_id: str) -> str:
    if not _SUBJECT.fullmatch(backup_id):
        raise UsageError(
            f"{backup_id!r} is not an id that pgstow gives to backups", hint="pgstow list shows them"
        )
    return backup_id


def _entry_fields(mark: str, subject: str, number: int, entry: _Entry) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "mark": mark,
        "of": subject,
        "number": number,
        "is_set": entry.is_set,
        "at": _time_text(entry.at),
        "by": entry.by,
        "reason": entry.reason,
        "until": entry.until.isoformat() if entry.until is not None else None,
    }


def _parse_entry(fields: Any, mark: str, subject: str, number: int) -> _Entry | None:  # noqa: ANN401  JSON
    """Return the entry, or None if it is not what belongs in this place."""
    place = {"format": _FORMAT, "mark": mark, "of": subject, "number": number}
    if not isinstance(fields, dict) or any(fields.get(key) != value for key, value in place.items()):
        return None
    try:
        return _Entry(
            is_set=fields["is_set"] is not False,
            at=_parse_time(fields["at"]),
            by=str(fields["by"]),
            reason=str(fields["reason"]),
            until=date.fromisoformat(fields["until"]) if fields["until"] is not None else None,
        )
    except (KeyError, TypeError, ValueError):
        return None


def _parse_proof(backup_id: str, fields: Any) -> Proof | None:  # noqa: ANN401  JSON
    place = {"format": _FORMAT, "mark": "proof", "of": backup_id}
    if not isinstance(fields, dict) or any(fields.get(key) != value for key, value in place.items()):
        return None
    try:
        return Proof(backup_id=backup_id, when=_parse_time(fields["at"]), what=str(fields["what"]))
    except (KeyError, TypeError, ValueError):
        return None


def _in_force(backup_id: str, entries: Mapping[int, _Entry | None]) -> list[Hold]:
    """Return the holds since the last release. What is unreadable or missing since then is one as well."""
    released = max((n for n, entry in entries.items() if entry is not None and not entry.is_set), default=0)
    since = {number: entries[number] for number in sorted(entries) if number > released}
    found: list[Hold] = []
    for number, entry in since.items():
        if entry is None:
            found.append(Hold(backup_id=backup_id, problem=f"mark {number} of its holds cannot be read"))
        else:
            found.append(entry.as_hold(backup_id))
    if since and len(since) < max(since) - released:
        found.append(Hold(backup_id=backup_id, problem="a mark of its holds is missing"))
    return found


def _time_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def _parse_time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.astimezone(UTC)
