"""The use cases of ``pgstow keys``: the passwords that open a repository."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pgstow.app.auditing import note_access
from pgstow.catalog.backups import BackupFiles, BackupRecord, list_backups
from pgstow.core.errors import RepositoryError, UsageError
from pgstow.core.secrets import Secret
from pgstow.repository import KeyInfo, Repository

__all__ = ["PasswordChange", "add_key", "change_password", "prove_password", "remove_key"]

_ID = re.compile(r"[0-9a-f]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordChange:
    """A password that was replaced by another one."""

    added: str
    removed: str
    also_opened: tuple[str, ...]  # other key files that the old password still opens


def add_key(repository: Repository, password: Secret, *, hostname: str, username: str) -> str:
    """Make ``password`` open the repository too, and return the id of its key."""
    with repository.lock():
        added = repository.add_key(password, hostname=hostname, username=username)
    note_access(added_key=added)
    return added


def prove_password(repository: Repository) -> BackupRecord | None:
    """Return the newest backup, its manifest read with the password that opened the repository; None where there is none."""
    note_access(tested_key=repository.key_id)
    backups = list_backups(repository)
    if not backups:
        return None
    repository.load_index()
    _ = BackupFiles(repository, backups[-1]).manifest
    note_access(subjects=[backups[-1].id])
    return backups[-1]


def remove_key(repository: Repository, text: str) -> KeyInfo:
    """Remove the one key whose id begins with ``text``, never the one in use, and return what it was."""
    with repository.lock(exclusive=True):
        keys = repository.key_files()
        key = _find(keys, text)
        if key.id == repository.key_id:
            others = sum(1 for each in keys if each.damage is None) - 1
            raise RepositoryError(
                f"key {key.id[:8]} is the one in use" if others else f"key {key.id[:8]} is the only one",
                hint="pgstow keys passwd replaces it; to remove it, open the repository with another password"
                if others
                else "pgstow keys passwd replaces it by another one",
            )
        note_access(removed_key=key.id)
        repository.remove_key(key.id)
        return key


def _find(keys: Sequence[KeyInfo], text: str) -> KeyInfo:
    if not _ID.fullmatch(text):
        raise UsageError(f"{text!r} is not the beginning of a key's id", hint="pgstow keys list shows them")
    found = [key for key in keys if key.id.startswith(text)]
    if len(found) != 1:
        count = f"{len(found)} keys begin" if found else "no key begins"
        raise RepositoryError(f"{count} with {text}", hint="pgstow keys list shows them")
    return found[0]


def change_password(
    repository: Repository, old: Secret, new: Secret, *, hostname: str, username: str
) -> PasswordChange:
    """Replace the key that opened ``repository``: the new one is proven before the old one goes.

    A failure between leaves both passwords valid.
    """
    if old.reveal() == new.reveal():
        raise UsageError("the new password is the old one")
    with repository.lock(exclusive=True):
        also_opened = {*repository.keys_opened_by(old)} - {repository.key_id}
        added = repository.add_key(new, hostname=hostname, username=username)
        note_access(added_key=added, removed_key=repository.key_id)
        repository.remove_key(repository.key_id, kept_id=added)
        return PasswordChange(added=added, removed=repository.key_id, also_opened=tuple(sorted(also_opened)))
