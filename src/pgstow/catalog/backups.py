"""Finding backups and reading what is inside one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

from pgstow.catalog.manifest import Manifest, parse_manifest
from pgstow.core.errors import BackupNotFound, RepositoryDamaged, UsageError
from pgstow.postgres.archive import Toc, read_directory_toc
from pgstow.repository import BlobId, BlobKind, DirNode, FileNode, Repository, Snapshot

__all__ = [
    "CRITICAL",
    "DAILY",
    "DAMAGED",
    "IMPORT",
    "SALVAGED",
    "BackupFiles",
    "BackupRecord",
    "backup_record",
    "backups_among",
    "check_backup_name",
    "find_backup",
    "list_backups",
    "load_readable_index",
    "resolve",
    "salvaged_member",
    "snapshot_path",
]

DAILY = "daily"  # the plain kind: its path is /NAME alone
CRITICAL = "critical"  # the kind of a backup of chosen tables, unless it is given another
IMPORT = "import"  # the kind of a dump that was made elsewhere, unless it is given another
DAMAGED = "damaged"  # the tag of a backup from which a repair left out what was lost
SALVAGED = "salvaged"  # the folder for what is left of lost tables

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
_ID = re.compile(r"[0-9a-f-]{4,36}")


def check_backup_name(name: str, *, what: Literal["name", "kind"] = "name") -> str:
    """Return ``name`` if it can name a backup source, or a kind; UsageError otherwise."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a backup {what}",
            hint="use letters, digits, and _ . + - (at most 100)"
            + ("; give one with --name" if what == "name" else ""),
        )
    return name


def snapshot_path(name: str, kind: str, *, is_partial: bool) -> str:
    """Return the path of a backup in its snapshot, without the slash; restic's ``--path`` selects by it."""
    marks = [kind] if kind != DAILY else []
    if is_partial:
        marks.append("partial")
    return f"{name} ({', '.join(marks)})" if marks else name


def salvaged_member(dump_id: int) -> str:
    """Return the name of the member that holds what a repair kept of a lost table."""
    return f"{SALVAGED}/{dump_id}.sql"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRecord:
    """A backup as its snapshot alone describes it: nothing else of the repository was read."""

    id: str
    name: str
    kind: str
    label: str | None
    is_partial: bool
    is_damaged: bool = False  # a repair left out what was lost
    set_id: str | None
    system_identifier: str | None
    time: datetime
    size_bytes: int | None
    stored_bytes: int | None
    snapshot: Snapshot

    @property
    def short_id(self) -> str:
        return self.id[:8]

    def __str__(self) -> str:
        return f"{self.short_id} of {self.name} from {self.time:%Y-%m-%d %H:%M:%S}Z"


def list_backups(
    repository: Repository, *, damaged: list[RepositoryDamaged] | None = None
) -> list[BackupRecord]:
    """Return every backup, oldest first; see ``backups_among()``.

    The first unreadable snapshot raises, unless the caller gives a list.
    """
    return backups_among(repository.snapshots(damaged=damaged))


def backups_among(snapshots: Iterable[Snapshot]) -> list[BackupRecord]:
    """Return the backups among snapshots, oldest first. Snapshots that restic made are not backups and left out.

    A backup copied or rewritten by restic keeps its run. Of the snapshots of one run one stands for it: that which was made
    from another, else one that is whole before one from which a repair left something out.
    """
    records: dict[str, BackupRecord] = {}
    for snapshot in snapshots:
        record = backup_record(snapshot)
        if record is None:
            continue
        if _stands_for(record, records.setdefault(record.id, record)):
            records[record.id] = record
    return sorted(records.values(), key=lambda record: (record.time, record.id))


def _stands_for(record: BackupRecord, other: BackupRecord) -> bool:
    """Whether ``record`` is to be shown in the place of another snapshot of its run.

    What a repair made of a snapshot that is still there, because the repair died, does: that snapshot has lost as much.
    """
    if record.snapshot.original is not None and record.snapshot.original == other.snapshot.id:
        return True
    is_older = other.snapshot.original is not None and other.snapshot.original == record.snapshot.id
    return other.is_damaged and not record.is_damaged and not is_older


