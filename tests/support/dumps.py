"""Backups made by pg_dump itself, so that the restore can be tested without the capture."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg

from pgstow.catalog.manifest import (
    ExtensionRecord,
    GlobalsRecord,
    LargeObjectsRecord,
    Manifest,
    RootName,
    ServerRecord,
    TableRecord,
    Totals,
)
from pgstow.postgres.archive import TABLE_DATA_TRAILER, Toc, TocEntry, is_load_via_root
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.tools import ClientTools
from support.archives import FolderFiles
from support.backups import pg_dump_directory

__all__ = ["DumpFiles", "content_of", "dump"]

_NOW = datetime(2026, 11, 20, 2, tzinfo=UTC)


class DumpFiles(FolderFiles):
    """A folder of ``pg_dump -Fd -Z0`` with the manifest that a backup would have had."""

    def __init__(self, folder: Path, source: ConnInfo) -> None:
        super().__init__(folder)
        with psycopg.connect(source.connect_string()) as connection:
            self._server = _server(connection)
            self._extensions = connection.execute(
                "SELECT extname, extversion, nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace"
            ).fetchall()
            self._conditions: dict[int, str] = dict(
                connection.execute(
                    "SELECT u.oid, nullif(u.condition, '') FROM pg_extension e, unnest(extconfig, extcondition) u(oid, condition)"
                ).fetchall()
            )
            self._roots = {oid: (schema, name) for oid, schema, name in connection.execute(
                "SELECT c.oid, n.nspname, r.relname FROM pg_class c JOIN pg_class r ON r.oid = pg_partition_root(c.oid)"
                " JOIN pg_namespace n ON n.oid = r.relnamespace WHERE c.relispartition"
            )}  # fmt: skip

    @cached_property
    def toc(self) -> Toc:
        return super().toc

    @cached_property
    def manifest(self) -> Manifest:
        tables = tuple(self._table(entry) for entry in self.toc.table_data())
        objects = list(self.folder.glob("blob_*.dat"))
        return Manifest(
            backup_id="0f0e0d0c-0000-4000-8000-000000000000", name="test", kind="daily", is_partial=False, started=_NOW,
            snapshot_taken=_NOW, finished=_NOW, server=self._server, tools={}, settings={}, tables=tables,
            large_objects=LargeObjectsRecord(count=len(objects), size_bytes=sum(o.stat().st_size for o in objects)),
            globals=GlobalsRecord(is_captured=False),
            extensions=tuple(ExtensionRecord(name=n, version=v, schema_=s) for n, v, s in self._extensions),
            totals=Totals(
                tables=len(tables), rows=sum(table.rows for table in tables), size_bytes=0, new_blobs=0, new_bytes=0,
                stored_bytes=0, known_bytes=0,
            ),
        )  # fmt: skip

    def _table(self, entry: TocEntry) -> TableRecord:
        member = f"archive/{(entry.file_name or b'').decode()}"
        data = self.read(member)
        root = self._roots.get(entry.oid) if is_load_via_root(entry) else None
        return TableRecord(
            dump_id=entry.dump_id, member=member, oid=entry.oid, schema_=(entry.namespace or b"").decode(errors="replace"),
            name=entry.tag.decode(errors="replace"), rows=data.removesuffix(TABLE_DATA_TRAILER).count(b"\n"),
            size_bytes=len(data), load_via_root=RootName(schema_=root[0], name=root[1]) if root else None,
            condition=self._conditions.get(entry.oid), extension_owned=entry.oid in self._conditions, read_by="copy", seconds=0,
        )  # fmt: skip

    def tamper(self, **changes: Any) -> None:
        """Change what the manifest says: ``rows`` by table name, or any field of the manifest."""
        rows: dict[str, int] = changes.pop("rows", {})
        tables = tuple(t.model_copy(update={"rows": rows.get(t.name, t.rows)}) for t in self.manifest.tables)
        self.__dict__["manifest"] = self.manifest.model_copy(update={"tables": tables, **changes})


def _server(connection: psycopg.Connection[Any]) -> ServerRecord:
    version = connection.info.server_version
    provider = "datlocprovider" if version >= 150000 else "'c'"
    row = connection.execute(
        f"SELECT (SELECT system_identifier::text FROM pg_control_system()), version(), datname, oid,"
        f" pg_encoding_to_char(encoding), datcollate, datctype, {provider}::text FROM pg_database WHERE datname = current_database()"
    ).fetchone()
    assert row is not None
    return ServerRecord(
        system_identifier=row[0], version_num=version, version=row[1], database=row[2], database_oid=row[3], encoding=row[4],
        collate=row[5], ctype=row[6], locale_provider={"c": "libc", "i": "icu", "b": "builtin"}[row[7]], lsn=None,
        is_standby=False, postmaster_start=None, tls=None, host="localhost",
    )  # fmt: skip


def dump(source: ConnInfo, tools: ClientTools, folder: Path, *options: str) -> DumpFiles:
    """Dump ``source`` into ``folder`` (which must not exist) and return it in the place of a backup."""
    pg_dump_directory(tools, source, folder, *options)
    return DumpFiles(folder, source)


def content_of(conninfo: ConnInfo, tools: ClientTools, *options: str) -> str:
    """Return everything in a database as pg_dump writes it, rows sorted, without what differs from run to run."""
    with conninfo.tool_env(PGTZ="UTC") as env:
        command: list[str | Path] = [tools.pg_dump, "--no-sync", *options]
        done = subprocess.run(command, env={**os.environ, **env}, check=True, capture_output=True)
    lines: list[str] = []
    rows: list[str] | None = None
    for line in done.stdout.decode(errors="backslashreplace").split("\n"):
        if line.startswith(("\\restrict", "\\unrestrict", "-- Dumped ")):
            continue
        if rows is not None and line == "\\.":
            lines += [*sorted(rows), line]
            rows = None
        elif rows is not None:
            rows.append(line)
        else:
            lines.append(line)
            rows = [] if line.startswith("COPY ") and line.endswith("FROM stdin;") else None
    return "\n".join(lines)
