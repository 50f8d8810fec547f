"""Where passwords of repositories come from.

A flag wins over the environment; in the environment PGSTOW_PASSWORD wins over PGSTOW_PASSWORD_FILE, and
that over PGSTOW_PASSWORD_COMMAND. Without any of them a person at a terminal is asked. White space around
a password does not belong to it, as for restic, so that both can use one password file. Commands that need a
second password have flags and variables of the same form for it.
"""

from __future__ import annotations

import shlex
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pgstow.core.errors import UsageError
from pgstow.core.process import run
from pgstow.core.secrets import Secret

__all__ = [
    "ADMINISTRATOR_PASSPHRASE",
    "ALSO_PASSWORD",
    "FROM_PASSWORD",
    "NEW_PASSWORD",
    "REPOSITORY_PASSWORD",
    "TO_PASSWORD",
    "PasswordPurpose",
    "read_password",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordPurpose:
    """What a password is for, and how its flags and variables begin."""

    what: str
    flag: str
    variable: str

    @property
    def variables(self) -> tuple[str, str, str]:
        """The variables that can give it, the first wins."""
        return self.variable, f"{self.variable}_FILE", f"{self.variable}_COMMAND"

    @property
    def noun(self) -> str:
        """What it is: a password or a passphrase."""
        return self.flag.rpartition("-")[2]

    @property
    def hint(self) -> str:
        first, second, third = self.variables
        return f"give {self.flag}-file or {self.flag}-command, or set {first}, {second} or {third}"


REPOSITORY_PASSWORD = PasswordPurpose(
    what="password of the repository", flag="--password", variable="PGSTOW_PASSWORD"
)
NEW_PASSWORD = PasswordPurpose(what="new password", flag="--new-password", variable="PGSTOW_NEW_PASSWORD")
FROM_PASSWORD = PasswordPurpose(
    what="password of the other repository", flag="--from-password", variable="PGSTOW_FROM_PASSWORD"
)
ALSO_PASSWORD = PasswordPurpose(
    what="password of the further destinations", flag="--also-password", variable="PGSTOW_ALSO_PASSWORD"
)
TO_PASSWORD = PasswordPurpose(
    what="password of the target repository", flag="--to-password", variable="PGSTOW_TO_PASSWORD"
)
ADMINISTRATOR_PASSPHRASE = PasswordPurpose(
    what="passphrase of the administrator's key", flag="--passphrase", variable="PGSTOW_ADMIN_PASSPHRASE"
)


def read_password(
    purpose: PasswordPurpose = REPOSITORY_PASSWORD,
    *,
    file: Path | None,
    command: str | None,
    environ: Mapping[str, str],
    ask: Callable[[], str] | None,
    warn: Callable[[str], None],
) -> Secret:
    """Return the password for ``purpose``.

    ``ask`` reads it from a terminal and is None where there is none; ``warn`` is told what is unsafe.
    Raises UsageError, ProcessFailed (from the password command), ToolMissing.
    """
    if file is not None and command is not None:
        raise UsageError(f"{purpose.flag}-file and {purpose.flag}-command cannot both be given")
    if file is not None:
        return _from_file(file, purpose, warn)
    if command is not None:
        return _from_command(command, purpose)
    in_itself, in_file, by_command = (environ.get(name) for name in purpose.variables)
    if in_itself:
        return Secret(in_itself)
    if in_file:
        return _from_file(Path(in_file), purpose, warn)
    if by_command:
        return _from_command(by_command, purpose)
    if ask is None:
        raise UsageError(f"no {purpose.what} was given", hint=purpose.hint)
    return _checked(ask(), "the password given", purpose)


def _from_file(path: Path, purpose: PasswordPurpose, warn: Callable[[str], None]) -> Secret:
    try:
        status = path.stat()
        data = path.read_bytes()
    except OSError as exc:
        raise UsageError(f"password file {path} cannot be read: {exc.strerror}") from exc
    if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IROTH:
        warn(f"password file {path} can be read by every user of this machine; chmod 600 makes it private")
    return _checked(_decoded(data, f"password file {path}"), f"password file {path}", purpose)


def _from_command(command: str, purpose: PasswordPurpose) -> Secret:
    try:
        words = shlex.split(command)
    except ValueError as exc:
        raise UsageError(f"the password command cannot be split into words: {str(exc).lower()}") from exc
    if not words:
        raise UsageError("the password command is empty")
    output = _decoded(run(words), "the output of the password command")
    return _checked(output.partition("\n")[0], "the first line of the password command's output", purpose)


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as exc:
        raise UsageError(f"{where} is not valid UTF-8") from exc


def _checked(text: str, where: str, purpose: PasswordPurpose) -> Secret:
    password = text.strip()
    if not password:
        raise UsageError(f"{where} is empty", hint=purpose.hint)
    return Secret(password)
