"""Writing a backup out as what pg_dump makes: a directory, a custom archive, or plain SQL.

Nothing is spooled: table data goes from the repository to the output. A file or folder appears under its own
name only when it is whole and on disk.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
import zlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from subprocess import PIPE
from typing import IO

from pgstow.core.errors import RepositoryDamaged, RestoreError, UsageError
from pgstow.core.process import Process, running
from pgstow.core.progress import Progress
from pgstow.postgres.archive import Sink, member_names, write_custom_archive, write_directory_toc
from pgstow.restore.losses import refuse_losses
from pgstow.restore.naming import described
from pgstow.restore.request import ArchiveFiles

__all__ = ["ExportFormat", "ExportReport", "ExportRequest", "export_backup"]

_TOC = "toc.dat"
_COPY_BYTES = 1 << 20
_GZIP_WINDOW = 31  # zlib's way to ask for gzip framing: 32 KiB window + 16
_NAME_ANOTHER = "name one that does not exist yet; nothing is ever overwritten"


class ExportFormat(StrEnum):
    """pg_dump's names for its output formats."""

    DIRECTORY = "directory"
    CUSTOM = "custom"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What to write, and where. ``output`` None is standard output."""

    format: ExportFormat
    output: Path | None
    data_only: bool = False
    gzip: bool = False

    def check(self) -> None:
        """UsageError where choices contradict each other or the output is in the way."""
        is_plain = self.format is ExportFormat.PLAIN
        if self.gzip and not is_plain:
            raise UsageError(
                f"--gzip goes with --format plain, not with {self.format}",
                hint="pg_restore reads archives as they are; leave out --gzip",
            )
        if self.data_only and not is_plain:
            raise UsageError(
                f"--data-only goes with --format plain, not with {self.format}",
                hint="export everything and give --data-only to pg_restore",
            )
        if self.output is None:
            if self.format is ExportFormat.DIRECTORY:
                raise UsageError(
                    "a directory archive cannot go to standard output", hint="use --format custom or plain"
                )
            return
        _check_free(self.output, is_folder=self.format is ExportFormat.DIRECTORY)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written. ``size_bytes`` counts the output; None is standard output."""

    backup_id: str
    backup_name: str
    format: ExportFormat
    output: Path | None
    members: int
    size_bytes: int
    seconds: float


def export_backup(
    files: ArchiveFiles, request: ExportRequest, *, pg_restore: Path, stdout: IO[bytes], progress: Progress
) -> ExportReport:
    """Write the backup as ``request`` says; on return a file or folder is whole and on disk.

    ``pg_restore`` makes plain SQL and must be as new as the pg_dump of the backup. Raises UsageError before
    anything is read, else RepositoryDamaged, ArchiveError, RestoreError, ProcessFailed; then nothing is left
    of the output, except what already went to ``stdout``.
    """
    request.check()
    started = time.monotonic()
    manifest = files.manifest
    refuse_losses(
        files,
        files.toc.entries,
        hint="an archive without them would not be whole; pgstow restore --table brings back tables that are",
    )
    members = _Members(files, progress)
    progress.phase(f"writing the {request.format} export")
    progress.expect(size_bytes=members.size_bytes)
    with _output_errors(request.output):
        if request.format is ExportFormat.DIRECTORY:
            assert request.output is not None  # check() saw to it
            size_bytes = _write_directory(members, request.output)
        else:
            with _opened(request.output, stdout) as out:
                _write_stream(members, request, pg_restore, out)
                size_bytes = out.size_bytes
    return ExportReport(
        backup_id=manifest.backup_id,
        backup_name=manifest.name,
        format=request.format,
        output=request.output,
        members=len(members.sizes),
        size_bytes=size_bytes,
        seconds=time.monotonic() - started,
    )


class _Members:
    """The data members of a backup's archive. All are known to be there before the first is read."""

    def __init__(self, files: ArchiveFiles, progress: Progress) -> None:
        self._files = files
        self._progress = progress
        self.toc = files.toc
        names = member_names(self.toc, lambda name: files.stream(f"archive/{name}"), self._look_up)
        self.sizes: Mapping[str, int] = {name: self._look_up(name) for name in names}

    @property
    def size_bytes(self) -> int:
        return sum(self.sizes.values())

    def _look_up(self, name: str) -> int:
        node = self._files.member(f"archive/{name}")
        if node is None:
            raise RepositoryDamaged(
                f"the backup's archive lacks its member {name}",
                hint="pgstow verify tells what else is missing",
            )
        return node.size_bytes

    def stream(self, name: str) -> Generator[bytes]:
        try:
            for piece in self._files.stream(f"archive/{name}"):
                yield piece
                self._progress.advance(size_bytes=len(piece))
        except RepositoryDamaged as exc:
            exc.message = f"{self._described(name)} is damaged: {exc.message}"
            raise

    def _described(self, name: str) -> str:
        for entry in self.toc.entries:
            if entry.file_name == name.encode():
                return f"{described(entry, self.toc.encoding)} ({name})"
        return f"member {name}"

    def write_archive(self, out: Sink) -> None:
        """Write the custom archive."""
        write_custom_archive(self.toc, self.stream, self.sizes.__getitem__, out)


# -- directory


