"""What a backup is asked to do, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass, field

from pgstow.catalog.manifest import Manifest, Selection

__all__ = ["CaptureOptions", "CapturedBackup"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureOptions:
    """Choices of one backup. Sizes are bytes, times seconds."""

    name: str
    kind: str
    label: str | None = None
    set_id: str | None = None
    selection: Selection = field(default_factory=Selection)
    jobs: int = 2
    limit_rate: int | None = None  # bytes of table data per second, all jobs together
    split_big_tables: bool = False
    role_passwords: bool = False
    max_blocking_s: float = 30.0  # how long others may wait for our locks; 0: never give way
    lock_timeout_s: float = 60.0
    stall_timeout_s: float = 900.0
    attempts: int = 3
    full_read: bool = False  # read everything, and compare with what would have been reused
    full_read_every: int = 7

    @property
    def lock_wait_s(self) -> float:
        """How long one lock may be waited for: not longer than others may wait behind those we have."""
        return min(self.lock_timeout_s, self.max_blocking_s) if self.max_blocking_s else self.lock_timeout_s


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedBackup:
    """A published backup."""

    manifest: Manifest
    snapshot_id: str
