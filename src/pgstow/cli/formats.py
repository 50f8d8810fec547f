"""Numbers, times and foreign text as people read them on a terminal."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

from pgstow.core import quantities as sizes
from pgstow.core.errors import UsageError

__all__ = ["count_text", "duration_text", "parse_size", "plural", "safe", "size_text", "time_text"]

_UNSAFE = {
    "Cc",
    "Cf",
    "Cs",
    "Zl",
    "Zp",
    "Co",
    "Cn",
}  # control, format (also bidi overrides), surrogate, separators
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_MINUTE_S, _HOUR_S = 60, 3600
_KIB = 1024


def safe(text: str) -> str:
    """Return ``text`` with every character escaped that could act on a terminal or reorder a line.

    Names in a database are anyone's words: they may hold newlines, escape sequences and overrides.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(char) if unicodedata.category(char) in _UNSAFE else char for char in text)


def _escape(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def size_text(size_bytes: int | None) -> str:
    """Return a size such as ``12.3 MiB``; ``-`` when it is unknown."""
    if size_bytes is None:
        return "-"
    if abs(size_bytes) < _KIB:
        return f"{size_bytes} B"
    size, units = size_bytes / _KIB, ["TiB", "GiB", "MiB", "KiB"]
    while abs(size) >= 999.95 and len(units) > 1:  # what no longer prints in three digits
        size /= _KIB
        units.pop()
    return f"{size:.1f} {units[-1]}"


def count_text(count: int | None) -> str:
    """Return a count such as ``1,234,567``; ``-`` when it is unknown."""
    return "-" if count is None else f"{count:,}"


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Return ``1 table`` or ``2 tables``."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def duration_text(seconds: float) -> str:
    """Return a duration such as ``0.42 s``, ``12.3 s``, ``4 min 05 s`` or ``2 h 03 min``."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S:02d} s"
    return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02d} min"


def time_text(moment: datetime) -> str:
    """Return a moment as ``2026-11-20 02:00:00``, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def parse_size(text: str, *, option: str) -> int:
    """Return the bytes that ``512``, ``64K``, ``10M`` or ``1.5GiB`` stands for; UsageError names ``option``."""
    try:
        return sizes.parse_size(text)
    except UsageError as exc:
        raise UsageError(f"{option}: {exc}", hint=exc.hint) from exc
