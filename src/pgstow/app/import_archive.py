"""Saving an archive of pg_dump as a backup: its members, and the manifest as far as the archive tells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pgstow
from pgstow.app.dump_source import DumpSource
from pgstow.app.import_request import ImportRequest
from pgstow.capture.destinations import FanOutWriter
from pgstow.capture.imported import ImportedContents, import_archive, refuse_inserts
from pgstow.capture.options import CapturedBackup
from pgstow.capture.publish import Held, Identity, publish_content, save_content
from pgstow.catalog.backups import check_backup_name
from pgstow.catalog.manifest import (
    GlobalsRecord,
    ImportRecord,
    LargeObjectsRecord,
    Manifest,
    ServerRecord,
    Totals,
    Warning_,
)
from pgstow.core.errors import ArchiveError
from pgstow.core.progress import Progress
from pgstow.postgres.archive import (
    ArchiveHeader,
    CustomArchive,
    DirectoryArchive,
    PieceReader,
    TarArchive,
    Toc,
)
from pgstow.postgres.encodings import decoded
from pgstow.postgres.tools import ClientTools, pick

__all__ = ["backup_name", "save_archive", "taken_at", "version_num"]

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.+-]+")
_VERSION = re.compile(rb"(\d{1,3})(?:\.(\d{1,3}))?(?:\.(\d{1,3}))?")
_LAST_OF_THREE_PARTS = 9  # 9.6.24 was the last; since 10 a version has two parts
_SETTING = re.compile(
    rb"(LOCALE_PROVIDER|ICU_LOCALE|LC_COLLATE|LC_CTYPE|LOCALE|BUILTIN_LOCALE) = (?:'((?:[^']|'')*)'|(\w+))"
)
_CLOCK_TOLERANCE = timedelta(minutes=5)
_MONEY = re.compile(rb"^\s+\S.* (?:money|\"money\"|pg_catalog\.money)(?:\[\])*(?: |,|$)", re.MULTILINE)
_FLOAT = re.compile(rb"^\s+\S.* (?:double precision|real)(?:\[\])*(?: |,|$)", re.MULTILINE)
_SHORTEST_FLOATS_SINCE = 120000
_FLOAT_WARNING = (
    "floating-point numbers were written by a release before 12, with other digits than later ones print: the same values, but"
    " a comparison after a restore may report those tables"
)
_ZONE_WARNING = (
    "times were written in a time zone that could not be told: the same moments, but a comparison after a restore may"
    " report those tables"
)
_MONEY_WARNING = "columns of type money: a dump does not tell with which lc_monetary they were written; restored as in the C locale"


def save_archive(
    archive: CustomArchive | DirectoryArchive | TarArchive,
    source: DumpSource,
    request: ImportRequest,
    identity: Identity,
    writer: FanOutWriter,
    held: Mapping[str, Held],
    *,
    tools: Sequence[ClientTools],
    compression: str | None,
    stream: PieceReader | None,
    warnings: Sequence[Warning_],
    progress: Progress,
) -> CapturedBackup:
    """Save members and manifest, and publish. Raises ArchiveError, ToolMissing; nothing is published then."""
    if not isinstance(archive, TarArchive):  # of which it is known at the end only
        _check_restorable(archive.toc, tools)
    progress.phase("saving the dump")
    modified = request.taken or source.modified or identity.started
    contents = import_archive(archive, writer, modified=modified, progress=progress)
    for _ in stream.pieces() if stream is not None else ():  # to the end, where checksums are
        pass
    _check_restorable(contents.toc, tools)
    progress.phase("publishing")
    manifest = _manifest(
        contents,
        source,
        request,
        identity,
        writer,
        record=ImportRecord(
            file=source.name,
            format=archive.format,
            compression=compression or archive.compression,
            sha256=source.digest.hexdigest() if stream is not None else None,
            size_bytes=source.read_bytes,
            dumped_by=_told(contents.toc.header.pg_dump_version),
            is_dated=request.taken is not None or contents.toc.header.created_local is not None,
        ),
        warnings=warnings,
    )
    return publish_content(save_content(manifest, contents.files, writer), identity, writer, held)


def _check_restorable(toc: Toc, tools: Sequence[ClientTools]) -> None:
    """Raise what a restore would: there must be a pg_restore that reads the archive, and rows for COPY."""
    refuse_inserts(toc)
    made_by = version_num(toc.header.pg_dump_version)
    if made_by is None:
        raise ArchiveError("the archive does not say which pg_dump made it")
    pick(tools, made_by)


def version_num(text: bytes | None) -> int | None:
    """Return a version as a number, as servers do (150020, 90624); None if ``text`` names none."""
    match = _VERSION.match(text or b"")
    if match is None:
        return None
    major, second, third = (int(part or 0) for part in match.groups())
    if major > _LAST_OF_THREE_PARTS:
        return major * 10000 + second
    return major * 10000 + second * 100 + third


def taken_at(request: ImportRequest, source: DumpSource, header: ArchiveHeader, now: datetime) -> datetime:
    """Return when the dump was begun.

    It says so by the clock of its machine, in a zone that it does not tell: taken as this machine's, and never later than
    the file was written.
    """
    if request.taken is not None:
        return request.taken.astimezone(UTC)
    latest = min(now, source.modified + _CLOCK_TOLERANCE) if source.modified else now
    local = header.created_local
    try:
        return min(local.astimezone(UTC), latest) if local is not None else latest
    except (OverflowError, ValueError):  # a year that this machine's zone does not reach
        return latest


def backup_name(request: ImportRequest, database: str | None, source: DumpSource) -> str:
    """Return the name of the backup: as asked for, or the database's, or that of the file."""
    if request.name is not None:
        return request.name
    text = database or source.name.partition(".")[0]
    return check_backup_name(_NOT_IN_NAMES.sub("_", text)[:100] or "import")


