"""The use case: make a backup of a dump that pgstow did not make."""

from __future__ import annotations

import contextlib
import secrets
import socket
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pgstow.app.auditing import note_access
from pgstow.app.dump_source import DumpSource, opened_dump
from pgstow.app.holding import holding
from pgstow.app.import_archive import save_archive
from pgstow.app.import_request import Imported, ImportRequest
from pgstow.app.import_script import ScriptImport, save_script
from pgstow.capture.destinations import Destination, Destinations, FanOutWriter
from pgstow.capture.options import CapturedBackup
from pgstow.capture.publish import Identity
from pgstow.catalog.manifest import Warning_
from pgstow.core.errors import ArchiveError, Interrupted, RepositoryDamaged
from pgstow.core.progress import Progress
from pgstow.core.secrets import Secret
from pgstow.postgres.archive import (
    MAGIC,
    PIECE_BYTES,
    CustomArchive,
    DirectoryArchive,
    PieceReader,
    TarArchive,
    codec_of_file,
    decompressed,
    is_tar,
)
from pgstow.postgres.script_beginning import SCRIPT_HEAD_BYTES, begins_like_dump, foreign_database
from pgstow.postgres.tools import ClientTools
from pgstow.postgres.workspace import working_folder
from pgstow.repository import LeasedDatabase, Repository
from pgstow.store.local import LocalStore

__all__ = ["ImportRequest", "Imported", "import_dump", "imported_for_drill"]

_HEAD_BYTES = 512
_FORMAT_AT = len(MAGIC) + 5  # after three bytes of version, and the sizes of integers and offsets
_CUSTOM = 1
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_AGAIN = "copy the dump again, or make a new one"

_Dump = CustomArchive | DirectoryArchive | TarArchive | PieceReader  # the last is SQL


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    dump: _Dump
    compression: str | None  # of the whole file
    stream: PieceReader | None  # None: a folder


def import_dump(
    request: ImportRequest, repository: Repository, tools: Sequence[ClientTools], progress: Progress
) -> Imported:
    """Make a backup of a dump. When this returns, it is durable in the repository; if it raises, there is none.

    Raises UsageError, ArchiveError for what is wrong with the dump, PostgresError for what a server says to SQL,
    ToolMissing.
    """
    request.check()
    progress.phase("reading the dump")
    with opened_dump(request.dump, request.environ, progress, stdin=request.stdin) as source:
        note_access(dump=source.name)
        taken = _import(request, source, repository, tools, progress)
    note_access(subjects=[taken.manifest.backup_id, taken.manifest.name])
    return Imported(manifest=taken.manifest, snapshot_id=taken.snapshot_id, interrupted=taken.interrupted)


@contextlib.contextmanager
def imported_for_drill(
    dump: str,
    tools: Sequence[ClientTools],
    progress: Progress,
    *,
    environ: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    jobs: int = 2,
) -> Iterator[tuple[Repository, str]]:
    """Give a repository that holds the dump alone, and the id of its backup; both are gone after the block.

    It lies in a private folder of the system's temporary folder and takes about the room of a compressed dump. What was
    killed is recognised and removed by the next drill or import.
    """
    with working_folder(Path(tempfile.gettempdir()), progress.note) as place:
        folder = Path(tempfile.mkdtemp(dir=place))  # mode 0700
        repository = Repository.init(
            LocalStore(folder / "repository"),
            Secret(secrets.token_urlsafe(24)),
            hostname=socket.gethostname(),
            username="pgstow",
        )
        request = ImportRequest(dump=dump, environ=environ or {}, stdin=stdin, jobs=jobs)
        imported = import_dump(request, repository, tools, progress)
        if imported.interrupted is not None:
            raise imported.interrupted
        yield repository, imported.manifest.backup_id


