"""Running pg_dump, pg_dumpall and pg_restore against a server."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import PIPE
from typing import IO

from pgstow.core.errors import ProcessFailed
from pgstow.core.process import TAIL_LINES, Process, running
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.session import APPLICATION_NAME, NO_TIMEOUTS
from pgstow.postgres.silence import watching_program

__all__ = ["connected", "no_timeouts", "refuses_settings", "sessions_begin_with"]

_TRANSACTION_TIMEOUT_SINCE = 170000


def no_timeouts(server_version: int) -> dict[str, str]:
    """Return the settings that switch off every timeout the server knows.

    A program that switches them off itself may meet one before, or leave some on (pg_dumpall does).
    """
    unknown = "transaction_timeout" if server_version < _TRANSACTION_TIMEOUT_SINCE else ""
    return {name: value for name, value in NO_TIMEOUTS.items() if name != unknown}


def sessions_begin_with(program: str) -> str:
    """Return how the application names of the sessions of a program begin that pgstow started."""
    return f"{APPLICATION_NAME} {program} "


def refuses_settings(failure: ProcessFailed) -> bool:
    """Whether a pooler turned a program away because settings were given at connection time."""
    return "unsupported startup parameter" in str(failure.facts.get("stderr_tail", ""))


@contextlib.contextmanager
def connected(
    command: Sequence[str | Path],
    conninfo: ConnInfo,
    *,
    settings: Mapping[str, str],
    env: Mapping[str, str] | None = None,
    stdout: int | IO[bytes] | None = PIPE,
    tail_lines: int = TAIL_LINES,
) -> Iterator[Process]:
    """Start a program that connects to ``conninfo``, for the length of a block; as ``running()`` otherwise.

    ``command`` is without a word of where: the environment says it, and ``--dbname``, which makes pg_restore connect at all.
    Its sessions run with ``settings`` and say that they are ours. ConnectionFailed when they fall silent.
    """
    name = sessions_begin_with(Path(command[0]).name) + secrets.token_hex(4)
    place = conninfo.with_settings(settings) if settings else conninfo
    with (
        place.tool_env(PGAPPNAME=name, LC_ALL="C", **(env or {})) as environment,
        running(
            [command[0], f"--dbname={place.tool_argument()}", *command[1:]],
            env=environment,
            stdout=stdout,
            tail_lines=tail_lines,
        ) as process,
        watching_program(process, conninfo, name),
    ):
        yield process
