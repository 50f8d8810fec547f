"""Progress: amounts, rates and time left, drawn or written."""

from __future__ import annotations

import io
import threading

from rich.console import Console

from pgstow.cli.progress import PlainProgress, RichProgress


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_come_now_and_then() -> None:
    clock = Clock()
    lines: list[str] = []
    with PlainProgress(lines.append, clock=clock) as progress:
        progress.phase("reading tables")
        progress.expect(rows=100, size_bytes=40 * 1024 * 1024)
        for _ in range(20):
            clock.now += 1
            progress.advance(rows=5, size_bytes=1024 * 1024)
        progress.phase("writing the manifest")
    assert lines == [
        "reading tables",
        "reading tables: 25%, 50 rows, 10.0 MiB, 1.0 MiB/s, 30.0 s left",
        "reading tables: 50%, 100 rows, 20.0 MiB, 1.0 MiB/s, 20.0 s left",
        "reading tables: 100 rows, 20.0 MiB in 20.0 s",
        "writing the manifest",
    ]


def test_nothing_is_said_to_be_complete_after_an_error() -> None:
    lines: list[str] = []
    try:
        with PlainProgress(lines.append) as progress:
            progress.phase("reading tables")
            progress.advance(rows=1)
            raise RuntimeError
    except RuntimeError:
        pass
    assert lines == ["reading tables"]


def test_drawn_progress_shows_amounts_and_leaves_a_line_for_each_phase() -> None:
    screen, clock = io.StringIO(), Clock()
    console = Console(file=screen, force_terminal=True, width=120, markup=False, color_system=None)
    with RichProgress(console, clock=clock) as progress:
        progress.advance(rows=1)  # before any phase: nothing to add it to
        progress.phase("reading [tables]\x1b[2J")
        progress.expect(size_bytes=4096)
        clock.now += 2
        progress.advance(rows=1500, size_bytes=2048)
        progress.note("retrying\x07")
        progress._bars.refresh()
    shown = screen.getvalue()
    assert "1,500 rows, 2.0 KiB  1.0 KiB/s  2.0 s left" in shown
    assert "✓ reading [tables]\\x1b[2J: 1,500 rows, 2.0 KiB in 2.0 s" in shown
    assert "retrying\\x07" in shown
    assert "\x07" not in shown


def test_advancing_from_many_threads_loses_nothing() -> None:
    lines: list[str] = []

    def work() -> None:
        for _ in range(2000):
            progress.advance(rows=1, size_bytes=1)

    with PlainProgress(lines.append) as progress:
        progress.phase("reading")
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert lines[-1].startswith("reading: 8,000 rows, 7.8 KiB in ")