def _import(
    request: ImportRequest,
    source: DumpSource,
    repository: Repository,
    tools: Sequence[ClientTools],
    progress: Progress,
) -> CapturedBackup:
    opened = _open(source)
    identity = Identity(backup_id=str(uuid.uuid4()), started=datetime.now(UTC), username=request.username)
    destinations = Destinations([Destination.of(repository)], progress)
    taken: CapturedBackup | None = None
    try:
        with contextlib.ExitStack() as stack:
            script = None
            if isinstance(opened.dump, PieceReader):  # a server runs it; nobody else need wait for that
                script = stack.enter_context(ScriptImport.run(opened.dump, source, tools, progress))
            leased = LeasedDatabase(identity=f"import {source.name}", name=request.name or "import")
            hold = stack.enter_context(
                holding(repository, leased, run_id=identity.backup_id, wait_s=0.0, progress=progress)
            )
            warnings = _prepare(repository)
            hold.check()
            writer = stack.enter_context(FanOutWriter(destinations))
            held = {destinations.names[0]: hold}
            if script is not None:
                taken = save_script(
                    script, request, identity, writer, held, compression=opened.compression, warnings=warnings
                )
            else:
                assert not isinstance(opened.dump, PieceReader)
                taken = save_archive(
                    opened.dump,
                    source,
                    request,
                    identity,
                    writer,
                    held,
                    tools=tools,
                    compression=opened.compression,
                    stream=opened.stream,
                    warnings=warnings,
                    progress=progress,
                )
    except Interrupted as exc:
        if taken is None:
            raise
        return CapturedBackup(
            manifest=taken.manifest,
            snapshot_id=taken.snapshot_id,
            destinations=taken.destinations,
            interrupted=exc,
        )
    return taken


def _prepare(repository: Repository) -> tuple[Warning_, ...]:
    """Clean up after runs that were killed and read the index; return what the manifest says of damage."""
    repository.store.remove_stale_temporaries()
    damaged: list[RepositoryDamaged] = []
    repository.load_index(damaged=damaged)
    return tuple(Warning_(code="repository", message=exc.message) for exc in damaged)


def _open(source: DumpSource) -> _Opened:
    """Return the dump by what it begins with, whatever its name says."""
    if source.open_file is not None:
        return _Opened(dump=DirectoryArchive(source.open_file), compression=None, stream=None)
    assert source.pieces is not None
    stream = PieceReader(source.pieces, what=source.name)
    codec = codec_of_file(stream.peek(_HEAD_BYTES))
    if codec is not None:
        stream = PieceReader(decompressed(codec, stream.pieces(), what=source.name), what=source.name)
    head = stream.peek(_HEAD_BYTES)
    return _Opened(dump=_recognised(head, stream, source.name), compression=codec, stream=stream)


def _recognised(head: bytes, stream: PieceReader, name: str) -> _Dump:
    if not head:
        raise ArchiveError(f"{name} is empty", hint=_AGAIN)
    if head.startswith(MAGIC):
        if head[_FORMAT_AT : _FORMAT_AT + 1] != bytes((_CUSTOM,)):
            raise ArchiveError(
                f"{name} is the table of contents of a directory dump", hint="name the folder that it lies in"
            )
        return CustomArchive(lambda: stream.read1(PIECE_BYTES))
    if is_tar(head):
        return TarArchive(stream)
    if codec_of_file(head) is not None:
        raise ArchiveError(f"{name} is compressed twice", hint="decompress it once before")
    if head.startswith(_UTF16):
        raise ArchiveError(
            f"{name} is in UTF-16, as PowerShell writes what goes through a pipe",
            hint="let pg_dump write the file itself: pg_dump --file=NAME",
        )
    if b"\0" in head or not begins_like_dump(stream.peek(SCRIPT_HEAD_BYTES)):
        of_whom = foreign_database(head)
        raise ArchiveError(
            f"{name} is no dump that pg_dump or pg_dumpall makes{f', but one of {of_whom}' if of_whom else ''}",
            hint="custom, directory and tar archives and SQL can be imported, also compressed (gzip, zstd, lz4, bzip2, xz)",
        )
    return stream
