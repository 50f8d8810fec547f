"""The file as YAML: values stay what was written, and what cannot mean one thing is refused where it stands."""

from __future__ import annotations

import pytest

from pgstow.config.document import parse_document


def told(text: str | bytes) -> list[str]:
    """Return the problems of a file as ``LINE:COLUMN PATH message``."""
    data = text.encode() if isinstance(text, str) else text
    return [f"{each.line}:{each.column} {each.path} {each.message}" for each in parse_document(data).problems]


def test_every_scalar_stays_text() -> None:
    document = parse_document(
        b"\xef\xbb\xbfa: no\r\nb: 22:30\r\nc: 1.10\nd: 0755\ne: 0 2 * * *\nf: 'null'\ng: [on, 1_000]\nh: |\n  x\ni: 2026-01-01\n"
    )
    assert document.problems == []
    assert document.root == {
        "a": "no", "b": "22:30", "c": "1.10", "d": "0755", "e": "0 2 * * *", "f": "null", "g": ["on", "1_000"],
        "h": "x\n", "i": "2026-01-01",
    }  # fmt: skip
    assert document.place(("g", 1)) == (7, 9)
    assert document.place(("g", 1, "nothing", "here")) == (7, 9)
    assert document.place(("g",), at_key=True) == (7, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1:1  the file is empty"),
        ("# nothing\n", "1:1  the file is empty"),
        ("- a\n", "1:1  the file must be a mapping: lines of KEY: VALUE"),
        ("word\n", "1:1  the file must be a mapping: lines of KEY: VALUE"),
        ("a:\n\tb: 1\n", "2:1  a tab cannot indent: use spaces"),
        ("a: * * * * *\n", "1:5  a value cannot begin with * or &: quote it"),
        ("a: @daily\n", "1:4  a value cannot begin with @: quote it"),
        ("a: &x 1\nb: *x\n", "1:4  anchors (&) and aliases (*) are not supported here"),
        ("a: {<<: {b: 1}}\n", "1:5  merge keys (<<) are not supported here"),
        ("a: !!python/object:os.system x\n", "1:4  tags (!) are not supported here"),
        ("a: !secret x\n", "1:4  tags (!) are not supported here"),
        ("a: !x!y z\n", "1:4  tags (!) are not supported here"),
        ("a: 1\n---\nb: 2\n", "2:1  the file holds a second document"),
        ("? [a]\n: b\n", "1:3  a key must be a word"),
        ("a: b: c\n", "1:5  a colon followed by a blank cannot stand here"),
        ("a: 'b\nc: d\n", "1:4  a quote is opened here and never closed"),
        ("a: [b, c\n", "2:1  a comma or ] is missing"),
        ("a: [${X}, b]\n", "1:6  a value with ${...} must be quoted inside [ ] and { }"),
        ('a: "\\q"\n', "1:6  an unknown escape in double quotes"),
        ("a:\n  b: 1\n c: 2\n", "3:2  the indentation does not fit"),
        ("a: \x07\n", "1:4  a control character cannot stand in the file"),
        ("a: " + "[" * 20 + "]" * 20, "1:16  this is nested too deeply"),
        ("a:\nb: ~\nc: null\n", "1:1 a has no value: give one, or remove the key"),
        ("a: [b, ]\nc: [~]\n", "2:5 c[0] this item has no value"),
        ("ab: 1\nc: 2\nab: 3\n", "3:1 ab this key was given before, in line 1"),
    ],
)
def test_what_is_refused_and_where(text: str, expected: str) -> None:
    assert told(text)[0].startswith(expected)


def test_bytes_that_are_no_text() -> None:
    assert told(b"a: 1\nb: \xff\n") == ["2:4  the file is not UTF-8 text"]
    assert told("a: 1\n".encode("utf-16")) == ["1:1  the file is not UTF-8 text"]
    assert told(b"a: 1\n" * 100_000) == ["1:1  the file is larger than 256 KiB: this is no settings file"]


def test_all_problems_of_one_mapping_are_told() -> None:
    assert told("a:\nb: 1\nb: {c: ~}\na: 2\n") == [
        "1:1 a has no value: give one, or remove the key",
        "3:1 b this key was given before, in line 2",
        "3:5 b.c has no value: give one, or remove the key",
        "4:1 a this key was given before, in line 1",
    ]
