"""What an operation is that is tried with faults, the world it works in, and what it says of its end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from pgstow.app.backup import BackupRequest
from pgstow.catalog.backups import list_backups
from pgstow.catalog.drills import DrillRecord, read_drills
from pgstow.core.errors import PgstowError
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.tools import ClientTools
from pgstow.repository import LockTimes, Repository
from pgstow.store.api import Store
from support.restic import PASSWORD

__all__ = [
    "AGED_NAME",
    "BACKUP_NAME",
    "HELD_AGE",
    "OLD_AGES",
    "OLD_PASSWORD",
    "YOUNG_AGES",
    "Operation",
    "Outcome",
    "World",
    "in_a_hurry",
    "marks_of",
    "open_plainly",
]

BACKUP_NAME = "shop"
OLD_PASSWORD = "the horse before"  # of the template "old password"
AGED_NAME = "aged"  # of backups that the template of that name has, by their ages in days:
HELD_AGE, OLD_AGES, YOUNG_AGES = 70, (60, 40), (20, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The database that is backed up, and where others may be made. All of it travels to child processes."""

    source: str
    maintenance: str  # another database of the same server
    target: str  # a database that does not exist
    tools: Sequence[ClientTools]
    scratch: Path
    newest: str  # id of the newest backup of "two backups": by a stale list, the latest is another
    one_elsewhere: Path  # the template
    two_backups: Path  # the template
    one_of_two: Path  # the template
    elsewhere: Path  # the template
    damaged: dict[str, Path]  # the templates of which something is lost
    rows: dict[str, str]  # SHA-256 of each table member that a backup of the source has
    marks: Mapping[str, object]  # of "two backups", and of what was made of it
    environ: Mapping[str, str] = field(default_factory=dict)  # leads to the store

    @property
    def request(self) -> BackupRequest:
        return BackupRequest(source=ConnInfo.parse(self.source), name=BACKUP_NAME)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What was reported as done, and what was reported as failed."""

    backups: list[str] = field(default_factory=list)
    drills: list[DrillRecord] = field(default_factory=list)
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
    believes: tuple[str, ...] = ()  # folders whose listings it has to believe: stale ones are not tried
    again: Callable[[World, Store, Outcome], None] | None = None  # what is done next, if not the same
    meanwhile: Callable[[World, Store], None] | None = None  # what must hold before, if not everything
    seen: Callable[[World, Store, Outcome], None] | None = (
        None  # what must hold besides, right after the first
    )

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


def open_plainly(store: Store) -> Repository:
    return Repository.open(store, Secret(PASSWORD))


def marks_of(store: Store) -> dict[str, object]:
    """Return everything that people and drills said of the backups in a repository."""
    repository = open_plainly(store)
    records = list_backups(repository)
    marks = repository.marks()
    proofs, doubtful = marks.proofs({record.id for record in records})
    assert not doubtful
    return {
        "holds": marks.holds(),
        "retirements": marks.retirements({record.name for record in records}),
        "proofs": proofs,
        "drills": read_drills(repository),
    }
