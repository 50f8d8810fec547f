"""Dumps that pgstow did not make: by pg_dump itself, in every format, and damaged in every way."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pgstow.app.import_dump import import_dump
from pgstow.app.import_request import Imported, ImportRequest
from pgstow.catalog.backups import BackupFiles, list_backups
from pgstow.core.progress import Progress, SilentProgress
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.tools import ClientTools
from pgstow.repository import Repository

__all__ = ["dump_to", "files_of_import", "import_into", "may_compress", "pack_tar"]


def dump_to(path: Path, source: ConnInfo, tools: ClientTools, *options: str) -> Path:
    """Run pg_dump with ``options`` and return what it wrote."""
    with source.tool_env(PGTZ="UTC") as env:
        command: list[str | Path] = [tools.pg_dump, "--no-sync", "-f", path, *options]
        done = subprocess.run(command, env={**os.environ, **env}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return path


def import_into(
    repository: Repository,
    dump: Path | str,
    tools: Sequence[ClientTools],
    *,
    progress: Progress | None = None,
    **options: Any,
) -> Imported:
    """Import a dump; ``options`` are those of ImportRequest."""
    request = ImportRequest(**{"dump": str(dump), **options})
    return import_dump(request, repository, tools, progress or SilentProgress())


def may_compress(tools: ClientTools, source: ConnInfo, compression: str) -> bool:
    """Whether this build of pg_dump knows a compression (``-Zlz4``)."""
    with source.tool_env() as env:
        command: list[str | Path] = [
            tools.pg_dump,
            "-Fc",
            "--no-sync",
            "--schema-only",
            compression,
            "-f",
            os.devnull,
        ]
        done = subprocess.run(command, env={**os.environ, **env}, capture_output=True)
    assert done.returncode == 0 or b"does not support compression" in done.stderr, done.stderr.decode()
    return done.returncode == 0


def files_of_import(repository: Repository, imported: Imported) -> BackupFiles:
    """Return the backup that an import made."""
    (record,) = [one for one in list_backups(repository) if one.id == imported.manifest.backup_id]
    repository.load_index()
    return BackupFiles(repository, record)


def pack_tar(folder: Path, archive: Path, *options: str) -> Path:
    """Put a directory dump into a tar file, as people do."""
    subprocess.run(["tar", *options, "-cf", archive, "-C", folder.parent, folder.name], check=True)
    return archive
