"""Drawing progress on a terminal, or writing a line now and then where there is none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress import Progress as Bars
from rich.progress_bar import ProgressBar
from rich.text import Text

from pgstow.cli.formats import duration_text, rows_text, safe, size_text

__all__ = ["PlainProgress", "RichProgress"]

_LINE_EVERY_S = 10.0
_RATE_OVER_S = 8.0  # rate and time left are judged by the recent past
_REMEMBERED_S = 0.5  # how far apart the points are that the rate is judged by


class _Phase:
    """Counters of one phase. ``advance`` runs in the workers' threads, often: it only adds."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self.name = name
        self.rows = 0
        self.size_bytes = 0
        self.expected_rows: int | None = None
        self.expected_bytes: int | None = None
        self._clock = clock
        self._began = clock()
        self._recent: list[tuple[float, int]] = [(self._began, 0)]
        self._lock = threading.Lock()

    def add(self, rows: int, size_bytes: int) -> None:
        with self._lock:
            self.rows += rows
            self.size_bytes += size_bytes

    @property
    def seconds(self) -> float:
        return self._clock() - self._began

    def rate(self) -> float:
        """Return the recent bytes a second."""
        with self._lock:
            now = self._clock()
            if now - self._recent[-1][0] >= _REMEMBERED_S:
                self._recent.append((now, self.size_bytes))
            while len(self._recent) > 2 and now - self._recent[1][0] > _RATE_OVER_S:
                self._recent.pop(0)
            since, size_then = self._recent[0]
            return (self.size_bytes - size_then) / (now - since) if now > since else 0.0

    def fraction(self) -> float | None:
        """Return how much is done, 0 to 1; None when nothing is known of the whole."""
        if self.expected_bytes:
            return min(1.0, self.size_bytes / self.expected_bytes)
        if self.expected_rows:
            return min(1.0, self.rows / self.expected_rows)
        return None

    def seconds_left(self) -> float | None:
        """Return the time left at the recent rate; None when it cannot be told."""
        rate = self.rate()
        if not self.expected_bytes or rate <= 0:
            return None
        return max(0, self.expected_bytes - self.size_bytes) / rate

    def amount_text(self) -> str:
        parts = [rows_text(self.rows)] if self.rows else []
        if self.size_bytes:
            parts.append(size_text(self.size_bytes))
        return ", ".join(parts)

    def line(self) -> str:
        """Return the phase's state as one line of text."""
        fraction = self.fraction()
        left = self.seconds_left()
        parts = [f"{fraction:.0%}" if fraction is not None else "", self.amount_text()]
        if self.size_bytes:
            parts.append(f"{size_text(round(self.rate()))}/s")
        parts.append(f"{duration_text(left)} left" if left else "")
        return f"{self.name}: " + ", ".join(part for part in parts if part)


class _Bar(BarColumn):
    """How much of the phase is done, asked of the phase when it is drawn."""

    def render(self, task: Task) -> ProgressBar:
        fraction = task.fields["phase"].fraction()
        return ProgressBar(
            total=None if fraction is None else 1.0,
            completed=fraction or 0.0,
            width=self.bar_width,
            pulse=fraction is None,
            animation_time=task.get_time(),
        )


class _Amounts(ProgressColumn):
    """Rows, bytes, rate and time left of the phase a task stands for."""

    def render(self, task: Task) -> Text:
        phase: _Phase = task.fields["phase"]
        left = phase.seconds_left()
        parts = [phase.amount_text(), f"{size_text(round(phase.rate()))}/s" if phase.size_bytes else ""]
        parts.append(f"{duration_text(left)} left" if left else duration_text(phase.seconds))
        return Text("  ".join(part for part in parts if part), style="dim")


class RichProgress:
    """A Progress that draws one live line for the phase under way and leaves one for each that ended."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._phase: _Phase | None = None
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            _Bar(bar_width=24),
            _Amounts(),
            console=console,
            transient=True,
            refresh_per_second=8,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is None:
            self._leave_line()
        self._bars.stop()

    def phase(self, name: str) -> None:
        self._leave_line()
        self._phase = _Phase(safe(name), self._clock)
        for task in self._bars.task_ids:
            self._bars.remove_task(task)
        self._bars.add_task(self._phase.name, phase=self._phase)

    def expect(self, *, rows: int | None = None, size_bytes: int | None = None) -> None:
        if self._phase is not None:
            self._phase.expected_rows, self._phase.expected_bytes = rows, size_bytes

    def advance(self, *, rows: int = 0, size_bytes: int = 0) -> None:
        if self._phase is not None:
            self._phase.add(rows, size_bytes)

    def note(self, message: str) -> None:
        self._bars.console.print(Text(safe(message), style="yellow"))

    def _leave_line(self) -> None:
        if self._phase is not None:
            amount = self._phase.amount_text()
            text = (
                f"{self._phase.name}{': ' if amount else ''}{amount} in {duration_text(self._phase.seconds)}"
            )
            self._bars.console.print(Text.assemble(("✓ ", "green"), (text, "dim")))
            self._phase = None


class PlainProgress:
    """A Progress for logs: a line when a phase begins and every ten seconds while it lasts."""

    def __init__(
        self, write_line: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write_line = write_line
        self._clock = clock
        self._phase: _Phase | None = None
        self._next_line = 0.0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is None:
            self._end_phase()

    def phase(self, name: str) -> None:
        self._end_phase()
        self._phase = _Phase(name, self._clock)
        self._next_line = self._clock() + _LINE_EVERY_S
        self._write_line(name)

    def expect(self, *, rows: int | None = None, size_bytes: int | None = None) -> None:
        if self._phase is not None:
            self._phase.expected_rows, self._phase.expected_bytes = rows, size_bytes

    def advance(self, *, rows: int = 0, size_bytes: int = 0) -> None:
        phase = self._phase
        if phase is None:
            return
        phase.add(rows, size_bytes)
        with self._lock:
            now = self._clock()
            if now < self._next_line:
                return
            self._next_line = now + _LINE_EVERY_S
        self._write_line(phase.line())

    def note(self, message: str) -> None:
        self._write_line(message)

    def _end_phase(self) -> None:
        if self._phase is not None and self._phase.amount_text():
            text = f"{self._phase.name}: {self._phase.amount_text()} in {duration_text(self._phase.seconds)}"
            self._write_line(text)
        self._phase = None
