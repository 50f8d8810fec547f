"""The settings file as text: YAML 1.2 without its traps, each value with its place.

Every scalar stays the text that was written: what it means is decided by the key it belongs to, never by its look, so
``no``, ``22:30``, ``1.10`` and ``0755`` are no different from other words. Anchors, aliases, merge keys, tags and more than one
document are refused, as are keys given twice and keys without a value: none of them can mean what a reviewer thinks they mean.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from pgstow.config.problems import Path, Problem, path_text

__all__ = ["Document", "Value", "parse_document"]

Value = Any  # dict[str, Value], list[Value] or str

_LARGEST_BYTES = 256 * 1024
_DEEPEST = 12
_NULLS = ("", "~", "null", "Null", "NULL")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff\ud800-\udfff]")
_LINES = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")


@dataclass(slots=True, kw_only=True)
class Document:
    """What the file holds. ``root`` lacks what the problems are about."""

    root: dict[str, Value] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    valueless: set[Path] = field(default_factory=set)  # keys that were given without a value
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)  # of values
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    line_lengths: list[int]

    def add(
        self,
        path: Path,
        message: str,
        *,
        at_key: bool = False,
        is_warning: bool = False,
        shown: Path | None = None,
    ) -> None:
        """Note a problem of the value at ``path``, or of its key; ``shown`` is the path to name instead."""
        line, column = self.place(path, at_key=at_key)
        self.problems.append(
            Problem(
                line=line,
                column=column,
                path=path_text(path if shown is None else shown),
                message=message,
                is_warning=is_warning,
            )
        )

    def place(self, path: Path, *, at_key: bool = False) -> tuple[int, int]:
        """Return line and column of the value at ``path`` or its key, or of the nearest thing around it that is there."""
        first, second = (self.keys, self.places) if at_key else (self.places, self.keys)
        for length in range(len(path), 0, -1):
            found = first.get(path[:length]) or second.get(path[:length])
            if found:
                return self.inside(*found)
        return self.inside(1, 1)

    def inside(self, line: int, column: int) -> tuple[int, int]:
        """Return the place, or the one before it that the file has: the end of a file may lie after its last line."""
        if line > len(self.line_lengths):
            return len(self.line_lengths), self.line_lengths[-1] + 1
        return line, min(column, self.line_lengths[line - 1] + 1)


def parse_document(data: bytes) -> Document:
    """Return what the bytes of a file hold; what is wrong with them is among its problems."""
    if len(data) > _LARGEST_BYTES:
        return _failed(
            "", 1, 1, f"the file is larger than {_LARGEST_BYTES // 1024} KiB: this is no settings file"
        )
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as exc:
        before = data[: exc.start].decode("utf-8")
        return _failed(before, *_end_of(before), "the file is not UTF-8 text")
    if found := _CONTROL.search(text):
        return _failed(text, *_end_of(text[: found.start()]), "a control character cannot stand in the file")
    document = Document(line_lengths=_line_lengths(text))
    try:
        _Builder(document).build(YAML(typ="rt", pure=True).parse(io.StringIO(text)))
    except YAMLError as exc:
        line, column, message = _syntax_error(exc, text)
        document.problems.append(_problem(document, line, column, message))
        document.root = {}
    return document


def _failed(text: str, line: int, column: int, message: str) -> Document:
    document = Document(line_lengths=_line_lengths(text))
    document.problems.append(_problem(document, line, column, message))
    return document


def _problem(document: Document, line: int, column: int, message: str) -> Problem:
    line, column = document.inside(line, column)
    return Problem(line=line, column=column, path="", message=message)


def _line_lengths(text: str) -> list[int]:
    return [len(line) for line in _LINES.split(text)]


def _end_of(text: str) -> tuple[int, int]:
    """Return line and column of the character after ``text``."""
    lines = _line_lengths(text)
    return len(lines), lines[-1] + 1


class _TooMuch(YAMLError):
    """Something that this file may not hold; the rest is not looked at."""

    def __init__(self, event: Event, message: str) -> None:
        super().__init__(message)
        self.line, self.column = _start(event)


class _Builder:
    """Turns the events of a YAML parser into values and their places."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def build(self, events: Iterator[Event]) -> None:
        self._events = events
        documents = 0
        for event in events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _TooMuch(event, "the file holds a second document (---)")
            elif isinstance(event, NodeEvent):
                root = self._node(event, ())
                if isinstance(root, dict):
                    self._document.root = root
                elif root is not None:
                    raise _TooMuch(event, "the file must be a mapping: lines of KEY: VALUE")
        if not documents:
            self._document.problems.append(_problem(self._document, 1, 1, "the file is empty"))

    def _node(self, event: Event, path: Path) -> Value:
        """Return the value that begins with ``event``; None for a scalar that says there is none."""
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            raise _TooMuch(
                event, "anchors (&) and aliases (*) are not supported here: write the value out, or quote it"
            )
        if isinstance(event, (ScalarEvent, CollectionStartEvent)) and event.tag is not None:
            raise _TooMuch(event, "tags (!) are not supported here: quote the value if it begins with !")
        if len(path) > _DEEPEST:
            raise _TooMuch(event, "this is nested too deeply")
        if path:
            self._document.places[path] = _start(event)
        if isinstance(event, MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(path)
        assert isinstance(event, ScalarEvent)  # nothing else begins a value
        is_null = not event.style and event.value in _NULLS
        return None if is_null else str(event.value)

    def _sequence(self, path: Path) -> list[Value]:
        values: list[Value] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            at = (*path, len(values))
            value = self._node(event, at)
            if value is None:
                self._document.add(at, "this item has no value: remove it, or quote the word")
                value = ""
                self._document.valueless.add(at)
            values.append(value)
        return values

    def _mapping(self, path: Path) -> dict[str, Value]:
        values: dict[str, Value] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._key(event)
            at, place = (*path, key), _start(event)
            if key in values or at in self._document.valueless:
                self._again(at, place, next(self._events))
                continue
            self._document.keys[at] = place
            value = self._node(next(self._events), at)
            if value is None:
                self._document.valueless.add(at)
                self._document.add(at, "has no value: give one, or remove the key", at_key=True)
            else:
                values[key] = value
        return values

    def _key(self, event: Event) -> str:
        if isinstance(event, AliasEvent) or not isinstance(event, ScalarEvent):
            raise _TooMuch(event, "a key must be a word")
        if event.anchor or event.tag is not None:
            raise _TooMuch(event, "a key can have no anchor (&) or tag (!)")
        if event.value == "<<":
            raise _TooMuch(event, "merge keys (<<) are not supported here: write the values out")
        return str(event.value)

    def _again(self, path: Path, place: tuple[int, int], event: Event) -> None:
        """Note a key that was there before; its second value is read over."""
        first = self._document.keys[path][0]
        line, column = self._document.inside(*place)
        message = f"this key was given before, in line {first}"
        self._document.problems.append(
            Problem(line=line, column=column, path=path_text(path), message=message)
        )
        aside = Document(line_lengths=self._document.line_lengths)
        second = _Builder(aside)
        second._events = self._events
        second._node(event, path)
        self._document.problems += aside.problems


def _start(event: Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


# What the parser says, by the beginning of its words, and what we say. Its own words may quote the file.
_SAID = (
    (r"found character '\\t'|found a tab|found a character.*tab", "a tab cannot indent: use spaces"),
    (r"found character '([@`%])'", "a value cannot begin with {0}: quote it"),
    (
        r"expected alphabetic or numeric character",
        'a value cannot begin with * or &: quote it, as in "*/5 * * * *"',
    ),
    (
        r"mapping values are not allowed",
        "a colon followed by a blank cannot stand here: quote the value, or indent the key",
    ),
    (r"found unexpected end of stream", "a quote is opened here and never closed"),
    (r"expected ',' or '[\]}]', but got '\{'", "a value with ${{...}} must be quoted inside [ ] and {{ }}"),
    (r"expected ',' or '([\]}])'", "a comma or {0} is missing"),
    (r"expected <block end>", "the indentation does not fit what stands before"),
    (
        r"found unknown escape character",
        "an unknown escape in double quotes: use single quotes, or double the backslash",
    ),
    (r"could not find expected ':'", "a colon is missing after the key"),
    (r"found undefined tag handle", "tags (!) are not supported here: quote the value if it begins with !"),
    (r"found duplicate anchor", "anchors (&) are not supported here: write the value out, or quote it"),
    (r"sequence entries are not allowed", "a list cannot begin here: put it on lines of its own"),
)


def _syntax_error(exc: YAMLError, text: str) -> tuple[int, int, str]:
    """Return where a file stops being YAML, and why."""
    if isinstance(exc, _TooMuch):
        return exc.line, exc.column, str(exc)
    if not isinstance(exc, MarkedYAMLError):
        position = getattr(exc, "position", None)
        place = _end_of(text[:position]) if isinstance(position, int) else (1, 1)
        return (*place, "this cannot be read as YAML")
    problem = exc.problem or ""
    mark = exc.problem_mark or exc.context_mark
    if problem.startswith("found unexpected end of stream") and exc.context_mark is not None:
        mark = exc.context_mark  # where the quote was opened says more than the end of the file
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    for pattern, said in _SAID:
        if found := re.match(pattern, problem):
            return line, column, said.format(*found.groups())
    return line, column, "this cannot be read as YAML"
