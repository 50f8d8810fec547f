"""systemd's own judge of units and times."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

_TOOLS = Path(__file__).parent.parent.parent / ".tools"
_UNPACKED = _TOOLS / "systemd"


def systemd_analyze() -> tuple[Path, Mapping[str, str]]:
    """Return the program and what its environment needs; the test fails when there should be one and is none."""
    if installed := shutil.which("systemd-analyze"):
        return Path(installed), {}
    program = _UNPACKED / "usr/bin/systemd-analyze"
    if program.exists():
        units = [str(folder) for folder in _UNPACKED.glob("**/systemd/system") if folder.is_dir()]
        return program, {"SYSTEMD_UNIT_PATH": ":".join([*units, ""])}
    left_out = _TOOLS / "unavailable"
    for line in left_out.read_text().splitlines() if left_out.exists() else ():
        if line.startswith("systemd\t"):
            pytest.skip(line.expandtabs(1))
    pytest.fail("systemd-analyze is not installed; run scripts/install-test-tools", pytrace=False)
