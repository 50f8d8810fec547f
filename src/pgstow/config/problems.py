"""What is wrong with a settings file, and where."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pgstow.core.errors import ConfigInvalid

__all__ = ["Path", "Problem", "invalid", "nearest", "path_text", "quoted"]

Path = tuple[str | int, ...]  # the keys and indexes that lead to a value

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.*+-]{0,39}")
_SECRET_LOOKING = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z]).{12,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, or with ``is_warning`` only doubtful. Line and column count from 1.

    Neither path nor message ever holds the text of a value that may be a secret.
    """

    line: int
    column: int
    path: str
    message: str
    is_warning: bool = False

    def text(self, file: object) -> str:
        """Return the problem as one line, in the form that editors can jump to."""
        where = f"{file}:{self.line}:{self.column}: "
        return f"{where}{self.path}: {self.message}" if self.path else where + self.message

    def document(self) -> dict[str, Any]:
        """Return the problem as it appears in JSON documents."""
        return {"line": self.line, "column": self.column, "path": self.path, "message": self.message}


def invalid(file: object, problems: Sequence[Problem]) -> ConfigInvalid:
    """Return the error that tells these problems."""
    lines = [problem.text(file) for problem in problems]
    return ConfigInvalid(
        lines[0] if len(lines) == 1 else f"{file} has {len(lines)} errors:\n" + "\n".join(lines),
        hint="pgstow config check looks again; docs/configuration.md describes every key",
        problems=lines,
    )


def nearest(word: object, words: Iterable[str]) -> str:
    """Return ``; did you mean "WORD"?`` with the one of ``words`` most like ``word``; nothing where none is."""
    found = difflib.get_close_matches(str(word).lower(), [each.lower() for each in words], n=1, cutoff=0.6)
    proper = [each for each in words if found and each.lower() == found[0]]
    return f'; did you mean "{proper[0]}"?' if proper else ""


def quoted(text: object) -> str:
    """Return ``"text"`` where it is a plain word; else ``this``: it may be a secret in the wrong place."""
    if isinstance(text, str) and _WORD.fullmatch(text) and not _SECRET_LOOKING.fullmatch(text):
        return f'"{text}"'
    return "this"


def path_text(path: Path) -> str:
    """Return a path as people write it: ``plans.nightly.databases[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if quoted(part) != "this" else "..."
            text += f".{word}" if text else word
    return text
