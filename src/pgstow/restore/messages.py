"""Making sense of what pg_restore says when it fails.

It prints the server's error and then the statement, which is not repeated here: a USER MAPPING or a
SUBSCRIPTION may hold a password. The statement tells which entry of the archive it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pgstow.postgres.archive import TocEntry

__all__ = ["Failure", "read_failure", "without_statements"]

_STATEMENT = "Command was: "
_OWN = "pg_restore: "
_HEADLINE = re.compile(r"^pg_restore: error: (?:could not execute query: )?(?:ERROR:\s+)?")
_AFTERMATH = "pg_restore: error: a worker process died unexpectedly"
_OWNER_CHANGE = re.compile(r"ALTER [A-Z ]+ (?P<name>.+) OWNER TO .+;")
_COMPARED_CHARS = 1000  # less than what is kept of a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The error in one line, and the entry whose statement failed, as far as that can be told."""

    message: str
    entry: TocEntry | None


def without_statements(said: str) -> list[str]:
    """Return the lines pg_restore printed, statements left out."""
    return _split(said)[0]


def read_failure(said: str, entries: Iterable[TocEntry]) -> Failure:
    """Return what went wrong, from everything that pg_restore printed."""
    lines, statement = _split(said)
    telling = [_HEADLINE.sub("", line) for line in lines if line != _AFTERMATH]
    message = " ".join(" ".join(telling).split())
    entry = _entry_of(statement, entries) if statement else None
    if entry is None and statement is not None and (owner_change := _OWNER_CHANGE.match(statement)):
        message += f" ({owner_change[0]})"
    return Failure(message=message, entry=entry)


def _split(said: str) -> tuple[list[str], str | None]:
    """Return the lines outside of statements, and the last statement."""
    lines: list[str] = []
    statement: list[str] | None = None
    is_inside = False
    for line in said.splitlines():
        if line.startswith(_STATEMENT):
            statement, is_inside = [line.removeprefix(_STATEMENT)], True
        elif is_inside and statement is not None and not line.startswith(_OWN):
            statement.append(line)
        else:
            is_inside = False
            lines.append(line.rstrip())
    return lines, "\n".join(statement).strip() if statement is not None else None


def _entry_of(statement: str, entries: Iterable[TocEntry]) -> TocEntry | None:
    wanted = _comparable(statement)
    for entry in entries:
        for text in (entry.defn, entry.drop_stmt):
            if text and _comparable(text.decode(errors="backslashreplace")) == wanted:
                return entry
    return None


def _comparable(statement: str) -> str:
    """Return the beginning of a statement without IF EXISTS, which pg_restore adds, and white space."""
    return "".join(statement[:_COMPARED_CHARS].replace(" IF EXISTS", "").split())[: _COMPARED_CHARS // 2]
