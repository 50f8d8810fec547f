"""Tables as the commands draw them: without lines, and readable where a terminal is narrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

__all__ = ["FittingTable", "facts_table", "plain_table"]

_GAP = 2
_INDENT = 4
_NOTHING = ("", "-")


def facts_table() -> Table:
    """Return an empty table of names and values, without lines."""
    table = Table.grid(padding=(0, _GAP))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def plain_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Return an empty table with headings; the columns named in ``right`` hold numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(Text(column), justify="right" if column in right else "left", overflow="fold")
    return table


class FittingTable:
    """A table whose last columns stand below each row where a terminal has no room for them beside the others.

    ``below`` names these columns. Folding every column instead cuts times and names into pieces that nobody can read.
    """

    def __init__(self, *columns: str, below: Sequence[str], right: Sequence[str] = ()) -> None:
        self._columns = columns
        self._right = right
        self._beside = [number for number, column in enumerate(columns) if column not in below]
        self._below = [number for number, column in enumerate(columns) if column in below]
        self._rows: list[list[Text]] = []

    def add_row(self, *cells: str | Text) -> None:
        self._rows.append([cell if isinstance(cell, Text) else Text(cell) for cell in cells])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = plain_table(*self._columns, right=self._right)
        for row in self._rows:
            whole.add_row(*row)
        widths = [self._width(number) for number in range(len(self._columns))]
        needed = sum(width + _GAP for width in widths) - _GAP
        if not console.is_terminal or needed <= options.max_width:
            yield whole
            return
        yield self._line([Text(column, style="bold") for column in self._columns], widths)
        for row in self._rows:
            yield self._line(row, widths)
            if told := Text(", ").join(self._told_below(row)):
                yield Padding(told, (0, 0, 0, _INDENT))

    def _width(self, number: int) -> int:
        return max(Text(self._columns[number]).cell_len, *(row[number].cell_len for row in self._rows), 0)

    def _line(self, row: Sequence[Text], widths: Sequence[int]) -> Text:
        """Return the cells that stand beside each other."""
        cells = []
        for number in self._beside:
            room = Text(" " * (widths[number] - row[number].cell_len))
            is_number = self._columns[number] in self._right
            cells.append(Text.assemble(room, row[number]) if is_number else Text.assemble(row[number], room))
        line = Text(" " * _GAP).join(cells)
        line.rstrip()
        return line

    def _told_below(self, row: Sequence[Text]) -> Iterator[Text]:
        """Yield what stands below a row, each with its column's name, unless there is one such column alone."""
        for number in self._below:
            if row[number].plain not in _NOTHING:
                name = self._columns[number].lower() if len(self._below) > 1 else ""
                yield Text.assemble((f"{name} " if name else "", "dim"), row[number])
