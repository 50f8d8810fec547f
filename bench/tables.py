"""The tables of the report: cells once, for the terminal and for the document alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.growth import DELAY_MS
from bench.results import Results, Series
from bench.targets import judge

__all__ = ["Table", "tables", "tables_about_changes"]

_CASES: Final = {
    "first": "First backup, into an empty repository",
    "second": "Second backup, nothing changed",
    "restore": "Restore into a fresh database",
    "drill": "Drill: make a server, restore, compare every row, check, remove it all",
    "tables": "First backup of many small tables",
}
_CHANGES: Final = {
    "unchanged": "Nothing changed",
    "everywhere": "A few rows in every page range changed",
    "appended": "1 % of rows added to every table",
    "updated": "1 % of the largest table's rows updated, spread evenly",
}
_DISTANCES: Final = {
    "first-distance": f"First backup into a folder, a bucket, and a bucket {DELAY_MS} ms away",
    "second-distance": "The same again, nothing changed",
}
_FROM_NOTHING: Final = frozenset({"first", "tables", "first-distance"})
_TRAFFIC: Final = {
    "everything": "everything is read",
    "unchanged": "nothing changed",
    "appended": "1 % of rows added",
    "updated": "1 % updated, spread evenly",
}
_METHODS: Final = ("PUT", "GET", "HEAD", "LIST", "DELETE")
_NONE: Final = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A heading, column names and rows of cells; the first column is text, the others are numbers."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    ours: int | None = None  # the row to point out


def tables(results: Results) -> Iterator[Table]:
    """Yield the table of every case of the whole job that was measured, then memory, then the targets."""
    yield from _cases(results, _CASES)
    if results.drills:
        yield _phases(results)
    if results.memory:
        yield _memory(results)
    if any(results.of_case(case) for case in _CASES) or results.memory:
        yield _targets(results, about_changes=False)


def tables_about_changes(results: Results) -> Iterator[Table]:
    """Yield the tables about reading only what changed, then their targets; nothing if nothing was measured."""
    yield from _cases(results, _CHANGES)
    if results.traffic:
        yield _traffic(results)
    yield from _cases(results, _DISTANCES)
    if results.growth:
        yield _growth(results)
        yield _requests(results)
    if results.growth or any(results.of_case(case) for case in (*_CHANGES, *_DISTANCES)):
        yield _targets(results, about_changes=True)


def _cases(results: Results, headings: Mapping[str, str]) -> Iterator[Table]:
    for case, heading in headings.items():
        series = results.of_case(case)
        if series:
            yield _case(case, heading, series)


def _case(case: str, heading: str, series: list[Series]) -> Table:
    ordered = sorted(series, key=lambda one: one.median("wall_s"), reverse=True)
    ours = next((one for one in series if one.contestant in {"pgstow", "folder"}), None)
    columns = (
        "tool",
        "seconds",
        "least",
        "most",
        "pgstow=1",
        "CPU s",
        "server s",
        "memory",
        "stored",
        "read",
    )
    shown = len(columns) - 2
    if any(one.has("stored_bytes") for one in series):
        shown += 1
    if any(one.has("read_bytes") for one in series):
        shown += 1
    return Table(
        heading=heading,
        columns=columns[:shown],
        rows=[_cells(case, one, ours)[:shown] for one in ordered],
        ours=ordered.index(ours) if ours else None,
    )


def _cells(case: str, one: Series, ours: Series | None) -> tuple[str, ...]:
    stored = _NONE
    if one.has("stored_bytes"):
        stored = f"{'' if case in _FROM_NOTHING else '+'}{one.median('stored_bytes') / 1e6:.1f}"
    read = f"{one.median('read_bytes') / 1e6:.1f}" if one.has("read_bytes") else _NONE
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
        read,
    )


def _phases(results: Results) -> Table:
    """Return what the drill in the middle was spent on, in the order in which its phases began."""
    drill = sorted(results.drills, key=lambda one: one.wall_s)[len(results.drills) // 2]
    work = sum(phase.busy_s for phase in drill.phases) or 1.0
    rows = [
        (
            phase.name,
            f"{phase.begun_s:.1f}",
            f"{phase.begun_s + phase.seconds:.1f}",
            f"{phase.busy_s:.1f}",
            f"{phase.busy_s / work:.0%}",
        )
        for phase in sorted(drill.phases, key=lambda one: one.begun_s)
    ]
    return Table(
        heading=f"Phases of a drill of {drill.wall_s:.1f} seconds, which overlap",
        columns=("phase", "from", "to", "seconds of all its sessions", "share"),
        rows=rows,
    )


def _traffic(results: Results) -> Table:
    rows = [
        (_TRAFFIC[entry.what], entry.title, f"{entry.server_bytes / 1e6:.1f}") for entry in results.traffic
    ]
    return Table(
        heading="What the server sent, counted in runs of their own",
        columns=("backup", "tool", "MB"),
        rows=rows,
    )


def _growth(results: Results) -> Table:
    rows = [
        (
            f"{entry.database_bytes / 1e9:.2f} GB",
            f"{entry.rows / 1e6:.1f}",
            f"{entry.first_s:.1f}",
            f"{entry.first_peak_bytes / 1e6:.0f}",
            f"{entry.again_s:.1f}",
            f"{entry.again_cpu_s:.1f}",
            f"{entry.again_server_cpu_s:.1f}",
            f"{entry.again_peak_bytes / 1e6:.0f}",
            f"{entry.repository_bytes / 1e6:.1f}",
            f"{entry.index_bytes / 1e6:.3f}",
        )
        for entry in results.growth
    ]
    return Table(
        heading="Growing with the database",
        columns=(
            "database", "million rows", "first s", "memory", "unchanged s", "CPU s", "server s", "memory",
            "repository", "its index",
        ),
        rows=rows,
    )  # fmt: skip


def _requests(results: Results) -> Table:
    rows = [
        (
            f"{entry.database_bytes / 1e9:.2f} GB, {what}",
            *(f"{requests.get(method, 0)}" for method in _METHODS),
            f"{sum(requests.values())}",
        )
        for entry in results.growth
        for what, requests in (("first", entry.first_requests), ("unchanged", entry.again_requests))
    ]
    return Table(heading="Requests to the store", columns=("backup", *_METHODS, "all"), rows=rows)


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


def _targets(results: Results, *, about_changes: bool) -> Table:
    rows = [
        (
            target.name,
            target.against,
            _amount(target.limit, target.unit),
            _NONE if target.value is None else _amount(target.value, target.unit),
            target.verdict,
        )
        for target in judge(results)
        if target.is_about_changes == about_changes
    ]
    return Table(heading="Targets", columns=("what", "against", "at most", "measured", "verdict"), rows=rows)


def _amount(value: float, unit: str) -> str:
    return f"{value:.0f} MB" if unit == "MB" else f"{value:.2f}"
