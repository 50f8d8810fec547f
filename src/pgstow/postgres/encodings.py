"""PostgreSQL's names of encodings as Python knows them."""

from __future__ import annotations

import codecs
import re

__all__ = ["decoded", "encoded"]

# Source: PostgreSQL documentation, "Character Set Support"; only names that Python's registry does not know itself.
_CODECS = {"KOI8R": "koi8_r", "KOI8U": "koi8_u", "EUC_CN": "gb2312", "UHC": "cp949", "SQL_ASCII": "utf-8"}


def decoded(value: bytes, encoding: str) -> str:
    r"""Return ``value``, text of a database in PostgreSQL's ``encoding``, in a form to show and to write down.

    What cannot be decoded is shown as ``\xNN``.
    """
    return value.decode(_codec(encoding), "backslashreplace")


def encoded(text: str, encoding: str) -> bytes:
    """Return ``text`` as a database in PostgreSQL's ``encoding`` spells it. Raises UnicodeEncodeError."""
    return text.encode(_codec(encoding))


def _codec(encoding: str) -> str:
    name = _CODECS.get(encoding, re.sub(r"^WIN(?=\d)", "cp", encoding))
    try:
        codecs.lookup(name)
    except LookupError:  # MULE_INTERNAL, EUC_TW
        return "utf-8"
    return name
