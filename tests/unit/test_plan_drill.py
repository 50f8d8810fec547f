"""Which repository a planned drill restores from, what it asks for, and what becomes of one that fails."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from pgstow.app import plan_drill
from pgstow.app.drill import Drilled
from pgstow.app.drill_request import DrillRequest
from pgstow.app.plan_parts import PlanParts
from pgstow.app.run_plan import PlanOrder, PlanRun, run_plan
from pgstow.catalog.drills import DrillRecord, save_drill
from pgstow.config.reading import parse_settings
from pgstow.config.settings import Settings
from pgstow.core.errors import (
    BackupNotFound,
    ConnectionFailed,
    DrillFailed,
    Interrupted,
    PgstowError,
    RunUnderWay,
    StoreUnavailable,
)
from pgstow.core.progress import SilentProgress
from pgstow.jobs.presence import describe_host
from pgstow.jobs.retry import may_pass
from pgstow.repository import Repository
from pgstow.state.database import StateDatabase, open_state
from pgstow.state.dues import DueKey, Dues
from pgstow.state.hosts import Hosts
from pgstow.state.runs import Runs
from pgstow.state.slots import Slots
from pgstow.state.spool import Spool
from pgstow.store.local import LocalStore
from support.dated_backups import save_dated
from support.drilling import drill_record
from support.repositories import init_repository
from support.restic import PASSWORD

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
DUE = NOW.replace(second=0) - timedelta(minutes=5)

SETTINGS = """\
databases:
  shop:
    url: postgresql://db.example/shop
    rto: 4h
    rpo: 1d
    jobs: 3
    optional_extensions: [pg_cron]
{database}
    assertions: [{{name: a, sql: SELECT 1, equals: "1"}}]
repositories:
  near: {{location: {folder}/near, password: "${{PASSWORD}}"}}
  far: {{location: {folder}/far, password: "${{PASSWORD}}"}}
plans:
  daily: {{}}
  weekly: {{}}
  drill:
    schedule: "{due.minute} {due.hour} * * *"
{options}
"""


class Shop:
    """Two repositories of one plan of drills, which are made up: each is asked for, and told as ``outcomes`` say."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repositories = {name: init_repository(LocalStore(folder / name)) for name in ("near", "far")}
        self.requests: list[DrillRequest] = []
        self.places: list[str] = []
        self.outcome: DrillRecord | PgstowError = drill_record()
        self.unsaved: PgstowError | None = None
        self.state: StateDatabase | None = None
        self.options = ""
        self.database = ""

    @property
    def settings(self) -> Settings:
        text = SETTINGS.format(folder=self.folder, due=DUE, options=self.options, database=self.database)
        reading = parse_settings(text.encode(), self.folder / "pgstow.yaml")
        assert reading.settings is not None, reading.errors
        return reading.settings

    @property
    def parts(self) -> PlanParts:
        return PlanParts(
            settings=self.settings, environ={"PASSWORD": PASSWORD, "PATH": "/p", "PGSTOW_STATE_DIR": str(self.folder / "state")},
            tools=(), username="u", hostname="h", host_id="me", state=self.state, spool=Spool(self.folder / "spool"),
            progress=SilentProgress(), conceal=lambda _: None,
        )  # fmt: skip

    def save(self, name: str, days: float = 1, **given: Any) -> None:
        self.repositories[name].load_index()
        save_dated(self.repositories[name], int(days * 10), NOW - timedelta(days=days), **given)

    def drilled(self, name: str, ago: timedelta, **given: Any) -> None:
        save_drill(self.repositories[name], drill_record(started=NOW - ago, **given))

    def carry_out(
        self, request: DrillRequest, repository: Repository, _tools: object, _progress: object
    ) -> Drilled:
        self.requests.append(request)
        self.places.append(Path(repository.store.location).name)
        if isinstance(self.outcome, PgstowError):
            raise self.outcome
        return Drilled(record=self.outcome, unsaved=self.unsaved)

    def run(self, due: DueKey | None = None) -> PlanRun:
        settings = self.settings
        order = PlanOrder(plan=settings.plans["drill"], database=settings.databases["shop"], due=due)
        done = run_plan(order, self.parts)
        assert done is not None
        return done


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    found = Shop(tmp_path)
    with patch.object(plan_drill, "drill_and_tell", found.carry_out):
        yield found


