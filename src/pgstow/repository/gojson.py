"""JSON, quoted strings and times exactly as Go's standard library writes them.

restic reads trees by content hash of their JSON, so equal trees must be equal bytes.
Source: Go encoding/json (HTML escaping on), strconv.Quote, time.Time.MarshalJSON.
"""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import UTC, datetime, timedelta, timezone

__all__ = [
    "dumps",
    "format_time",
    "is_canonical_time",
    "parse_time",
    "quote",
    "quoting_is_canonical",
    "unquote",
]

# Only string literals can hold these, so they can be replaced in the whole text.
_JSON_ESCAPES = {
    ord("<"): "\\u003c",
    ord(">"): "\\u003e",
    ord("&"): "\\u0026",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
    **dict.fromkeys(range(0xD800, 0xE000), "\\ufffd"),  # not UTF-8
}


def dumps(value: object) -> bytes:
    """Return ``value`` as json.Marshal does: compact, keys in their order, raw UTF-8, HTML-escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_JSON_ESCAPES).encode()


_SHORT = {char: f"\\{letter}" for char, letter in zip('\a\b\f\n\r\t\v"\\', 'abfnrtv"\\', strict=True)}
_LONG = {escape[1]: char.encode() for char, escape in _SHORT.items()}
_PLAIN = re.compile(r"[A-Za-z0-9_. /+=@-]*")


def quote(text: str) -> str:
    """Return strconv.Quote(text) without the outer quotes.

    Printable is what Unicode (the interpreter's version) calls a letter, mark, number, punctuation or
    symbol, and the ASCII space. Surrogate escapes stand for bytes that are not UTF-8.
    """
    if _PLAIN.fullmatch(text):
        return text
    return "".join(map(_quote_char, text))


def _quote_char(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    if char == " " or unicodedata.category(char)[0] in "LMNPS":
        return char
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_ESCAPE = re.compile(
    r'\\(?:([abfnrtv\\"])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2}))|([^\\"\n]+)'
)


def unquote(text: str) -> str:
    """Return what strconv.Unquote makes of ``text`` between quotes; ValueError if it is malformed."""
    if "\\" not in text and '"' not in text and "\n" not in text:
        return text
    out = bytearray()
    position = 0
    while position < len(text):
        match = _ESCAPE.match(text, position)
        if not match:
            raise ValueError(f"{text!r} is not a quoted string")
        short, byte, rune, long_rune, octal, plain = match.groups()
        if plain is not None:
            out += plain.encode("utf-8", "surrogateescape")
        elif short is not None:
            out += _LONG[short]
        elif byte or octal:
            out.append(int(byte, 16) if byte else int(octal, 8))
        else:
            code = int(rune or long_rune, 16)
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                raise ValueError(f"{text!r} names a character that does not exist")
            out += chr(code).encode()
        position = match.end()
    return out.decode("utf-8", "surrogateescape")


_WIDE_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\(?:u([0-9a-f]{4})|U([0-9a-f]{8}))")


def quoting_is_canonical(text: str) -> bool:
    """Whether ``text`` is what quote() would give.

    Beyond ASCII both the character and its escape pass: which is right depends on the Unicode version
    of the restic that wrote it.
    """

    def raw(match: re.Match[str]) -> str:
        code = int(match[2] or match[3], 16)
        return match[1] + chr(code) if code >= 0x80 else match[0]

    try:
        quoted = quote(unquote(text))
    except ValueError:
        return False
    return quoted == text or _WIDE_ESCAPE.sub(raw, quoted) == _WIDE_ESCAPE.sub(raw, text)


_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))")


def format_time(moment: datetime) -> str:
    """Return RFC 3339 in UTC with ``Z`` and without trailing zeros of the fraction."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone")
    text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").rjust(26, "0")
    return text.rstrip("0").rstrip(".") + "Z"


def parse_time(text: str) -> datetime:
    """Return the time a Go program wrote, cut to microseconds; ValueError if it is none.

    The year 0, which Python's datetime does not have, becomes the year 1.
    """
    match = _TIME.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a time")
    if text.startswith("0000"):
        return datetime.min.replace(tzinfo=UTC)
    seconds, fraction, sign, hours, minutes = match.groups()
    micro = int((fraction or "0").ljust(6, "0")[:6])
    zone: timezone = UTC
    if sign:
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        zone = timezone(-offset if sign == "-" else offset)
    return datetime.strptime(seconds, "%Y-%m-%dT%H:%M:%S").replace(microsecond=micro, tzinfo=zone)


def is_canonical_time(text: str) -> bool:
    """Whether Go would write this time with exactly these characters."""
    match = _TIME.fullmatch(text)
    if not match:
        return False
    return not (match[2] or "").endswith("0") and match[0][-6:] not in ("+00:00", "-00:00")
