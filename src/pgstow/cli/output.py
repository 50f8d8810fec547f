"""What the user sees: results on stdout, everything else on stderr, all of it safe to print."""

from __future__ import annotations

import contextlib
import getpass
import io
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from pgstow.cli.formats import safe
from pgstow.cli.progress import PlainProgress, RichProgress
from pgstow.core.errors import PgstowError, UsageError
from pgstow.core.progress import Progress, SilentProgress

__all__ = ["SCHEMA", "Outcome", "Output", "Status", "safe_lines"]

SCHEMA = "pgstow/1"

Status = Literal["done", "failed", "partial"]

# What looks like a password in a message that quotes someone else's words.
_PASSWORD_IN_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^:/?#@\s]*):[^\s@/]+@")
_PASSWORD_PAIR = re.compile(r"\b((?:ssl)?password=)[^\s&]+", re.IGNORECASE)

_WIDE = 400  # columns where no terminal sets them: a log or a pipe must not cut lines
_SHORTEST_SECRET = 4  # blanking every "x" in a message would tell more than it hides


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a command has to say: as a document for machines and as a view for people."""

    document: Mapping[str, Any]
    view: Sequence[RenderableType] = ()
    status: Status = "done"
    is_silent: bool = False  # stdout already carried the command's data
    own_exit_code: int | None = None  # where a command follows the convention of others (Nagios)

    @property
    def exit_code(self) -> int:
        if self.own_exit_code is not None:
            return self.own_exit_code
        return {"done": 0, "failed": 1, "partial": 3}[self.status]


@dataclass(slots=True, kw_only=True)
class Output:
    """Where a command's words go, and how."""

    command: str
    as_json: bool = False
    is_quiet: bool = False
    is_verbose: bool = False
    shows_progress: bool = True
    debug: bool = False
    secrets: set[str] = field(default_factory=set)
    audit_warnings: list[str] = field(default_factory=list)  # part of the document, where there are any
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    stderr: TextIO = field(default_factory=lambda: sys.stderr)

    def conceal(self, *secrets: str) -> None:
        """Blank these wherever they would appear in a message."""
        self.secrets.update(secret for secret in secrets if len(secret) >= _SHORTEST_SECRET)

    def scrub(self, text: str) -> str:
        """Return ``text`` without secrets."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return _PASSWORD_PAIR.sub(r"\1***", _PASSWORD_IN_URL.sub(r"\1:***@", text))

    def note(self, message: str) -> None:
        """Tell what a person should know; nothing when quiet."""
        if not self.is_quiet:
            self._say(Text(safe(self.scrub(message))))

    def warn(self, message: str) -> None:
        """Tell what may go wrong later; nothing when quiet."""
        if not self.is_quiet:
            self._say(Text.assemble(("warning: ", "bold yellow"), safe(self.scrub(message))))

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """Yield the Progress that suits where stderr goes."""
        if self.is_quiet:
            yield SilentProgress()
        elif self.stderr.isatty() and self.shows_progress:
            with RichProgress(self._console(self.stderr)) as bars:
                yield bars
        elif self.is_verbose:
            with PlainProgress(self.note) as lines:
                yield lines
        else:
            yield _NotesOnly(self.note)

    @property
    def is_interactive(self) -> bool:
        """Whether there is a person to ask."""
        return sys.stdin.isatty() and self.stderr.isatty()

    def asker(self, what: str, *, twice: bool = False) -> Callable[[], str] | None:
        """Return a function that asks a person for a password; None when there is no one to ask.

        One that is to be remembered is asked for ``twice``; UsageError when the answers differ.
        """
        if not self.is_interactive:
            return None
        return lambda: self._ask(what, twice=twice)

    def _ask(self, what: str, *, twice: bool) -> str:
        try:
            password = getpass.getpass(f"{what}: ", stream=self.stderr)
            if twice and getpass.getpass(f"{what}, once more: ", stream=self.stderr) != password:
                raise UsageError("the two passwords differ")
        except EOFError:
            raise UsageError(f"no {what} was given") from None
        return password

    def question(self, text: str) -> str | None:
        """Return a person's answer to ``text``; None when there is no one to ask, or no answer."""
        if not self.is_interactive:
            return None
        self.stderr.write(safe_lines(text))
        self.stderr.flush()
        return sys.stdin.readline().rstrip("\n") or None

    def result(self, outcome: Outcome) -> bool:
        """Print what the command found or did; return whether it could be written, and say so if it could not.

        A reader who left (``| head``) has seen what he wanted.
        """
        try:
            self._result(outcome)
            self.stdout.flush()
        except BrokenPipeError:
            self._give_up(self.stdout)
        except OSError as exc:
            self._give_up(self.stdout)
            self.as_json = False  # there is only stderr left to tell it
            self.error(
                PgstowError(
                    f"the result cannot be written to standard output: {exc.strerror}",
                    hint=f"what the command did stands; it would have ended with exit status {outcome.exit_code}",
                )
            )
            return False
        return True

    def _result(self, outcome: Outcome) -> None:
        if self.as_json:
            self._print_document(outcome.status, outcome.document)
            return
        if outcome.is_silent or not outcome.view:
            return
        if self.stdout.isatty():
            self._console(self.stdout).print(*outcome.view, sep="\n")
            return
        # Tables fill their last column with blanks, which serve no reader of a pipe.
        drawn = io.StringIO()
        self._console(drawn).print(*outcome.view, sep="\n")
        self.stdout.writelines(line.rstrip() + "\n" for line in drawn.getvalue()[:-1].split("\n"))

    def error(self, error: PgstowError, *, consequence: str | None = None) -> None:
        """Print an error; as a document on stdout where that is what was asked for."""
        message, hint = self.scrub(error.message), self.scrub(error.hint) if error.hint else None
        if consequence:
            message = f"{message}; {consequence}"
        if self.as_json:
            self._print_document("failed", {"error": self._error_document(error, message, hint)})
            return
        self._say(Text.assemble(("error: ", "bold red"), safe_lines(message)))
        if hint:
            self._say(Text.assemble(("HINT: ", "bold"), safe_lines(hint)))

    def bug(self, exc: Exception) -> None:
        """Print an exception that should not have happened; its traceback only for who asked for it."""
        frames = traceback.extract_tb(exc.__traceback__)
        where = f" in {frames[-1].name}" if frames else ""
        error = PgstowError(
            f"this is a bug in pgstow: {type(exc).__name__}{where}: {exc}",
            hint="PGSTOW_DEBUG=1 shows where it happened; please report it with that",
        )
        if self.debug:
            self.stderr.write(self.scrub("".join(traceback.format_exception(exc))))
        error_document = self._error_document(error, self.scrub(error.message), error.hint) | {
            "code": "internal"
        }
        if self.as_json:
            self._print_document("failed", {"error": error_document})
        else:
            self.error(error)

    def error_document(self, error: PgstowError) -> dict[str, Any]:
        """Return an error that is part of a document (one of several databases failed)."""
        return self._error_document(
            error, self.scrub(error.message), self.scrub(error.hint) if error.hint else None
        )

    def flush(self) -> None:
        """Push everything out that can be written."""
        for stream in (self.stdout, self.stderr):
            try:
                stream.flush()
            except OSError:
                self._give_up(stream)

    @staticmethod
    def _give_up(stream: TextIO) -> None:
        """Let what is still buffered vanish: it must not be tried again, loudly, when the interpreter ends."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

    def _error_document(self, error: PgstowError, message: str, hint: str | None) -> dict[str, Any]:
        return {"code": error.code, "message": message, "hint": hint, "facts": self._scrubbed(error.facts)}

    def _scrubbed(self, value: Any) -> Any:  # noqa: ANN401  JSON
        if isinstance(value, str):
            return self.scrub(value)
        if isinstance(value, Mapping):
            return {key: self._scrubbed(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._scrubbed(each) for each in value]
        return value

    def _print_document(self, status: Status, document: Mapping[str, Any]) -> None:
        whole = {"schema": SCHEMA, "command": self.command or None, "status": status, **document}
        if self.audit_warnings:
            whole["audit_warnings"] = self.audit_warnings
        # ASCII only: a name with terminal escapes in it stays harmless in whatever shows the document.
        self.stdout.write(json.dumps(whole, indent=2, ensure_ascii=True) + "\n")

    def _say(self, text: Text) -> None:
        self._console(self.stderr).print(text, soft_wrap=True)

    def _console(self, stream: TextIO) -> Console:
        width = None if stream.isatty() else _WIDE
        return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


class _NotesOnly(SilentProgress):
    """Nothing but the messages: what a job's log should hold."""

    def __init__(self, write_line: Callable[[str], None]) -> None:
        self._write_line = write_line

    def note(self, message: str) -> None:
        self._write_line(message)


def safe_lines(text: str) -> str:
    """Return ``text`` made safe line by line: messages may quote a program that wrote several."""
    return "\n".join(safe(line) for line in text.split("\n"))