def find_backup(repository: Repository, text: str, note: Callable[[str], object]) -> BackupRecord:
    """Return the backup that ``text`` names, as ``resolve()`` does, though some snapshots may be unreadable.

    ``note`` hears of those. Whatever asks for the newest backup is refused then: a lost one may be newer than those
    that are left, and an older one must not take its place unnoticed.
    """
    damaged: list[RepositoryDamaged] = []
    records = list_backups(repository, damaged=damaged)
    for exc in damaged:
        note(f"{exc.message}: which backup that was is unknown")
    if damaged and _asks_for_newest(text):
        raise RepositoryDamaged(
            f"which backup is {text} cannot be told: {damaged[0].message}",
            hint="pgstow list shows the backups that are left: name one by its id, or run pgstow repo repair",
            **damaged[0].facts,
        )
    return resolve(records, text)


def load_readable_index(repository: Repository, note: Callable[[str], object]) -> list[RepositoryDamaged]:
    """Load the index as far as it can be read; return what cannot, of which ``note`` hears."""
    damaged: list[RepositoryDamaged] = []
    repository.load_index(damaged=damaged)
    for exc in damaged:
        note(f"{exc.message}: what only this file lists is out of reach until pgstow repo repair has run")
    return damaged


def backup_record(snapshot: Snapshot) -> BackupRecord | None:
    """Return the backup that a snapshot is; None if pgstow did not make it."""
    if "pgstow" not in snapshot.tags:
        return None
    tags = dict(tag.split("=", 1) for tag in snapshot.tags if "=" in tag)
    if "run" not in tags or "db" not in tags:
        return None
    summary = snapshot.summary
    return BackupRecord(
        id=tags["run"],
        name=tags["db"],
        kind=tags.get("kind", DAILY),
        label=tags.get("label"),
        is_partial="partial" in snapshot.tags,
        is_damaged=DAMAGED in snapshot.tags,
        set_id=tags.get("set"),
        system_identifier=tags.get("system"),
        time=snapshot.time.astimezone(UTC),
        size_bytes=summary.total_bytes_processed if summary else None,
        stored_bytes=summary.data_added_packed if summary else None,
        snapshot=snapshot,
    )


def _asks_for_newest(text: str) -> bool:
    return text == "latest" or "@" in text


def resolve(records: Iterable[BackupRecord], text: str) -> BackupRecord:
    """Return the one backup that ``text`` names; BackupNotFound when none or several.

    ``text`` is an id or unique prefix, ``latest``, ``NAME@latest``, or ``NAME@2026-11-20T02:00`` (the newest
    at or before that time, UTC unless it says otherwise). Partial backups answer to their id only, imported dumps to
    the other forms only where no other backup does: their time may be that of a file.
    """
    records = sorted(records, key=lambda record: record.time)
    whole = [record for record in records if not record.is_partial]
    if text == "latest":
        names = {record.name for record in whole}
        if len(names) > 1:
            raise BackupNotFound(
                "latest is ambiguous: the repository holds backups of " + ", ".join(sorted(names)),
                hint="write NAME@latest",
            )
        return _newest(whole, "latest")
    if "@" in text:
        name, _, moment = text.rpartition("@")
        mine = [record for record in whole if record.name == name]
        if moment != "latest":
            limit = _parse_moment(moment)
            mine = [record for record in mine if record.time <= limit]
        return _newest(mine, text)
    found = [
        r
        for r in records
        if _ID.fullmatch(text) and (r.id.startswith(text) or (r.snapshot.id or "").startswith(text))
    ]
    if len(found) > 1:
        raise BackupNotFound(
            f"{text} is the beginning of {len(found)} backup ids", hint="write more of the id"
        )
    return _newest(found, text)


def _newest(records: list[BackupRecord], text: str) -> BackupRecord:
    if not records:
        raise BackupNotFound(f"no backup matches {text}", hint="pgstow list shows what there is")
    return next((record for record in reversed(records) if record.kind != IMPORT), records[-1])


