"""Assertions as they are written down: in the settings file, or in a file of their own for one drill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pgstow.catalog.assertions import Assertion
from pgstow.config.assertion_form import AssertionForm, AssertionsForm, note_contradictions
from pgstow.config.document import Document, parse_document
from pgstow.config.problems import Problem, invalid
from pgstow.config.validation import Forms, validated_as
from pgstow.core.errors import UsageError

__all__ = ["assertions_of", "read_assertions_file"]

_FORMS: Forms = {(): AssertionsForm, ("assertions", "*"): AssertionForm}


def assertions_of(forms: Sequence[AssertionForm]) -> tuple[Assertion, ...]:
    """Return the assertions that forms without problems stand for."""
    return tuple(
        Assertion(
            name=form.name,
            sql=form.sql,
            equals=form.equals,
            is_null=form.null,
            at_least=form.at_least,
            at_most=form.at_most,
            same_as_backup=form.same_as_backup,
            severity=form.severity,
        )
        for form in forms
    )


def read_assertions_file(path: Path) -> tuple[Assertion, ...]:
    """Return the assertions in a file, which has the key ``assertions`` alone, as a database of the settings file has it.

    Raises UsageError when it cannot be read, ConfigInvalid with every problem, its line and column, when it is wrong.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise UsageError(f"the file of checks {path} cannot be read: {exc.strerror}") from exc
    document = parse_document(data)
    forms = _forms(document)
    if document.problems:
        raise invalid(path, sorted(document.problems, key=_place))
    return assertions_of(forms)


def _forms(document: Document) -> Sequence[AssertionForm]:
    if not document.root and document.problems:
        return ()
    form = validated_as(document, AssertionsForm, _FORMS)
    forms = form.assertions if form is not None else []
    if form is not None and not forms:
        document.add(("assertions",), "is empty: nothing would be checked")
    note_contradictions(document, ("assertions",), forms)
    return forms


def _place(problem: Problem) -> tuple[int, int, str]:
    return problem.line, problem.column, problem.path
