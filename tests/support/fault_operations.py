"""What is done to a repository while its store goes wrong: one row per operation.

An operation begins from a template, a repository in a known state, and works through whatever store it is handed.
It is repeated without faults afterwards, which has to succeed. To try another command, add a row to OPERATIONS.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import psycopg

from pgstow.app.backup import BackupRequest, FailedBackup, backup, backup_all
from pgstow.app.copy import copy_repository
from pgstow.app.export import export
from pgstow.app.prune import prune_repository
from pgstow.app.restore import restore
from pgstow.app.verify import verify_backups
from pgstow.assurance.compare import compare_databases
from pgstow.core.errors import NoRepository, PgstowError, RepositoryDamaged
from pgstow.core.progress import SilentProgress
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.tools import ClientTools
from pgstow.repository import LockTimes, Repository
from pgstow.restore.export import ExportFormat, ExportRequest
from pgstow.restore.request import RestoreOptions
from pgstow.store.api import Store
from pgstow.store.local import LocalStore
from pgstow.upkeep.prune_plan import PruneOptions
from support.oracle import files_below
from support.restic import PASSWORD

__all__ = ["BACKUP_NAME", "OPERATIONS", "Operation", "Outcome", "World", "in_a_hurry"]

BACKUP_NAME = "shop"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The database that is backed up, and where others may be made. All of it travels to child processes."""

    source: str
    maintenance: str  # another database of the same server
    target: str  # a database that does not exist
    tools: Sequence[ClientTools]
    scratch: Path
    newest: str  # id of the newest backup of "two backups": by a stale list, the latest is another
    two_backups: Path  # the template
    rows: dict[str, str]  # SHA-256 of each table member that a backup of the source has

    @property
    def request(self) -> BackupRequest:
        return BackupRequest(source=ConnInfo.parse(self.source), name=BACKUP_NAME)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What was reported as done, and what was reported as failed."""

    backups: list[str] = field(default_factory=list)
    errors: list[PgstowError] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Something that a user does. ``tries`` is how many faults are tried unless all are."""

    name: str
    template: str
    work: Callable[[World, Store, Outcome], None]
    tries: int
    is_judged: bool = True  # False: the template is damaged on purpose
    cleans_up: bool = False  # removes what dead processes left
    believes: str | None = None  # a folder whose listing it has to believe: a stale one is not tried
    again: Callable[[World, Store, Outcome], None] | None = None  # what is done next, if not the same

    def run(self, world: World, store: Store) -> Outcome:
        """Do it; what pgstow reports as an error is part of the outcome, anything else is raised."""
        return self._attempt(self.work, world, store)

    def run_again(self, world: World, store: Store) -> Outcome:
        """Do what comes after it has failed, or has been done."""
        return self._attempt(self.again or self.work, world, store)

    @staticmethod
    def _attempt(work: Callable[[World, Store, Outcome], None], world: World, store: Store) -> Outcome:
        outcome = Outcome()
        try:
            work(world, store, outcome)
        except PgstowError as exc:
            outcome.errors.append(exc)
        return outcome


@contextlib.contextmanager
def in_a_hurry() -> Iterator[None]:
    """Make what is slow fast, and small repositories of many files. Nothing else is replaced."""
    with contextlib.ExitStack() as stack:
        for name, value in (
            ("pgstow.repository.keys._N", 16),
            ("pgstow.repository.writer.PACK_BYTES", 128 << 10),
            ("pgstow.repository.writer._INDEX_INTERVAL_S", 0.0),
            (
                "pgstow.repository.repository.LockTimes",
                lambda: LockTimes(settle_s=0.01, conflict_s=0.01),
            ),
            ("pgstow.capture.logical._FLUSH_WAITS_S", (0.0, 0.05, 0.1, 0.5, 2.0)),
        ):
            stack.enter_context(patch(name, value))
        yield


def _open(store: Store) -> Repository:
    return Repository.open(store, Secret(PASSWORD))


def _init(world: World, store: Store, outcome: Outcome) -> None:
    Repository.init(store, Secret(PASSWORD), hostname="tests", username="tests", sleep=lambda _: None)


def _init_unless_there(world: World, store: Store, outcome: Outcome) -> None:
    """Back up as a person would who was told that init failed."""
    try:
        _open(store)
    except NoRepository:
        _init(world, store, outcome)
    _back_up(world, store, outcome)


