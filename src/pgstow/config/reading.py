"""Reading the settings file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pgstow.config.checks import Checks
from pgstow.config.conversion import settings_of
from pgstow.config.document import Document, parse_document
from pgstow.config.meaning import Meaning
from pgstow.config.problems import Problem, invalid
from pgstow.config.settings import Settings
from pgstow.config.validation import validated
from pgstow.core.errors import UsageError

__all__ = ["Reading", "parse_settings", "read_settings", "try_settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What came of reading a file: settings unless there are errors. Problems stand in the order of their places."""

    settings: Settings | None
    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def read_settings(path: Path) -> Settings:
    """Return what the file at ``path`` says.

    Raises UsageError when it cannot be read, ConfigInvalid with every problem when it is wrong.
    """
    reading = try_settings(path)
    if reading.settings is None:
        raise invalid(path, reading.errors)
    return reading.settings


def try_settings(path: Path) -> Reading:
    """Return what the file at ``path`` says and what is wrong with it; UsageError when it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise UsageError(f"the settings file {path} cannot be read: {exc.strerror}") from exc
    return parse_settings(data, path)


def parse_settings(data: bytes, path: Path) -> Reading:
    """Return what these bytes say, as the content of the file at ``path``, from where relative paths in it lead."""
    document = parse_document(data)
    if document.root or not document.problems:
        meaning = Meaning(document, validated(document))
        Checks(meaning).run()
        errors = _sorted(document, are_warnings=False)
        settings = settings_of(meaning, path) if not errors else None
        return Reading(settings=settings, errors=errors, warnings=_sorted(document, are_warnings=True))
    return Reading(settings=None, errors=_sorted(document, are_warnings=False), warnings=())


def _sorted(document: Document, *, are_warnings: bool) -> tuple[Problem, ...]:
    found = (problem for problem in document.problems if problem.is_warning is are_warnings)
    return tuple(sorted(found, key=lambda problem: (problem.line, problem.column, problem.path)))
