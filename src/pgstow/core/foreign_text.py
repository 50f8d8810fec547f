"""Text that comes from outside, made harmless to show."""

from __future__ import annotations

import unicodedata

__all__ = ["safe"]

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
