"""Objects as files below a folder.

A put writes ``tmp/NAME``, syncs it, gives it its name and syncs the folder that holds the name, so that
an object is there whole or not at all and survives a power cut once put returns. The layout is the one
restic's local backend reads; it ignores ``tmp/``. Every path is walked folder by folder without
following symbolic links, so nothing inside the root leads out of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pgstow.core.errors import (
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from pgstow.store.api import ObjectInfo, check_name, check_prefix, check_range, is_name
from pgstow.store.temporaries import is_stale, new_temporary_name

__all__ = ["LocalStore"]

_Action = Literal["write", "read", "list", "delete", "clean"]

_TEMPORARY = ("tmp",)
_FOLDER_MODE = 0o700
# Writable by the owner: network shares turn a missing write bit into an attribute that forbids deleting.
_FILE_MODE = 0o600
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OPEN_OBJECT = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not hang us
_LARGE_BYTES = 1 << 20
_DIRECT_BLOCK_BYTES = 4096  # a multiple of what any device asks for
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK})
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_MAY_PASS = frozenset(
    {errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.EHOSTDOWN, errno.EHOSTUNREACH}
    | {errno.ENETDOWN, errno.ENETUNREACH, errno.ENOTCONN, errno.ECONNRESET}
)


class LocalStore:
    """A folder on this machine, or on a file system mounted here. Made by the first put."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._root = Path(os.path.abspath(root))  # noqa: PTH100  (resolve() would follow a linked root)
        self._clock = clock
        self._durable: set[tuple[str, ...]] = set()  # folders whose own entry is known to be on disk

    def __repr__(self) -> str:
        return f"LocalStore({str(self._root)!r})"

    @property
    def location(self) -> str:
        return str(self._root)

    def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
        *parents, leaf = check_name(name).split("/")
        with (
            self._translated("write", name),
            self._folder(_TEMPORARY, create=True) as temporaries,
            self._folder(tuple(parents), create=True) as folder,
        ):
            temporary = _write_temporary(temporaries, data)
            try:
                if if_absent:
                    _name_if_absent(temporaries, temporary, folder, leaf)
                else:
                    os.replace(temporary, leaf, src_dir_fd=temporaries, dst_dir_fd=folder)
            finally:
                with contextlib.suppress(FileNotFoundError):  # a rename has moved it
                    os.unlink(temporary, dir_fd=temporaries)
            _sync_folder(folder)  # only now does the name survive a power cut

    def get(self, name: str) -> bytes:
        with self._opened(name) as file, open(file, "rb", buffering=0, closefd=False) as stream:
            return stream.readall()

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        check_range(name, offset, length)
        with self._opened(name) as file:
            # Looked at first, so that a range from a damaged index cannot ask for all memory.
            is_there = offset + length <= os.fstat(file).st_size
            data = os.pread(file, length, offset) if is_there else b""
        if not is_there or len(data) != length:
            raise StoreError(f"{name} in {self.location} is shorter than {offset + length} bytes")
        return data

    def stat(self, name: str) -> ObjectInfo:
        with self._opened(name) as file:
            return _info(name, os.fstat(file))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._walk(tuple(check_prefix(prefix).split("/")[:-1]))

    def delete(self, name: str) -> None:
        *parents, leaf = check_name(name).split("/")
        try:
            with self._translated("delete", name), self._folder(tuple(parents)) as folder:
                os.unlink(leaf, dir_fd=folder)
        except ObjectNotFound:
            pass  # absent is what was asked for

    def remove_stale_temporaries(self) -> int:
        removed = 0
        with (
            contextlib.suppress(ObjectNotFound),
            self._translated("clean", "tmp"),
            self._folder(_TEMPORARY) as folder,
            os.scandir(folder) as entries,
        ):
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # its owner, or another cleaner, was faster
                    written = entry.stat(follow_symlinks=False).st_mtime
                    if is_stale(entry.name, self._clock() - written):
                        os.unlink(entry.name, dir_fd=folder)
                        removed += 1
        return removed

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        """Open the file of an object for the length of a block; translate what goes wrong in it."""
        *parents, leaf = check_name(name).split("/")
        with self._translated("read", name), self._folder(tuple(parents)) as folder:
            file = os.open(leaf, _OPEN_OBJECT, dir_fd=folder)
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                yield file
            finally:
                os.close(file)

    @contextlib.contextmanager
    def _folder(self, path: tuple[str, ...], *, create: bool = False) -> Iterator[int]:
        """Open a folder below the root, each step without following symbolic links."""
        if create and () not in self._durable:
            _make_root(self._root)
            self._durable.add(())
        current = os.open(self._root, _OPEN_FOLDER)
        try:
            for depth in range(1, len(path) + 1):
                child = self._step_into(current, path[:depth], create=create)
                left, current = current, child
                os.close(left)  # when this returns a signal may raise: ``left`` may be another's file by then
            yield current
        finally:
            os.close(current)

    def _step_into(self, parent: int, path: tuple[str, ...], *, create: bool) -> int:
        """Return the opened folder ``path``, whose parent folder is open already."""
        name = path[-1]
        if create and path not in self._durable:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, _FOLDER_MODE, dir_fd=parent)
            _sync_folder(parent)  # also if another process made it: it may not have synced yet
            self._durable.add(path)
        try:
            return os.open(name, _OPEN_FOLDER | os.O_NOFOLLOW, dir_fd=parent)
        except NotADirectoryError as exc:  # what O_NOFOLLOW says of a link where a folder must be
            if stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise self._linked("/".join(path)) from exc
            raise

    def _walk(self, path: tuple[str, ...]) -> Iterator[ObjectInfo]:
        folders = []
        with (
            contextlib.suppress(ObjectNotFound),  # a folder that is not there holds nothing
            self._translated("list", "/".join(path)),
            self._folder(path) as folder,
            os.scandir(folder) as entries,
        ):
            for entry in entries:
                name = "/".join((*path, entry.name))
                if not is_name(name) or name == "lost+found":  # the latter is the file system's own
                    continue
                if entry.is_symlink():
                    raise self._linked(name)
                if entry.is_dir(follow_symlinks=False):
                    folders.append((*path, entry.name))
                elif entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):  # deleted since the folder was read
                        yield _info(name, entry.stat(follow_symlinks=False))
        for child in folders:
            yield from self._walk(child)

    def _linked(self, name: str) -> StoreError:
        return StoreError(
            f"{name} in {self.location} is a symbolic link",
            hint="symbolic links are not followed inside a store; mount the other place there instead",
        )

    @contextlib.contextmanager
    def _translated(self, action: _Action, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise self._error(exc, action, name) from exc

    def _error(self, exc: OSError, action: _Action, name: str) -> StoreError:
        message = f"cannot {action} {name or 'the folder'} in {self.location}: {exc.strerror or exc}"
        match exc.errno:
            case errno.ENOENT | errno.ENOTDIR if action == "write":
                return StoreError(message, hint="a folder of the store is gone; is it still mounted?")
            case errno.ENOENT | errno.ENOTDIR | errno.EISDIR if action != "write":
                return ObjectNotFound(f"{name} is not in {self.location}")
            case errno.EEXIST:
                return ObjectExists(f"{name} is already in {self.location}")
            case errno.ELOOP:
                return self._linked(name)
            case code if code in _FULL:
                return StoreFull(message, hint="free some space or raise the quota, then try again")
            case code if code in _DENIED:
                return StoreDenied(
                    message, hint=f"pgstow runs as user id {os.geteuid()}, which must own the store"
                )
            case code if code in _MAY_PASS:
                return StoreUnavailable(message)
        return StoreError(message)


def _make_root(root: Path) -> None:
    """Create the root and the folders above it that are missing, each durable before the next."""
    missing = []
    while not root.is_dir():
        missing.append(root)
        root = root.parent
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(_FOLDER_MODE)
        above = os.open(folder.parent, _OPEN_FOLDER)
        try:
            _sync_folder(above)
        finally:
            os.close(above)


def _write_temporary(folder: int, data: bytes | bytearray | memoryview) -> str:
    """Return the name of a new file in ``folder`` that holds ``data`` and is on disk."""
    name = new_temporary_name()
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE, dir_fd=folder)
    try:
        try:
            _write_all(file, memoryview(data).cast("B"))
            os.fsync(file)
        finally:
            os.close(file)  # inside the try: NFS reports a full disk only here
    except BaseException:
        with contextlib.suppress(OSError):  # the first error matters; a later run cleans tmp/
            os.unlink(name, dir_fd=folder)
        raise
    return name


