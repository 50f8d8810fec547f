"""Names of tables as people write them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pgstow.core.errors import UsageError

__all__ = ["QualifiedName", "parse_qualified"]

_PART = r'"(?:[^"]|"")+"|[^".]+'
_NAME = re.compile(rf"(?:(?P<schema>{_PART})\.)?(?P<name>{_PART})")
_DEFAULT_SCHEMA = "public"


@dataclass(frozen=True, slots=True, order=True)
class QualifiedName:
    """A table by schema and name, both exactly as the catalog has them; ``name`` None: every table of the schema."""

    schema: str
    name: str | None

    def __str__(self) -> str:
        return f"{_quoted(self.schema)}.{'*' if self.name is None else _quoted(self.name)}"


def parse_qualified(text: str, *, may_be_schema: bool = False) -> QualifiedName:
    """Return the table that ``text`` names: SCHEMA.TABLE, or TABLE for one in the schema public.

    Nothing is folded to lower case and nothing is a pattern. A part may stand in double quotes, and must where it has a
    dot in it or is ``*``. With ``may_be_schema`` SCHEMA.* is every table of a schema. Raises UsageError.
    """
    match = _NAME.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{text!r} is not the name of a table", hint='write SCHEMA.TABLE or "Schema"."Table"'
        )
    schema = _unquoted(match["schema"]) if match["schema"] else _DEFAULT_SCHEMA
    if match["name"] == "*":
        if may_be_schema and match["schema"]:
            return QualifiedName(schema, None)
        raise UsageError(f"{text!r} names no table", hint="write SCHEMA.TABLE, one for each table")
    return QualifiedName(schema, _unquoted(match["name"]))


def _unquoted(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def _quoted(part: str) -> str:
    is_plain = part and part != "*" and not set(part) & set('."')
    return part if is_plain else '"' + part.replace('"', '""') + '"'
