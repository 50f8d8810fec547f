"""Files that went wrong at random: never a traceback, always a place inside the file, never a secret in a message."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pgstow.config.reading import Reading, parse_settings
from pgstow.config.validation import FORMS
from support.settings_files import EXAMPLES, SMALL, reference_text

SECRETS = ("pW8hunter2hunter2", "xoxb7Token0Token1", "wJalrXUtnFEMI7K")
# The reference, with a secret written out wherever one can be.
LEAKY = (
    reference_text()
    .replace("backup@db.example", f"backup:{SECRETS[0]}@db.example")
    .replace("file:secrets/repository", SECRETS[0])
    .replace("${OFFSITE_KEY_SECRET}", SECRETS[2])
    .replace("${SLACK_URL}", f"https://hooks.slack.com/services/T0/B0/{SECRETS[1]}")
    .replace("${MAIL_PASSWORD}", SECRETS[1])
    .replace("[pass, show, backups/offsite]", f"[echo, {SECRETS[2]}]")
)
BASES = [reference_text(), SMALL, LEAKY, *(path.read_text() for path in EXAMPLES)]
PATH = Path("/etc/pgstow/pgstow.yaml")
ODD = [
    "\t",
    ":",
    "- ",
    "#",
    "&",
    "*",
    "!",
    "'",
    '"',
    "[",
    "}",
    "|",
    "~",
    "${",
    "\x00",
    "\ud7ff",
    "é",
    "\u2028",
    "\r",
    "<<: x",
    "? ",
    "\n---\n",
    "null",
    "0o7",
]


def examined(data: bytes) -> Reading:
    """Read the file, and hold what came of it against what must always be so."""
    reading = parse_settings(data, PATH)
    assert (reading.settings is None) == bool(reading.errors)
    lines = re.split(r"\r\n|[\n\r\x85\u2028\u2029]", data.decode("utf-8", "replace").removeprefix("\ufeff"))
    for problem in (*reading.errors, *reading.warnings):
        assert 1 <= problem.line <= len(lines), problem
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1, problem
        line = problem.text(PATH)
        assert "\n" not in line
        assert line.startswith(f"{PATH}:{problem.line}:{problem.column}: ")
        assert not any(secret in line for secret in SECRETS), line
    places = [(problem.line, problem.column) for problem in reading.errors]
    assert places == sorted(places)
    return reading


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Return one of the files after a few changes of the kinds that people and editors make."""
    lines = draw(st.sampled_from(BASES)).split("\n")
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        kind = draw(
            st.sampled_from(["drop", "double", "move", "indent", "dedent", "odd", "cut", "swap", "text"])
        )
        line = lines[at]
        column = draw(st.integers(0, len(line)))
        if kind == "drop":
            del lines[at]
        elif kind == "double":
            lines.insert(at, line)
        elif kind == "move":
            lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(at))
        elif kind == "indent":
            lines[at] = "  " + line
        elif kind == "dedent":
            lines[at] = line.removeprefix("  ")
        elif kind == "odd":
            lines[at] = line[:column] + draw(st.sampled_from(ODD)) + line[column:]
        elif kind == "cut":
            lines[at] = line[:column]
        elif kind == "swap":  # a value of another key
            key, colon, _ = line.partition(": ")
            other = draw(st.sampled_from(lines)).partition(": ")[2]
            lines[at] = key + colon + other
        else:
            lines[at] = line[:column] + draw(st.text(max_size=5)) + line[column:]
        assume(lines)
    return "\n".join(lines)


@settings(max_examples=80)
@given(mutated())
@example(LEAKY)
def test_any_change_of_a_file(text: str) -> None:
    examined(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    examined(data)


@cache
def keys_of_the_form() -> list[tuple[int, str]]:
    """Return (line, key) of every key of the reference that is no name somebody chose."""
    own = {field for form in FORMS.values() for field in form.model_fields}
    found = []
    for number, line in enumerate(reference_text().split("\n")):
        match = re.match(r"(?:- )?([a-z_]+):(?: |$)", line.strip())
        if match and match[1] in own:
            found.append((number, match[1]))
    return found


@settings(max_examples=60)
@given(st.data())
def test_a_typo_in_any_key_is_refused(data: st.DataObject) -> None:
    number, key = data.draw(st.sampled_from(keys_of_the_form()))
    at = data.draw(st.integers(0, len(key) - 1))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz_"))
    typo = data.draw(
        st.sampled_from(
            [key[:at] + key[at + 1 :], key[:at] + letter + key[at:], key[:at] + letter + key[at + 1 :]]
        )
    )
    assume(typo and not any(typo in form.model_fields for form in FORMS.values()))
    lines = reference_text().split("\n")
    lines[number] = re.sub(rf"\b{key}:", f"{typo}:", lines[number], count=1)
    reading = examined("\n".join(lines).encode())
    assert any(problem.line == number + 1 for problem in reading.errors), (typo, reading.errors)
