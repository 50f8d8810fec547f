"""From the document to the form: pydantic's errors in our words, each with its place."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pgstow.config.assertion_form import AssertionForm
from pgstow.config.document import Document
from pgstow.config.form import (
    AlertsForm,
    AuditForm,
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
    WaiverForm,
)
from pgstow.config.problems import Path, nearest

__all__ = ["FORMS", "Forms", "validated", "validated_as"]

Forms = Mapping[tuple[str, ...], type[BaseModel]]
_Root = TypeVar("_Root", bound=BaseModel)

# Which form stands where; "*" is any name or index.
FORMS: Forms = MappingProxyType(
    {
        (): SettingsForm,
        ("databases", "*"): DatabaseForm,
        ("databases", "*", "critical", "*"): CriticalForm,
        ("databases", "*", "assertions", "*"): AssertionForm,
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
        ("waivers", "*"): WaiverForm,
        ("audit",): AuditForm,
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
        "query": "sql",
        "expected": "equals",
        "value": "equals",
        "min": "at_least",
        "max": "at_most",
        "checks": "assertions",
    }
)
_ROUNDS = 20  # of leaving out what is wrong: a key, then what cannot be without it, and so on outwards


def validated(document: Document) -> SettingsForm:
    """Return the form of a document, without the entries that are wrong; those are noted among its problems."""
    form = validated_as(document, SettingsForm, FORMS)
    return SettingsForm() if form is None else form


def validated_as(document: Document, root: type[_Root], forms: Forms) -> _Root | None:
    """Return the same of another ``root`` form; None where nothing is left. ``forms`` says which form stands where."""
    data = copy.deepcopy(document.root)
    told: set[tuple[Path, str]] = set()
    for _ in range(_ROUNDS):
        try:
            return root.model_validate(data)
        except ValidationError as exc:
            for error in exc.errors(include_url=False, include_input=False):
                path = tuple(part for part in error["loc"] if part != "[key]")
                if (path, error["type"]) not in told and not _is_told(document, path, error["type"]):
                    told.add((path, error["type"]))
                    _note(document, path, error["type"], error["msg"], forms, is_key="[key]" in error["loc"])
                if not data:
                    return None  # what the root must have is missing
                _leave_out(data, path)
    return None


def _is_told(document: Document, path: Path, kind: str) -> bool:
    """Whether the problem was noted already: the key has no value in the file, or is missing since it was left out."""
    if kind == "missing" and path in document.places:
        return True
    return any(path[:length] in document.valueless for length in range(1, len(path) + 1))


def _note(document: Document, path: Path, kind: str, words: str, forms: Forms, *, is_key: bool) -> None:
    if kind == "extra_forbidden":
        document.add(path, _unknown(path, forms), at_key=True)
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


def _unknown(path: Path, forms: Forms) -> str:
    own = forms.get(_shape(path[:-1]))
    fields = list(own.model_fields) if own is not None else []
    word = str(path[-1])
    if (other := _OTHER_WORDS.get(word.lower())) in fields:
        return f'unknown key; did you mean "{other}"?'
    if len(path) > 1 and word in forms[()].model_fields:
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
