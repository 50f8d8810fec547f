"""Making backups in tests, and comparing what is in them."""

from __future__ import annotations

import functools
import os
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from pgstow.app.holding import Hold
from pgstow.capture.bases import Base, choose_base
from pgstow.capture.destinations import Destination, Destinations, FanOutWriter
from pgstow.capture.logical import Capture, capture
from pgstow.capture.options import CapturedBackup, CaptureOptions
from pgstow.capture.publish import Identity, publish
from pgstow.catalog.backups import BackupFiles, list_backups
from pgstow.catalog.manifest import Selection
from pgstow.core.progress import SilentProgress
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.tools import ClientTools, find_tools, pick
from pgstow.repository import LeasedDatabase, Repository
from pgstow.store.memory import MemoryStore

__all__ = [
    "PASSWORD",
    "Notes",
    "base_of",
    "capture_into",
    "files_of",
    "memory_repository",
    "pg_dump_directory",
    "tools_for",
]

_TOOLS = Path(__file__).parent.parent.parent / ".tools"

PASSWORD = Secret("correct horse")


class Notes(SilentProgress):
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def memory_repository() -> Repository:
    return Repository.init(MemoryStore(), PASSWORD, hostname="tests", username="tests")


def tools_for(conninfo: ConnInfo) -> ClientTools:
    """Return the client tools of the server's own major release, or the next one (14 has none here)."""
    with psycopg.connect(conninfo.connect_string()) as connection:
        version = connection.info.server_version
    return pick(_all_tools(os.environ["PATH"]), version)


@functools.cache
def _all_tools(path: str) -> list[ClientTools]:
    extra = sorted(_TOOLS.glob("postgresql-*/usr/lib/postgresql/*/bin"))
    return find_tools(path, extra=extra)


def capture_into(
    repository: Repository,
    source: ConnInfo,
    *,
    checkpoint: Callable[[str], None] = lambda _: None,
    progress: SilentProgress | None = None,
    reuse: bool = True,
    **options: Any,
) -> CapturedBackup:
    """Back up ``source``; ``options`` are those of CaptureOptions."""
    job = Capture(
        source=source,
        tools=tools_for(source),
        options=CaptureOptions(**{"name": "test", "kind": "daily", "max_blocking_s": 0, **options}),
        progress=progress or SilentProgress(),
        checkpoint=checkpoint,
        pause=lambda seconds: time.sleep(min(seconds, 0.25)),  # the server may need one to flush its log
    )
    destinations = Destinations([Destination.of(repository)], job.progress)
    identity = Identity(backup_id=str(uuid4()), started=datetime.now(UTC), username="tests")
    of_nobody_else = LeasedDatabase(identity=identity.backup_id, name="test")
    with repository.lease(of_nobody_else, run_id=identity.backup_id) as lease, repository.lock() as lock:
        repository.load_index()
        if reuse:
            job.base, job.distrusted = base_of(destinations, source, job.options.selection)
        hold = Hold(lease=lease, lock=lock, progress=job.progress, has_waited=False)
        with FanOutWriter(destinations) as writer:
            return publish(job, capture(job, writer), identity, writer, {destinations.names[0]: hold})


def base_of(
    destinations: Destinations, source: ConnInfo, selection: Selection
) -> tuple[Base | None, tuple[str, ...]]:
    """Return what a backup of ``source`` would be compared with, as the application chooses it."""
    with psycopg.connect(source.connect_string()) as connection:
        row = connection.execute(
            "SELECT (SELECT system_identifier::text FROM pg_control_system()), oid FROM pg_database"
            " WHERE datname = current_database()"
        ).fetchone()
    assert row is not None
    return choose_base(
        destinations,
        destinations.each(lambda one: list_backups(one.repository)),
        name="test",
        system_identifier=row[0],
        database_oid=row[1],
        selection=selection,
    )


def files_of(repository: Repository, backup: CapturedBackup) -> BackupFiles:
    (record,) = [r for r in list_backups(repository) if r.id == backup.manifest.backup_id]
    repository.load_index()
    return BackupFiles(repository, record)


def pg_dump_directory(
    tools: ClientTools, conninfo: ConnInfo, folder: Path, *options: str
) -> dict[str, bytes]:
    """Return what ``pg_dump -Fd -Z0`` writes, by file name."""
    with conninfo.tool_env(PGTZ="UTC") as env:
        subprocess.run(
            [tools.pg_dump, "-Fd", "-Z0", "-f", folder, *options], env={**os.environ, **env}, check=True
        )
    return {path.name: path.read_bytes() for path in folder.iterdir()}
