"""The audit trail under several real processes, and one that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from pgstow.audit.checking import verify
from pgstow.audit.trail import read_trail
from pgstow.store.local import LocalStore
from support.repositories import init_repository, open_repository
from support.restic import PASSWORD
from support.trails import Host

# Keeps and sends entries, each as an access of its own; told to, it ends between the two.
WRITER = """
import os, sys
from pathlib import Path
from pgstow.audit import writing
from pgstow.core.secrets import Secret
from pgstow.repository import Repository
from pgstow.store.local import LocalStore
from support.trails import Host

folder, state, password, count, dies = sys.argv[1:]
repository = Repository.open(LocalStore(Path(folder)), Secret(password))
host = Host(Path(state))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(count)):
    host.keeps(repository, "list")
    if dies == "yes":
        os.kill(os.getpid(), 9)
    writing.send(repository, host.journal)
"""


def start(folder: Path, state: Path, *, count: int, dies: bool = False) -> subprocess.Popen[bytes]:
    tests = Path(__file__).parent.parent
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, folder, state, PASSWORD, str(count), "yes" if dies else "no"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tests,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def finish(process: subprocess.Popen[bytes]) -> int:
    process.communicate(timeout=120)
    return process.returncode


def test_two_processes_of_a_host_add_to_one_chain(tmp_path: Path) -> None:
    init_repository(LocalStore(tmp_path / "repo"))
    processes = [start(tmp_path / "repo", tmp_path / "state", count=25) for _ in range(2)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    assert [finish(process) for process in processes] == [0, 0]
    verdict = verify(read_trail(open_repository(LocalStore(tmp_path / "repo"))))
    assert verdict.is_intact
    assert [head.number for head in verdict.heads] == [50]


def test_a_process_killed_before_it_sent(tmp_path: Path) -> None:
    init_repository(LocalStore(tmp_path / "repo"))
    process = start(tmp_path / "repo", tmp_path / "state", count=1, dies=True)
    process.communicate(b"go\n", timeout=120)
    assert process.returncode == -signal.SIGKILL
    repository = open_repository(LocalStore(tmp_path / "repo"))
    assert read_trail(repository).entries == ()
    Host(tmp_path / "state").writes(repository, "show")
    trail = read_trail(repository)
    assert verify(trail).is_intact
    assert [each.entry.action for each in trail.entries] == ["list", "show"]
