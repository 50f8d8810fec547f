"""Every command that documents, deployment files and our own hints tell people to type, parsed by the real commands."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from pgstow.cli.application import COMMANDS, build

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DEPLOYED = [
    path
    for path in (*sorted((ROOT / "deploy").rglob("*")), *sorted((ROOT / "examples").rglob("*.yaml")))
    if path.is_file() and path.suffix not in (".json", ".sql")
]
SOURCES = sorted((ROOT / "src" / "pgstow").rglob("*.py"))

_COMMAND = re.compile(r"""(?:^|[\s("'])pgstow\s+(?=[a-z])(?!pgstow\b)(?P<rest>.*)""")
_SPAN = re.compile(r"`pgstow ([^`]+)`", re.DOTALL)
_IN_WORDS = re.compile(r"\bpgstow ([a-z]+(?: [a-z]+)?)((?: --[a-z-]+)*)")
_GROUPS = {name.split()[0] for name in COMMANDS if " " in name}


@cache
def commands() -> Any:
    return typer.main.get_command(build())


def named(words: list[str]) -> str:
    """Return the command that words begin with, or "" for none."""
    return next((name for size in (1, 2) if (name := " ".join(words[:size])) in COMMANDS), "")


def parsed(words: list[str]) -> None:
    """Raise what a person would be told who typed these words."""
    name = named(words)
    assert name, f"there is no command {' '.join(words[:2])}"
    command = commands()
    for word in name.split():
        command = command.commands[word]
    command.make_context(name, words[len(name.split()) :])


def options_of(name: str) -> set[str]:
    command = commands()
    for word in name.split():
        command = command.commands[word]
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


def words_of(line: str) -> list[str]:
    """Return the words of a shell command up to where the shell does something else with it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    with contextlib.suppress(
        ValueError
    ):  # a quotation that ends on another line, or never: no part of the command
        for word in lexer:
            if set(word) <= set("();<>|&"):
                break
            words.append(word)
    return words


def code_lines(text: str) -> Iterator[str]:
    """Yield the lines of a page that are shown as code."""
    is_fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            is_fenced = not is_fenced
        elif is_fenced or line.startswith("    "):
            yield line


def typed(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield what follows the program's name where a line calls it; comments and JSON are prose."""
    for line in lines:
        code = re.sub(r"(^|\s)#.*", "", re.sub(r"{{[^}]*}}", "X", line))
        found = _COMMAND.search(code)
        if found is None or '": "' in code:
            continue
        rest = found["rest"]
        words = words_of(rest.removesuffix('"') if rest.count('"') % 2 else rest)
        is_all = code.lstrip().removeprefix("$ ").startswith("pgstow ")
        if is_all or named(words):
            yield words


def written() -> list[Any]:
    cases = [(path, words) for path in PAGES for words in typed(code_lines(path.read_text()))]
    cases += [(path, words) for path in DEPLOYED for words in typed(path.read_text().splitlines())]
    return [pytest.param(words, id=f"{path.name}: {' '.join(words)[:70]}") for path, words in cases]


@pytest.mark.parametrize("words", written())
def test_what_is_shown_can_be_typed(words: list[str]) -> None:
    parsed(words)


def test_they_were_found() -> None:
    """The test above looks at nothing if nothing is found."""
    found = [" ".join(case.values[0]) for case in written()]
    for sample in ("run nightly --if-due --quiet", "alerts check --quiet", "init --repo example"):
        assert sample in found
    assert len(found) > 50


@pytest.mark.parametrize(
    "wrong",
    ["status --chekc", "alerts ack", "config chek", "retire a b", "checklist yearly", "alerts silence x"],
)
def test_what_is_wrong_is_noticed(wrong: str) -> None:
    with pytest.raises((AssertionError, typer.TyperException)):
        parsed(words_of(wrong))


@pytest.mark.parametrize(
    "path", ["compose.yaml", "kubernetes/serve/deployment.yaml", "kubernetes/cronjob/cronjob.yaml"]
)
def test_arguments_of_containers(path: str) -> None:
    def lists(node: Any) -> Iterator[list[str]]:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if key in ("args", "command") and isinstance(value, list) and named(value[:2]):
                yield value
            elif isinstance(value, (dict, list)):
                yield from lists(value)

    found = [
        each for text in yaml.safe_load_all((ROOT / "deploy" / path).read_text()) for each in lists(text)
    ]
    assert found
    for arguments in found:
        parsed(arguments)


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_sentences_exist(path: Path) -> None:
    """In a sentence a command may lack its arguments; its name and the options right after it must be so."""
    text = path.read_text()
    spans = [f"pgstow {span}" for span in _SPAN.findall(text)] if path.suffix == ".md" else [text]
    for span in spans:
        for words, options in _IN_WORDS.findall(" ".join(span.split())):
            name = named(words.split())
            if name:
                missing = set(options.split()) - options_of(name) - {"--help"}
                assert not missing, f"pgstow {name} has no {missing}"
            elif path.suffix == ".md" and span.startswith(f"pgstow {words}"):
                assert words in _GROUPS, f"there is no command {words}"


def test_help_fits_into_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in COMMANDS:
        commands().main(args=[*name.split(), "--help"], prog_name="pgstow", standalone_mode=False)
        shown = capsys.readouterr().out
        assert "Usage: pgstow" in shown
        cut = [line for line in shown.splitlines() if len(line) > 80 or "\N{HORIZONTAL ELLIPSIS}" in line]
        assert not cut, f"pgstow {name} --help"