@pytest.fixture
def with_state(shop: Shop, tmp_path: Path) -> Iterator[Shop]:
    with closing(open_state(None, {"PGSTOW_STATE_DIR": str(tmp_path / "state")})) as state:
        shop.state = state
        yield shop


def test_what_is_asked_for(shop: Shop) -> None:
    shop.save("near")
    assert shop.run().record.outcome == "done"
    (request,) = shop.requests
    assert (request.strategy, request.database, request.kind, request.server) == (
        "rotate",
        "shop",
        None,
        None,
    )
    assert (request.jobs, request.plan, request.rto_target_s, request.rpo_target_s) == (
        3,
        "drill",
        14400,
        None,
    )
    assert request.optional_extensions == {"pg_cron"}
    assert [one.name for one in request.assertions] == ["a"]
    assert (request.state_folder, request.server_path) == (shop.folder / "state", "/p")
    shop.options = "    strategy: latest\n    backup_kind: weekly\n    server: postgresql://u@spare.example/postgres\n    password: ${PASSWORD}"
    shop.save("near", 2, kind="weekly")
    shop.run()
    request = shop.requests[-1]
    assert (request.strategy, request.kind, request.rpo_target_s) == ("latest", "weekly", 86400)
    assert request.server is not None
    assert request.server.params["host"] == "spare.example"
    assert request.server.secrets["password"].reveal() == PASSWORD


def test_each_repository_has_its_turn(shop: Shop) -> None:
    shop.save("near")
    shop.save("far")
    shop.drilled("near", 9 * DAY)
    shop.run()
    assert shop.places == ["far"], "it was never drilled"
    shop.drilled("far", 3 * DAY)
    shop.drilled("near", DAY, backup_name="other")
    shop.run()
    assert shop.places[-1] == "near", "a drill of another database says nothing"
    shop.drilled("near", DAY, outcome="failed")
    shop.run()
    assert shop.places[-1] == "far"


def test_only_from_where_there_is_such_a_backup(shop: Shop) -> None:
    shop.save("far")
    shop.run()
    assert shop.places == ["far"]
    shop.options = "    backup_kind: weekly"
    done = shop.run()
    assert isinstance(done.error, BackupNotFound)
    assert "no repository of plan drill has a weekly backup of shop" in str(done.error)
    assert done.record.outcome == "failed"


def test_only_from_where_the_strategy_finds_one(shop: Shop) -> None:
    """A partial backup is none for it, unless the settings make every backup a partial one."""
    shop.save("near", 1, is_partial=True)
    shop.save("far", 2)
    shop.drilled("far", DAY)
    shop.options = "    strategy: latest"
    shop.run()
    shop.database = "    exclude_tables: [public.log]"
    shop.run()
    assert shop.places == ["far", "near"]
    assert shop.requests[-1].partial_by_intent == {"shop"}


def test_a_repository_that_is_away_is_passed_over_and_told(shop: Shop) -> None:
    shop.save("near")
    shop.save("far")
    shutil.rmtree(shop.folder / "far")
    done = shop.run()
    assert (done.record.outcome, shop.places) == ("done", ["near"])
    (warning,) = done.record.warnings
    assert warning.startswith("repository far could not be drilled from: ")
    shutil.rmtree(shop.folder / "near")
    assert shop.run().record.error_code == "no_repository"


def test_a_record_that_could_not_be_saved_is_told(shop: Shop) -> None:
    shop.save("near")
    shop.unsaved = StoreUnavailable("the store is away")
    (warning,) = shop.run().record.warnings
    assert "could not be saved: the store is away; it is lost" in warning


def test_a_drill_that_fails_is_a_run_that_fails(with_state: Shop) -> None:
    shop = with_state
    shop.save("near")
    record = drill_record("failed")
    shop.outcome = record
    done = shop.run()
    assert isinstance(done.error, DrillFailed)
    assert done.error.message.endswith("of shop failed: table public.ledger is not what was backed up")
    assert shop.state is not None
    saved = Runs(shop.state).get(done.record.id)
    assert saved is not None
    assert (saved.outcome, saved.drill_id, saved.backup_id) == ("failed", record.id, record.backup_id)
    assert (saved.error_code, saved.error) == ("drill_failed", done.error.message)
    assert [(one.repository, one.error) for one in saved.destinations] == [("near", None)]