def _write_all(file: int, rest: memoryview) -> None:
    """Write everything, large data past the system's cache: what the database's own pages do there matters more."""
    is_direct = len(rest) >= _LARGE_BYTES and _set_direct(file, on=True)
    while rest:
        length = len(rest)
        if is_direct:
            length -= length % _DIRECT_BLOCK_BYTES
        try:
            written = os.write(file, rest[:length]) if length else 0
        except OSError as exc:  # the data does not lie in memory as the device wants it
            if not is_direct or exc.errno != errno.EINVAL:
                raise
            written = 0
        rest = rest[written:]
        if is_direct and not written:
            is_direct = not _set_direct(file, on=False)


def _set_direct(file: int, *, on: bool) -> bool:
    """Return whether the file is now written past the system's cache, or no longer is; not all systems can."""
    direct = getattr(os, "O_DIRECT", 0)
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    try:
        fcntl.fcntl(file, fcntl.F_SETFL, flags | direct if on else flags & ~direct)
    except OSError:
        return False
    return bool(direct) or not on


def _name_if_absent(temporaries: int, temporary: str, folder: int, leaf: str) -> None:
    """Give the file its name unless it is taken: FileExistsError. A rename would silently overwrite."""
    try:
        os.link(temporary, leaf, src_dir_fd=temporaries, dst_dir_fd=folder)
    except FileExistsError:
        # An NFS server that lost its reply answers the repeated request so; two names mean it was ours.
        if os.stat(temporary, dir_fd=temporaries).st_nlink == 1:
            raise
    except OSError as exc:
        if exc.errno not in _NO_HARD_LINKS:
            raise
        # exFAT and some shares. One at a time, then: closing ``temporaries`` releases the lock.
        fcntl.flock(temporaries, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            os.stat(leaf, dir_fd=folder, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from exc
        os.rename(temporary, leaf, src_dir_fd=temporaries, dst_dir_fd=folder)


def _sync_folder(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as exc:
        if exc.errno not in _NO_FOLDER_SYNC:  # those file systems write names through, or cannot at all
            raise


def _info(name: str, status: os.stat_result) -> ObjectInfo:
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return ObjectInfo(name=name, size_bytes=status.st_size, modified=modified)
