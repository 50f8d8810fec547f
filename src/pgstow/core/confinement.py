"""Starting programs that may do less than we may: Linux's Landlock, and no new privileges.

What a thread is denied by Landlock stays denied to it and to every process that it starts, root or not. So the program is
started by a thread that gave its rights up and ends with that. Files can be read as before.

Source: linux/landlock.h, Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

__all__ = ["Confinement", "call_confined", "can_confine", "program_files"]

_Result = TypeVar("_Result")

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the numbers of all architectures but alpha
_ASK_VERSION = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38
_ABI_REFER, _ABI_TRUNCATE, _ABI_NETWORK, _ABI_SCOPES = 2, 3, 4, 6

_EXECUTE, _WRITE_FILE = 1 << 0, 1 << 1
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))  # folders, files, sockets, links, devices
_CHANGE_FILE = _WRITE_FILE | _TRUNCATE
_CHANGE_FOLDER = _CHANGE_FILE | _REMOVE_AND_MAKE | _REFER
_BIND_AND_CONNECT = 3  # TCP
_SIGNALS_AND_ABSTRACT_SOCKETS = 3

_ELF, _INTERPRETER = b"\x7fELF\x02\x01", 3  # 64 bits, least significant byte first; PT_INTERP


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What is left: changing what lies below ``writable``, running the files ``runnable``, TCP if ``has_network``.

    Signals go to processes confined in the same way alone.
    """

    writable: tuple[Path, ...]
    runnable: tuple[Path, ...]
    has_network: bool


@cache
def can_confine() -> bool:
    """Whether this system has what it takes."""
    return _abi() > 0


@cache
def _abi() -> int:
    if sys.platform != "linux":
        return 0
    version: int = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    return max(0, version)


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def call_confined(confinement: Confinement, call: Callable[[], _Result]) -> _Result:
    """Return what ``call`` returns in a thread that is confined; what it starts is so for good.

    Raises what it raises, and OSError where the system cannot do it.
    """
    results: list[_Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            _confine(confinement)
            results.append(call())
        except BaseException as exc:  # noqa: BLE001  raised again by whoever waits
            errors.append(exc)

    thread = threading.Thread(target=work, name="confined")
    thread.start()
    try:
        thread.join()
    except BaseException:  # an interruption: what was started must be known before anybody tidies up
        thread.join()
        raise
    if errors:
        raise errors[0]
    return results[0]


def _confine(confinement: Confinement) -> None:
    """Give up rights of the calling thread for good."""
    abi = _abi()
    known = _EXECUTE | _WRITE_FILE | _REMOVE_AND_MAKE
    known |= (_REFER if abi >= _ABI_REFER else 0) | (_TRUNCATE if abi >= _ABI_TRUNCATE else 0)
    denied = struct.pack("=Q", known)
    if abi >= _ABI_NETWORK:
        denied += struct.pack("=Q", 0 if confinement.has_network else _BIND_AND_CONNECT)
    if abi >= _ABI_SCOPES:
        denied += struct.pack("=Q", _SIGNALS_AND_ABSTRACT_SOCKETS)
    ruleset = _done(_libc().syscall(_CREATE_RULESET, denied, ctypes.c_size_t(len(denied)), 0))
    try:
        for folder in confinement.writable:
            _allow(ruleset, folder, _CHANGE_FOLDER & known)
        _allow(ruleset, Path(os.devnull), _CHANGE_FILE & known)
        for program in confinement.runnable:
            _allow(ruleset, program, _EXECUTE)
        _done(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _done(_libc().syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, handle)
        _done(_libc().syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
    finally:
        os.close(handle)


def _done(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def program_files(program: Path) -> tuple[Path, ...] | None:
    """Return the files that starting a program runs: itself and its loader. None if that cannot be told."""
    try:
        real = program.resolve(strict=True)
        with real.open("rb") as file:
            head = file.read(64)
            if not head.startswith(_ELF):
                return None  # a script that starts it, or another machine's
            (table,), (size, count) = struct.unpack_from("<Q", head, 32), struct.unpack_from("<HH", head, 54)
            for number in range(count):
                file.seek(table + number * size)
                kind, _, offset, _, _, length = struct.unpack("<IIQQQQ", file.read(40))
                if kind == _INTERPRETER:
                    file.seek(offset)
                    loader = Path(os.fsdecode(file.read(length).rstrip(b"\0")))
                    return real, loader.resolve(strict=True)
    except (OSError, struct.error):
        return None
    return (real,)
