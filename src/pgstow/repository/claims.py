"""Run claims: a run publishes once, and not at all when it was taken for dead before.

``pgstow/runs/RUN`` is created, only if absent, right before the run's snapshot is written. Who takes over the lease
of a run that seems dead creates that object first, as *void*: should the run go on after all, its own create fails
and it cannot publish. Where the run was faster, it may be stopped between its claim and its snapshot, and the
snapshot may still appear, as a backup beside the one of the run that took over. Both are whole: each run
confirmed, after its last blob, that the index lists all it refers to, and a prune that goes on meanwhile looks at the
snapshots once more before it deletes what it took out of the index.

A copy into the repository is no run of it, and several may bring one backup at once. ``pgstow/runs/copy-HASH`` is created, only if
absent, with the bytes of the snapshot to be: who comes second writes those, which make one and the same file.

Readers go by snapshots alone. A snapshot of a voided run can only be there where a store ignores the condition, or
because somebody put it back; it was published whole, so it counts as a backup.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from datetime import timedelta
from typing import Any

from pgstow.core.errors import (
    ObjectExists,
    ObjectNotFound,
    RepositoryDamaged,
    RepositoryLocked,
    StoreDenied,
    StoreError,
)
from pgstow.repository.files import SealedFiles
from pgstow.store.api import Store
from pgstow.store.clock import store_now
from pgstow.store.probing import NOT_IMPLEMENTED

__all__ = ["claim_copy", "claim_run", "claim_run_blindly", "confirm_claim", "remove_old_claims", "void_run"]

_FOLDER = "pgstow/runs/"


def claim_run(files: SealedFiles, run_id: str, *, lease: int, database: str) -> None:
    """Reserve the right to publish this run; RepositoryLocked if it was voided."""
    name = _FOLDER + run_id
    sealed = _sealed(files, state="publishing", run=run_id, lease=lease, database=database)
    try:
        files.store.put(name, sealed, if_absent=True)
    except (ObjectExists, StoreDenied) as exc:
        if isinstance(exc, StoreDenied) and _read(files, run_id) is None:
            raise
        raise _refused(files, run_id) from exc


def claim_run_blindly(files: SealedFiles, run_id: str, *, lease: int, database: str) -> bytes:
    """Do the same in a store that cannot create conditionally, and return the claim's stored bytes.

    ``confirm_claim()`` has to follow, after a while.
    """
    if _read(files, run_id) is not None:
        raise _refused(files, run_id)
    sealed = _sealed(files, state="publishing", run=run_id, lease=lease, database=database)
    files.store.put(_FOLDER + run_id, sealed)
    return sealed


def confirm_claim(files: SealedFiles, run_id: str, sealed: bytes) -> None:
    """Raise RepositoryLocked unless the claim still is the one that was written."""
    try:
        if files.store.get(_FOLDER + run_id) == sealed:
            return
    except ObjectNotFound:
        pass
    raise _refused(files, run_id)


def void_run(files: SealedFiles, run_id: str, *, by: str) -> bool:
    """Make sure that a run that has not claimed its publication never will; return whether it had not."""
    if _read(files, run_id) is not None:  # a store that ignores the condition would overwrite it
        return False
    name, sealed = _FOLDER + run_id, _sealed(files, state="void", run=run_id, by=by)
    try:
        files.store.put(name, sealed, if_absent=True)
    except ObjectExists:
        return False
    except StoreError as exc:
        if exc.facts.get("http_status") != NOT_IMPLEMENTED:
            raise
        files.store.put(name, sealed)
    return True


def claim_copy(files: SealedFiles, repository_id: str, identity: str, sealed: bytes) -> bytes:
    """Return the bytes that the snapshot of a copy is to have: ``sealed``, or those that another process claimed before.

    They may be anything that somebody put there: look at them. ``identity`` says of what it is a copy.
    """
    mixed = hashlib.sha256(f"{repository_id} copy of {identity}".encode()).hexdigest()
    name = f"{_FOLDER}copy-{mixed[:32]}"
    try:
        try:
            files.store.put(name, sealed, if_absent=True)
        except StoreError as exc:
            if exc.facts.get("http_status") != NOT_IMPLEMENTED:
                raise
            files.store.put(name, sealed)
    except (ObjectExists, StoreDenied):
        with contextlib.suppress(ObjectNotFound):  # removed since, as an old one
            return files.store.get(name)
    return sealed


def remove_old_claims(store: Store, *, older_than: timedelta = timedelta(days=7)) -> int:
    """Remove claims that no run can need any more; return how many there were.

    A run that was stopped for so long fails by its own clock, and its lease has passed to others.
    """
    claims = list(store.list(_FOLDER))
    if not claims:
        return 0
    limit = store_now(store) - older_than
    old = [info.name for info in claims if info.modified < limit]
    for name in old:
        store.delete(name)
    return len(old)


def _sealed(files: SealedFiles, **fields: Any) -> bytes:
    return files.seal(
        json.dumps(fields).encode()
    )  # never twice the same: a put that is retried knows its own


def _read(files: SealedFiles, run_id: str) -> dict[str, Any] | None:
    """Return what a claim says, or None if there is none; an unreadable one says nothing but is there."""
    name = _FOLDER + run_id
    try:
        fields = json.loads(files.unseal(name, files.store.get(name)))
    except ObjectNotFound:
        return None
    except (RepositoryDamaged, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _refused(files: SealedFiles, run_id: str) -> RepositoryLocked:
    fields = _read(files, run_id) or {}
    if fields.get("state") == "void":
        return RepositoryLocked(
            f"this run was taken for dead and its lease taken over by {fields.get('by')}; nothing was published",
            hint="run the backup again; was the machine asleep?",
            run=run_id,
        )
    return RepositoryLocked(
        f"another process publishes the run {run_id}; nothing was published", hint="run the backup again"
    )
