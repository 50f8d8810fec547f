"""Tables on wide and narrow terminals and in pipes."""

from __future__ import annotations

import io

from rich.console import Console
from rich.text import Text

from pgstow.cli.tables import FittingTable


def table() -> FittingTable:
    made = FittingTable(
        "NAME", "SIZE", "PER DAY", "WHERE", below=("PER DAY", "WHERE"), right=("SIZE", "PER DAY")
    )
    made.add_row("shop", "1.0 MiB", "-", "disk of /srv/backups")
    made.add_row("\u540d\u5b57", Text("12.0 MiB"), "+1.0 KiB", "")
    return made


def drawn(width: int, *, is_terminal: bool = True) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=is_terminal, color_system=None).print(table())
    return [line.rstrip() for line in stream.getvalue().splitlines()]


WHOLE = [
    "NAME      SIZE   PER DAY  WHERE",
    "shop   1.0 MiB         -  disk of /srv/backups",
    "\u540d\u5b57  12.0 MiB  +1.0 KiB",
]


def test_one_row_each_where_there_is_room() -> None:
    assert drawn(46) == WHOLE


def test_the_last_columns_stand_below_where_there_is_none() -> None:
    assert drawn(45) == [
        "NAME      SIZE",
        "shop   1.0 MiB",
        "    where disk of /srv/backups",
        "\u540d\u5b57  12.0 MiB",
        "    per day +1.0 KiB",
    ]


def test_a_pipe_has_one_row_each() -> None:
    assert drawn(400, is_terminal=False) == WHOLE


def test_one_column_below_needs_no_name() -> None:
    made = FittingTable("NAME", "WHAT", below=("WHAT",))
    made.add_row("shop", "a table and a half")
    stream = io.StringIO()
    Console(file=stream, width=10, force_terminal=True, color_system=None).print(made)
    assert [line.rstrip() for line in stream.getvalue().splitlines()] == [
        "NAME",
        "shop",
        "    a",
        "    table",
        "    and a",
        "    half",
    ]


def test_no_rows_are_no_error() -> None:
    stream = io.StringIO()
    Console(file=stream, width=4, force_terminal=True, color_system=None).print(
        FittingTable("NAME", "WHAT", below=("WHAT",))
    )
    assert stream.getvalue().strip() == "NAME"


def test_no_cell_is_measured_anew_for_every_row() -> None:
    measured = 0

    class Cell(Text):
        @property
        def cell_len(self) -> int:
            nonlocal measured
            measured += 1
            return super().cell_len

    made = FittingTable("NAME", "WHAT", below=("WHAT",))
    for _ in range(100):
        made.add_row(Cell("shop"), Cell("a table and a half"))
    Console(file=io.StringIO(), width=10, force_terminal=True, color_system=None).print(made)
    assert measured <= 3 * 200
