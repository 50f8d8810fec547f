"""Taking passwords out of the process list.

Users paste connection URLs with passwords in them. Arguments of a running program can be read by every
user of the machine, so a program started that way replaces itself at once: same process, same
interpreter, the passwords blanked in its arguments and the real arguments handed over through a pipe.
This module imports next to nothing, because every millisecond before that counts.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Arguments", "redact", "withdraw_secrets"]

_DESCRIPTOR = "_PGSTOW_ARGUMENTS_FD"
_PIPE_ROOM = 16 * 1024  # the least a pipe holds before a write blocks (macOS)
_BLANK = "***"

# scheme://user:password@ ; up to the last @, as people forget to percent-encode one.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^:/?#@\s]*):.*@", re.DOTALL)
# password=... as a pair of a connection string or of a URL's query; all that follows goes with it, for
# where the value ends depends on quotes and backslashes.
_PAIR = re.compile(r"((?:^|[\s?&=])(?:ssl)?password\s*=).+", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The command line's arguments as the user gave them."""

    texts: tuple[str, ...]
    had_secrets: bool  # a password stood among them and was visible for a moment


def redact(argument: str) -> str:
    """Return ``argument`` with any password in it blanked; the same text if there is none."""
    return _PAIR.sub(rf"\1{_BLANK}", _URL.sub(rf"\1:{_BLANK}@", argument))


def withdraw_secrets() -> Arguments:
    """Return the arguments, after making sure that the process list shows no password.

    Where an argument holds one, this does not return: the program starts anew inside the same process,
    and the call made there returns.
    """
    handed_over = os.environ.pop(_DESCRIPTOR, None)
    if handed_over is not None:
        return Arguments(texts=_receive(handed_over), had_secrets=True)
    given = tuple(sys.argv[1:])
    shown = tuple(redact(argument) for argument in given)
    if shown == given:
        return Arguments(texts=given, had_secrets=False)
    _start_anew(given, shown)
    return Arguments(texts=given, had_secrets=True)


def _start_anew(given: Sequence[str], shown: Sequence[str]) -> None:
    """Replace the program by itself with ``shown`` as arguments; return only where that is impossible."""
    command = sys.orig_argv[: -len(given)]
    if not sys.executable or sys.orig_argv[-len(given) :] != list(given):
        return  # not started as a program of its own: called from another one, whose arguments are its own
    message = json.dumps(list(given)).encode()
    if len(message) > _PIPE_ROOM:
        sys.exit("error: the arguments hold a password and are too long to be passed on safely")
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    os.write(writer, message)
    os.close(writer)
    os.execve(sys.executable, [*command, *shown], {**os.environ, _DESCRIPTOR: str(reader)})  # noqa: S606


def _receive(descriptor: str) -> tuple[str, ...]:
    try:
        with open(int(descriptor), "rb") as stream:  # noqa: PTH123  a descriptor, not a path
            texts = json.loads(stream.read())
    except (ValueError, OSError):
        sys.exit(f"error: {_DESCRIPTOR} is reserved for pgstow itself")
    return tuple(str(text) for text in texts)
