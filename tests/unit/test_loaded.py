"""Commands of tests that are forked from a program that is loaded already (``support.loaded``)."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.command import Pgstow
from support.loaded import LoadedProgram


def die_when_told() -> None:
    """In the loaded program: let a command end by a signal if its environment says so."""
    from pgstow.cli import application

    run = application.run

    def dying(*arguments: object) -> int:
        if "DIE" in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        return run(*arguments)  # type: ignore[arg-type]

    application.run = dying


@pytest.fixture
def program() -> LoadedProgram:
    return Pgstow.loaded(first="unit.test_loaded:die_when_told")


def test_how_it_ended(program: LoadedProgram) -> None:
    environ = Pgstow.environment_of_all()
    command = Pgstow.command("--version")
    assert program.run(command, {**environ, "DIE": "1"}) == (-signal.SIGKILL, b"", b"")
    code, stdout, stderr = program.run(command, environ)
    assert (code, stdout[:7], stderr) == (0, b"pgstow ", b"")


def test_many_at_once(program: LoadedProgram) -> None:
    environ = Pgstow.environment_of_all()
    with ThreadPoolExecutor(8) as threads:
        ended = list(threads.map(lambda n: program.run(Pgstow.command(f"nonsense-{n}"), environ), range(8)))
    for number, (code, _, stderr) in enumerate(ended):
        assert code == 2
        assert f"nonsense-{number}".encode() in stderr


@pytest.mark.parametrize("name", ["LANG", "LD_PRELOAD", "PYTHONPATH", "TERM", "FAKETIME"])
def test_what_is_settled_when_a_program_starts_is_not_for_a_fork(program: LoadedProgram, name: str) -> None:
    environ = Pgstow.environment_of_all()
    assert program.fits({**environ, "PGSTOW_PASSWORD": "x"})
    assert not program.fits({**environ, name: "another"})
