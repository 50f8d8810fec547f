"""Backups of any age in a repository, without a database: small, with a manifest, and each with blobs of its own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from pgstow.catalog.backups import snapshot_path
from pgstow.catalog.manifest import GlobalsRecord, Manifest, ReuseRecord, ServerRecord, Totals
from pgstow.repository import DirNode, FileNode, Repository, Snapshot
from support.repositories import MOMENT, random_bytes, save_file, snapshot_of

__all__ = ["backup_id", "save_dated"]

_SHARED = random_bytes(2000, 0)


def backup_id(number: int) -> str:
    """Return the id of backup NUMBER; it begins with the number."""
    return str(UUID(f"{number:08d}-0000-4000-8000-{number:012d}"))


def save_dated(
    repository: Repository,
    number: int,
    time: datetime,
    *,
    name: str = "shop",
    kind: str = "daily",
    is_partial: bool = False,
    tags: Sequence[str] = (),
    alarms: Sequence[str] = (),
    original: str | None = None,
) -> str:
    """Save a backup and return its snapshot's id. ``repository`` must have its index loaded."""
    own = backup_id(number)
    manifest = _manifest(own, name, kind, time, alarms, is_partial=is_partial).to_json()
    rows = [_SHARED, random_bytes(3000, number)]
    with repository.writer() as writer:
        archive = writer.save_tree([save_file(writer, "1.dat", rows)])
        inside: list[FileNode | DirNode] = [
            DirNode(name="archive", subtree=archive, modified=MOMENT),
            save_file(writer, "manifest.json", [manifest]),
        ]
        path = snapshot_path(name, kind, is_partial=is_partial)
        tree = writer.save_tree([DirNode(name=path, subtree=writer.save_tree(inside), modified=MOMENT)])
    plain = snapshot_of(tree, [5000, len(manifest)], run=own, time=time, folder=path)
    marks = ["partial"] if is_partial else []
    all_tags = ("pgstow", f"db={name}", f"kind={kind}", f"run={own}", *marks, *tags)
    return repository.save_snapshot(
        Snapshot(
            time=plain.time,
            tree=tree,
            paths=plain.paths,
            hostname=name,
            username="tester",
            tags=all_tags,
            program_version="pgstow",
            summary=plain.summary,
            original=original,
        )
    )


def _manifest(
    own: str, name: str, kind: str, time: datetime, alarms: Sequence[str], *, is_partial: bool
) -> Manifest:
    server = ServerRecord(
        system_identifier="7",
        version_num=150000,
        version="PostgreSQL 15",
        database=name,
        database_oid=5,
        encoding="UTF8",
        collate="C",
        ctype="C",
        locale_provider="c",
        lsn=None,
        is_standby=False,
        postmaster_start=None,
        tls=None,
        host="db",
    )
    return Manifest(
        backup_id=own,
        name=name,
        kind=kind,
        is_partial=is_partial,
        started=time,
        snapshot_taken=time,
        finished=time,
        server=server,
        tools={},
        settings={},
        tables=(),
        globals=GlobalsRecord(is_captured=False),
        reuse=ReuseRecord(is_base=False, alarms=tuple(alarms)),
        totals=Totals(
            tables=0, rows=0, size_bytes=5000, new_blobs=0, new_bytes=0, stored_bytes=0, known_bytes=0
        ),
    )
