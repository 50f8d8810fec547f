"""The one way pgstow runs other programs.

Argument lists, never a shell; secrets only in ``env``; the program leads its own process group, which
is ended on every way out; stderr is drained by a thread and its tail kept; every exit status is looked
at, also when the program was stopped on purpose.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from pgstow.core.errors import ProcessFailed, ToolMissing

__all__ = ["TAIL_LINES", "Process", "run", "running"]

TAIL_LINES = 60
_STOP_GRACE_S = 5.0


class Process:
    """A started program. Use ``running()``, which never leaves one behind.

    One that ``shares_stderr`` writes to ours, which outlives us. One that does not inherit our environment gets ``env`` alone.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = subprocess.PIPE,
        cwd: Path | None = None,
        user: int | None = None,
        group: int | None = None,
        tail_lines: int = TAIL_LINES,
        shares_stderr: bool = False,
        inherits_environment: bool = True,
    ) -> None:
        self.name = Path(command[0]).name
        try:
            self._popen = subprocess.Popen(
                [os.fspath(part) for part in command],
                stdin=stdin,
                stdout=stdout,
                stderr=None if shares_stderr else subprocess.PIPE,
                env=dict(env or {}) if not inherits_environment else {**os.environ, **env} if env else None,
                cwd=cwd,
                user=user,
                group=group,
                extra_groups=[] if user is not None else None,
                start_new_session=True,
                close_fds=True,
            )
        except FileNotFoundError as exc:
            raise ToolMissing(f"{command[0]} is not installed") from exc
        except OSError as exc:
            raise ProcessFailed(f"{self.name} could not be started: {exc.strerror}") from exc
        self._tail: deque[str] = deque(maxlen=tail_lines)
        self._drain = threading.Thread(target=self._read_stderr, name=f"{self.name}-stderr", daemon=True)
        self._drain.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def stdin(self) -> IO[bytes]:
        assert self._popen.stdin is not None
        return self._popen.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self._popen.stdout is not None
        return self._popen.stdout

    def _read_stderr(self) -> None:
        if self._popen.stderr is None:  # it is ours
            return
        with self._popen.stderr as stream:
            for line in stream:
                self._tail.append(line[:2000].decode(errors="backslashreplace").rstrip("\n"))

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self._popen.poll()

    def wait(self, timeout_s: float | None = None) -> int:
        """Return the exit status once the program and its stderr have ended."""
        status = self._popen.wait(timeout_s)
        self._drain.join(timeout_s)
        return status

    def stderr_tail(self) -> str:
        """Return the last lines the program wrote to stderr, complete once it has ended."""
        return "\n".join(self._tail)

    def check(self, timeout_s: float | None = None) -> None:
        """Wait for the end; ProcessFailed with the stderr tail unless the exit status is 0."""
        status = self.wait(timeout_s)
        if status != 0:
            raise self.failure(status)

    def failure(self, status: int) -> ProcessFailed:
        """Return the error that says this program ended with ``status``."""
        tail = self.stderr_tail()
        how = f"was ended by signal {-status}" if status < 0 else f"failed with exit status {status}"
        return ProcessFailed(
            f"{self.name} {how}" + (f": {tail}" if tail else ""), exit_status=status, stderr_tail=tail
        )

    def terminate(self) -> None:
        """Ask the process group to end."""
        self._signal(signal.SIGTERM)

    def end(self, grace_s: float) -> None:
        """End the process group, gently at first. For another thread than the one that reads from it and calls ``stop()``."""
        if self._popen.poll() is None:
            self.terminate()
            try:
                self._popen.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End the process group at once. For another thread than the one that reads from it and calls ``stop()``."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """End the process group: SIGTERM, a grace period, SIGKILL. Does nothing once it has ended."""
        if self._popen.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                self._popen.wait(_STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self._popen.wait()
        for stream in (self._popen.stdin, self._popen.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # a broken pipe at close: the program is gone
                    stream.close()
        self._drain.join(_STOP_GRACE_S)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it ended between poll and signal
            os.killpg(self._popen.pid, number)


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = subprocess.PIPE,
    cwd: Path | None = None,
    user: int | None = None,
    group: int | None = None,
    tail_lines: int = TAIL_LINES,
) -> Iterator[Process]:
    """Start a program for the length of a block; it is ended when the block is left, however.

    The caller still calls ``check()``: leaving the block stops the program without judging it.
    ``env`` is added to the environment. Raises ToolMissing, ProcessFailed.
    """
    process = Process(
        command, env=env, stdin=stdin, stdout=stdout, cwd=cwd, user=user, group=group, tail_lines=tail_lines
    )
    try:
        yield process
    finally:
        process.stop()


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    input_bytes: bytes | None = None,
    cwd: Path | None = None,
    user: int | None = None,
    group: int | None = None,
) -> bytes:
    """Run a program to its end and return its stdout; ProcessFailed unless it exits with 0.

    For programs with little output; ``input_bytes`` must fit a pipe buffer (64 KiB).
    """
    stdin = subprocess.PIPE if input_bytes is not None else subprocess.DEVNULL
    with running(command, env=env, stdin=stdin, cwd=cwd, user=user, group=group) as process:
        if input_bytes is not None:
            with contextlib.suppress(BrokenPipeError):  # its exit status tells why it did not read
                process.stdin.write(input_bytes)
                process.stdin.close()
        output = process.stdout.read()
        process.check()
        return output
