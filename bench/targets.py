"""What pgstow promises, as ratios of medians of one invocation, and whether it was kept."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from bench.memory import TERABYTE
from bench.results import Results

__all__ = ["Target", "judge"]

Verdict = Literal["pass", "miss", "not measured"]
_US: Final = "pgstow"
_MEMORY_LIMIT_MB: Final = 500.0
_SERVER: Final = "server_cpu_s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One promise. ``value`` and ``limit`` share the unit ``unit``; smaller is better."""

    name: str
    against: str
    limit: float
    value: float | None
    unit: str
    is_about_changes: bool = False

    @property
    def verdict(self) -> Verdict:
        if self.value is None:
            return "not measured"
        return "pass" if self.value <= self.limit else "miss"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


def judge(results: Results) -> list[Target]:
    """Return every target with what was measured; among several releases of restic the best one counts."""
    return [*_of_the_job(results), *_about_changes(results)]


def _versus(
    results: Results,
    name: str,
    case: str,
    peer: str,
    limit: float,
    quantity: str = "wall_s",
    *,
    ours: str = _US,
    is_about_changes: bool = False,
) -> Target:
    """Return the target that our median of a quantity is at most ``limit`` times that of the best such peer."""
    mine, theirs = results.one(case, ours), results.best(case, peer, quantity)
    base = theirs.median(quantity) if theirs else 0.0
    return Target(
        name=name,
        against=theirs.title if theirs else peer,
        limit=limit,
        value=mine.median(quantity) / base if mine and base else None,
        unit="times",
        is_about_changes=is_about_changes,
    )


def _of_the_job(results: Results) -> list[Target]:
    def versus(name: str, case: str, peer: str, limit: float, quantity: str = "wall_s") -> Target:
        return _versus(results, name, case, peer, limit, quantity)

    return [
        versus("first backup", "first", "script", 0.2),
        versus("first backup", "first", "restic", 0.5),
        versus("first backup", "first", "pgbackrest", 1.0),
        versus("repository size", "first", "restic", 1.05, "stored_bytes"),
        versus("second backup", "second", "restic", 0.8),
        versus("restore", "restore", "plain", 1.1),
        versus("drill, every row compared", "drill", "plain", 1.25),
        versus("many small tables", "tables", "directory", 1.3),
        Target(
            name="peak memory, 1 TB",
            against="its growth, extended",
            limit=_MEMORY_LIMIT_MB,
            value=_extended_peak_mb(results),
            unit="MB",
        ),
        Target(
            name="peak memory, 1 TB",
            against="an index that large",
            limit=_MEMORY_LIMIT_MB,
            value=_index_peak_mb(results),
            unit="MB",
        ),
    ]


def _about_changes(results: Results) -> list[Target]:
    def versus(
        name: str, case: str, peer: str, limit: float, quantity: str = "wall_s", ours: str = _US
    ) -> Target:
        return _versus(results, name, case, peer, limit, quantity, ours=ours, is_about_changes=True)

    return [
        versus("nothing changed: seconds", "unchanged", "restic", 1 / 4),
        versus("nothing changed: processor time of the server", "unchanged", "full-read", 1 / 3, _SERVER),
        versus("nothing changed: processor time of the server", "unchanged", "restic", 1 / 3, _SERVER),
        versus("every page range changed: seconds", "everywhere", "into-empty", 1.15),
        versus("1 % added: seconds", "appended", "restic", 1 / 3),
        versus("1 % added: stored", "appended", "restic", 1.0, "stored_bytes"),
        versus("1 % updated: stored", "updated", "restic", 1.1, "stored_bytes"),
        versus("first backup, 50 ms away: seconds", "first-distance", "folder", 1.2, ours="late"),
        versus("first backup, 50 ms away: seconds", "first-distance", "bucket", 1.2, ours="late"),
    ]


def _extended_peak_mb(results: Results) -> float | None:
    """Return the highest peak of any backup, plus the growth of the large ones carried on to a terabyte."""
    large = [
        entry for entry in results.memory if entry.growth_bytes_per_tb is not None and not entry.known_blobs
    ]
    if not large:
        return None
    size = max(entry.database_bytes for entry in large)
    growths = [entry.growth_bytes_per_tb or 0 for entry in large if entry.database_bytes == size]
    peaks = [entry.peak_bytes for entry in large]
    peaks += [entry.peak_bytes for s in results.series if s.contestant == _US for entry in s.entries]
    growth = max(0.0, statistics.median(growths))
    return (max(peaks) + growth * (TERABYTE - size) / TERABYTE) / 1e6


def _index_peak_mb(results: Results) -> float | None:
    peaks = [entry.peak_bytes for entry in results.memory if entry.known_data_bytes >= TERABYTE]
    return max(peaks) / 1e6 if peaks else None
