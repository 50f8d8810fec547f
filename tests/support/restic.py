"""The real restic, as the judge of our repositories."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from pgstow.core.process import run

PASSWORD = "correct horse"


@dataclass(frozen=True)
class Restic:
    """One restic release. ``password`` goes by environment; there is no cache unless asked for."""

    binary: Path
    version: tuple[int, int]
    password: str = PASSWORD
    environ: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"restic-{self.version[0]}.{self.version[1]}"

    def __call__(self, repository: Path | str, *arguments: str | Path) -> bytes:
        """Run a command on a repository and return its stdout; ProcessFailed unless it exits with 0."""
        with TemporaryDirectory() as home:
            return run(
                [self.binary, "--repo", str(repository), "--no-cache", *arguments],
                env={"RESTIC_PASSWORD": self.password, "HOME": home, **self.environ},
            )

    def json(self, repository: Path | str, *arguments: str | Path) -> Any:
        """Run a command with ``--json`` and return what it printed."""
        return json.loads(self(repository, *arguments, "--json"))

    def with_environ(self, **environ: str) -> Self:
        """Return this restic with further environment variables, for instance AWS_ACCESS_KEY_ID."""
        return type(self)(self.binary, self.version, self.password, {**self.environ, **environ})


def find_restics(tools: Path) -> list[Restic]:
    """Return the restic of the PATH and those in the tools folder, oldest first."""
    installed = shutil.which("restic")
    binaries = [*([Path(installed)] if installed else []), *sorted(tools.glob("restic/restic-*"))]
    found: dict[tuple[int, int], Restic] = {}
    for binary in binaries:
        text = run([binary, "version"]).decode()
        match = re.search(r"restic (\d+)\.(\d+)", text)
        assert match, text
        version = (int(match[1]), int(match[2]))
        found[version] = Restic(binary, version)
    return [found[version] for version in sorted(found)]