def test_what_was_in_the_way_of_a_drill_is_told_of_its_repository(shop: Shop) -> None:
    shop.save("near")
    shop.outcome = drill_record("failed", error_code="store_unavailable", error="the store is away")
    (place,) = shop.run().record.destinations
    assert (place.repository, place.error_code, place.error) == (
        "near",
        "store_unavailable",
        "the store is away",
    )


def test_an_interrupted_drill_is_an_interrupted_run(with_state: Shop) -> None:
    shop = with_state
    shop.save("near")
    for facts in ({}, {"drill": "the drill", "backup": "its backup"}):
        shop.outcome = Interrupted("interrupted", **facts)
        with pytest.raises(Interrupted):
            shop.run()
    assert shop.state is not None
    assert {(one.outcome, one.drill_id, one.backup_id) for one in Runs(shop.state).find()} == {
        ("interrupted", None, None),
        ("interrupted", "the drill", "its backup"),
    }


@pytest.mark.parametrize(
    ("cause", "passes"),
    [
        ("store_unavailable", True),
        ("connection_failed", True),
        ("repository_locked", True),
        (None, False),
        ("content_mismatch", False),
        ("process_failed", False),
        ("repository_damaged", False),
    ],
)
def test_what_failed_on_content_is_not_tried_again(cause: str | None, passes: bool) -> None:
    assert may_pass(DrillFailed("the drill failed", cause=cause)) is passes


def due_of(state: StateDatabase) -> DueKey:
    """Hand out the due time of the plan, as the service does."""
    dues, schedule = Dues(state), f"{DUE.minute} {DUE.hour} * * *"
    begun = dues.settled_until("drill", "shop", schedule, DUE - DAY)
    key = DueKey(plan="drill", database="shop", due=DUE)
    assert dues.hand_out(key, settled_until=begun, schedule=schedule, coalesced=0, is_missed=False)
    return key


@pytest.mark.parametrize(
    ("outcome", "is_open"),
    [
        (drill_record("failed", error_code="content_mismatch"), False),
        (drill_record("failed", error_code="store_unavailable"), True),
        (ConnectionFailed("away"), True),
        (BackupNotFound("none"), False),
        (drill_record(), False),
    ],
    ids=["content", "store in mid drill", "server away", "nothing to drill", "passed"],
)
def test_the_due_time_of_a_drill(with_state: Shop, outcome: Any, is_open: bool) -> None:
    shop = with_state
    shop.save("near")
    shop.outcome = outcome
    assert shop.state is not None
    with present(shop.state, "me"):
        shop.run(due_of(shop.state))
    assert bool(Dues(shop.state).open()) is is_open


@contextmanager
def present(state: StateDatabase, host_id: str) -> Iterator[None]:
    """Have a process among the hosts for the length of a block."""
    Hosts(state).beat(replace(describe_host("run", shape=1, dead_after_s=600.0), id=host_id))
    yield
    Hosts(state).leave(host_id)


def test_one_drill_at_a_time_on_a_host_and_none_in_the_way_of_a_backup(with_state: Shop) -> None:
    shop = with_state
    shop.save("near")
    assert shop.state is not None
    settings = shop.settings
    resources = shop.parts.resources(settings.plans["drill"], settings.databases["shop"])
    assert resources == {"drills on h": 1}
    backups = shop.parts.resources(settings.plans["daily"], settings.databases["shop"])
    assert not set(resources) & set(backups)
    with present(shop.state, "other"):
        assert Slots(shop.state).take("other", resources) is None
        done = shop.run()
        assert isinstance(done.error, RunUnderWay)
        assert shop.requests == []
    assert shop.run().error is None
    shop.options = "    server: postgresql://u@spare.example/postgres"
    settings = shop.settings
    there = shop.parts.resources(settings.plans["drill"], settings.databases["shop"])
    assert there == {"drills on h": 1, "drills on server host=spare.example": 1}