def _back_up(world: World, store: Store, outcome: Outcome) -> None:
    taken = backup(world.request, _open(store), world.tools, SilentProgress())
    outcome.backups.append(taken.manifest.backup_id)


def _back_up_all(world: World, store: Store, outcome: Outcome) -> None:
    request = BackupRequest(source=ConnInfo.parse(world.maintenance))
    for result in backup_all(request, _open(store), world.tools, SilentProgress()):
        if isinstance(result, FailedBackup):
            outcome.errors.append(result.error)
        else:
            outcome.backups.append(result.manifest.backup_id)


def _verify(world: World, store: Store, outcome: Outcome) -> None:
    report = verify_backups([], _open(store), SilentProgress(), read_data=True)
    outcome.errors += [RepositoryDamaged(problem.message) for problem in report.problems]


def _verify_damaged(world: World, store: Store, outcome: Outcome) -> None:
    """Whatever else goes wrong, damage must never be overlooked."""
    report = verify_backups([], _open(store), SilentProgress(), read_data=True)
    assert not report.is_sound


def _export(world: World, store: Store, outcome: Outcome) -> None:
    output = world.scratch / "export"
    request = ExportRequest(format=ExportFormat.DIRECTORY, output=output)
    try:
        export(
            world.newest,
            request,
            _open(store),
            world.tools,
            SilentProgress(),
            stdout=io.BytesIO(),
        )
        written = files_below(output)
        assert {f"archive/{name}": digest for name, digest in written.items()}.items() >= world.rows.items()
        shutil.rmtree(output)
    finally:
        assert not list(world.scratch.glob("*export*")), "half an export was left behind"


def _restore(world: World, store: Store, outcome: Outcome) -> None:
    source, target = ConnInfo.parse(world.source), ConnInfo.parse(world.target)
    options = RestoreOptions(create=True, no_owner=True)
    try:
        restore(world.newest, target, options, _open(store), world.tools, SilentProgress())
        assert [each for each in compare_databases(source, target) if not each.is_equal] == []
    except PgstowError as exc:
        _check_what_is_left(world, exc)
        raise
    finally:
        with psycopg.connect(world.maintenance, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {target.dbname} WITH (FORCE)")


def _check_what_is_left(world: World, error: PgstowError) -> None:
    """The error says so if the database that was made for the restore is still there, and only then."""
    assert _exists(world) == ("is incomplete" in (error.hint or ""))


def _exists(world: World) -> bool:
    with psycopg.connect(world.maintenance) as connection:
        query = "SELECT FROM pg_database WHERE datname = %s"
        return connection.execute(query, (ConnInfo.parse(world.target).dbname,)).fetchone() is not None


def _prune(world: World, store: Store, outcome: Outcome) -> None:
    """Take out of use what the backup that was removed needed alone, and remove it the next time."""
    options = PruneOptions(grace_s=0, max_unused=0)
    prune_repository(_open(store), options, SilentProgress(), show=lambda _plan: None)


def _copy(world: World, store: Store, outcome: Outcome) -> None:
    source = _open(LocalStore(world.two_backups))
    report = copy_repository(source, _open(store), [world.newest], SilentProgress(), dry_run=False)
    if not report.is_complete:
        raise RepositoryDamaged("the copy is not complete")
    outcome.backups.append(world.newest)


OPERATIONS = (
    Operation(
        name="init", template="nothing", work=_init, again=_init_unless_there, tries=15, cleans_up=True
    ),
    Operation(name="first backup", template="empty", work=_back_up, tries=15, cleans_up=True),
    Operation(name="backup with reuse", template="one backup", work=_back_up, tries=15, cleans_up=True),
    Operation(name="verify", template="two backups", work=_verify, tries=40),
    Operation(name="verify of damage", template="damaged", work=_verify_damaged, tries=40, is_judged=False),
    Operation(name="export", template="two backups", work=_export, tries=20),
    Operation(name="restore", template="two backups", work=_restore, tries=10),
    Operation(name="all databases", template="one backup", work=_back_up_all, tries=5, cleans_up=True),
    Operation(name="copy", template="elsewhere", work=_copy, tries=30),
    Operation(
        name="prune", template="one of two", work=_prune, tries=30, cleans_up=True, believes="snapshots"
    ),
)
