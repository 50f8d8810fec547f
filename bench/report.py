"""The results for people: on the terminal, and between the markers of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from bench.results import Results
from bench.tables import Table, tables, tables_about_changes

__all__ = ["print_report", "write_document"]

_BEGIN: Final = "<!-- bench: from here to the end mark, written by python -m bench -->"
_END: Final = "<!-- bench: end -->"
_COMMANDS_OF: Final = {"first": "backup", "restore": "restore", "unchanged": "another backup"}
_VERDICT_STYLES: Final = {"pass": "green", "miss": "bold red", "not measured": "yellow"}


def print_report(results: Results, console: Console) -> None:
    """Print every table to the terminal."""
    console.print(_machine(results.machine), style="dim", highlight=False)
    for table in (*tables(results), *tables_about_changes(results)):
        console.print(_rich(table))
    for note in results.notes:
        console.print(f"note: {note}", style="yellow", highlight=False, markup=False)
    for failure in results.failures:
        console.print(failure, style="bold red", highlight=False, markup=False)


def _rich(table: Table) -> RichTable:
    shown = RichTable(
        title=table.heading,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for number, column in enumerate(table.columns):
        is_text = number == 0 or column in {"against", "tool"}
        shown.add_column(column, justify="left" if is_text else "right", no_wrap=not is_text)
    for number, cells in enumerate(table.rows):
        style = "bold cyan" if number == table.ours else _VERDICT_STYLES.get(cells[-1])
        shown.add_row(*cells, style=style)
    return shown


def write_document(results: Results, document: Path, chart: str) -> None:
    """Replace what stands between the markers of ``document``; ``chart`` is the picture's path from there."""
    before, begin, rest = document.read_text().partition(_BEGIN)
    _old, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{document.name} has no marker lines to write between")
    document.write_text(f"{before}{_BEGIN}\n\n{_markdown(results, chart)}\n{_END}{after}")


def _markdown(results: Results, chart: str) -> str:
    parts = [
        f"Measured on: {_machine(results.machine)}",
        _database(results),
        f"Command: `{results.options['command']}`",
        f"![The same numbers as bars]({chart})",
    ]
    for table in tables(results):
        parts += [f"### {table.heading}", "\n".join(_lines(table))]
    parts += ["### Command lines", "\n".join(_commands(results))]
    if results.notes:
        parts += ["### Notes of this measurement", "\n".join(f"- {note}" for note in results.notes)]
    about_changes = list(tables_about_changes(results))
    if about_changes:
        parts.append("## Reading only what changed")
    for table in about_changes:
        parts += [f"### {table.heading}", "\n".join(_lines(table))]
    return "\n\n".join(parts) + "\n"


def _lines(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(table.columns)} |"
    yield f"| --- |{' ---: |' * (len(table.columns) - 1)}"
    for number, cells in enumerate(table.rows):
        shown = [cell.replace("|", "\\|") for cell in cells]
        yield f"| {' | '.join(f'**{cell}**' if number == table.ours and cell else cell for cell in shown)} |"


def _commands(results: Results) -> Iterator[str]:
    yield "`.` is the tool's own folder, `$SOURCE` and `$TARGET` are connection strings."
    yield ""
    for series in results.series:
        if series.case in _COMMANDS_OF:
            yield f"- {series.title}, {_COMMANDS_OF[series.case]}: `{series.command}`"


def _machine(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cores']} cores ({machine['processor']}), {machine['memory_gb']:.0f} GB of memory,"
        f" {machine['system']}; {versions}."
    )


def _database(results: Results) -> str:
    facts = results.database
    said = []
    if "bytes" in facts:
        said.append(
            f"{facts['bytes'] / 1e9:.2f} GB on disk, {facts['rows']:,} rows in {facts['tables']} tables with keys,"
            " indexes and foreign keys"
        )
    if "small_tables" in facts:
        said.append(f"{facts['small_tables']:,} small tables in another")
    settings = ", ".join(f"{name} = {value}" for name, value in results.settings.items())
    runs = results.options["runs"]
    return (
        f"Database: {'; '.join(said) or 'see the tables'}. Server settings, the same for everybody: {settings}."
        f" Medians of {runs} run{'s' if runs != 1 else ''}; memory is the highest peak."
    )
