"""References to secrets: what stands in the file where a secret is needed.

``${VARIABLE}`` inside a text, ``file:PATH`` or ``command: [program, argument]`` instead of one.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pgstow.core.errors import UsageError
from pgstow.core.process import run
from pgstow.core.secrets import Secret

__all__ = ["Reference", "credential_name"]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Exactly one of the three is set. ``where`` says which setting this is, for messages."""

    where: str
    text: str | None = None
    file: Path | None = None
    command: tuple[str, ...] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the text stands in the file itself, without a variable: then it is no secret."""
        return self.text is not None and not _VARIABLE.search(self.text)

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that the text needs."""
        return tuple(_VARIABLE.findall(self.text or ""))

    def resolve(self, environ: Mapping[str, str]) -> Secret:
        """Return what is referred to, without white space around it.

        Raises UsageError, ProcessFailed or ToolMissing when it cannot be had, or is empty.
        """
        if self.command is not None:
            text = run(self.command).decode(errors="replace").split("\n", 1)[0]
        elif self.file is not None:
            text = self._read(_handed_over(self.file, environ))
        else:
            text = _VARIABLE.sub(lambda found: self._variable(found[1], environ), self.text or "")
        if not text.strip():
            raise UsageError(f"{self.where}: {self._source} is empty")
        return Secret(text.strip())

    def warning(self) -> str | None:
        """Return what is unsafe about where the secret is kept; None where nothing is known to be."""
        if self.file is None:
            return None
        try:
            mode = self.file.stat().st_mode
        except OSError:
            return None  # resolving it tells
        if stat.S_ISREG(mode) and mode & stat.S_IROTH:
            return f"{self.file} can be read by every user of this machine; chmod 600 makes it private"
        return None

    def _read(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8").removeprefix("\ufeff")
        except (OSError, UnicodeDecodeError) as exc:
            raise UsageError(
                f"{self.where}: {path} cannot be read: {exc.strerror if isinstance(exc, OSError) else 'not UTF-8'}"
            ) from exc

    def _variable(self, name: str, environ: Mapping[str, str]) -> str:
        if name not in environ:
            raise UsageError(
                f"{self.where}: the variable {name} is not set", hint=f"set {name} in the environment"
            )
        return environ[name]

    @property
    def _source(self) -> str:
        """What the secret is taken from, in words that hold nothing of it."""
        if self.command is not None:
            return f"the output of {self.command[0]}"
        return f"file {self.file}" if self.file is not None else "what its variables hold"

    def __str__(self) -> str:
        """Return the reference as it may be shown: it names a secret and never holds one."""
        if self.command is not None:
            return f"command {self.command[0]}"
        return f"file:{self.file}" if self.file is not None else self.text or ""


def credential_name(path: Path) -> str:
    """Return the name under which systemd hands a file to a service that may not read the file itself."""
    return "".join(
        char if char.isalnum() and char.isascii() else "-" if char == "/" else f"_{ord(char):x}_"
        for char in str(path.absolute())[1:]
    )


def _handed_over(path: Path, environ: Mapping[str, str]) -> Path:
    """Return the service manager's copy of a file, where there is one: the original is out of a service's reach."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    copy = Path(folder) / credential_name(path) if folder else None
    return copy if copy is not None and copy.is_file() else path
