"""Numbers, times and foreign text as people read them on a terminal."""

from __future__ import annotations

from datetime import UTC, datetime

from pgstow.core import quantities as sizes
from pgstow.core.errors import UsageError
from pgstow.core.foreign_text import safe
from pgstow.core.quantities import duration_text, size_text

__all__ = [
    "content_text",
    "count_text",
    "duration_text",
    "parse_size",
    "plural",
    "rows_text",
    "safe",
    "size_text",
    "time_text",
]


def count_text(count: int | None) -> str:
    """Return a count such as ``1,234,567``; ``-`` when it is unknown."""
    return "-" if count is None else f"{count:,}"


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Return ``1 table`` or ``2 tables``."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def rows_text(count: int | None) -> str:
    """Return ``1 row``, ``1,234,567 rows`` or, when it is unknown, ``- rows``."""
    return plural(count, "row") if count is not None else f"{count_text(count)} rows"


def content_text(*, tables: int, rows: int | None, size_bytes: int | None) -> str:
    """Return how much a backup holds or a restore brought back: ``7 tables, 72,301 rows, 3.3 MiB``."""
    return f"{plural(tables, 'table')}, {rows_text(rows)}, {size_text(size_bytes)}"


def time_text(moment: datetime) -> str:
    """Return a moment as ``2026-11-20 02:00:00``, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def parse_size(text: str, *, option: str) -> int:
    """Return the bytes that ``512``, ``64K``, ``10M`` or ``1.5GiB`` stands for; UsageError names ``option``."""
    try:
        return sizes.parse_size(text)
    except UsageError as exc:
        raise UsageError(f"{option}: {exc}", hint=exc.hint) from exc
