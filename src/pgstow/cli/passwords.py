"""Where the repository's password comes from.

A flag wins over the environment; in the environment PGSTOW_PASSWORD wins over PGSTOW_PASSWORD_FILE, and
that over PGSTOW_PASSWORD_COMMAND. Without any of them a person at a terminal is asked. White space around
a password does not belong to it, as for restic, so that both can use one password file.
"""

from __future__ import annotations

import shlex
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from pgstow.core.errors import UsageError
from pgstow.core.process import run
from pgstow.core.secrets import Secret

__all__ = ["read_password"]

_HINT = "give --password-file or --password-command, or set PGSTOW_PASSWORD, PGSTOW_PASSWORD_FILE or PGSTOW_PASSWORD_COMMAND"


def read_password(
    *,
    file: Path | None,
    command: str | None,
    environ: Mapping[str, str],
    ask: Callable[[], str] | None,
    warn: Callable[[str], None],
) -> Secret:
    """Return the repository's password.

    ``ask`` reads it from a terminal and is None where there is none; ``warn`` is told what is unsafe.
    Raises UsageError, ProcessFailed (from the password command), ToolMissing.
    """
    if file is not None and command is not None:
        raise UsageError("--password-file and --password-command cannot both be given")
    if file is not None:
        return _from_file(file, warn)
    if command is not None:
        return _from_command(command)
    if text := environ.get("PGSTOW_PASSWORD"):
        return Secret(text)
    if text := environ.get("PGSTOW_PASSWORD_FILE"):
        return _from_file(Path(text), warn)
    if text := environ.get("PGSTOW_PASSWORD_COMMAND"):
        return _from_command(text)
    if ask is None:
        raise UsageError("no password for the repository was given", hint=_HINT)
    return _checked(ask(), "the password given")


def _from_file(path: Path, warn: Callable[[str], None]) -> Secret:
    try:
        status = path.stat()
        data = path.read_bytes()
    except OSError as exc:
        raise UsageError(f"password file {path} cannot be read: {exc.strerror}") from exc
    if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IROTH:
        warn(f"password file {path} can be read by every user of this machine; chmod 600 makes it private")
    return _checked(_decoded(data, f"password file {path}"), f"password file {path}")


def _from_command(command: str) -> Secret:
    try:
        words = shlex.split(command)
    except ValueError as exc:
        raise UsageError(f"the password command cannot be split into words: {str(exc).lower()}") from exc
    if not words:
        raise UsageError("the password command is empty")
    output = _decoded(run(words), "the output of the password command")
    return _checked(output.partition("\n")[0], "the first line of the password command's output")


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as exc:
        raise UsageError(f"{where} is not valid UTF-8") from exc


def _checked(text: str, where: str) -> Secret:
    password = text.strip()
    if not password:
        raise UsageError(f"{where} is empty", hint=_HINT)
    return Secret(password)
