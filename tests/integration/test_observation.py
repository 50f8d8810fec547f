"""Facts gathered from real repositories: folders, a bucket, and some that cannot be had."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgstow.app.checklist import run_checklist
from pgstow.app.looking import Look
from pgstow.app.metrics import MetricsBoard, MetricsKeeper, collect_metrics
from pgstow.app.observation import (
    PATIENCE,
    History,
    KnownDrills,
    Place,
    observe,
    observe_place,
    opened_history,
)
from pgstow.app.status import repository_status, settings_status
from pgstow.catalog.drills import CheckRecord, DrillRecord, TableProof, parse_drill, save_drill
from pgstow.config.references import Reference
from pgstow.config.settings import RepositorySettings, Settings
from pgstow.core.errors import Interrupted, StateError, StoreUnavailable, UsageError
from pgstow.core.secrets import Secret
from pgstow.jobs.schedule import Schedule
from pgstow.monitor.checklists import Period, Result
from pgstow.monitor.facts import AlertFacts, Facts
from pgstow.monitor.levels import Level
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.state.database import open_state
from pgstow.state.runs import Runs
from pgstow.store.opening import open_store
from pgstow.store.retrying import RetryPolicy
from support.backups import capture_into
from support.drilling import drill_record
from support.facts import run
from support.policies import (
    NOW,
    add_backups,
    daily,
    make_repository,
    settings_of,
    with_quota,
)
from support.repositories import init_repository
from support.restic import PASSWORD
from support.s3 import S3Bucket


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"PGSTOW_STATE_DIR": str(tmp_path / "state"), "PGSTOW_CACHE_DIR": "", "PATH": os.environ["PATH"]}


@pytest.fixture
def two(tmp_path: Path) -> Settings:
    """Settings with two folders that hold the same ten daily backups."""
    folders = {name: tmp_path / name for name in ("local", "far")}
    add_backups(daily(10), *(make_repository(folder) for folder in folders.values()))
    return settings_of(folders, rpo_s=86400.0)


def look(settings: Settings, environ: dict[str, str], **options: Any) -> Facts:
    with opened_history(settings, environ) as history:
        return observe(settings, environ, history, now=NOW, **options)


def verdict_of(settings: Settings, environ: dict[str, str], **options: Any) -> Any:
    max_age_s = options.pop("max_age_s", None)
    return settings_status(look_at(settings, environ, **options), max_age_s=max_age_s)


def look_at(settings: Settings, environ: dict[str, str], **options: Any) -> Look:
    values: dict[str, Any] = {"now": NOW, "note": lambda _: None, "conceal": lambda _: None} | options
    return Look(settings=settings, environ=environ, **values)


def test_everything_is_seen(two: Settings, environ: dict[str, str]) -> None:
    state = open_state(None, environ)
    Runs(state).save(run())
    state.close()
    facts = look(two, environ)
    assert [len(each.backups or ()) for each in facts.repositories.values()] == [10, 10]
    assert facts.runs is not None
    assert [each.outcome for each in facts.runs] == ["done"]
    (plan,) = facts.plans
    assert plan.expected_since == NOW.replace(hour=2)
    assert plan.repositories == ("local", "far")
    assert all(each.storage[0].free_bytes for each in facts.repositories.values())
    assert verdict_of(two, environ).level is Level.OK


def test_grace_and_jitter_postpone_what_is_expected(two: Settings, environ: dict[str, str]) -> None:
    late = Schedule(cron="31 10 * * *", jitter_s=1800.0)
    two = replace(two, plans={"nightly": replace(two.plans["nightly"], schedule=late)})
    yesterday = NOW.replace(hour=10, minute=31) - timedelta(days=1)
    assert look(two, environ, with_storage=False).plans[0].expected_since == yesterday
    with opened_history(two, environ) as history:
        later = observe(two, environ, history, now=NOW + timedelta(minutes=1), with_storage=False)
    assert later.plans[0].expected_since == yesterday + timedelta(days=1)


def test_a_kind_goes_only_where_it_is_taken(two: Settings, environ: dict[str, str]) -> None:
    only_dr = replace(two.repositories["far"], kinds=("dr",))
    two = replace(two, repositories={**two.repositories, "far": only_dr})
    assert look(two, environ, with_storage=False).plans[0].repositories == ("local",)


@pytest.mark.parametrize("way", ["gone", "password", "secret", "damaged"])
def test_one_that_cannot_be_had_does_not_stop_the_others(
    two: Settings, environ: dict[str, str], tmp_path: Path, way: str
) -> None:
    far = two.repositories["far"]
    if way == "gone":
        far = replace(far, location=str(tmp_path / "elsewhere"))
    elif way == "password":
        far = replace(far, password=Reference(where="password", text="wrong"))
    elif way == "secret":
        far = replace(far, password=Reference(where="password", file=tmp_path / "none"))
    else:
        for path in (tmp_path / "far" / "snapshots").iterdir():
            path.chmod(0o600)
            path.write_bytes(b"nonsense")
    verdict = verdict_of(replace(two, repositories={**two.repositories, "far": far}), environ)
    assert verdict.level is Level.UNKNOWN
    expected = "snapshot_unreadable" if way == "damaged" else "repository_unknown"
    assert [reason.code for _, reason in verdict.all_reasons] == [expected]
    assert verdict.databases[0].standing.newest is not None


def test_a_bucket_that_does_not_answer_is_given_up_soon(
    two: Settings, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PATIENCE.give_up_after_s <= 15
    monkeypatch.setattr(
        "pgstow.app.observation.PATIENCE", RetryPolicy(first_pause_s=0.01, give_up_after_s=0.02)
    )

    def unavailable(*_: object) -> None:
        raise StoreUnavailable("the store does not answer")

    monkeypatch.setattr("pgstow.store.local.LocalStore.get", unavailable)
    monkeypatch.setattr("pgstow.store.local.LocalStore.list", unavailable)
    told: list[str] = []
    facts = look(two, environ, with_storage=False, note=told.append)
    assert all(each.error is not None for each in facts.repositories.values())
    assert "trying again" in told[0]


def test_ctrl_c_is_no_unknown_repository(
    two: Settings, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted("interrupted by SIGINT")

    monkeypatch.setattr("pgstow.app.observation.list_backups", interrupted)
    with pytest.raises(Interrupted):
        look(two, environ)


def test_without_the_history_backups_are_seen(two: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environ["PGSTOW_STATE_DIR"] = str(tmp_path / "file" / "state")
    verdict = verdict_of(two, environ)
    assert [reason.code for _, reason in verdict.all_reasons] == ["history_unknown"]
    assert verdict.databases[0].standing.newest is not None
    away = replace(two, state=Reference(where="state", text="postgresql://127.0.0.1:1/none"))
    assert look(away, environ, with_storage=False).runs_error is not None


def test_a_name_that_is_not_in_the_settings_is_refused(two: Settings, environ: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="shpo"):
        verdict_of(two, environ, databases=["shpo"])


def test_a_bucket_with_a_quota(two: Settings, environ: dict[str, str], s3_bucket: S3Bucket) -> None:
    repository = init_repository(open_store(s3_bucket.location, s3_bucket.environ))
    add_backups(daily(10), repository)
    bucket = RepositorySettings(
        name="bucket",
        location=s3_bucket.location,
        password=Reference(where="password", text=PASSWORD),
        environment={name: Reference(where=name, text=text) for name, text in s3_bucket.environ.items()},
    )
    settings = replace(two, repositories={"bucket": bucket})
    settings = with_quota(
        replace(settings, plans={"n": replace(two.plans["nightly"], repositories=("bucket",))}),
        "bucket",
        10**6,
    )
    (facts,) = look(settings, environ).repositories.values()
    assert facts.error is None
    (storage,) = facts.storage
    stored = sum(info.size_bytes for info in repository.store.list(""))
    assert (storage.used_bytes, storage.free_bytes) == (stored, 10**6 - stored)
    assert verdict_of(settings, environ).level is Level.OK
    assert verdict_of(with_quota(settings, "bucket", stored), environ).level is Level.CRITICAL


def test_one_repository_without_settings(two: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    place = Place(
        name="repository",
        location=str(tmp_path / "local"),
        unlock=lambda: (Secret(PASSWORD), environ),
    )

    def verdict(**options: Any) -> Any:
        values: dict[str, Any] = {"databases": [], "max_age_s": 26 * 3600.0} | options
        return repository_status(place, now=NOW, note=lambda _: None, **values)

    assert verdict().level is Level.OK
    assert verdict(max_age_s=3600.0).level is Level.CRITICAL
    assert verdict(databases=["shop", "books"]).level is Level.CRITICAL
    make_repository(tmp_path / "empty")
    empty = repository_status(
        replace(place, location=str(tmp_path / "empty")),
        now=NOW,
        databases=[],
        max_age_s=None,
        note=lambda _: None,
    )
    assert empty.level is Level.CRITICAL
    assert [reason.code for _, reason in empty.all_reasons] == ["no_backup"]


def test_secrets_are_told_to_be_concealed(two: Settings, environ: dict[str, str]) -> None:
    told: list[str] = []
    look(two, environ, with_storage=False, conceal=told.append)
    assert told == [PASSWORD, PASSWORD]


class Alerts:
    """Alerts as the state database gives them."""

    def __init__(self, *found: AlertFacts, acknowledged: datetime | None = None) -> None:
        self._found, self._acknowledged = found, acknowledged

    def open_alerts(self, now: datetime) -> tuple[AlertFacts, ...]:
        return self._found

    def last_acknowledged(self) -> datetime | None:
        return self._acknowledged


class NoAlerts:
    def open_alerts(self, now: datetime) -> tuple[AlertFacts, ...]:
        raise StateError("the state database is away")

    def last_acknowledged(self) -> datetime | None:
        raise StateError("the state database is away")


def test_alerts_come_from_where_they_are_kept(two: Settings, environ: dict[str, str]) -> None:
    alert = AlertFacts(
        fingerprint="f", rule="size", severity="warning", subject="s", message="m", since=NOW, database="shop"
    )
    for source, expected in ((Alerts(alert), (alert,)), (Alerts(), ()), (NoAlerts(), None), (None, None)):
        facts = observe(two, environ, History(alerts=source), now=NOW, with_storage=False)
        assert facts.alerts == expected


def test_since_when_something_is_expected_is_remembered(two: Settings, environ: dict[str, str]) -> None:
    first, later = look(two, environ), NOW + timedelta(days=2)
    assert set(first.known_since.values()) == {NOW}
    assert {"shop/daily@local", "shop/daily@far", "repository far"} <= first.known_since.keys()
    with opened_history(two, environ) as history:
        assert observe(two, environ, history, now=later).known_since == first.known_since
    assert observe(two, environ, History(error=StateError("away")), now=NOW).known_since == {}


def test_many_backups_do_not_push_out_the_one_verification(
    two: Settings, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor are the tables of more runs read than are compared."""
    monkeypatch.setattr("pgstow.app.observation._MOST_RUNS", 14)
    with opened_history(two, environ) as history:
        assert history.state is not None
        book = Runs(history.state)
        for hours in range(20):
            book.save(run(ago=timedelta(hours=hours), tables={"public.a": (hours, 1)}))
        book.save(run(ago=timedelta(hours=2, minutes=30), outcome="failed", tables={"public.a": (0, 0)}))
        book.save(run(ago=timedelta(days=30), job="verify"))
        book.save(run(ago=timedelta(days=100), job="verify"))
        runs = observe(two, environ, history, now=NOW).runs
    assert runs is not None
    assert [one.job for one in runs] == ["backup"] * 14 + ["verify"]
    rows = [one.tables["public.a"][0] for one in runs if one.tables]
    assert rows == list(range(11))


