"""``repo check``: what lies around the backups is looked at, too."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgstow.app.findings import Level
from pgstow.app.repository_check import CheckReport, check_repository
from pgstow.core.progress import SilentProgress
from pgstow.core.secrets import Secret
from pgstow.repository import Repository
from pgstow.store.local import LocalStore
from support.repositories import init_repository, random_bytes, save_backup
from support.restic import PASSWORD

# Processes that are gone when we look.
LEAVES_A_FILE = """
import pathlib, sys
from pgstow.store.temporaries import new_temporary_name
(pathlib.Path(sys.argv[1]) / "tmp" / new_temporary_name()).write_bytes(b"half a pack")
"""
LEAVES_A_LOCK = """
import os, pathlib, sys
from pgstow.core.secrets import Secret
from pgstow.repository import Repository
from pgstow.store.local import LocalStore
held = Repository.open(LocalStore(pathlib.Path(sys.argv[1])), Secret(sys.argv[2])).lock()
held.__enter__()
os._exit(0)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    repository = init_repository(LocalStore(folder))
    save_backup(repository, {"toc.dat": [b"PGDMP"], "1.dat": [random_bytes(2000, 1)]})
    return folder


def checked(folder: Path, *, may_write: bool = True, skew: timedelta = timedelta()) -> CheckReport:
    repository = Repository.open(LocalStore(folder), Secret(PASSWORD), without_config=True)
    return check_repository(
        repository,
        SilentProgress(),
        read_data=True,
        folder=folder,
        may_write=may_write,
        clock=lambda: datetime.now(UTC) + skew,
    )


def levels(report: CheckReport) -> dict[str, Level]:
    return {finding.code: finding.level for finding in report.findings}


def test_nothing_is_wrong(folder: Path) -> None:
    report = checked(folder)
    assert report.is_sound
    assert set(levels(report).values()) == {Level.OK}
    assert not list((folder / "locks").iterdir())


def test_without_writing_nothing_is_written(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    report = checked(folder, may_write=False)
    assert levels(report)["conditional_put"] is levels(report)["clock"] is Level.UNKNOWN
    assert report.is_sound
    assert sorted(folder.rglob("*")) == before


def test_what_lies_around_is_found(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", LEAVES_A_FILE, folder], check=True)
    (folder / "data" / "notes.txt").write_text("what is this")
    (folder / "keys" / ("ab" * 32)).write_bytes(b"{}")
    (folder / "pgstow" / "prune").mkdir(parents=True)
    (folder / "pgstow" / "prune" / "one").write_bytes(b"x")
    (folder / "data" / "cd").mkdir(exist_ok=True)
    (folder / "data" / "cd" / ("cd" * 32)).write_bytes(b"of a run that died")
    report = checked(folder)
    assert not report.is_sound
    found = levels(report)
    assert {code for code, level in found.items() if level is Level.WARNING} == {
        "temporaries", "unknown_objects", "unindexed_packs",
    }  # fmt: skip
    assert {code for code, level in found.items() if level is Level.PROBLEM} == {"keys", "backups"}
    (pending,) = [finding for finding in report.findings if finding.code == "pending_deletion"]
    assert pending.text.startswith("1 ")


def test_a_backup_on_hold_that_is_gone_is_told(folder: Path) -> None:
    """Whoever runs restic's forget does not see the hold."""
    repository = Repository.open(LocalStore(folder), Secret(PASSWORD))
    day = datetime(2026, 11, 20, tzinfo=UTC)
    marks = repository.marks()
    for backup_id, until in (("run-1", None), ("run-9", None), ("run-8", day.date())):
        marks.hold(backup_id, at=day, by="anna@host", reason="case 7", until=until)
    marks.hold("run-7", at=day, by="anna@host", reason="case 8")
    marks.release("run-7", at=day, by="anna@host", reason="closed")
    (found,) = [each for each in checked(folder, skew=timedelta(days=9999)).findings if each.code == "holds"]
    assert (found.level, found.names) == (Level.WARNING, ("run-9",))


def test_locks_of_others_are_told_apart(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", LEAVES_A_LOCK, folder, PASSWORD], check=True)
    before = checked(folder, may_write=False)
    (locks,) = [finding for finding in before.findings if finding.code == "locks"]
    assert locks.level is Level.WARNING
    for lock in (folder / "locks").iterdir():
        lock.unlink()
    with Repository.open(LocalStore(folder), Secret(PASSWORD)).lock():
        (locks,) = [finding for finding in checked(folder).findings if finding.code == "locks"]
    assert (locks.level, len(locks.names)) == (Level.OK, 1)


@pytest.mark.parametrize(("minutes", "level"), [(10, Level.OK), (-10, Level.OK), (20, Level.WARNING)])
def test_a_clock_that_is_off(folder: Path, minutes: int, level: Level) -> None:
    assert levels(checked(folder, skew=timedelta(minutes=minutes)))["clock"] is level
