"""The use case: show the main job on a PostgreSQL server of our own, and prove it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from psycopg import sql

from pgstow.app.backup import BackupRequest, backup
from pgstow.app.demo_database import change_demo, load_demo
from pgstow.app.demo_report import DemoBackup, DemoReport, DemoStep, TableProof
from pgstow.app.restore import restore
from pgstow.app.verify import verify_backups
from pgstow.assurance.compare import compare_databases
from pgstow.capture.options import CapturedBackup
from pgstow.core.errors import ContentMismatch, UsageError
from pgstow.core.progress import Progress
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster, embedded_server
from pgstow.postgres.session import connect, translated
from pgstow.postgres.tools import ClientTools
from pgstow.repository import Repository
from pgstow.restore.request import RestoreOptions
from pgstow.store.local import LocalStore

__all__ = ["run_demo"]

SOURCE, RESTORED = "shop", "shop_restored"
_MARK = "this-folder-is-a-pgstow-demo"
_SERVER_SETTINGS = {"shared_buffers": "128MB", "max_wal_size": "2GB", "log_min_messages": "fatal"}
_Result = TypeVar("_Result")


@dataclass(slots=True)
class _Stopwatch:
    """Collects finished steps with their times."""

    progress: Progress
    steps: list[DemoStep] = field(default_factory=list)

    def do(self, doing: str, done: str, work: Callable[[], _Result]) -> _Result:
        self.progress.phase(doing)
        begun = time.monotonic()
        result = work()
        self.steps.append(DemoStep(title=done, seconds=round(time.monotonic() - begun, 3)))
        return result


def run_demo(
    folder: Path, tools: Sequence[ClientTools], progress: Progress, *, scale: float = 1
) -> DemoReport:
    """Back up, change, back up again, restore, compare; return what happened.

    The repository and its password stay in ``folder``, which is made anew; the server is gone when this
    returns. Raises UsageError when ``folder`` holds something else than an earlier demonstration.
    """
    begun = time.monotonic()
    watch = _Stopwatch(progress)
    repository, password_file = _fresh_repository(folder)
    with _server(watch) as cluster:
        source = ConnInfo.parse(cluster.conninfo(SOURCE))
        watch.do("loading a marketplace", "loaded a marketplace", lambda: _load(cluster, source, scale))
        first = _back_up(watch, "first", source, repository, tools)
        changes = watch.do("an afternoon of business", "changed some of it", lambda: change_demo(source))
        second = _back_up(watch, "second", source, repository, tools)
        target = ConnInfo.parse(cluster.conninfo(RESTORED))
        options = RestoreOptions(create=True, jobs=2)
        watch.do(
            "restoring the second backup",
            "restored the second backup into a new database",
            lambda: restore(second.id, target, options, repository, tools, progress),
        )
        restore_seconds = watch.steps[-1].seconds
        proofs = watch.do(
            "comparing every row", "compared every row with its source", lambda: _prove(source, target)
        )
        database_bytes = _database_bytes(source)
        checks = _verify(repository, progress)
    return DemoReport(
        server=f"PostgreSQL {cluster.version[0]}.{cluster.version[1]} (embedded)",
        database_bytes=database_bytes,
        repository=str(folder / "repository"),
        repository_bytes=sum(item.size_bytes for item in repository.store.list("")),
        password_file=str(password_file),
        is_kept=True,
        backups=(first, second),
        changes=changes,
        steps=tuple(watch.steps),
        restore_seconds=restore_seconds,
        proofs=proofs,
        checks=(checks,),
        next_commands=_next_commands(folder),
        seconds=round(time.monotonic() - begun, 3),
    )


def _fresh_repository(folder: Path) -> tuple[Repository, Path]:
    mark = folder / _MARK
    if folder.exists() and any(folder.iterdir()):
        if not mark.exists():
            raise UsageError(
                f"{folder} exists and is not an earlier demonstration", hint="give another --folder"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    mark.touch()
    password = secrets.token_urlsafe(18)
    password_file = folder / "password"
    with os.fdopen(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(password + "\n")
    store = LocalStore(folder / "repository")
    return Repository.init(store, Secret(password), hostname="demo", username="demo"), password_file


@contextlib.contextmanager
def _server(watch: _Stopwatch) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        yield watch.do(
            "starting a PostgreSQL server",
            "started a PostgreSQL server",
            lambda: stack.enter_context(Cluster(embedded_server(18), settings=_SERVER_SETTINGS)),
        )


def _load(cluster: Cluster, source: ConnInfo, scale: float) -> None:
    with (
        contextlib.closing(connect(ConnInfo.parse(cluster.conninfo()))) as admin,
        translated("creating the demonstration's database"),
    ):
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(SOURCE)))
    load_demo(source, scale=scale)


def _back_up(
    watch: _Stopwatch, which: str, source: ConnInfo, repository: Repository, tools: Sequence[ClientTools]
) -> DemoBackup:
    request = BackupRequest(source=source, username="demo")
    taken: CapturedBackup = watch.do(
        f"making the {which} backup",
        f"made the {which} backup",
        lambda: backup(request, repository, tools, watch.progress),
    )
    totals = taken.manifest.totals
    return DemoBackup(
        title=f"{which} backup",
        id=taken.manifest.backup_id,
        tables=totals.tables,
        rows=totals.rows,
        size_bytes=totals.size_bytes,
        new_bytes=totals.new_bytes,
        stored_bytes=totals.stored_bytes,
        seconds=watch.steps[-1].seconds,
    )


def _prove(source: ConnInfo, target: ConnInfo) -> tuple[TableProof, ...]:
    proofs = tuple(
        TableProof(
            table=f"{found.schema}.{found.name}" if found.schema else found.name or found.kind,
            source_rows=found.source_rows or 0,
            restored_rows=found.target_rows or 0,
            is_equal=found.is_equal,
            source_digest=found.source_digest,
            restored_digest=found.target_digest,
        )
        for found in compare_databases(source, target)
        if found.kind != "sequence" or not found.is_equal
    )
    if not proofs:
        raise ContentMismatch("there was nothing to compare")
    return proofs


def _verify(repository: Repository, progress: Progress) -> DemoStep:
    begun = time.monotonic()
    report = verify_backups([], repository, progress, read_data=True)
    if not report.is_sound:
        raise ContentMismatch(f"the repository is damaged: {report.problems[0].message}")
    return DemoStep(
        title=f"decrypted and hashed every byte of {report.packs} packs",
        seconds=round(time.monotonic() - begun, 3),
    )


def _database_bytes(source: ConnInfo) -> int:
    with contextlib.closing(connect(source)) as connection, translated("measuring the database"):
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row is not None
    return int(row[0])


def _next_commands(folder: Path) -> tuple[str, ...]:
    return (
        f"export PGSTOW_REPOSITORY={shlex.quote(str(folder / 'repository'))}",
        f"export PGSTOW_PASSWORD_FILE={shlex.quote(str(folder / 'password'))}",
        "pgstow list",
        "pgstow show latest",
        "pgstow drill latest",
        "pgstow export latest --format plain --output shop.sql",
        "pgstow doctor postgresql://you@your-server/your-database",
        "pgstow backup postgresql://you@your-server/your-database --repo /srv/backups",
    )
