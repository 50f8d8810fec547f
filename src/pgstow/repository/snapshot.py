"""Snapshots: one tree at one time, with the words restic selects by.

Source: restic internal/data/snapshot.go.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgstow.repository import gojson
from pgstow.repository.ids import ID_BYTES, BlobId

__all__ = ["Snapshot", "SnapshotSummary", "copied_snapshot", "decode_snapshot", "encode_snapshot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSummary:
    """What restic 0.17 and later show beside a snapshot. Without one they list no size."""

    backup_start: datetime
    backup_end: datetime
    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    dirs_new: int = 0
    dirs_changed: int = 0
    dirs_unmodified: int = 0
    data_blobs: int = 0
    tree_blobs: int = 0
    data_added: int = 0  # plain bytes that were new
    data_added_packed: int = 0  # what those take in the repository
    total_files_processed: int = 0
    total_bytes_processed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A snapshot, ours or restic's. ``id`` is its name in the repository once it is stored."""

    time: datetime
    tree: BlobId
    paths: tuple[str, ...]
    hostname: str = ""
    username: str = ""
    tags: tuple[str, ...] = ()
    program_version: str = ""
    summary: SnapshotSummary | None = None
    parent: str | None = None
    original: str | None = None  # the snapshot this one was copied or rewritten from
    excludes: tuple[str, ...] = ()
    uid: int = 0
    gid: int = 0
    id: str | None = None


_TIMES = ("backup_start", "backup_end")
_COUNTS = tuple(name for name in SnapshotSummary.__dataclass_fields__ if name not in _TIMES)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return the JSON of a snapshot as restic would write it; its id is no part of it."""
    fields: dict[str, Any] = {"time": gojson.format_time(snapshot.time)}
    if snapshot.parent:
        fields["parent"] = snapshot.parent
    fields |= {"tree": snapshot.tree.hex(), "paths": list(snapshot.paths)}
    optional = {
        "hostname": snapshot.hostname,
        "username": snapshot.username,
        "uid": snapshot.uid,
        "gid": snapshot.gid,
        "excludes": list(snapshot.excludes),
        "tags": list(snapshot.tags),
        "original": snapshot.original,
        "program_version": snapshot.program_version,
    }
    fields |= {name: value for name, value in optional.items() if value}
    if snapshot.summary is not None:
        summary = snapshot.summary
        fields["summary"] = {name: gojson.format_time(getattr(summary, name)) for name in _TIMES} | {
            name: getattr(summary, name) for name in _COUNTS
        }
    return gojson.dumps(fields)


def copied_snapshot(data: bytes, snapshot_id: str) -> bytes:
    """Return the JSON of a snapshot as a copy of it in another repository holds it; ValueError if it is none.

    Everything stays, also what only a newer restic knows; ``original`` names the snapshot that was the first of all
    copies, and a parent has no meaning elsewhere. Source: restic cmd/restic/cmd_copy.go.
    """
    try:
        fields = dict(json.loads(data))
    except TypeError as exc:
        raise ValueError("a snapshot is an object") from exc
    fields.pop("parent", None)
    fields["original"] = fields.get("original") or snapshot_id
    return gojson.dumps(fields)


def decode_snapshot(data: bytes, snapshot_id: str) -> Snapshot:
    """Return the snapshot in ``data``; ValueError if it is none."""
    try:
        fields = json.loads(data)
        tree = bytes.fromhex(fields["tree"])
        if len(tree) != ID_BYTES:
            raise ValueError(f"{fields['tree']!r} is not a tree")
        summary = fields.get("summary")
        return Snapshot(
            time=gojson.parse_time(fields["time"]),
            tree=tree,
            paths=tuple(map(str, fields["paths"] or ())),
            hostname=str(fields.get("hostname", "")),
            username=str(fields.get("username", "")),
            tags=tuple(map(str, fields.get("tags") or ())),
            program_version=str(fields.get("program_version", "")),
            summary=_decode_summary(summary) if summary else None,
            parent=fields.get("parent"),
            original=fields.get("original"),
            excludes=tuple(map(str, fields.get("excludes") or ())),
            uid=int(fields.get("uid", 0)),
            gid=int(fields.get("gid", 0)),
            id=snapshot_id,
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"a field of the snapshot is missing or malformed: {exc}") from exc


def _decode_summary(fields: dict[str, Any]) -> SnapshotSummary:
    counts = {name: int(fields.get(name, 0)) for name in _COUNTS}
    start, end = (gojson.parse_time(fields[name]) for name in _TIMES)
    return SnapshotSummary(backup_start=start, backup_end=end, **counts)