def _parse_moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise UsageError(f"{text!r} is not a time", hint="write it like 2026-11-20T02:00 (UTC)") from exc
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class BackupFiles:
    """What one backup holds: the manifest, the archive's table of contents, and its members.

    Member names are relative to the backup (``archive/3456.dat``). The repository's index must be loaded.
    """

    def __init__(self, repository: Repository, record: BackupRecord) -> None:
        self.repository = repository
        self.record = record
        self._lost_folders: dict[str, str] = {}  # with a slash at the end: why

    @cached_property
    def manifest(self) -> Manifest:
        return parse_manifest(self.read("manifest.json"), where=f"backup {self.record}")

    @cached_property
    def toc(self) -> Toc:
        return read_directory_toc(self.read("archive/toc.dat"))

    @cached_property
    def _folders(self) -> dict[str, dict[str, FileNode | DirNode]]:
        roots = [node for node in self._nodes(self.record.snapshot.tree) if isinstance(node, DirNode)]
        if len(roots) != 1:
            raise RepositoryDamaged(
                f"backup {self.record} does not hold one folder at its top but {len(roots)}"
            )
        folders: dict[str, dict[str, FileNode | DirNode]] = {}
        todo = [("", roots[0].subtree)]
        while todo:
            path, tree = todo.pop()
            try:
                folders[path] = {node.name: node for node in self._nodes(tree)}
            except RepositoryDamaged as exc:
                if not path:  # nothing is left then
                    raise
                self._lost_folders[path] = exc.message
                continue
            todo += [
                (f"{path}{n.name}/", n.subtree) for n in folders[path].values() if isinstance(n, DirNode)
            ]
        return folders

    def missing(self, name: str) -> str | None:
        """Return why a file cannot be read, as far as the index tells; None if nothing speaks against it.

        Reads no data: a flipped bit is only found by reading.
        """
        node = self.member(name)
        if node is None:
            folder = name.rpartition("/")[0] + "/"
            nothing = (
                f"a repair left {name} out, which was damaged"
                if self.record.is_damaged
                else f"the backup has no {name}"
            )
            return self._lost_folders.get(folder, nothing)
        size_bytes = 0
        for blob in node.content:
            size = self.repository.blob_size(BlobKind.DATA, blob)
            if size is None:
                return f"data blob {blob.hex()} is in no index file"
            if not self._has_pack(blob):
                return f"the pack of data blob {blob.hex()} is missing or too short"
            size_bytes += size
        return None if size_bytes == node.size_bytes else f"{name} has {size_bytes} bytes by its blobs"

    def _has_pack(self, blob: BlobId) -> bool:
        """Whether a pack that holds the blob is there and long enough."""
        return any(
            self._pack_sizes.get(place.pack_id, 0) >= place.offset + place.length
            for place in self.repository.places_of(BlobKind.DATA, blob)
        )

    @cached_property
    def _pack_sizes(self) -> dict[bytes, int]:
        return self.repository.pack_sizes()

    def _nodes(self, tree: bytes) -> list[FileNode | DirNode]:
        return [node for node in self.repository.read_tree(tree) if isinstance(node, (FileNode, DirNode))]

    def member(self, name: str) -> FileNode | None:
        """Return the file ``name``, or None if the backup has no such file."""
        folder, _, leaf = name.rpartition("/")
        node = self._folders.get(f"{folder}/" if folder else "", {}).get(leaf)
        return node if isinstance(node, FileNode) else None

    def members(self) -> Iterator[tuple[str, FileNode]]:
        """Yield every file as (name, node), in name order."""
        for folder, nodes in sorted(self._folders.items()):
            yield from (
                (folder + name, node) for name, node in sorted(nodes.items()) if isinstance(node, FileNode)
            )

    def pieces(self, name: str) -> Iterator[tuple[int, bytes]]:
        """Yield size and SHA-256 of each blob of a member, in order, without reading it."""
        for blob in self._require(name).content:
            size_bytes = self.repository.blob_size(BlobKind.DATA, blob)
            if size_bytes is None:
                raise RepositoryDamaged(f"data blob {blob.hex()} of {name} is in no index file")
            yield size_bytes, blob

    def stream(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a member in order, each piece checked against its SHA-256."""
        return self.repository.stream(self._require(name).content)

    def read(self, name: str) -> bytes:
        """Return a small member whole."""
        return b"".join(
            self.repository.read_blob(BlobKind.DATA, blob) for blob in self._require(name).content
        )

    def _require(self, name: str) -> FileNode:
        node = self.member(name)
        if node is None:
            why = self._lost_folders.get(name.rpartition("/")[0] + "/")
            raise RepositoryDamaged(
                f"{name} of backup {self.record} is lost: {why}"
                if why
                else f"backup {self.record} has no {name}",
                hint="pgstow verify tells what else is missing",
            )
        return node