def _told(text: bytes | None) -> str | None:
    return text.decode(errors="backslashreplace") if text is not None else None


def _manifest(
    contents: ImportedContents,
    source: DumpSource,
    request: ImportRequest,
    identity: Identity,
    writer: FanOutWriter,
    *,
    record: ImportRecord,
    warnings: Sequence[Warning_],
) -> Manifest:
    toc, stats, finished = contents.toc, writer.stats, datetime.now(UTC)
    server = _server(toc, source)
    has_tables = any(entry.desc == b"TABLE" for entry in toc.entries)
    return Manifest(
        backup_id=identity.backup_id,
        name=backup_name(request, server.database, source),
        kind=request.kind,
        label=request.label,
        is_partial=bool(contents.tables) and not has_tables,
        imported=record,
        started=identity.started,
        snapshot_taken=taken_at(request, source, toc.header, identity.started),
        finished=finished,
        server=server,
        tools={"pgstow": pgstow.__version__, "pg_dump": record.dumped_by or "unknown"},
        settings={"timezone": contents.zone} if contents.zone is not None else {},  # to read them back alike
        tables=tuple(contents.tables),
        large_objects=LargeObjectsRecord(
            count=contents.large_objects, size_bytes=contents.large_object_bytes
        ),
        globals=GlobalsRecord(
            is_captured=False, missing=("roles and tablespaces: a dump of one database does not hold them",)
        ),
        owners=tuple(sorted({decoded(entry.owner, toc.encoding) for entry in toc.entries if entry.owner})),
        warnings=(*warnings, *_warnings(contents, record)),
        totals=Totals(
            tables=len(contents.tables),
            rows=sum(table.rows for table in contents.tables),
            size_bytes=sum(node.size_bytes for node in contents.files),
            new_blobs=stats.new_blobs,
            new_bytes=stats.new_bytes,
            stored_bytes=stats.stored_bytes,
            known_bytes=stats.known_bytes,
        ),
        timings_s={"importing": round((finished - identity.started).total_seconds(), 3)},
    )


def _warnings(contents: ImportedContents, record: ImportRecord) -> Iterator[Warning_]:
    tables = [entry for entry in contents.toc.entries if entry.desc == b"TABLE"]
    if not record.is_dated:
        yield Warning_(
            code="undated", message="the dump does not say when it was made: its file's time was taken"
        )
    if contents.tables and not tables:
        yield Warning_(
            code="data_only", message="the dump holds rows without the tables they belong to (--data-only)"
        )
    if tables and not contents.tables:
        yield Warning_(code="schema_only", message="the dump holds tables without their rows (--schema-only)")
    if contents.zone is None:
        yield Warning_(code="zone", message=_ZONE_WARNING)
    version = version_num(contents.toc.header.server_version) or 0
    if version < _SHORTEST_FLOATS_SINCE and any(_FLOAT.search(entry.defn or b"") for entry in tables):
        yield Warning_(code="floats", message=_FLOAT_WARNING)
    if any(_MONEY.search(entry.defn or b"") for entry in tables):
        yield Warning_(code="money", message=_MONEY_WARNING)


def _server(toc: Toc, source: DumpSource) -> ServerRecord:
    header = toc.header
    version = version_num(header.server_version)
    if version is None:
        raise ArchiveError("the archive does not say which server it was made of")
    database = next((entry for entry in toc.entries if entry.desc == b"DATABASE"), None)
    said = dict(_locale(database.defn or b"")) if database is not None else {}
    locale = said.get("LOCALE")
    provider = said.get("LOCALE_PROVIDER", "libc")
    return ServerRecord(
        system_identifier=None,
        version_num=version,
        version=f"PostgreSQL {_told(header.server_version)}",
        database=decoded(header.dbname or b"", toc.encoding),
        database_oid=database.oid if database is not None else 0,
        encoding=toc.encoding,
        collate=said.get("LC_COLLATE") or locale or "C",
        ctype=said.get("LC_CTYPE") or locale or "C",
        locale_provider=provider,
        icu_locale=(said.get("ICU_LOCALE") or said.get("BUILTIN_LOCALE") or locale)
        if provider != "libc"
        else None,
        lsn=None,
        is_standby=False,
        postmaster_start=None,
        tls=None,
        host=f"dump {source.name}",
    )


def _locale(defn: bytes) -> Iterator[tuple[str, str]]:
    for key, quoted, word in _SETTING.findall(defn):
        yield key.decode(), (quoted.replace(b"''", b"'") or word).decode("utf-8", "backslashreplace")
