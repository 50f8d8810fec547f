"""Where the records of drills go: into the repository, and into the state folder while that cannot be written.

STATE/unsaved-drills/REPOSITORY/TIME-ID.json
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from pgstow.catalog.drills import DrillRecord, parse_drill, save_drill
from pgstow.core.errors import RepositoryDamaged, RepositoryLocked, StateError, StoreError
from pgstow.core.folders import make_private_folder
from pgstow.core.quantities import duration_text
from pgstow.repository import Proof, Repository

__all__ = ["keep_drill", "kept_drills", "publish_drill", "publish_kept_drills"]

_FOLDER = "unsaved-drills"


def publish_drill(repository: Repository, record: DrillRecord) -> None:
    """Save a record in the repository, and say there that its backup is proven if it passed; durable on return.

    Doing it again changes nothing but the number of proofs. Raises StoreError, RepositoryLocked.
    """
    save_drill(repository, record)
    if record.is_passed:
        took = duration_text(record.proven_s) if record.proven_s is not None else "an unknown time"
        what = (
            f"drill {record.id}: restored in {took}, {len(record.tables)} tables and {record.rows} rows equal"
        )
        repository.marks().prove(Proof(backup_id=record.backup_id, when=record.finished, what=what))


def keep_drill(state_folder: Path, repository_id: str, record: DrillRecord) -> Path:
    """Write a record into the state folder, from which it is saved later; durable on return. Raises StateError."""
    folder = state_folder / _FOLDER / repository_id
    place = folder / f"{record.file_name}.json"
    unfinished = place.with_suffix(".tmp")
    try:
        make_private_folder(folder)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(record.to_json())
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(place)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)  # the name, too
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise StateError(f"the drill's record cannot be kept in {folder}: {exc.strerror}") from exc
    return place


def kept_drills(state_folder: Path, repository_id: str) -> list[tuple[Path, DrillRecord]]:
    """Return the records that wait to be saved in a repository, the oldest first. One that cannot be read is left out."""
    found: list[tuple[Path, DrillRecord]] = []
    try:
        places = sorted((state_folder / _FOLDER / repository_id).glob("*.json"))
    except OSError:  # a folder of another user, which holds nothing of ours
        places = []
    for place in places:
        with contextlib.suppress(OSError, RepositoryDamaged):
            found.append((place, parse_drill(place.read_bytes(), where=str(place))))
    return found


def publish_kept_drills(
    repository: Repository, state_folder: Path | None, note: Callable[[str], object]
) -> list[DrillRecord]:
    """Save in the repository what waits for it; return what still cannot be saved."""
    left: list[DrillRecord] = []
    for place, record in kept_drills(state_folder, repository.id) if state_folder is not None else ():
        try:
            publish_drill(repository, record)
            place.unlink(missing_ok=True)
            note(
                f"the record of drill {record.id[:8]}, which could not be saved before, is in the repository now"
            )
        except (StoreError, RepositoryLocked, OSError):  # the next one tries again
            left.append(record)
    return left