def test_runs_that_are_yet_to_come_are_not_believed(two: Settings, environ: dict[str, str]) -> None:
    """One of a host whose clock was wrong would be the newest until then, and hide how every other one ends."""
    with opened_history(two, environ) as history:
        assert history.state is not None
        for minutes in (61, 59, -60):
            Runs(history.state).save(run(ago=-timedelta(minutes=minutes)))
        facts = observe(two, environ, history, now=NOW)
    assert facts.runs is not None
    assert [one.started - NOW for one in facts.runs] == [timedelta(minutes=59), timedelta(minutes=-60)]
    assert [one.started - NOW for one in facts.runs_ahead] == [timedelta(minutes=61)]


def test_the_canary_is_asked_for(
    two: Settings, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for source, expected in (
        (Alerts(acknowledged=NOW - timedelta(days=3)), Result.PASS),
        (Alerts(), Result.FAIL),
        (NoAlerts(), Result.UNKNOWN),
        (None, Result.UNKNOWN),
    ):
        monkeypatch.setattr(
            "pgstow.app.looking.opened_history",
            lambda *_, source=source: contextlib.nullcontext(History(alerts=source)),
        )
        done = run_checklist(Period.WEEKLY, look_at(two, environ))
        assert [item.result for item in done.items if item.code == "canary"] == [expected]


# -- for a service


def test_a_service_collects_now_and_then(two: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    told: list[str] = []
    board = MetricsBoard(tmp_path / "pgstow.prom")
    keeper = MetricsKeeper(board, lambda: two, environ, note=told.append)

    def tick(now: datetime) -> None:
        keeper(now)
        keeper.join()

    def collected() -> float:
        (line,) = [line for line in board.text().splitlines() if line.startswith(b"pgstow_collect_timestamp")]
        return float(line.split()[1]) - NOW.timestamp()

    found = []
    for minutes in (0, 1, 4, 5, 6, -60, -59):
        tick(NOW + timedelta(minutes=minutes))
        found.append(collected() / 60)
    assert found == [0, 0, 0, 5, 5, -60, -60]
    assert (tmp_path / "pgstow.prom").read_bytes() == board.text()
    shutil.rmtree(tmp_path / "far")
    tick(NOW + timedelta(minutes=10))
    assert b'pgstow_repository_up{repository="far"} 0.0' in board.text()
    (tmp_path / "pgstow.prom").unlink()
    (tmp_path / "pgstow.prom").mkdir()
    tick(NOW + timedelta(minutes=20))
    assert "metrics were not collected" in told[-1]
    assert collected() == 20 * 60  # who asks over HTTP gets them all the same


def test_a_service_does_not_wait_for_a_store_that_hangs(
    two: Settings, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, hangs = [], threading.Event()

    def hang(*_: object, **__: object) -> None:
        asked.append(1)
        hangs.wait(60)
        raise StoreUnavailable("it hung")

    monkeypatch.setattr("pgstow.app.observation.list_backups", hang)
    keeper = MetricsKeeper(MetricsBoard(None), lambda: two, environ, note=lambda _: None)
    for minutes in (0, 10, 20):
        keeper(NOW + timedelta(minutes=minutes))  # returns at once
    while not asked:
        time.sleep(0.01)
    assert len(asked) == 1
    hangs.set()
    keeper.join()


@pytest.mark.parametrize(
    ("ahead", "is_believed"), [(timedelta(minutes=59), True), (timedelta(minutes=61), False)]
)
def test_a_drill_that_is_yet_to_come_is_not_believed(
    tmp_path: Path, environ: dict[str, str], ahead: timedelta, is_believed: bool
) -> None:
    """It would be the newest until then: passed for ever, or failed."""
    repository = make_repository(tmp_path / "local")
    add_backups(daily(1), repository)
    there = drill_record(ago=timedelta(days=2))
    ahead_of_us = drill_record(ago=-ahead)
    for drill in (there, ahead_of_us):
        save_drill(repository, drill)
    verdict = verdict_of(settings_of({"local": tmp_path / "local"}), environ)
    (local,) = verdict.facts.repositories.values()
    assert local.drills == ((there, ahead_of_us) if is_believed else (there,))
    told = [reason.text for reason in verdict.reasons if reason.code == "drills_unknown"]
    assert bool(told) is not is_believed
    if told:
        assert f"the clock of {ahead_of_us.host} was wrong" in told[0]


def test_drills_that_were_read_are_not_read_again(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks every minute would else open and parse the records of a year every minute."""
    repository = make_repository(tmp_path / "local")
    checks = tuple(
        CheckRecord(code="row_counts", outcome=each, message="m") for each in ("pass", "pass", "fail")
    )
    proof = TableProof(schema_="public", name="a", rows=1, size_bytes=1, load_s=0.1, is_equal=True)
    old, new = (drill_record(ago=timedelta(days=days), checks=checks, tables=(proof,)) for days in (9, 2))
    settings, known = settings_of({"local": tmp_path / "local"}), KnownDrills()
    parsed: list[str] = []

    def parse(data: bytes, *, where: str) -> DrillRecord:
        parsed.append(where)
        return parse_drill(data, where=where)

    monkeypatch.setattr("pgstow.catalog.drills.parse_drill", parse)

    def seen() -> list[str]:
        (local,) = look(settings, environ, drills=known).repositories.values()
        assert local.drills_error is None
        assert all(
            one.tables == () and len(one.checks) == 3 and len(one.issues) == 1 for one in local.drills or ()
        )
        return [one.id for one in local.drills or ()]

    save_drill(repository, old)
    assert (seen(), len(parsed)) == ([old.id], 1)
    save_drill(repository, new)
    assert (seen(), len(parsed)) == ([old.id, new.id], 2)
    assert (seen(), len(parsed)) == ([old.id, new.id], 2)
    repository.store.delete(f"pgstow/drills/{old.file_name}")
    assert (seen(), len(parsed)) == ([new.id], 2)


# -- what is inside


@pytest.fixture
def shop(pg15: Cluster, database: Callable[..., ConnInfo]) -> ConnInfo:
    source = database(pg15)
    with psycopg.connect(source.connect_string(), autocommit=True) as connection:
        connection.execute("CREATE TABLE ledger (id int PRIMARY KEY)")
        connection.execute("INSERT INTO ledger SELECT generate_series(1, 50)")
        connection.execute("CREATE TABLE bookings (id int, at timestamp) PARTITION BY RANGE (id)")
        connection.execute("CREATE TABLE bookings_1 PARTITION OF bookings FOR VALUES FROM (1) TO (9)")
        connection.execute("INSERT INTO bookings VALUES (1, '2026-11-20 10:00')")
    return source


def test_tables_of_real_backups(tmp_path: Path, environ: dict[str, str], shop: ConnInfo) -> None:
    """The root of a partitioned table counts as present, one that is gone does not."""
    repository = make_repository(tmp_path / "local")
    capture_into(repository, shop, name="shop", time_columns={"public.bookings": "at"})
    settings = settings_of(
        {"local": tmp_path / "local"},
        critical=["public.ledger", "public.bookings", "public.gone"],
        plans=[],
    )
    with opened_history(settings, environ) as history:
        now = NOW + timedelta(days=365 * 10)  # later than the server's clock
        facts = observe(settings, environ, history, now=now, with_contents=True, with_upkeep=True)
        _, families = collect_metrics(settings, environ, history, clock=lambda: now)
    (tables,) = facts.contents.values()
    assert tables["public.ledger"].rows == 50
    assert "public.bookings_1" in tables
    newest_row = tables["public.bookings"].newest_row
    assert newest_row is not None
    assert newest_row.text == "2026-11-20 10:00 without a time zone"
    assert [number // 10000 for number in facts.server_versions.values()] == [15]
    (local,) = facts.repositories.values()
    assert local.key_times is not None
    assert len(local.key_times) == 1
    assert local.clock_skew_s is not None
    rows = next(family for family in families if family.name == "pgstow_backup_rows")
    assert {sample.labels["how"]: sample.value for sample in rows.samples} == {"reused": 0.0, "read": 51.0}
    done = run_checklist(Period.DAILY, look_at(settings, environ, now=now))
    (item,) = [item for item in done.items if item.code == "critical_tables"]
    assert item.result is Result.FAIL
    assert item.evidence.endswith("lacks public.gone")


def test_a_backup_that_cannot_be_looked_into_is_unknown(two: Settings, environ: dict[str, str]) -> None:
    """Its snapshot is there, its trees are not."""
    told: list[str] = []
    critical = settings_of({}, critical=["public.ledger"]).databases["shop"]
    two = replace(two, databases={"shop": critical})
    facts = look(two, environ, with_contents=True, with_storage=False, note=told.append)
    assert facts.contents == {}
    assert told
    assert "cannot be read" in told[0]
    assert verdict_of(two, environ).level is Level.UNKNOWN


def test_a_read_only_store_has_no_clock_to_compare(
    two: Settings, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def denied(*_: object) -> None:
        raise StoreUnavailable("no writing here")

    monkeypatch.setattr("pgstow.app.observation.store_now", denied)
    told: list[str] = []
    place = Place(name="local", location=str(tmp_path / "local"), unlock=lambda: (Secret(PASSWORD), environ))
    facts = observe_place(place, History(), now=NOW, with_upkeep=True, note=told.append)
    assert facts.clock_skew_s is None
    assert facts.key_times
    assert told
