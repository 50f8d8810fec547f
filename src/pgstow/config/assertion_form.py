"""The form of an assertion, the same in the settings file and in a file of checks, and what it must make sense of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from pgstow.catalog.assertions import Severity
from pgstow.config.document import Document
from pgstow.config.problems import Path, nearest
from pgstow.config.values import Flag, Text, refuse

__all__ = ["AssertionForm", "AssertionsForm", "note_contradictions"]

_NOT_IN_QUERIES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_SEVERITIES = ("error", "warning")
_LONGEST_VALUE = 10_000


def _query(value: object) -> str:
    text = _one(value).strip()
    if not text:
        refuse("is empty: give a query that returns one value")
    if _NOT_IN_QUERIES.search(text):
        refuse("cannot hold control characters")
    return text


def _exact(value: object) -> str:
    text = _one(value)
    if "\x00" in text or len(text) > _LONGEST_VALUE:
        refuse(f"is no value of a query: at most {_LONGEST_VALUE:,} characters")
    return text


def _number(value: object) -> Decimal:
    text = _one(value).strip()
    if not _NUMBER.fullmatch(text):
        refuse("is not a number: write it like 1000 or -2.5")
    return Decimal(text)


def _severity(value: object) -> str:
    text = _one(value)
    if text not in _SEVERITIES:
        refuse("write error or warning: a warning does not fail the drill" + nearest(text, _SEVERITIES))
    return text


def _one(value: object) -> str:
    if not isinstance(value, str):
        refuse(f"expected one value, not a {'list' if isinstance(value, list) else 'mapping'}")
    return value


_SCALAR: dict[str, Any] = {"type": ["string", "number", "boolean"]}
_NUMERIC: dict[str, Any] = {"oneOf": [{"type": "number"}, {"type": "string", "pattern": "^[-+.0-9eE]+$"}]}
Query = Annotated[str, BeforeValidator(_query), WithJsonSchema({"type": "string", "minLength": 1})]
Exact = Annotated[str, BeforeValidator(_exact), WithJsonSchema(_SCALAR)]
Number = Annotated[Decimal, BeforeValidator(_number), WithJsonSchema(_NUMERIC)]
HowBad = Annotated[Severity, BeforeValidator(_severity), WithJsonSchema({"enum": list(_SEVERITIES)})]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class AssertionForm(_Form):
    name: Text = Field(description="What reports call it; no two of a database have the same.")
    sql: Query = Field(description="A query that returns one value: one row with one column.")
    equals: Exact | None = Field(
        None,
        description="The value it must have: a number by its value, true or false, or a text as PostgreSQL prints it.",
    )
    null: Flag = Field(False, description="It must be NULL.")
    at_least: Number | None = Field(None, description="The lowest number it may be.")
    at_most: Number | None = Field(None, description="The highest number it may be.")
    same_as_backup: Flag = Field(
        False, description="It must be what the query gave when the backup was made, under its snapshot."
    )
    severity: HowBad = Field("error", description="error, or warning: then the drill passes all the same.")


class AssertionsForm(_Form):
    """Assertions that a drill checks of the restored database."""

    assertions: list[AssertionForm] = Field(description="What must be true of it.")


def note_contradictions(document: Document, at: Path, forms: Sequence[AssertionForm]) -> None:
    """Note what makes no sense of the assertions at ``at`` in a document, each fine by itself."""
    names = [form.name for form in forms]
    for index, form in enumerate(forms):
        here: Path = (*at, index)
        if form.name in names[:index]:
            document.add((*here, "name"), "another assertion has this name")
        for key, message in _contradictions(form):
            if key is not None:
                document.add((*here, key), message, at_key=True)
            elif not any(path[: len(here)] == here for path in document.valueless):
                document.add(here, message)


def _contradictions(form: AssertionForm) -> Iterator[tuple[str | None, str]]:
    has_range = form.at_least is not None or form.at_most is not None
    if form.equals is None and not (form.null or form.same_as_backup or has_range):
        yield None, "says nothing to hold against: give equals, null, at_least, at_most or same_as_backup"
    if form.equals is not None and (form.null or has_range):
        yield "equals", f"cannot hold together with {'null' if form.null else 'at_least or at_most'}"
    elif form.null and has_range:
        yield "null", "cannot hold together with at_least or at_most"
    if form.at_least is not None and form.at_most is not None and form.at_least > form.at_most:
        yield "at_most", "is less than at_least: nothing can be both"