def _write_directory(members: _Members, output: Path) -> int:
    with _new_folder(output) as folder:
        toc = write_directory_toc(members.toc)
        (folder / _TOC).write_bytes(toc)
        for name, size_bytes in members.sizes.items():
            written = 0
            with (folder / name).open("xb") as file, contextlib.closing(members.stream(name)) as pieces:
                for piece in pieces:
                    written += file.write(piece)
            if written != size_bytes:
                raise RepositoryDamaged(f"member {name} has {written} bytes instead of {size_bytes}")
    return members.size_bytes + len(toc)


@contextlib.contextmanager
def _new_folder(output: Path) -> Iterator[Path]:
    """Yield a folder that becomes ``output`` when the block ends well, and is removed otherwise."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        yield temporary
        for path in (*temporary.iterdir(), temporary):
            _sync(path)  # contents before the name: a crash must not leave a folder of empty files
        _check_free(output, is_folder=True)
        temporary.rename(output)
        _sync(output.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)  # why the export failed matters more
        raise


# -- one stream


class _CountedOutput:
    """A binary stream that counts what is written to it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.size_bytes = 0

    def write(self, data: bytes | memoryview, /) -> int:
        self._stream.write(data)
        self.size_bytes += len(data)
        return len(data)

    def flush(self) -> None:
        self._stream.flush()


@contextlib.contextmanager
def _opened(output: Path | None, stdout: IO[bytes]) -> Iterator[_CountedOutput]:
    """Yield standard output, or a file that becomes ``output`` when the block ends well."""
    if output is None:
        counted = _CountedOutput(stdout)
        yield counted
        counted.flush()
        return
    handle, name = tempfile.mkstemp(prefix=f".{output.name}.", dir=output.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield _CountedOutput(file)
            file.flush()
            os.fsync(file.fileno())
        _check_free(output, is_folder=False)
        temporary.rename(output)
        _sync(output.parent)
    except BaseException:
        with contextlib.suppress(OSError):  # why the export failed matters more
            temporary.unlink(missing_ok=True)
        raise


class _GzipSink:
    """Compresses what is written to it. Without ``finish()`` the end is missing, so a part never looks whole."""

    def __init__(self, out: Sink) -> None:
        self._out = out
        self._compressor = zlib.compressobj(wbits=_GZIP_WINDOW)

    def write(self, data: bytes | memoryview, /) -> None:
        self._out.write(self._compressor.compress(data))

    def finish(self) -> None:
        self._out.write(self._compressor.flush())


def _write_stream(members: _Members, request: ExportRequest, pg_restore: Path, out: _CountedOutput) -> None:
    if request.format is ExportFormat.CUSTOM:
        members.write_archive(out)
    elif request.gzip:
        packed = _GzipSink(out)
        _write_sql(members, request, pg_restore, packed)
        packed.finish()
    else:
        _write_sql(members, request, pg_restore, out)


def _write_sql(members: _Members, request: ExportRequest, pg_restore: Path, out: Sink) -> None:
    """Write what pg_restore makes of the custom archive, which it reads from a pipe while we write it."""
    command: list[str | Path] = [pg_restore, "--format=custom", "--file=-"]
    if request.data_only:
        command.append("--data-only")
    feeder = _Feeder(members)
    try:
        with running(command, stdin=PIPE) as process:
            feeder.feed(process)
            while piece := process.stdout.read(_COPY_BYTES):
                out.write(piece)
            feeder.finish()
            process.check()
    finally:
        feeder.wait()  # whatever happened, its pipe is closed by now


class _Feeder:
    """Writes the archive into a program's stdin while its stdout is being read."""

    def __init__(self, members: _Members) -> None:
        self._members = members
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def feed(self, process: Process) -> None:
        self._thread = threading.Thread(target=self._run, args=(process.stdin,), name="feeder", daemon=True)
        self._thread.start()

    def _run(self, pipe: IO[bytes]) -> None:
        try:
            self._members.write_archive(pipe)
        except BaseException as exc:  # noqa: BLE001  handed to the thread that waits
            self._error = exc
        with contextlib.suppress(OSError, ValueError):  # the program is gone; its exit status tells why
            pipe.close()

    def finish(self) -> None:
        """Raise what went wrong with the archive; a program that stopped reading answers for itself."""
        self.wait()
        if self._error is not None and not isinstance(self._error, BrokenPipeError):
            raise self._error

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()


# -- the output's place


def _check_free(output: Path, *, is_folder: bool) -> None:
    """UsageError unless ``output`` can be made there without replacing anything."""
    if not output.parent.is_dir():
        raise UsageError(f"the folder {output.parent} does not exist")
    if not os.path.lexists(output):
        return
    if is_folder:
        if not output.is_dir() or output.is_symlink():
            raise UsageError(f"{output} exists and is not a folder", hint=_NAME_ANOTHER)
        if any(output.iterdir()):
            raise UsageError(f"{output} is not empty", hint=_NAME_ANOTHER)
    elif not output.is_file() or output.is_symlink():
        raise UsageError(f"{output} exists and is not a file", hint="--output - writes to standard output")
    elif output.stat().st_size:
        raise UsageError(f"{output} exists", hint=_NAME_ANOTHER)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _output_errors(output: Path | None) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as exc:
        raise RestoreError("whoever read the export from standard output went away") from exc
    except OSError as exc:
        where = output if output is not None else "standard output"
        raise RestoreError(f"the export could not be written to {where}: {exc.strerror or exc}") from exc
