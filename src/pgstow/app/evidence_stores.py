"""Asking stores what an evidence report is judged by: how long they hold objects, what may be deleted, which TLS they speak."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pgstow.app.evidence_repositories import Insides
from pgstow.catalog.backups import BackupRecord
from pgstow.config.settings import Settings
from pgstow.core.errors import Interrupted, PgstowError, RepositoryDamaged
from pgstow.evidence import facts as evidence
from pgstow.repository import BlobKind, DirNode, FileKind, FileNode, Repository
from pgstow.store.tls import negotiated_tls

__all__ = ["lock_facts", "objects_of", "store_facts"]

_MOST_OBJECTS = 50_000
_FOLDER = "a folder: nothing in it is held until a day"


def store_facts(insides: Insides, *, probes_deletion: bool) -> dict[str, Any]:
    """Return what a report says of the store of a repository, by the names of ``RepositoryFacts``.

    Only with ``probes_deletion`` a bucket is asked what may be deleted, which writes an object of our own.
    """
    found: dict[str, Any] = {}
    if insides.repository is None:
        return found
    try:
        found["tls"] = negotiated_tls(insides.location, insides.environ)
    except Interrupted:
        raise
    except PgstowError as exc:
        found["tls_error"] = exc.message
    found["deletion"] = _deletion(insides, probes_deletion=probes_deletion)
    return found


def _is_bucket(location: str) -> bool:
    return "://" in location and not location.startswith("file://")


def _deletion(insides: Insides, *, probes_deletion: bool) -> evidence.DeletionFacts | None:
    location = insides.location
    if not _is_bucket(location):
        folder = Path(location.removeprefix("file://"))
        data = folder / "data"
        may_write = os.access(data if data.is_dir() else folder, os.W_OK)
        return evidence.DeletionFacts(is_folder=True, may_write=may_write)
    if not location.startswith("s3://"):
        return evidence.DeletionFacts(error="what may be deleted in a store of this kind is not asked yet")
    if not probes_deletion:
        return None
    # Imported here because botocore takes a third of a second, which no local repository should pay.
    from pgstow.store.deletion_rights import probe_deletion_rights  # noqa: PLC0415

    try:
        rights = probe_deletion_rights(location, insides.environ)
    except Interrupted:
        raise
    except PgstowError as exc:
        return evidence.DeletionFacts(error=exc.message)
    return evidence.DeletionFacts(
        may_write=rights.may_write,
        may_delete=rights.may_delete,
        may_delete_versions=rights.may_delete_versions,
        keeps_versions=rights.keeps_versions,
    )


# -- how long objects are held


def lock_facts(
    read: Iterable[Insides], settings: Settings, *, before: datetime
) -> Iterator[evidence.LockFacts]:
    """Yield how the newest backup of every kind is held in each repository, read back for all its objects."""
    for insides in read:
        newest: dict[tuple[str, str], BackupRecord] = {}
        for record in insides.records:
            if record.name in settings.databases and not record.is_damaged and record.time < before:
                newest[record.name, record.kind] = record
        if newest and insides.repository is not None:
            yield from _locks_in(
                insides, insides.repository, [newest[key] for key in sorted(newest)], settings
            )


def _locks_in(
    insides: Insides, repository: Repository, records: Sequence[BackupRecord], settings: Settings
) -> Iterator[evidence.LockFacts]:
    try:
        held, why = _held(insides, repository, records)
    except Interrupted:
        raise
    except PgstowError as exc:
        held, why = {}, {"error": exc.message}
    for record in records:
        rule = settings.retention.rules.get(record.kind)
        needed = None if rule is None else record.time + timedelta(days=rule.days)
        facts = evidence.LockFacts(
            repository=insides.name,
            database=record.name,
            kind=record.kind,
            backup_id=record.id,
            made=record.time,
            needed=needed,
            **why,
        )
        yield facts if why else facts.model_copy(update=_counted(held[record.id], needed))


def _held(
    insides: Insides, repository: Repository, records: Sequence[BackupRecord]
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Return the locks of the objects of each backup; nothing, and why, where there are none to be had."""
    if not _is_bucket(insides.location):
        return {}, {"is_lockable": False, "error": _FOLDER}
    if not insides.location.startswith("s3://"):
        return {}, {"error": "until when a store of this kind holds objects is not read back yet"}
    from pgstow.store.object_lock import LockableBucket  # noqa: PLC0415  as above

    bucket = LockableBucket(insides.location, insides.environ)
    if bucket.locks([]) is None:
        return {}, {"is_lockable": False}
    repository.load_index(damaged=[])
    names = {record.id: objects_of(repository, record) for record in records}
    wanted = set().union(*names.values())
    if len(wanted) > _MOST_OBJECTS:
        return {}, {"error": f"more than {_MOST_OBJECTS} objects are not looked at"}
    locks = bucket.locks(sorted(wanted)) or {}
    return {backup: [locks.get(name) for name in mine] for backup, mine in names.items()}, {}


def _counted(locks: Sequence[Any], needed: datetime | None) -> dict[str, Any]:
    long_enough = [each for each in locks if each is not None and needed is not None and each.until >= needed]
    return {
        "is_lockable": True,
        "objects": len(locks),
        "held": sum(each.is_strict for each in long_enough),
        "liftable": sum(not each.is_strict for each in long_enough),
        "earliest": min((each.until for each in locks if each is not None), default=None),
    }


def objects_of(repository: Repository, record: BackupRecord) -> set[str]:
    """Return the names of the objects without which a backup is lost: packs, snapshot, and the key that opens it.

    Index and configuration are left out: they can be made again from these. The index must be loaded.
    Raises RepositoryDamaged where the index does not tell.
    """
    assert record.snapshot.id is not None
    names = {FileKind.SNAPSHOT.name_of(record.snapshot.id), FileKind.KEY.name_of(repository.key_id)}
    packs: set[bytes] = set()
    todo = [record.snapshot.tree]
    while todo:
        tree = todo.pop()
        packs.add(_pack_of(repository, BlobKind.TREE, tree))
        for node in repository.read_tree(tree):
            if isinstance(node, DirNode):
                todo.append(node.subtree)
            elif isinstance(node, FileNode):
                packs.update(_pack_of(repository, BlobKind.DATA, blob) for blob in node.content)
    return names | {FileKind.PACK.name_of(pack.hex()) for pack in packs}


def _pack_of(repository: Repository, kind: BlobKind, blob: bytes) -> bytes:
    pack = repository.pack_of(kind, blob)
    if pack is None:
        raise RepositoryDamaged(f"{kind.value} blob {blob.hex()} is in no index file")
    return pack
