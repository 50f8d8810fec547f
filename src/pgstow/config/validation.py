"""From the document to the form: pydantic's errors in our words, each with its place."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError

from pgstow.config.document import Document
from pgstow.config.form import (
    AlertsForm,
    ChannelForm,
    ContactForm,
    CriticalForm,
    DatabaseForm,
    LimitsForm,
    MonitoringForm,
    PlanForm,
    RepositoryForm,
    RetentionForm,
    RuleForm,
    SettingsForm,
)
from pgstow.config.problems import Path, nearest

__all__ = ["FORMS", "validated"]

# Which form stands where; "*" is any name or index.
FORMS: Mapping[tuple[str, ...], type[BaseModel]] = MappingProxyType(
    {
        (): SettingsForm,
        ("databases", "*"): DatabaseForm,
        ("databases", "*", "critical", "*"): CriticalForm,
        ("repositories", "*"): RepositoryForm,
        ("plans", "*"): PlanForm,
        ("plans", "*", "keep"): RuleForm,
        ("retention",): RetentionForm,
        ("retention", "rules", "*"): RuleForm,
        ("alerts",): AlertsForm,
        ("contacts", "*"): ContactForm,
        ("channels", "*"): ChannelForm,
        ("limits",): LimitsForm,
        ("monitoring",): MonitoringForm,
    }
)

_NAMED_SECTIONS = ("databases", "repositories", "plans", "channels")
_ANY_KEYS = (
    *((name,) for name in _NAMED_SECTIONS),
    ("retention", "rules"),
    ("repositories", "*", "environment"),
)
# Words of other programs' files, where no likeness of letters leads to ours.
_OTHER_WORDS = MappingProxyType(
    {
        "cron": "schedule",
        "dsn": "url",
        "connection": "url",
        "connection_string": "url",
        "path": "location",
        "destination": "location",
        "destinations": "repositories",
        "retention": "keep",
        "max_age": "days",
        "count": "at_least",
        "minimum": "at_least",
        "column": "time_column",
        "env": "environment",
        "tables": "must_contain",
    }
)
_ROUNDS = 20  # of leaving out what is wrong: a key, then what cannot be without it, and so on outwards


def validated(document: Document) -> SettingsForm:
    """Return the form of a document, without the entries that are wrong; those are noted among its problems."""
    data = copy.deepcopy(document.root)
    told: set[tuple[Path, str]] = set()
    for _ in range(_ROUNDS):
        try:
            return SettingsForm.model_validate(data)
        except ValidationError as exc:
            for error in exc.errors(include_url=False, include_input=False):
                path = tuple(part for part in error["loc"] if part != "[key]")
                if (path, error["type"]) not in told and not _is_told(document, path, error["type"]):
                    told.add((path, error["type"]))
                    _note(document, path, error["type"], error["msg"], is_key="[key]" in error["loc"])
                _leave_out(data, path)
    return SettingsForm()


def _is_told(document: Document, path: Path, kind: str) -> bool:
    """Whether the problem was noted already: the key has no value in the file, or is missing since it was left out."""
    if kind == "missing" and path in document.places:
        return True
    return any(path[:length] in document.valueless for length in range(1, len(path) + 1))


def _note(document: Document, path: Path, kind: str, words: str, *, is_key: bool) -> None:
    if kind == "extra_forbidden":
        document.add(path, _unknown(path), at_key=True)
    elif kind == "missing":
        document.add(path[:-1], f'missing key "{path[-1]}"', at_key=True, shown=path[:-1])
    else:
        there = _there(document, path)
        document.add(there, words if kind == "refused" else _of_pydantic(kind), at_key=is_key, shown=there)


def _there(document: Document, path: Path) -> Path:
    """Return the beginning of ``path`` that the file holds: a short form has no keys of its own."""
    while path and path not in document.places:
        path = path[:-1]
    return path


def _unknown(path: Path) -> str:
    own = FORMS.get(_shape(path[:-1]))
    fields = list(own.model_fields) if own is not None else []
    word = str(path[-1])
    if (other := _OTHER_WORDS.get(word.lower())) in fields:
        return f'unknown key; did you mean "{other}"?'
    if len(path) > 1 and word in SettingsForm.model_fields:
        return f'unknown key here; "{word}" belongs at the top of the file'
    return "unknown key" + (nearest(word, fields) or f"; known here: {', '.join(fields)}")


def _shape(path: Path) -> tuple[str, ...]:
    """Return ``path`` with ``*`` for names and indexes, as in ``FORMS``."""
    shape: tuple[str, ...] = ()
    for part in path:
        shape = (*shape, "*" if isinstance(part, int) or shape in _ANY_KEYS else part)
    return shape


def _of_pydantic(kind: str) -> str:
    """Return our words for the few errors that are pydantic's own."""
    if kind in ("list_type", "tuple_type"):
        return "expected a list: write [FIRST, SECOND], or lines that begin with a dash"
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return "expected a mapping: lines of KEY: VALUE"
    if kind == "too_short":
        return "needs at least one item"
    return "this value is not one that can stand here"


def _leave_out(data: dict[str, Any], path: Path) -> None:
    """Remove the key that ``path`` is about, or the list it is in; what encloses it where it is not there (missing)."""
    names = [*itertools.takewhile(lambda part: not isinstance(part, int), path)]
    holders: list[Any] = [data]
    for name in names:
        inner = holders[-1].get(name) if isinstance(holders[-1], dict) else None
        if inner is None:
            break
        holders.append(inner)
    if len(holders) == 1:
        data.clear()  # the path leads nowhere
    else:
        holders[-2].pop(names[len(holders) - 2])
