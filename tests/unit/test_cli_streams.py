"""Standard streams that were closed, or whose encoding lacks characters: each case in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PREPARED = "from pgstow.cli.streams import prepare_streams; prepare_streams(); import os, sys; "


def run(program: str, redirection: str, **environ: str) -> tuple[int, str, str]:
    ended = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, _PREPARED + program],
        env={"PYTHONPATH": ":".join(sys.path), **environ},
        capture_output=True,
        check=False,
    )
    return ended.returncode, ended.stdout.decode(), ended.stderr.decode()


def test_closed_input_is_empty() -> None:
    assert run("print([sys.stdin.read(), sys.stdin.isatty()])", "<&-") == (0, "['', False]\n", "")


def test_no_file_takes_the_number_of_a_closed_stream() -> None:
    program = "print(os.open('/', os.O_RDONLY) > 2)"
    assert run(program, "<&-") == (0, "True\n", "")
    assert run(program, "2>&-") == (0, "True\n", "")


def test_closed_output_fails_and_closed_error_swallows() -> None:
    code, _, stderr = run("print('x', flush=True)", ">&-")
    assert code != 0
    assert "Bad file descriptor" in stderr
    assert run("print('x', file=sys.stderr, flush=True)", "2>&-") == (0, "", "")


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", r"\u540d \xe9"), ("latin-1", "\\u540d \N{REPLACEMENT CHARACTER}")]
)
def test_what_the_encoding_lacks_is_escaped(encoding: str, shown: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _PREPARED + r"print('\u540d \xe9')"],
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout.decode(errors="replace")) == (0, f"{shown}\n")
