"""What the history of runs tells retention, for one repository of the settings."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pgstow.app.plan_retention import newest_attempts, read_attempts
from pgstow.app.retention import RetentionRequest, plan_retention_only
from pgstow.config.settings import Settings
from pgstow.core.progress import SilentProgress
from pgstow.retention import Attempt, AttemptHistory
from pgstow.state.database import StateDatabase, open_state, state_folder
from pgstow.state.runs import DestinationResult, RunRecord, Runs
from support.policies import NOW, add_backups, backup_snapshot, daily, make_repository
from support.settings_files import SMALL, look

START = datetime.now(UTC).replace(microsecond=0) - timedelta(
    days=7
)  # runs that are yet to come are not believed


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDatabase]:
    database = open_state(None, {"PGSTOW_STATE_DIR": str(tmp_path)})
    yield database
    database.close()


@pytest.fixture
def settings() -> Settings:
    found = look(SMALL).settings
    assert found is not None
    return found


def save(state: StateDatabase, hours: float, outcome: str, kind: str = "daily", **fields: Any) -> None:
    started = START + timedelta(hours=hours)
    known: dict[str, Any] = {
        "id": f"{kind} {hours}",
        "plan": kind,
        "job": "backup",
        "kind": kind,
        "database": "shop",
        "due": None,
        "started": started,
        "finished": started + timedelta(minutes=10),
        "host": "h",
        "outcome": outcome,
        "error": "disk full" if outcome == "failed" else None,
    }
    Runs(state).save(RunRecord(**{**known, **fields}))


def newest(settings: Settings, state: StateDatabase, repository: str = "local") -> Attempt | None:
    history = newest_attempts(settings, state, repository=repository)
    assert history.problem is None
    return history.attempts.get("shop")


def test_the_newest_run_that_ended(settings: Settings, state: StateDatabase) -> None:
    assert newest(settings, state) is None
    save(state, 0, "failed")
    save(state, 24, "done")
    assert newest(settings, state) == Attempt(
        name="shop", kind="daily", when=START + timedelta(hours=24, minutes=10), has_succeeded=True
    )
    save(state, 48, "failed")
    save(state, 49, "running", finished=None)
    save(state, 50, "missed")
    save(state, 51, "done", job="verify")
    found = newest(settings, state)
    assert found is not None
    assert (found.has_succeeded, found.error) == (False, "disk full")
    assert found.when == START + timedelta(hours=48, minutes=10)


@pytest.mark.parametrize("outcome", ["failed", "interrupted", "abandoned"])
def test_critical_tables_do_not_make_up_for_everything(
    outcome: str, settings: Settings, state: StateDatabase
) -> None:
    save(state, 0, outcome)
    save(state, 6, "done", "critical")
    found = newest(settings, state)
    assert found is not None
    assert (found.kind, found.has_succeeded) == ("daily", False)
    save(state, 24, "done")
    save(state, 30, outcome, "critical")
    found = newest(settings, state)
    assert found is not None
    assert (found.kind, found.has_succeeded) == ("critical", False)


def test_a_repository_that_a_backup_did_not_reach(settings: Settings, state: StateDatabase) -> None:
    """Of the others the run was a success; a copy that is made later has the time of the backup, after its start."""
    missed = DestinationResult(repository="offsite", error_code="store_unavailable", error="no route")
    save(state, 0, "partial", destinations=(DestinationResult(repository="local", snapshot_id="1"), missed))
    local, offsite = newest(settings, state), newest(settings, state, "offsite")
    assert local is not None
    assert offsite is not None
    assert local.has_succeeded
    assert (offsite.has_succeeded, offsite.when, offsite.error) == (
        False,
        START,
        "it did not reach offsite: no route",
    )


def test_a_run_that_is_yet_to_come_makes_up_for_nothing(settings: Settings, state: StateDatabase) -> None:
    save(state, 0, "failed")
    save(state, 365 * 24, "done")
    found = newest(settings, state)
    assert found is not None
    assert not found.has_succeeded


def test_a_history_that_is_not_there_is_told_and_not_made(settings: Settings, tmp_path: Path) -> None:
    def read(given: Settings, environ: dict[str, str]) -> str | None:
        history = read_attempts(given, environ, repository="local", conceal=lambda _: None)
        assert history.attempts == {}
        return history.problem

    here = {"PGSTOW_STATE_DIR": str(tmp_path / "state")}
    assert "this machine has no history of runs" in str(read(settings, here))
    assert not state_folder(here).exists()
    text = SMALL + "state: postgresql://nobody@127.0.0.1:1/nothing?connect_timeout=1\n"
    away = look(text).settings
    assert away is not None
    assert "127.0.0.1/nothing failed" in str(read(away, here))
    open_state(None, here).close()
    assert read(settings, here) is None
    (state_folder(here) / "state.db").write_bytes(b"no database" * 1000)
    assert "failed" in str(read(settings, here))


def test_a_database_that_is_not_in_the_settings_is_told(tmp_path: Path) -> None:
    """One that was renamed there, for instance: its backups would stay for good, and nobody would know why."""
    repository = make_repository(tmp_path / "local")
    for name in ("shop", "old", "gone"):
        add_backups(daily(2, name=name), repository)
    add_backups([backup_snapshot(NOW, name="dump", kind="import")], repository)
    repository.marks().retire("gone", at=NOW + timedelta(days=1), by="me", reason="sold")

    def notes(*names: str) -> list[str]:
        request = RetentionRequest(history=lambda: AttemptHistory(names=names or None))
        return [
            note.partition(":")[0]
            for note in plan_retention_only(repository, request, SilentProgress()).notes
        ]

    assert notes("shop") == ["old is not in the settings"]
    assert notes("shop", "old") == []
    assert notes() == []
