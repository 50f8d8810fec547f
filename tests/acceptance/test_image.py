"""The steps of the image, carried out here: what deploy/Dockerfile copies and runs, without an engine for containers.

What needs root and a container of its own (packages, the account) is left out. Fetching everything that the lock pins
takes minutes and is what making the tests' own environment did already: by default the new environment is given that
one's packages instead. PGSTOW_WHOLE_IMAGE=1 fetches them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from support.dockerfile import instructions

ROOT = Path(__file__).parent.parent.parent
ENVIRON = {
    name: value
    for name, value in os.environ.items()
    if name in {"PATH", "HOME"} or name.startswith(("PIP_", "SSL_", "http", "HTTP", "no_proxy", "NO_PROXY"))
}


def context(folder: Path) -> Path:
    """Return a folder with what the first stage copies into its working directory."""
    for each in instructions(ROOT / "deploy" / "Dockerfile"):
        if each.name == "COPY" and each.stage == 0 and each.words[-1].startswith("./"):
            *sources, target = each.words
            for source in sources:
                if (ROOT / source).is_dir():
                    ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
                    shutil.copytree(ROOT / source, folder / target, ignore=ignore)
                else:
                    shutil.copy(ROOT / source, folder)
    return folder


def keep_build_tool_only(lock: Path) -> None:
    """Leave nothing in a lock but what building pgstow itself needs."""
    entry = re.search(r"^setuptools==.*(\n    .*)*", lock.read_text(), re.MULTILINE)
    assert entry
    lock.write_text(entry[0] + "\n")


def lend_packages(prefix: Path) -> None:
    """Let an environment find the packages of the one that runs the tests."""
    (site,) = prefix.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")


def install(*arguments: str | Path, **environ: str) -> str:
    script = ROOT / "deploy" / "image" / "install.sh"
    ended = subprocess.run(
        ["sh", script, *arguments], env={**ENVIRON, **environ}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_steps_make_a_pgstow_that_works(
    tmp_path: Path, pg15: Cluster, database: Callable[..., ConnInfo]
) -> None:
    (tmp_path / "src").mkdir()
    source, prefix = context(tmp_path / "src"), tmp_path / "pgstow"
    is_whole = os.environ.get("PGSTOW_WHOLE_IMAGE") == "1"
    if not is_whole:
        keep_build_tool_only(source / "requirements.lock")
    # Compiling every file takes as long as all the rest, and only the image profits from it.
    install("venv", source, prefix, PIP_NO_COMPILE="1", PYTHON=sys.executable)
    if not is_whole:
        lend_packages(prefix)
    assert "client programs: " in install("smoke", prefix)
    installed = subprocess.run(
        [prefix / "bin" / "python", "-c", "import pgstow; print(pgstow.__file__)"],
        cwd=tmp_path,
        env={"PATH": ""},
        capture_output=True,
        text=True,
    )
    assert installed.stdout.startswith(f"{prefix}/lib/")  # not the folder it was made from
    place = database(pg15)
    pgstow = subprocess.run(
        [prefix / "bin" / "pgstow", "doctor", place.connect_string()],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
    )
    assert pgstow.returncode == 0, pgstow.stdout + pgstow.stderr
    assert "a backup would work" in pgstow.stdout


def test_unknown_step_is_refused() -> None:
    script = ROOT / "deploy" / "image" / "install.sh"
    ended = subprocess.run(["sh", script, "everything"], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "usage" in ended.stderr
