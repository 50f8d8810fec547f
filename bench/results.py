"""What was measured, as data: medians for the tables, everything for the JSON file."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.measuring import Measurement

__all__ = [
    "DrillEntry",
    "Entry",
    "GrowthEntry",
    "MemoryEntry",
    "PhaseEntry",
    "Results",
    "Series",
    "TrafficEntry",
]

SCHEMA_VERSION: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One measurement of one contestant.

    ``stored_bytes`` is what its repository grew by, ``read_bytes`` the rows that were read and not taken over
    (None where that was not asked).
    """

    wall_s: float
    cpu_s: float
    server_cpu_s: float
    peak_bytes: int
    stored_bytes: int | None = None
    read_bytes: int | None = None

    @classmethod
    def of(
        cls, measurement: Measurement, stored_bytes: int | None = None, read_bytes: int | None = None
    ) -> Entry:
        return cls(
            wall_s=round(measurement.wall_s, 3),
            cpu_s=round(measurement.cpu_s, 2),
            server_cpu_s=round(measurement.server_cpu_s, 2),
            peak_bytes=measurement.peak_bytes,
            stored_bytes=stored_bytes,
            read_bytes=read_bytes,
        )


@dataclass(slots=True, kw_only=True)
class Series:
    """The measurements of one contestant in one case, in the order of the runs."""

    case: str
    contestant: str
    title: str
    command: str
    entries: list[Entry] = field(default_factory=list)

    def median(self, name: str) -> float:
        return float(statistics.median(self._values(name)))

    def least(self, name: str) -> float:
        return min(self._values(name))

    def most(self, name: str) -> float:
        return max(self._values(name))

    def has(self, name: str) -> bool:
        return bool(self.entries) and getattr(self.entries[0], name) is not None

    def _values(self, name: str) -> list[float]:
        return [getattr(entry, name) for entry in self.entries]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEntry:
    """Peak memory of one pgstow backup.

    ``growth_bytes_per_tb`` is the slope of memory over data read in the second half of the backup, with its
    standard error; None where the backup was too short to say. ``known_blobs`` is what the repository
    held before: as many as ``known_data_bytes`` of this database's data would have made.
    """

    database_bytes: int
    known_blobs: int
    known_data_bytes: int
    wall_s: float
    peak_bytes: int
    growth_bytes_per_tb: int | None
    growth_error: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficEntry:
    """What the server sent during one backup, counted in a run of its own."""

    what: str
    title: str
    server_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthEntry:
    """What a first backup and one of an unchanged database cost at one size of the database.

    ``again_*`` are of the unchanged backup: medians, memory its highest peak. Requests go to a bucket, in runs of their
    own, the opening and locking of the repository included. ``index_bytes`` is what the repository's index files take.
    """

    database_bytes: int
    rows: int
    first_s: float
    first_peak_bytes: int
    again_s: float
    again_cpu_s: float
    again_server_cpu_s: float
    again_peak_bytes: int
    repository_bytes: int
    index_bytes: int
    first_requests: dict[str, int]
    again_requests: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEntry:
    """A phase of a drill. Phases overlap; ``busy_s`` is what its sessions spent on it together."""

    name: str
    begun_s: float
    seconds: float
    busy_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillEntry:
    """What one drill was spent on."""

    wall_s: float
    phases: list[PhaseEntry]


@dataclass(slots=True, kw_only=True)
class Results:
    """Everything one invocation measured."""

    options: dict[str, Any]
    machine: dict[str, Any]
    settings: dict[str, str]
    database: dict[str, Any] = field(default_factory=dict)
    series: list[Series] = field(default_factory=list)
    memory: list[MemoryEntry] = field(default_factory=list)
    traffic: list[TrafficEntry] = field(default_factory=list)
    growth: list[GrowthEntry] = field(default_factory=list)
    drills: list[DrillEntry] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def one(self, case: str, contestant: str) -> Series | None:
        return next((s for s in self.series if (s.case, s.contestant) == (case, contestant)), None)

    def of_case(self, case: str) -> list[Series]:
        return [series for series in self.series if series.case == case]

    def best(self, case: str, prefix: str, name: str) -> Series | None:
        """Return the contestant of this name prefix with the least median: the one hardest to beat."""
        return _least(
            (s for s in self.of_case(case) if s.contestant.startswith(prefix) and s.has(name)), name
        )

    def write(self, path: Path) -> None:
        document = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        for series in document["series"]:
            series["median"] = _medians(series["entries"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")


def _least(candidates: Iterable[Series], name: str) -> Series | None:
    return min(candidates, key=lambda series: series.median(name), default=None)


def _medians(entries: Sequence[dict[str, Any]]) -> dict[str, float]:
    names = [name for name in entries[0] if entries[0][name] is not None] if entries else []
    return {name: round(float(statistics.median(entry[name] for entry in entries)), 3) for name in names}
