"""Dockerfiles, read as the builder reads them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction: ``stage`` counts from 0, with -1 before the first FROM."""

    name: str
    text: str
    stage: int

    @property
    def words(self) -> list[str]:
        """The words, whether they stand as a JSON list or plainly."""
        if self.text.startswith("["):
            return [str(word) for word in json.loads(self.text)]
        return shlex.split(self.text)

    @property
    def is_exec_form(self) -> bool:
        return self.text.startswith("[")


def instructions(path: Path) -> Iterator[Instruction]:
    """Return the instructions of a Dockerfile; comments are left out and continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    stage = -1
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        name, _, text = line.strip().partition(" ")
        if name:
            stage += name == "FROM"
            yield Instruction(name=name, text=text.strip(), stage=stage)


def expanded(text: str, values: Mapping[str, str]) -> str:
    """Return ``text`` with build arguments put in."""
    return re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], text)
