"""Where a dump is read from: a file or folder, an object of a bucket, or standard input."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from pgstow.core.errors import ArchiveError, ObjectNotFound, UsageError
from pgstow.core.progress import Progress
from pgstow.postgres.archive import PIECE_BYTES, OpenFile
from pgstow.store.api import Store
from pgstow.store.opening import open_retrying_store

__all__ = ["STDIN", "DumpSource", "opened_dump"]

STDIN = "-"
_BUCKET = re.compile(r"(s3|gs|az)://", re.IGNORECASE)
_TRANSFER_BYTES = 8 << 20


@dataclass(slots=True, kw_only=True)
class DumpSource:
    """A dump that can be read once: ``pieces`` of a file, or what opens the files of a folder.

    ``modified`` is None where nothing says when it was written. ``digest`` covers all pieces that were read.
    """

    name: str
    size_bytes: int | None
    modified: datetime | None
    pieces: Iterator[bytes] | None = None
    open_file: OpenFile | None = None
    read_bytes: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)


@contextlib.contextmanager
def opened_dump(
    location: str, environ: Mapping[str, str], progress: Progress, *, stdin: IO[bytes] | None = None
) -> Iterator[DumpSource]:
    """Give the dump at ``location`` for a block; what is read of it is told to ``progress``.

    Raises UsageError when there is no such thing, StoreError.
    """
    with contextlib.ExitStack() as stack:
        if location == STDIN:
            if stdin is None:
                raise UsageError("there is no standard input to read a dump from")
            source = DumpSource(name="stdin", size_bytes=None, modified=None, pieces=_of_file(stdin))
        elif _BUCKET.match(location):
            source = _in_bucket(location, environ, progress)
        else:
            source = _local(stack, _path(location, environ))
        if source.size_bytes is not None:
            progress.expect(size_bytes=source.size_bytes)
        if source.pieces is not None:
            source.pieces = _counted(source, source.pieces, progress)
        if (open_file := source.open_file) is not None:
            source.open_file = _counting(source, open_file, progress)
        yield source


def _counted(source: DumpSource, pieces: Iterator[bytes], progress: Progress) -> Iterator[bytes]:
    for piece in pieces:
        source.digest.update(piece)
        source.read_bytes += len(piece)
        progress.advance(size_bytes=len(piece))
        yield piece


def _counting(source: DumpSource, open_file: OpenFile, progress: Progress) -> OpenFile:
    def opened(name: str) -> Iterator[bytes] | None:
        pieces = open_file(name)
        return _counted(source, pieces, progress) if pieces is not None else None

    return opened


def _path(location: str, environ: Mapping[str, str]) -> Path:
    if location.startswith("file://"):
        return Path(unquote(urlsplit(location).path))
    if location.startswith("~/"):
        return Path(environ.get("HOME", "~")) / location[2:]
    return Path(location)


def _local(stack: contextlib.ExitStack, path: Path) -> DumpSource:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise UsageError(
            f"{path} cannot be read: {exc.strerror}", hint="give the file or folder of a dump"
        ) from exc
    found = os.fstat(handle)
    modified = datetime.fromtimestamp(found.st_mtime, UTC)
    name = path.absolute().name or "dump"
    if stat.S_ISDIR(found.st_mode):
        stack.callback(os.close, handle)
        sizes = [entry.stat(follow_symlinks=False).st_size for entry in os.scandir(handle)]
        return DumpSource(name=name, size_bytes=sum(sizes), modified=modified, open_file=_in_folder(handle))
    file = stack.enter_context(os.fdopen(handle, "rb"))
    if not stat.S_ISREG(found.st_mode):  # a pipe: <(ssh host pg_dump ...)
        return DumpSource(name=name, size_bytes=None, modified=None, pieces=_of_file(file))
    return DumpSource(name=name, size_bytes=found.st_size, modified=modified, pieces=_of_file(file))


def _of_file(file: IO[bytes]) -> Iterator[bytes]:
    read: Callable[[int], bytes] = getattr(file, "read1", file.read)
    while piece := read(PIECE_BYTES):
        yield piece


def _in_folder(folder: int) -> OpenFile:
    """Return what opens plain files of a folder, and follows no link out of it."""

    def opened(name: str) -> Iterator[bytes] | None:
        try:
            handle = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                raise ArchiveError(f"{name} is a symbolic link, and these are not followed") from exc
            raise ArchiveError(f"{name} cannot be read: {exc.strerror}") from exc
        file = os.fdopen(handle, "rb")
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            file.close()
            raise ArchiveError(f"{name} is no plain file")
        return _closing(file)

    return opened


def _closing(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        yield from _of_file(file)


def _in_bucket(location: str, environ: Mapping[str, str], progress: Progress) -> DumpSource:
    """Return an object as a file; where there is none, what lies below its name as a folder."""
    above, _, name = location.rstrip("/").rpartition("/")
    if above.endswith("/") or not name:
        raise UsageError(f"{location} names no object", hint="write s3://BUCKET/KEY")
    store = open_retrying_store(above, environ, on_retry=progress.note)
    try:
        found = store.stat(name)
    except ObjectNotFound:
        folder = open_retrying_store(location.rstrip("/"), environ, on_retry=progress.note)
        there = list(folder.list(""))
        if not there:
            raise
        return DumpSource(
            name=name,
            size_bytes=sum(one.size_bytes for one in there),
            modified=max(one.modified for one in there),
            open_file=_in_store_folder(folder, {one.name: one.size_bytes for one in there}),
        )
    pieces = _of_object(store, name, found.size_bytes)
    return DumpSource(name=name, size_bytes=found.size_bytes, modified=found.modified, pieces=pieces)


def _in_store_folder(store: Store, sizes: Mapping[str, int]) -> OpenFile:
    return lambda name: _of_object(store, name, sizes[name]) if name in sizes else None


def _of_object(store: Store, name: str, size_bytes: int) -> Iterator[bytes]:
    for start in range(0, size_bytes, _TRANSFER_BYTES):
        yield store.get_range(name, start, min(_TRANSFER_BYTES, size_bytes - start))
