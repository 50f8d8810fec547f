"""The command in processes that need not load it, because they are forked from one that has.

Loading the program takes most of the time of a short command, and the tests run hundreds of them. Each is a process of
its own all the same, with arguments, environment, folder, signals and an exit status of its own. Only what is settled
when an interpreter starts is not: the command line that others see, modules that are loaded or not, and variables that
are looked at once (``fits``). Tests of these start it anew.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["LoadedProgram", "loaded_program"]

_TESTS = Path(__file__).parent.parent
_SETTLED_AT_START = (
    "COLUMNS", "FAKETIME", "FORCE_COLOR", "LANG", "LC_", "LD_", "LINES", "MALLOC_", "NO_COLOR", "PYTHON", "SSL_", "TERM",
)  # fmt: skip
_LONGEST_REQUEST_BYTES = 100_000  # one packet
_STATUS_BYTES = 4


# -- in the process of the tests


class LoadedProgram:
    """A process that has loaded pgstow and becomes the command, in a fork of itself, each time it is asked."""

    def __init__(self, environ: Mapping[str, str], first: str = "") -> None:
        """``first`` is a function of the tests, as ``module:function``, that is called before pgstow is loaded."""
        self._environ = dict(environ)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            script = (
                f"import sys; sys.path[0] = {str(_TESTS)!r}\n"
                f"from support.loaded import become_the_command; become_the_command({first!r})\n"
            )
            self._process = subprocess.Popen(
                [sys.executable, "-c", script],
                env=self._environ,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        atexit.register(self.close)

    def close(self) -> None:
        """End the process; commands that run go on."""
        self._control.close()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._process.wait()

    def fits(self, environ: Mapping[str, str]) -> bool:
        """Whether a command with this environment may be forked: all that is settled at the start is the same."""
        return self._settled(environ) == self._settled(self._environ)

    @staticmethod
    def _settled(environ: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in environ.items() if name.startswith(_SETTLED_AT_START)}

    def run(self, command: Sequence[str], environ: Mapping[str, str]) -> tuple[int, bytes, bytes]:
        """Run a command to its end; return its exit status, what it wrote to stdout and to stderr."""
        request = {"command": list(command), "environ": dict(environ), "folder": str(Path.cwd())}
        message = json.dumps(request).encode()
        assert len(message) < _LONGEST_REQUEST_BYTES, "too long for one packet"
        pipes = [os.pipe() for _ in range(3)]
        try:
            socket.send_fds(self._control, [message], [write_end for _, write_end in pipes])
        except OSError as exc:
            raise self._gone() from exc
        finally:
            for _, write_end in pipes:
                os.close(write_end)
        stdout, stderr, status = _read_all([read_end for read_end, _ in pipes])
        if not status:
            raise self._gone()
        return int.from_bytes(status, "big", signed=True), stdout, stderr

    def _gone(self) -> AssertionError:
        stderr = self._process.stderr
        said = stderr.read().decode() if stderr is not None and not stderr.closed else ""
        return AssertionError(f"the loaded program ended with {self._process.wait()}: {said}")


_programs: dict[str, LoadedProgram] = {}
_starting = threading.Lock()


def loaded_program(environ: Mapping[str, str], first: str = "") -> LoadedProgram:
    """Return the loaded program of this process of tests, started with this environment when it is first asked for."""
    with _starting:
        if first not in _programs:
            _programs[first] = LoadedProgram(environ, first)
        return _programs[first]


def _read_all(read_ends: Sequence[int]) -> list[bytes]:
    """Return what comes out of pipes until the last writer of each has closed it."""
    pieces: dict[int, list[bytes]] = {read_end: [] for read_end in read_ends}
    with selectors.DefaultSelector() as waiting:
        for read_end in read_ends:
            waiting.register(read_end, selectors.EVENT_READ)
        while waiting.get_map():
            for key, _ in waiting.select():
                if piece := os.read(key.fd, 1 << 16):
                    pieces[key.fd].append(piece)
                else:
                    waiting.unregister(key.fd)
                    os.close(key.fd)
    return [b"".join(pieces[read_end]) for read_end in read_ends]


# -- in the process that has loaded the program


def become_the_command(first: str) -> None:
    """Load pgstow; then be the command in a fork for each request, until nobody is left to ask. Does not return."""
    if first:
        module, _, function = first.partition(":")
        getattr(importlib.import_module(module), function)()
    from pgstow.cli.application import build
    from support.cheap_keys import make_keys_cheap

    build()
    make_keys_cheap()
    from pgstow.cli.main import main

    gc.collect()
    gc.freeze()
    _return_in_forks()
    sys.exit(main())  # as the script does that is installed


def _return_in_forks() -> None:
    control = socket.socket(fileno=0)
    control.set_inheritable(False)
    under_way: dict[int, tuple[int, int]] = {}  # by what tells of the end: process, and where its status goes
    waiting = select.poll()
    waiting.register(control, select.POLLIN)
    while True:
        for ready, _ in waiting.poll():
            if ready != control.fileno():
                waiting.unregister(ready)
                _tell_status(ready, *under_way.pop(ready))
                continue
            message, pipes, _, _ = socket.recv_fds(control, _LONGEST_REQUEST_BYTES, 3)
            if not message:
                os._exit(0)
            pid = os.fork()
            if pid == 0:
                control.detach()
                for each in (*under_way, *(status_to for _, status_to in under_way.values()), pipes[2]):
                    os.close(each)
                _take_over(json.loads(message), pipes[:2])
                return
            os.close(pipes[0])
            os.close(pipes[1])
            ending = os.pidfd_open(pid)
            under_way[ending] = pid, pipes[2]
            waiting.register(ending, select.POLLIN)


def _tell_status(ending: int, pid: int, status_to: int) -> None:
    _, status = os.waitpid(pid, 0)
    os.write(status_to, os.waitstatus_to_exitcode(status).to_bytes(_STATUS_BYTES, "big", signed=True))
    os.close(status_to)
    os.close(ending)


def _take_over(request: dict[str, object], pipes: Sequence[int]) -> None:
    """Let this process be as if it had been started for the request."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for ours, theirs in enumerate((nothing, *pipes)):
        os.dup2(theirs, ours)
        os.close(theirs)
    command, environ = request["command"], request["environ"]
    assert isinstance(command, list) and isinstance(environ, dict)
    os.chdir(str(request["folder"]))
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    sys.argv = command
    sys.orig_argv = [sys.executable, *command]
