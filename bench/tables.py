"""The tables of the report: cells once, for the terminal and for the document alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.results import Results, Series
from bench.targets import judge

__all__ = ["Table", "tables"]

_CASES: Final = {
    "first": "First backup, into an empty repository",
    "second": "Second backup, nothing changed",
    "update": "Another backup, 1 % of the largest table's rows updated (measured once)",
    "restore": "Restore into a fresh database",
    "tables": "First backup of many small tables",
}
_NONE: Final = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A heading, column names and rows of cells; the first column is text, the others are numbers."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    ours: int | None = None  # the row to point out


def tables(results: Results) -> Iterator[Table]:
    """Yield the table of every case that was measured, then memory, then the targets."""
    for case, heading in _CASES.items():
        series = results.of_case(case)
        if series:
            yield _case(case, heading, series)
    if results.memory:
        yield _memory(results)
    yield _targets(results)


def _case(case: str, heading: str, series: list[Series]) -> Table:
    ordered = sorted(series, key=lambda one: one.median("wall_s"), reverse=True)
    ours = next((one for one in series if one.contestant == "pgstow"), None)
    columns = ("tool", "seconds", "least", "most", "pgstow=1", "CPU s", "server s", "memory", "stored")
    stores = any(one.has("stored_bytes") for one in series)
    shown = len(columns) if stores else len(columns) - 1
    return Table(
        heading=heading,
        columns=columns[:shown],
        rows=[_cells(case, one, ours)[:shown] for one in ordered],
        ours=ordered.index(ours) if ours else None,
    )


def _cells(case: str, one: Series, ours: Series | None) -> tuple[str, ...]:
    stored = _NONE
    if one.has("stored_bytes"):
        stored = f"{'' if case in {'first', 'tables'} else '+'}{one.median('stored_bytes') / 1e6:.1f}"
    return (
        one.title,
        f"{one.median('wall_s'):.1f}",
        f"{one.least('wall_s'):.1f}",
        f"{one.most('wall_s'):.1f}",
        f"{one.median('wall_s') / ours.median('wall_s'):.2f}" if ours else _NONE,
        f"{one.median('cpu_s'):.1f}",
        f"{one.median('server_cpu_s'):.1f}",
        f"{one.most('peak_bytes') / 1e6:.0f}",
        stored,
    )


def _memory(results: Results) -> Table:
    rows = [
        (
            f"{entry.database_bytes / 1e9:.2f}",
            f"{entry.known_blobs:,}",
            f"{entry.wall_s:.1f}",
            f"{entry.peak_bytes / 1e6:.0f}",
            f"{entry.growth_bytes_per_tb / 1e6:.0f} ± {(entry.growth_error or 0) / 1e6:.0f}"
            if entry.growth_bytes_per_tb is not None
            else "too short to say",
        )
        for entry in results.memory
    ]
    return Table(
        heading="Peak memory of all processes of a pgstow backup",
        columns=("database GB", "blobs known before", "seconds", "peak", "growth per TB"),
        rows=rows,
    )


def _targets(results: Results) -> Table:
    rows = [
        (
            target.name,
            target.against,
            _amount(target.limit, target.unit),
            _NONE if target.value is None else _amount(target.value, target.unit),
            target.verdict,
        )
        for target in judge(results)
    ]
    return Table(heading="Targets", columns=("what", "against", "at most", "measured", "verdict"), rows=rows)


def _amount(value: float, unit: str) -> str:
    return f"{value:.0f} MB" if unit == "MB" else f"{value:.2f}"
