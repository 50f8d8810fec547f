"""The one way to run programs: exit statuses, groups, secrets."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from pgstow.core.errors import ProcessFailed, ToolMissing
from pgstow.core.process import run, running
from support.waiting import until

PYTHON = sys.executable


def test_output_of_a_good_run() -> None:
    assert run([PYTHON, "-c", "print(input())"], input_bytes=b"hello\n") == b"hello\n"


def test_exit_status_and_stderr_are_told() -> None:
    with pytest.raises(ProcessFailed, match="exit status 7") as caught:
        run([PYTHON, "-c", "import sys; sys.stderr.write('went wrong'); sys.exit(7)"])
    assert caught.value.facts == {"exit_status": 7, "stderr_tail": "went wrong"}


def test_death_by_signal_is_told() -> None:
    with pytest.raises(ProcessFailed, match="signal 9"):
        run([PYTHON, "-c", "import os; os.kill(os.getpid(), 9)"])


def test_missing_program() -> None:
    with pytest.raises(ToolMissing, match="no-such-program"):
        run(["/no-such-program"])


def test_stderr_is_bounded() -> None:
    with pytest.raises(ProcessFailed) as caught:
        run(
            [
                PYTHON,
                "-c",
                "import sys\nfor i in range(100000): sys.stderr.write('x' * 100 + '\\n')\nsys.exit(1)",
            ]
        )
    assert len(str(caught.value)) < 20_000


def test_leaving_the_block_ends_the_whole_group(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal, time; "
        "signal.signal(signal.SIGTERM, signal.SIG_DFL); time.sleep(600)'])\n"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    with running([PYTHON, "-c", script]) as process:
        while not pid_file.exists() or not pid_file.read_text():
            time.sleep(0.02)
        grandchild = int(pid_file.read_text())
    assert process.poll() == -signal.SIGTERM
    until(lambda: not _is_alive(grandchild), "the end of the whole group")


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_environment_reaches_the_program_and_not_its_command_line() -> None:
    code = "import os; print(os.environ['TOKEN']); print(open('/proc/self/cmdline').read().count('emases'[::-1]))"
    assert run([PYTHON, "-c", code], env={"TOKEN": "sesame"}).split() == [b"sesame", b"0"]


def test_stdout_can_be_a_file(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, running([PYTHON, "-c", "print(1)"], stdout=out) as process:
        process.check()
    assert (tmp_path / "out").read_bytes() == b"1\n"


def test_nothing_is_inherited_but_the_three_streams() -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    try:
        listed = run([PYTHON, "-c", f"import os; print(os.path.exists('/proc/self/fd/{write_end}'))"])
        assert listed == b"False\n"
    finally:
        os.close(read_end)
        os.close(write_end)
