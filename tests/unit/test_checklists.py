"""The checklists: each item passes, fails and is unknown for what it should be."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from pgstow.catalog.drills import DrillRecord
from pgstow.core.errors import StoreUnavailable
from pgstow.monitor.checklists import (
    Canary,
    Checklist,
    ChecklistFacts,
    Item,
    Period,
    Result,
    checklist,
)
from pgstow.monitor.facts import AlertFacts, DatabaseFacts, Facts, RepositoryFacts, TableSize
from pgstow.monitor.storage import Forecast, Growth, StorageFacts
from pgstow.monitor.verdict import judge
from pgstow.repository import Snapshot
from support.drilling import drill_record
from support.facts import AWAY, facts_of, one, repository_facts, run, tables
from support.policies import NOW, daily

H, DAY = timedelta(hours=1), timedelta(days=1)
ROOMY = StorageFacts(
    where="disk of /srv",
    used_bytes=10,
    free_bytes=90,
    total_bytes=100,
    growth=Growth(per_day=-1, low=-2, high=0),
)
SHOP = DatabaseFacts(
    name="shop", rpo_s=86400.0, rto_s=14400.0, critical=("public.ledger",), must_contain=("auth.*",)
)


def place(name: str, snapshots: list[Snapshot], **more: Any) -> RepositoryFacts:
    values = {
        "storage": (ROOMY,),
        "key_times": (NOW - 100 * DAY,),
        "clock_skew_s": 0.4,
        "drills": (drill_record(),),
    } | more
    return repository_facts(name, snapshots, **values)


def healthy(**more: Any) -> Facts:
    """Return facts with which everything passes that the program can know."""
    nights = [
        one(NOW - 20 * DAY, kind="dr"),
        one(NOW - 19 * DAY, kind="monthly"),
        one(NOW - 3 * DAY, kind="weekly"),
        *daily(9),
        one(NOW.replace(hour=2, second=9), run="newest"),
    ]
    values = {
        "databases": [SHOP],
        "alerts": (),
        "contents": {"newest": tables("public.ledger", "auth.users")},
        "server_versions": {"newest": 170011},
        "runs": [run(), run(ago=2 * DAY, job="verify"), run(ago=DAY, job="retention")],
    } | more
    return facts_of(place("local", nights), place("far", nights), **values)


def asked(period: Period, facts: Facts, **more: Any) -> Checklist:
    values = {
        "contacts": ("on call",),
        "canary": Canary(acknowledged=NOW - 6 * DAY),
        "overdue": {"local": 0, "far": 0},
    } | more
    return checklist(period, ChecklistFacts(verdict=judge(facts), **values))


def items(period: Period, facts: Facts, code: str, **more: Any) -> list[Item]:
    found = [item for item in asked(period, facts, **more).items if item.code == code]
    assert found, f"no item {code}"
    return found


def result(period: Period, facts: Facts, code: str, **more: Any) -> Result:
    """Return the worst result of the items with a code."""
    results = {item.result for item in items(period, facts, code, **more)}
    return next(each for each in (Result.FAIL, Result.UNKNOWN, Result.PASS) if each in results)


def repositories(facts: Facts, **changes: RepositoryFacts) -> Facts:
    return replace(facts, repositories={**facts.repositories, **changes})


@pytest.mark.parametrize("period", list(Period))
def test_healthy(period: Period) -> None:
    done = asked(period, healthy())
    others = {item.code for item in done.items if item.result is not Result.PASS}
    by_hand = {"key_escrow", "contacts"} if period is Period.MONTHLY else set()
    assert others == by_hand
    assert done.result is (Result.UNKNOWN if by_hand else Result.PASS)
    assert all(item.evidence and item.look and item.title for item in done.items)


@pytest.mark.parametrize("period", list(Period))
def test_when_nothing_can_be_looked_at_nothing_passes(period: Period) -> None:
    facts = facts_of(AWAY("local"), AWAY("far"), databases=[SHOP], runs=None)
    done = asked(period, facts, canary=None, overdue=None)
    assert {item.result for item in done.items} == {Result.UNKNOWN}
    assert done.result is Result.UNKNOWN


def test_a_list_without_items_does_not_pass() -> None:
    assert Checklist(period=Period.DAILY, now=NOW, items=()).result is Result.UNKNOWN


# -- daily


def test_backups_present() -> None:
    facts = healthy()
    lacking = place("far", daily(9)[:-1])
    assert result(Period.DAILY, repositories(facts, far=lacking), "backups_present") is Result.FAIL
    assert result(Period.DAILY, repositories(facts, far=AWAY("far")), "backups_present") is Result.UNKNOWN
    assert result(Period.DAILY, replace(facts, plans=()), "backups_present") is Result.UNKNOWN
    annual = replace(facts.plans[0], kind="annual", expected_since=NOW - timedelta(days=300))
    new = {f"shop/annual@{name}": NOW for name in ("local", "far")}
    with_annual = replace(facts, plans=(*facts.plans, annual))
    assert result(Period.DAILY, with_annual, "backups_present") is Result.FAIL
    fresh = replace(with_annual, known_since=new)
    assert result(Period.DAILY, fresh, "backups_present") is Result.PASS
    assert result(Period.DAILY, repositories(fresh, far=AWAY("far")), "backups_present") is Result.UNKNOWN


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([100, 100, 100, 120], Result.PASS),
        ([100, 100, 100, 121], Result.FAIL),
        ([100, 100, 100, 79], Result.FAIL),
        ([100, 900, 100, 101], Result.PASS),
        ([100, 100, 500], Result.UNKNOWN),
        ([0, 0, 0, 5], Result.PASS),  # below the floor
    ],
)
def test_sizes(sizes: list[int], expected: Result) -> None:
    nights = [
        replace(each, summary=replace(each.summary, total_bytes_processed=size * 1024 * 1024))  # type: ignore[type-var]
        for each, size in zip(daily(len(sizes)), sizes, strict=True)
    ]
    facts = facts_of(place("local", nights), place("far", nights))
    assert result(Period.DAILY, facts, "size_normal") is expected


def test_a_size_that_cannot_be_told_is_no_pass() -> None:
    """Neither that of a newest backup without one, nor of one that may be where nobody can look."""
    nights = daily(5)
    without = [*nights[:-1], replace(nights[-1], summary=None)]
    assert (
        result(Period.DAILY, facts_of(place("local", without), place("far", without)), "size_normal")
        is Result.UNKNOWN
    )
    seen = facts_of(place("local", nights), place("far", nights))
    assert result(Period.DAILY, seen, "size_normal") is Result.PASS
    assert result(Period.DAILY, repositories(seen, far=AWAY("far")), "size_normal") is Result.UNKNOWN


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (("public.ledger", "auth.users"), Result.PASS),
        (("public.ledger",), Result.FAIL),
        (("auth.users",), Result.FAIL),
        (("public.ledger", "authx.users"), Result.FAIL),
    ],
)
def test_critical_tables(held: tuple[str, ...], expected: Result) -> None:
    assert result(Period.DAILY, healthy(contents={"newest": tables(*held)}), "critical_tables") is expected


def test_critical_tables_that_could_not_be_looked_for() -> None:
    assert result(Period.DAILY, healthy(contents={}), "critical_tables") is Result.UNKNOWN


@pytest.mark.parametrize(
    ("rpo_s", "expected"), [(36000.0, Result.PASS), (35000.0, Result.FAIL), (None, Result.UNKNOWN)]
)
def test_rpo(rpo_s: float | None, expected: Result) -> None:
    facts = healthy(databases=[DatabaseFacts(name="shop", rpo_s=rpo_s)])
    assert result(Period.DAILY, facts, "rpo") is expected


def test_alerts() -> None:
    alert = AlertFacts(
        fingerprint="f", rule="r", severity="warning", subject="s", message="it hurts", since=NOW
    )
    (item,) = items(Period.DAILY, healthy(alerts=(alert,)), "no_open_alerts")
    assert (item.result, item.evidence) == (Result.FAIL, "it hurts")
    assert result(Period.DAILY, healthy(alerts=None), "no_open_alerts") is Result.UNKNOWN


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        ((ROOMY,), Result.PASS),
        ((ROOMY, replace(ROOMY, free_bytes=9)), Result.FAIL),
        ((StorageFacts(where="repository far", used_bytes=5),), Result.UNKNOWN),
        ((), Result.UNKNOWN),
    ],
)
def test_storage(storage: tuple[StorageFacts, ...], expected: Result) -> None:
    facts = repositories(healthy(), far=place("far", daily(9), storage=storage))
    assert result(Period.DAILY, facts, "storage") is expected


# -- weekly


def test_weekly_backup() -> None:
    old = [one(NOW - 9 * DAY, kind="weekly"), *daily(9)]
    facts = facts_of(place("local", old), place("far", old))
    assert result(Period.WEEKLY, facts, "weekly_backup") is Result.FAIL
    assert result(Period.WEEKLY, facts, "weekly_backup", promotes=True) is Result.PASS
    away = facts_of(place("local", old), AWAY("far"))
    assert result(Period.WEEKLY, away, "weekly_backup") is Result.UNKNOWN


@pytest.mark.parametrize("job", ["verify", "retention"])
def test_jobs(job: str) -> None:
    def ended(*runs: Any) -> Result:
        return result(Period.WEEKLY, healthy(runs=runs), f"{job}_ran")

    assert ended(run(ago=7 * DAY, job=job)) is Result.PASS
    assert ended(run("running", ago=H, job=job), run(ago=7 * DAY, job=job)) is Result.PASS
    assert ended(run(ago=9 * DAY, job=job)) is Result.FAIL
    assert ended(run("failed", ago=H, job=job), run(ago=DAY, job=job)) is Result.FAIL
    assert ended(run("failed", ago=H, job=job)) is Result.FAIL
    assert ended() is Result.FAIL
    assert result(Period.WEEKLY, replace(healthy(), runs=None), f"{job}_ran") is Result.UNKNOWN


@pytest.mark.parametrize(
    ("canary", "expected"),
    [
        (Canary(acknowledged=NOW - 7 * DAY), Result.PASS),
        (Canary(acknowledged=NOW - 8 * DAY), Result.FAIL),
        (Canary(acknowledged=None), Result.FAIL),
        (None, Result.UNKNOWN),
    ],
)
def test_canary(canary: Canary | None, expected: Result) -> None:
    assert result(Period.WEEKLY, healthy(), "canary", canary=canary) is expected


def test_copies() -> None:
    facts = healthy()
    behind = repositories(facts, far=place("far", daily(9)[:-1]))
    assert result(Period.WEEKLY, behind, "copies_complete") is Result.FAIL
    assert result(Period.WEEKLY, repositories(facts, far=AWAY("far")), "copies_complete") is Result.UNKNOWN
    assert result(Period.WEEKLY, replace(facts, plans=()), "copies_complete") is Result.UNKNOWN


@pytest.mark.parametrize(
    ("skew_s", "expected"), [(-60.0, Result.PASS), (61.0, Result.FAIL), (None, Result.UNKNOWN)]
)
def test_clock(skew_s: float | None, expected: Result) -> None:
    facts = repositories(healthy(), far=place("far", daily(9), clock_skew_s=skew_s))
    assert result(Period.WEEKLY, facts, "clock") is expected


# -- monthly


@pytest.mark.parametrize("kind", ["monthly", "dr"])
def test_monthly_backups(kind: str) -> None:
    for days, expected in ((31, Result.PASS), (33, Result.FAIL)):
        taken = [one(NOW - days * DAY, kind=kind)]
        facts = facts_of(place("local", taken), place("far", taken))
        assert result(Period.MONTHLY, facts, f"{kind}_backup") is expected
    no_dr = facts_of(place("local", daily(3)), place("far", daily(3)))
    assert result(Period.MONTHLY, no_dr, "dr_backup", promotes=True) is Result.FAIL


def test_versions() -> None:
    for number, expected in ((170011, Result.PASS), (130005, Result.FAIL), (170001, Result.FAIL)):
        facts = healthy(server_versions={"newest": number})
        assert result(Period.MONTHLY, facts, "server_version") is expected
    assert result(Period.MONTHLY, healthy(server_versions={}), "server_version") is Result.UNKNOWN


def test_keys() -> None:
    for times, expected in (
        ((NOW - 364 * DAY, NOW), Result.PASS),
        ((NOW - 366 * DAY, NOW), Result.FAIL),
        ((), Result.UNKNOWN),
        (None, Result.UNKNOWN),
    ):
        facts = repositories(healthy(), far=place("far", daily(9), key_times=times))
        assert result(Period.MONTHLY, facts, "key_rotated") is expected


def test_capacity() -> None:
    def full_in(days: int) -> StorageFacts:
        forecast = Forecast(at=NOW + days * DAY, earliest=NOW, latest=None)
        return replace(ROOMY, growth=Growth(per_day=5, low=1, high=9), forecast_full=forecast)

    for storage, expected in (
        ((ROOMY,), Result.PASS),
        ((full_in(61),), Result.PASS),
        ((ROOMY, full_in(59)), Result.FAIL),
        ((ROOMY, replace(ROOMY, growth=None)), Result.UNKNOWN),
        ((StorageFacts(where="repository far", used_bytes=5),), Result.UNKNOWN),
    ):
        facts = repositories(healthy(), far=place("far", daily(9), storage=storage))
        assert result(Period.MONTHLY, facts, "capacity") is expected


def test_retention() -> None:
    assert (
        result(Period.MONTHLY, healthy(), "retention_counts", overdue={"local": 0, "far": 3}) is Result.FAIL
    )
    assert result(Period.MONTHLY, healthy(), "retention_counts", overdue={"local": 0}) is Result.UNKNOWN


def test_contacts() -> None:
    assert result(Period.MONTHLY, healthy(), "contacts", contacts=()) is Result.FAIL


# -- drills


def drilled(*drills: DrillRecord, **more: Any) -> Facts:
    facts = healthy()
    return repositories(
        facts, **{name: replace(each, drills=drills, **more) for name, each in facts.repositories.items()}
    )


def test_restore_test() -> None:
    def judged(*drills: DrillRecord, **more: Any) -> Result:
        return result(Period.MONTHLY, drilled(*drills, **more), "restore_test")

    passed = drill_record(ago=29 * DAY)
    assert judged(passed) is Result.PASS
    (item,) = items(Period.MONTHLY, drilled(passed), "restore_test")
    assert f"drill {passed.id[:8]} of the daily backup {passed.backup_id[:8]} passed" in item.evidence
    assert judged(drill_record(ago=31 * DAY)) is Result.FAIL
    assert judged() is Result.FAIL
    assert judged(drill_record("failed"), drill_record("interrupted")) is Result.FAIL
    away = StoreUnavailable("away")
    assert judged(passed, drills_error=away) is Result.PASS, "it did, whatever the others are"
    assert judged(drill_record(ago=31 * DAY), drills_error=away) is Result.UNKNOWN


def test_no_drill_found_anything_wrong() -> None:
    facts = healthy()
    newest = (facts.repositories["local"].backups or ())[-1].id
    failed = drill_record(
        "failed", ago=DAY, backup_id=newest, error="table public.t is not what was backed up"
    )

    def judged(*drills: DrillRecord, **more: Any) -> Result:
        kept = replace(facts.repositories["local"], drills=drills, **more)
        away = replace(facts.repositories["far"], drills=())
        return result(Period.WEEKLY, repositories(facts, local=kept, far=away), "drills_passed")

    assert judged(drill_record()) is Result.PASS
    assert judged() is Result.UNKNOWN
    assert judged(drill_record(), failed) is Result.FAIL
    assert judged(failed, drill_record(ago=H)) is Result.PASS, "another of this kind passed since"
    assert judged(failed, drill_record(ago=H, backup_kind="weekly")) is Result.FAIL
    assert judged(failed, drill_record("interrupted", ago=H)) is Result.FAIL
    assert judged(failed.model_copy(update={"backup_id": "gone"})) is Result.PASS
    assert judged(drill_record(), drills_error=StoreUnavailable("away")) is Result.UNKNOWN


def test_rto() -> None:
    def judged(*drills: DrillRecord, target_s: float | None = 14400.0) -> Result:
        facts = replace(drilled(*drills), databases=(replace(SHOP, rto_s=target_s),))
        return result(Period.MONTHLY, facts, "rto")

    slow = drill_record(ago=DAY, proven_s=15000.0)
    assert judged(drill_record()) is Result.PASS
    assert judged(drill_record(), slow) is Result.FAIL
    assert judged(slow, drill_record(ago=H)) is Result.PASS
    assert judged(drill_record(), target_s=None) is Result.UNKNOWN
    assert judged() is Result.UNKNOWN
    small = drill_record(size_bytes=1)
    facts = replace(drilled(small), databases=(replace(SHOP, rto_s=14400.0),))
    (newest,) = {(each.backups or ())[-1].id for each in facts.repositories.values()}
    grown = replace(facts, contents={newest: {"public.t": TableSize(rows=1, size_bytes=1024**3)}})
    (item,) = items(Period.MONTHLY, grown, "rto")
    assert item.result is Result.UNKNOWN, "the time of a small backup says nothing of a large one"
    assert "the newest backup is larger: 1.0 GiB" in item.evidence
    three = [drill_record(ago=days * DAY, size_bytes=700 * 1024**2) for days in (1, 2, 3)]
    forecast = replace(drilled(*three), databases=facts.databases, contents=grown.contents)
    (item,) = items(Period.MONTHLY, forecast, "rto")
    assert (item.result, "forecast" in item.evidence) == (Result.PASS, True)
    partial = drill_record(ago=H, proven_s=20000.0, backup_kind="critical", is_partial=True)
    assert judged(drill_record(), partial) is Result.PASS, "what a part takes says nothing of the whole"
