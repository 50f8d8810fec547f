"""What the numbers were measured on and with; nothing that names the machine or its folders."""

from __future__ import annotations

import compileall
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pgstow
from bench.contestants import Programs
from bench.servers import server_binaries
from pgstow import __version__
from pgstow.core.errors import PgstowError
from pgstow.core.process import run

__all__ = ["compile_ourselves", "describe", "find_programs", "install_peers"]

_PROJECT: Final = Path(__file__).resolve().parents[1]
_PEERS: Final = ("restic", "pgbackrest", "zstd", "gzip")
_VERSION: Final = re.compile(r"\d+(?:\.\d+)+")


def install_peers() -> None:
    """Install the peers that are missing, by the project's own script for Debian packages.

    Best effort: a contestant that is still missing afterwards is left out and named in the results.
    """
    script = _PROJECT / "scripts" / "install-test-tools"
    if all(map(shutil.which, _PEERS)) and _has_server():
        return
    if script.exists():
        subprocess.run([script], check=False, stdout=subprocess.DEVNULL)


def compile_ourselves() -> None:
    """Have Python's own files of pgstow ready, as an installation leaves them; an editable one may not keep them."""
    compileall.compile_dir(Path(pgstow.__file__).parent, quiet=1)


def _has_server() -> bool:
    try:
        server_binaries()
    except PgstowError:
        return False
    return True


def find_programs() -> Programs:
    """Return where PostgreSQL's programs and every restic are; ToolMissing without a PostgreSQL server."""
    restics: dict[str, Path] = {}
    for program in (shutil.which("restic"), *sorted((_PROJECT / ".tools" / "restic").glob("restic-*"))):
        if program and Path(program).is_file() and os.access(program, os.X_OK):
            restics.setdefault(_version(str(program), "version"), Path(program))
    return Programs(postgres=server_binaries().bin_dir, restics=tuple(restics.items()))


def describe(programs: Programs) -> dict[str, Any]:
    """Return processor, memory, system and the version of every tool."""
    versions = {
        "pgstow": __version__,
        "PostgreSQL": _version(str(programs.postgres / "postgres"), "--version"),
        "Python": platform.python_version(),
        "restic": ", ".join(version for version, _program in programs.restics),
        **{
            name: _version(name, option)
            for name, option in (("pgbackrest", "version"), ("borg", "--version"))
        },
        **{name: _version(name, "--version") for name in ("zstd", "gzip")},
    }
    return {
        "processor": _line_after("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "versions": {name: version for name, version in versions.items() if version},
    }


def _version(program: str, option: str) -> str:
    """Return the first thing that looks like a version in what the program prints; empty when it is not there."""
    if not shutil.which(program):
        return ""
    match = _VERSION.search(run([program, option]).decode(errors="replace"))
    return match[0] if match else "unknown"


def _line_after(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return platform.machine()
