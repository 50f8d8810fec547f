"""What a repair finds and does, for people, for JSON and for the record in the repository."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

__all__ = ["BadObject", "DroppedSnapshot", "MendedSnapshot", "PackLoss", "RepairReport", "SalvagedTable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BadObject:
    """An object that cannot be read: it is set aside and removed."""

    file: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PackLoss:
    """A missing or damaged pack: the index will not list it any more."""

    pack: str
    why: str
    blobs: int
    saved: int  # whole, and moved into other packs
    elsewhere: int  # lost here, but another pack has them
    lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedSnapshot:
    """A snapshot of which nothing is worth keeping."""

    snapshot: str
    backup_id: str | None  # None: not made by pgstow
    name: str
    time: datetime
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SalvagedTable:
    """What is left of a lost table, in a file of its own."""

    table: str
    path: str  # in the snapshot
    rows: int
    lost_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MendedSnapshot:
    """A snapshot that is kept without what it lost."""

    snapshot: str
    becomes: str | None  # its new id; None where nothing was written
    backup_id: str | None
    name: str
    time: datetime
    lost: tuple[str, ...]  # tables, large objects, globals
    paths: tuple[str, ...]
    salvaged: tuple[SalvagedTable, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """Everything that is wrong and what became of it; ``is_done`` is False for a plan."""

    is_done: bool
    has_read_data: bool
    config: str | None = None  # what was wrong with it: a new one is written
    bad_objects: tuple[BadObject, ...] = ()  # key files, snapshots, index files
    packs: tuple[PackLoss, ...] = ()
    relisted_packs: int = 0  # no index file listed them
    recreated_blobs: int = 0  # lost, but their content is known
    dropped: tuple[DroppedSnapshot, ...] = ()
    mended: tuple[MendedSnapshot, ...] = ()
    not_mended: tuple[
        DroppedSnapshot, ...
    ] = ()  # lost something but cannot be written anew: left as they are
    record: str | None = None  # where in the repository all this is written down

    @property
    def is_needed(self) -> bool:
        """Whether anything is wrong at all."""
        return bool(
            self.config
            or self.bad_objects
            or self.packs
            or self.relisted_packs
            or self.recreated_blobs
            or self.dropped
            or self.mended
            or self.not_mended
        )

    def document(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        fields = asdict(self)
        for key in ("dropped", "mended", "not_mended"):
            fields[key] = [{**each, "time": each["time"].isoformat()} for each in fields[key]]
        fields["done"], fields["read_data"] = fields.pop("is_done"), fields.pop("has_read_data")
        return {"needed": self.is_needed, **fields}
