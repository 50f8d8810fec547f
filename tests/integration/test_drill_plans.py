"""A plan of kind drill, from the settings to what status and alerts say: real backups, real drills."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pgstow.app.alert_facts import alert_facts
from pgstow.app.looking import Look
from pgstow.app.observation import opened_history
from pgstow.app.plan_parts import PlanParts
from pgstow.app.run_plan import PlanOrder, PlanRun, RunEvent, run_plan
from pgstow.app.status import settings_status
from pgstow.catalog.drills import read_drills
from pgstow.config.reading import parse_settings
from pgstow.config.settings import Settings
from pgstow.core.errors import DrillFailed
from pgstow.core.progress import SilentProgress
from pgstow.monitor.newest_rows import RowMoment
from pgstow.monitor.policy import AlertPolicy
from pgstow.monitor.rules import TellingFacts, evaluate
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.postgres.tools import ClientTools
from pgstow.state.database import open_state
from pgstow.state.runs import Runs
from pgstow.state.spool import Spool
from pgstow.store.local import LocalStore
from support.repositories import init_repository
from support.restic import PASSWORD
from support.restoring import execute

DatabaseFactory = Callable[..., ConnInfo]

SETTINGS = """\
databases:
  shop:
    url: ${{SHOP}}
    rto: 1h
    rpo: 1d
    critical: [{{table: ledger, time_column: booked_at}}]
    assertions:
      - {{name: the ledger balances, sql: SELECT sum(amount) FROM public.ledger, equals: "0"}}
      - {{name: as many rows, sql: SELECT count(*) FROM public.ledger, same_as_backup: true}}
repositories:
  near: {{location: {folder}/near, password: "${{PASSWORD}}"}}
  far: {{location: {folder}/far, password: "${{PASSWORD}}"}}
plans:
  nightly: {{kind: daily}}
  drill: {{}}
"""


class Shop:
    """Settings with two repositories, and what carries out their plans."""

    def __init__(self, folder: Path, source: ConnInfo, tools: list[ClientTools]) -> None:
        self.repositories = {name: init_repository(LocalStore(folder / name)) for name in ("near", "far")}
        reading = parse_settings(SETTINGS.format(folder=folder).encode(), folder / "pgstow.yaml")
        assert reading.settings is not None, reading.errors
        self.settings: Settings = reading.settings
        self.environ = {
            "SHOP": source.connect_string(), "PASSWORD": PASSWORD, "PATH": os.environ["PATH"],
            "PGSTOW_STATE_DIR": str(folder / "state"), "PGSTOW_CACHE_DIR": "",
        }  # fmt: skip
        self.state = open_state(None, self.environ)
        self.events: list[RunEvent] = []
        self._parts = PlanParts(
            settings=self.settings, environ=self.environ, tools=tools, username="u", hostname="h", host_id="h",
            state=self.state, spool=Spool(folder / "spool"), progress=SilentProgress(), conceal=lambda _: None,
        )  # fmt: skip

    def run(self, plan: str) -> PlanRun:
        order = PlanOrder(plan=self.settings.plans[plan], database=self.settings.databases["shop"])
        done = run_plan(order, self._parts, on_event=self.events.append)
        assert done is not None
        return done

    def drills(self, name: str) -> list[Any]:
        return read_drills(self.repositories[name])

    def status(self) -> Any:
        look = Look(
            settings=self.settings, environ=self.environ, now=datetime.now(UTC),
            note=lambda _: None, conceal=lambda _: None,
        )  # fmt: skip
        return settings_status(look, max_age_s=None)

    def alerts(self) -> set[str]:
        now = datetime.now(UTC)
        with opened_history(self.settings, self.environ) as history:
            facts = alert_facts(self.settings, self.environ, history, now=now, note=lambda _: None)
        found = evaluate(facts, TellingFacts(now=now, policy=AlertPolicy())).findings
        return {each.fingerprint for each in found}


@pytest.fixture
def shop(
    pg15: Cluster, database: DatabaseFactory, tmp_path: Path, client_tools: list[ClientTools]
) -> Iterator[Shop]:
    source = database(pg15)
    execute(
        source,
        "CREATE TABLE ledger AS SELECT i AS id, (i % 3) - 1 AS amount, timestamptz '2026-11-20 10:00Z' AS booked_at"
        " FROM generate_series(1, 99) i",
    )
    found = Shop(tmp_path, source, client_tools)
    with contextlib.closing(found.state):
        yield found


def test_from_the_settings_to_the_alert(shop: Shop) -> None:
    backup = shop.run("nightly")
    assert backup.record.outcome == "done", backup.error
    _passes_in_each_repository(shop)
    _status_knows(shop)
    _fails_where_bytes_are_gone(shop)


def _passes_in_each_repository(shop: Shop) -> None:
    first, second = shop.run("drill"), shop.run("drill")
    for done in (first, second):
        assert done.error is None, done.error
        assert done.record.outcome == "done"
        assert Runs(shop.state).get(done.record.id) == done.record
    assert [event.record.outcome for event in shop.events[-2:]] == ["running", "done"]
    (near,), (far,) = shop.drills("near"), shop.drills("far")
    assert [first.record.drill_id, second.record.drill_id] == [near.id, far.id], "each copy has its turn"
    assert (near.plan, near.selected, near.outcome, near.rto_target_s) == ("drill", "rotate", "passed", 3600)
    assert first.record.backup_id == near.backup_id
    assertions = {one.subject: one.outcome for one in near.checks if one.code == "assertion"}
    assert assertions == {"the ledger balances": "pass", "as many rows": "pass"}, (
        "recorded by the plan's backup"
    )
    newest = [one.outcome for one in near.checks if one.code == "newest_rows"]
    assert newest == ["pass"], "recorded for the critical table"


def _status_knows(shop: Shop) -> None:
    (verdict,) = shop.status().databases
    standing = verdict.standing
    assert verdict.reasons == ()
    assert standing.recovery.achieved_rto_s == shop.drills("far")[-1].proven_s
    assert standing.recovery.last_passed is not None
    assert standing.recovery.last_passed.id == shop.drills("far")[-1].id
    (table,) = standing.tables
    assert table.newest_row == RowMoment(at=datetime(2026, 11, 20, 10, tzinfo=UTC))
    assert (
        shop.alerts() & {"drill_missing/shop", "rto_exceeded/shop", "drill_failed/shop/daily@near"} == set()
    )


def _fails_where_bytes_are_gone(shop: Shop) -> None:
    """It is the turn of ``near`` again; what its packs hold is not what it was."""
    for pack in (Path(shop.settings.repositories["near"].location) / "data").glob("*/*"):
        content = bytearray(pack.read_bytes())
        content[10] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(content)
    done = shop.run("drill")
    assert isinstance(done.error, DrillFailed)
    assert done.record.outcome == "failed"
    drill = shop.drills("near")[-1]
    assert (done.record.drill_id, done.error.facts["drill"]) == (drill.id, drill.id)
    assert drill.outcome == "failed"
    assert f"pgstow drills show {drill.id[:8]} --repo near" in str(done.error.hint)
    assert shop.events[-1].record.outcome == "failed"
    assert [each.code for each in shop.status().databases[0].reasons] == ["drill_failed"]
    assert "drill_failed/shop/daily@near" in shop.alerts()
