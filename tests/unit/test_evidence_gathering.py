"""What evidence is taken from: how far back the history reaches, when plans were due, what is known against a release."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pgstow.app import evidence as gathering
from pgstow.app import evidence_history
from pgstow.app.evidence_history import gone_facts, known_since, past_runs, plan_facts
from pgstow.app.evidence_repositories import is_release_known, server_outdated
from pgstow.app.evidence_trails import LetGo
from pgstow.app.observation import History
from pgstow.config.reading import read_settings
from pgstow.config.settings import Settings
from pgstow.core.errors import StateError
from pgstow.evidence import facts as evidence
from pgstow.evidence.period import parse_period
from pgstow.postgres import catalogs
from pgstow.postgres.session import Connection
from pgstow.state.database import StateDatabase, open_state
from pgstow.state.runs import DestinationResult, RunRecord, Runs
from support.evidence import good_facts

PERIOD = parse_period("2026-10")
DAY = timedelta(days=1)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDatabase]:
    state = open_state(None, {"PGSTOW_STATE_DIR": str(tmp_path / "state")})
    yield state
    state.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "password").write_text("hunter22")
    (tmp_path / "password").chmod(0o600)
    path = tmp_path / "pgstow.yaml"
    path.write_text(
        "databases: {shop: {url: postgresql://db.example/shop, rto: 4h, critical: [public.ledger]}}\n"
        "repositories:\n"
        f"  near: {{location: {tmp_path}/near, password: file:{tmp_path}/password}}\n"
        f"  far: {{location: {tmp_path}/far, password: file:{tmp_path}/password, kinds: [weekly]}}\n"
        "plans:\n"
        "  daily: {schedule: 0 2 * * *}\n"
        "  often: {kind: critical, schedule: '* * * * *'}\n"
        "  release: {kind: pre-deployment}\n"
    )
    return read_settings(path)


def run(at: datetime, **changed: object) -> RunRecord:
    values: dict[str, object] = {
        "id": Runs.new_id(), "plan": "daily", "job": "backup", "kind": "daily", "database": "shop", "due": at,
        "started": at, "host": "h", "outcome": "done",
        "destinations": (DestinationResult(repository="near"), DestinationResult(repository="far", error="full")),
    }  # fmt: skip
    return RunRecord(**(values | changed))  # type: ignore[arg-type]


def test_the_history_reaches_back_to_its_first_run(state: StateDatabase) -> None:
    for days in (-70, -20, 3, 40):
        Runs(state).save(run(PERIOD.begin + days * DAY))
    found = past_runs(History(state=state), PERIOD.begin, PERIOD.end)
    assert found.since == PERIOD.begin - 20 * DAY  # older ones are not asked for
    assert [each.started for each in found.runs or ()] == [PERIOD.begin - 20 * DAY, PERIOD.begin + 3 * DAY]
    assert ((found.runs or ())[0].stored_in, (found.runs or ())[0].failed_in) == (("near",), ("far",))


def stored(days: int, backup_id: str, **changed: object) -> RunRecord:
    at = PERIOD.begin + days * DAY
    both = (DestinationResult(repository="near"), DestinationResult(repository="far"))
    return run(at, backup_id=backup_id, **({"destinations": both} | changed))


def test_backups_that_should_be_there_and_are_not_are_told(settings: Settings, state: StateDatabase) -> None:
    """Daily ones are kept for 30 days, those of a kind without a rule always; what retention let go is no loss."""
    for record in (
        stored(-40, "old"),
        stored(1, "there"),
        stored(2, "gone"),
        stored(3, "expired"),
        stored(4, "kept always", kind="special"),
        stored(5, "only near", destinations=(DestinationResult(repository="near"),)),
        stored(6, "of another", database="other"),
    ):
        Runs(state).save(record)
    runs = past_runs(History(state=state), PERIOD.begin, PERIOD.end).runs or ()
    let_go = {"near": LetGo(ids=frozenset({"expired"})), "far": LetGo(unnamed_until=PERIOD.begin + 4 * DAY)}

    def told(there: dict[str, set[str]], now: datetime) -> set[tuple[str, str]]:
        found = gone_facts(settings, runs, there, let_go, now=now)
        return {(each.repository, each.backup_id) for each in found}

    there = {"near": {"there"}, "far": {"there"}}
    now = PERIOD.begin + 10 * DAY
    assert told(there, now) == {
        ("near", "gone"), ("near", "kept always"), ("far", "kept always"), ("near", "only near"),
    }  # fmt: skip
    assert told(there, now + 60 * DAY) == {("near", "kept always"), ("far", "kept always")}
    assert told({}, now) == set()  # of a repository whose list is not whole nothing is said


def test_where_there_are_too_many_runs_the_history_begins_with_those_that_were_read(
    state: StateDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_history, "_MOST_RUNS", 3)
    for days in range(6):
        Runs(state).save(run(PERIOD.begin + days * DAY))
    Runs(state).save(run(PERIOD.begin - 10 * DAY, job="verify", kind="verify"))
    assert past_runs(History(state=state), PERIOD.begin, PERIOD.end).since == PERIOD.begin + 3 * DAY


def test_without_a_history_nothing_is_known(state: StateDatabase) -> None:
    assert past_runs(History(state=state), PERIOD.begin, PERIOD.end).since is None
    away = past_runs(History(error=StateError("it is away")), PERIOD.begin, PERIOD.end)
    assert (away.runs, away.error) == (None, "it is away")


def test_what_plans_promise(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_history, "_MOST_DUES", 100)
    plans = {each.name: each for each in plan_facts(settings, {}, PERIOD, PERIOD.begin + 3 * DAY)}
    assert plans["daily"].dues == tuple(PERIOD.begin + days * DAY + timedelta(hours=2) for days in range(3))
    assert plans["daily"].repositories == ("near",)
    assert plans["daily"].late_s >= settings.alerts.grace_s
    assert plans["release"].dues is None
    assert plans["often"].dues is None  # too many to list: unknown, and not a part of them


def test_what_is_new_is_known_from_now_on(settings: Settings, state: StateDatabase) -> None:
    now = datetime(2026, 10, 5, tzinfo=UTC)
    first = known_since(settings, History(state=state), now)
    later = known_since(settings, History(state=state), now + DAY)
    assert first == later
    assert first["plan daily"] == first["repository near"] == now


@pytest.mark.parametrize(
    ("version_num", "told"),
    [
        (140025, "no longer gets"),
        (90624, "no longer gets"),
        (150001, "known security holes"),
        (180099, None),
        (990000, None),
    ],
)
def test_what_is_known_against_a_server(version_num: int, told: str | None) -> None:
    found = server_outdated(version_num)
    assert found is None if told is None else told in (found or "")
    assert is_release_known(version_num // 10000) is (version_num < 990000)


def test_no_secret_goes_into_a_bundle_with_an_error() -> None:
    facts = good_facts(
        runs_error="password hunter22",
        servers=(evidence.ServerFacts(database="shop", error="hunter22 is wrong"),),
    )
    repository = facts.repositories[0].model_copy(
        update={
            "error": "hunter22",
            "drills_error": "hunter22",
            "tls_error": "hunter22",
            "deletion": evidence.DeletionFacts(error="hunter22"),
        }
    )
    lock = facts.locks[0].model_copy(update={"error": "hunter22"})
    search = facts.searches[0].model_copy(update={"error": "hunter22", "found_in": ("/logs/hunter22",)})
    backup = facts.backups[0].model_copy(update={"manifest_error": "hunter22"})
    audit = facts.audit[0].model_copy(update={"error": "hunter22"})
    facts = facts.model_copy(
        update={
            "repositories": (repository,),
            "backups": (backup,),
            "audit": (audit,),
            "locks": (lock,),
            "searches": (search,),
        }
    )
    scrubbed = gathering._scrubbed(facts, lambda text: text.replace("hunter22", "***"))
    assert "hunter22" in facts.model_dump_json()
    assert "hunter22" not in scrubbed.model_dump_json()


@pytest.mark.parametrize(
    ("address", "way"),
    [
        ("", "socket"),
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("10.0.0.5", "network"),
        ("fe80::1%eth0", "network"),
        ("what is this", "network"),
    ],
)
def test_how_a_server_was_reached(address: str, way: str) -> None:
    connection = SimpleNamespace(info=SimpleNamespace(hostaddr=address))
    assert catalogs._way(cast("Connection", connection)) == way
