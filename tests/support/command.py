"""The installed command, run as a user runs it."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.loaded import LoadedProgram, loaded_program

COMMAND = Path(sys.executable).parent / "pgstow"

_STATE_VARIABLES = {"PGSTOW_STATE_DIR", "XDG_STATE_HOME", "HOME"}


@functools.cache
def _state_folder() -> str:
    """Return where commands keep state that were not told where: one folder until the tests end."""
    folder = tempfile.mkdtemp(prefix="pgstow-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Return the one document on stdout."""
        return json.loads(self.stdout)


@dataclass(frozen=True)
class Pgstow:
    """Runs ``pgstow`` with an environment of its own: nothing of the caller's but where programs are.

    A command that is run to its end is forked from a process that has loaded the program (``support.loaded``), after
    the function ``first`` of the tests, unless it ``starts_anew``.
    """

    environ: Mapping[str, str] = field(default_factory=dict)
    first: str = ""
    starts_anew: bool = False

    def __call__(self, *arguments: str | Path, **environ: str) -> Finished:
        """Run a command to its end."""
        whole = self.environment(environ)
        if not self.starts_anew:
            program = self.loaded(self.first)
            if program.fits(whole):
                code, stdout, stderr = program.run(self.command(*arguments), whole)
                return Finished(code, stdout.decode(), stderr.decode())
        assert not self.first, "this environment needs a command that is started anew"
        ended = subprocess.run(
            self.command(*arguments),
            env=whole,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )
        return Finished(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    def start(
        self, *arguments: str | Path, stdin: Any = subprocess.DEVNULL, **environ: str
    ) -> subprocess.Popen[bytes]:
        """Start a command; use as a context manager."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment(environ),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    @classmethod
    def loaded(cls, first: str = "") -> LoadedProgram:
        """Return the program that commands are forked from."""
        return loaded_program(cls.environment_of_all(), first)

    @staticmethod
    def command(*arguments: str | Path) -> list[str]:
        return [os.fspath(COMMAND), *(os.fspath(argument) for argument in arguments)]

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        given = {**self.environ, **environ}
        state = {} if _STATE_VARIABLES & set(given) else {"PGSTOW_STATE_DIR": _state_folder()}
        return {**self.environment_of_all(), **state, **given}

    @staticmethod
    def environment_of_all() -> dict[str, str]:
        """Return what every command finds in its environment."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "LANG": "C.UTF-8",
            **(
                {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
            ),  # another tree
        }
