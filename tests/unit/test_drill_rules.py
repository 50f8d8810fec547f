"""What alerts and status say of drills, from made-up facts: each rule fires, is quiet, and does not know."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from pgstow.catalog.drills import CheckRecord, DrillRecord
from pgstow.catalog.manifest import NewestRow
from pgstow.core.errors import StoreUnavailable
from pgstow.monitor.facts import DatabaseFacts, Facts, PlanFacts, RepositoryFacts, TableSize
from pgstow.monitor.findings import Evaluation, Finding, Severity
from pgstow.monitor.levels import Level
from pgstow.monitor.newest_rows import RowMoment, moment_of
from pgstow.monitor.policy import AlertPolicy
from pgstow.monitor.recovery import unsaved_text
from pgstow.monitor.rules import TellingFacts, evaluate
from pgstow.monitor.standing import standing_of
from pgstow.monitor.verdict import judge
from pgstow.state.runs import DestinationResult
from support.drilling import drill_record
from support.facts import NIGHTLY, facts_of, one, repository_facts, run
from support.policies import NOW, daily

H, DAY = timedelta(hours=1), timedelta(days=1)
GIB = 1024**3
SHOP = DatabaseFacts(name="shop", rpo_s=86400.0, rto_s=14400.0)
PLAN = PlanFacts(
    plan="drill", job="drill", kind="drill", database="shop", repositories=("local",), cron="0 9 1 * *",
    expected_since=NOW - 2 * DAY, next_due=NOW + 9 * DAY,
)  # fmt: skip
AWAY = StoreUnavailable("the store is away")
OURS = ("drill_", "rto_", "table_rpo_")


def place(*drills: DrillRecord, **more: Any) -> RepositoryFacts:
    return repository_facts("local", daily(3), drills=drills, **more)


def facts(repository: RepositoryFacts, **more: Any) -> Facts:
    values: dict[str, Any] = {
        "plans": (replace(NIGHTLY, repositories=("local",)), PLAN),
        "databases": (SHOP,),
        "known_since": {"repository local": NOW, "database shop": NOW - DAY, "plan drill": NOW - 60 * DAY},
        "runs": (run(job="drill", ago=DAY, database="shop", plan="drill", drill_id="d"),),
    }
    return facts_of(repository, **(values | more))


def judged(known: Facts) -> Evaluation:
    return evaluate(known, TellingFacts(now=NOW, policy=AlertPolicy()))


def found(known: Facts) -> list[Finding]:
    return [each for each in judged(known).findings if each.rule.startswith(OURS)]


def only(known: Facts) -> Finding:
    (finding,) = found(known)
    return finding


def reasons(known: Facts) -> dict[str, Level]:
    of_drills = ("drill_failed", "drill_missing", "drills_unknown", "rto", "rto_forecast")
    return {reason.code: reason.level for _, reason in judge(known).all_reasons if reason.code in of_drills}


def newest_id(repository: RepositoryFacts) -> str:
    return (repository.backups or ())[-1].id


def failed_there(repository: RepositoryFacts, *others: DrillRecord, **more: Any) -> RepositoryFacts:
    """Return the repository with a drill of its newest backup that failed yesterday, and others."""
    drill = drill_record("failed", ago=DAY, backup_id=newest_id(repository), **more)
    return replace(repository, drills=tuple(sorted((drill, *others), key=lambda each: each.started)))


def test_all_is_well() -> None:
    known = facts(place(drill_record()))
    assert found(known) == []
    assert not any(each.startswith(OURS) for each in judged(known).undecided)
    assert reasons(known) == {}


# -- drill_failed


def test_a_drill_that_failed() -> None:
    known = facts(failed_there(place(), drill_record()))
    finding = only(known)
    assert finding.fingerprint == "drill_failed/shop/daily@local"
    assert finding.severity is Severity.CRITICAL
    assert "table public.ledger is not what was backed up" in finding.message
    assert finding.hint == "drill an older backup"
    assert reasons(known) == {"drill_failed": Level.CRITICAL}


def test_a_check_that_failed_is_the_reason() -> None:
    checks = tuple(
        CheckRecord(
            code="indexes", subject=f"i{number}", outcome="fail", message=f"index i{number} is broken"
        )
        for number in range(3)
    )
    finding = only(facts(failed_there(place(), drill_record(), error=None, error_code=None, checks=checks)))
    assert "failed: index i0 is broken (and 2 more)" in finding.message
    assert finding.extent == 3


@pytest.mark.parametrize("code", ["store_unavailable", "tool_missing", "target_refused"])
def test_what_was_in_the_way_says_nothing_of_the_backup(code: str) -> None:
    known = facts(failed_there(place(), drill_record(), error_code=code))
    assert only(known).severity is Severity.WARNING
    assert "of the backup itself nothing is known" in only(known).message
    assert reasons(known) == {"drill_failed": Level.WARNING}


def test_it_is_over_when_that_kind_passes_there_or_the_backup_is_gone() -> None:
    passed = drill_record(ago=H)
    assert found(facts(failed_there(place(), passed))) == []
    other_kind = drill_record(ago=H, backup_kind="weekly")
    assert [each.rule for each in found(facts(failed_there(place(), other_kind)))] == ["drill_failed"]
    interrupted = drill_record("interrupted", ago=H)
    assert "drill_failed" in {each.rule for each in found(facts(failed_there(place(), interrupted)))}
    gone = place(drill_record(), drill_record("failed", ago=DAY, backup_id="gone"))
    assert found(facts(gone)) == []
    unsure = replace(gone, unreadable=("a snapshot",))
    assert "drill_failed" in {each.rule for each in found(facts(unsure))}


def test_a_copy_elsewhere_that_passed_does_not_end_it() -> None:
    near, far = failed_there(place()), repository_facts("far", daily(3), drills=(drill_record(ago=H),))
    known = facts_of(
        near, far, databases=[SHOP], plans=[NIGHTLY, PLAN], runs=(), known_since={"database shop": NOW}
    )
    assert [each.fingerprint for each in found(known) if each.rule == "drill_failed"] == [
        "drill_failed/shop/daily@local"
    ]


def test_a_planned_drill_that_could_not_be_carried_out() -> None:
    def drilled(outcome: Any, **more: Any) -> Any:
        return run(outcome, job="drill", ago=H, database="shop", plan="drill", **more)

    repository = place(drill_record())
    away = facts(
        repository, runs=(drilled("failed", error="the store is away", error_code="store_unavailable"),)
    )
    assert (only(away).fingerprint, only(away).severity) == ("drill_failed/shop/drill", Severity.WARNING)
    assert "the store is away" in only(away).message
    assert only(facts(repository, runs=(drilled("abandoned"),))).rule == "drill_failed"
    told = drilled("failed", drill_id="d", error="told by its record", error_code="drill_failed")
    assert found(facts(repository, runs=(told,))) == []
    for code in ("under_way", "repository_locked"):
        gave_way = drilled("interrupted", error_code=code)
        assert found(facts(repository, runs=(gave_way,))) == []
    given_up = drilled("failed", error_code="repository_locked")
    assert only(facts(repository, runs=(given_up,))).fingerprint == "drill_failed/shop/drill"


def test_a_drill_that_failed_is_told_though_its_record_could_not_be_saved() -> None:
    """The store went away in the middle: no repository tells of it, and the run of the plan alone does."""

    def drilled(drill_id: str, **more: Any) -> Any:
        unsaved = f"{unsaved_text(drill_id)}: the store is away; it waits in /state"
        values: dict[str, Any] = {
            "error": "the drill failed: a row is missing",
            "warnings": (unsaved,),
        } | more
        return run("failed", job="drill", ago=H, database="shop", plan="drill", drill_id=drill_id,
                   error_code="drill_failed", **values)  # fmt: skip

    lost = facts(place(drill_record(), drills_error=AWAY), runs=(drilled("d"),))
    finding = only(lost)
    assert (finding.fingerprint, finding.severity) == ("drill_failed/shop/drill", Severity.CRITICAL)
    assert "a row is missing" in finding.message
    assert reasons(lost)["drill_failed"] is Level.CRITICAL
    in_the_way = DestinationResult(repository="local", error_code="store_unavailable", error="away")
    passing = facts(place(drill_record()), runs=(drilled("d", destinations=(in_the_way,)),))
    assert only(passing).severity is Severity.WARNING
    assert reasons(passing) == {"drill_failed": Level.WARNING}
    later = drill_record("failed", ago=H)
    assert found(facts(place(drill_record(), later), runs=(drilled(later.id),))) == [], "its backup is gone"
    then_passed = run(job="drill", ago=H / 2, database="shop", plan="drill", drill_id="e")
    assert found(facts(place(drill_record()), runs=(then_passed, drilled("d")))) == []


def test_an_interrupted_drill_is_told_also_where_its_record_is_known() -> None:
    interrupted = run("interrupted", job="drill", ago=H, database="shop", plan="drill", drill_id="d")
    assert only(facts(place(drill_record()), runs=(interrupted,))).fingerprint == "drill_failed/shop/drill"


# -- drill_missing


@pytest.mark.parametrize(("age", "is_missing"), [(29, False), (31, True)])
def test_too_long_ago(age: int, is_missing: bool) -> None:
    known = facts(place(drill_record(ago=age * DAY)))
    assert bool(found(known)) is is_missing
    assert reasons(known) == ({"drill_missing": Level.WARNING} if is_missing else {})
    if is_missing:
        assert (only(known).fingerprint, only(known).severity) == ("drill_missing/shop", Severity.WARNING)


def test_a_new_database_has_time_for_its_first_drill() -> None:
    assert found(facts(place())) == []
    since = {"repository local": NOW, "database shop": NOW - 31 * DAY, "plan drill": NOW}
    known = facts(place(), known_since=since)
    assert only(known).rule == "drill_missing"
    assert "is not known to have ever passed one" in only(known).message
    policy = replace(AlertPolicy(), drill_within_s=40 * 86400.0)
    assert found(replace(known, policy=policy)) == []
    old = repository_facts("local", [one(NOW - 31 * DAY), *daily(3)], drills=())
    assert only(facts(old, known_since={})).rule == "drill_missing", (
        "its backups show how long it was waited for"
    )
    forgetful = facts(place(), known_since={})
    assert "drill_missing/shop" not in {each.fingerprint for each in found(forgetful)}
    assert judged(forgetful).is_undecided("drill_missing/shop")
    assert reasons(forgetful) == {}


def test_without_drills_nothing_is_told_but_that() -> None:
    known = facts(place(drill_record(ago=31 * DAY), drills_error=AWAY))
    assert found(known) == []
    for fingerprint in (
        "drill_missing/shop",
        "drill_failed/shop/daily@local",
        "rto_exceeded/shop",
        "rto_at_risk/shop",
    ):
        assert judged(known).is_undecided(fingerprint), fingerprint
    assert reasons(known) == {"drills_unknown": Level.UNKNOWN}
    never_read = replace(known.repositories["local"], drills=None, drills_error=None)
    unread = replace(known, repositories={"local": never_read}, known_since={})
    assert found(unread) == []
    assert judged(unread).is_undecided("drill_missing/shop")
    assert reasons(unread) == {}


def test_a_planned_drill_that_did_not_run() -> None:
    repository = place(drill_record())

    def drilled(ago: timedelta, outcome: Any = "done") -> Any:
        return run(outcome, job="drill", ago=ago, database="shop", plan="drill", drill_id="d")

    assert only(facts(repository, runs=())).fingerprint == "drill_missing/shop/drill"
    assert only(facts(repository, runs=(drilled(3 * DAY),))).fingerprint == "drill_missing/shop/drill"
    assert only(facts(repository, runs=(drilled(H, "missed"),))).fingerprint == "drill_missing/shop/drill"
    assert found(facts(repository, runs=(drilled(H, "running"),))) == []
    new = {"database shop": NOW - DAY, "plan drill": NOW - H}
    assert found(facts(repository, runs=(), known_since=new)) == []
    assert judged(facts(repository, runs=None)).is_undecided("drill_missing/shop/drill")


# -- RTO


def test_the_rto_is_exceeded() -> None:
    known = facts(place(drill_record(ago=9 * DAY), drill_record(proven_s=15000.0)))
    finding = only(known)
    assert (finding.fingerprint, finding.severity) == ("rto_exceeded/shop", Severity.CRITICAL)
    assert "took 4 hours" in finding.message
    assert reasons(known) == {"rto": Level.CRITICAL}
    without = replace(known, databases=(replace(SHOP, rto_s=None),))
    assert found(without) == []
    failed = facts(failed_there(place(), drill_record(), proven_s=99999.0))
    assert "rto_exceeded" not in {each.rule for each in found(failed)}, "a drill that failed measured nothing"


def sized(size_bytes: int, *gib: float, seconds_each: float) -> Facts:
    """Return facts with drills of so many GiB, and a newest backup of that size."""
    drills = [
        drill_record(
            ago=(len(gib) - number) * DAY, size_bytes=round(each * GIB), proven_s=each * seconds_each
        )
        for number, each in enumerate(gib)
    ]
    snapshots = [one(NOW - 10 * H, size_bytes=size_bytes)]
    return facts(repository_facts("local", snapshots, drills=tuple(drills)))


def test_the_rto_is_at_risk() -> None:
    assert found(sized(12 * GIB, 8, 9, 10, 11, seconds_each=1000)) == []
    known = sized(14 * GIB, 8, 9, 10, 11, seconds_each=1000)
    finding = only(known)
    assert (finding.fingerprint, finding.severity) == ("rto_at_risk/shop", Severity.WARNING)
    assert "4 drills of PostgreSQL 16 in a throwaway server" in finding.hint
    assert reasons(known) == {"rto_forecast": Level.WARNING}
    assert found(sized(14 * GIB, 8, 9, seconds_each=1000)) == [], "two drills are too few"
    assert found(sized(99 * GIB, 8, 9, 10, 11, seconds_each=1000)) == [], "too far for a forecast"
    exceeded = sized(16 * GIB, 8, 9, 10, 15, seconds_each=1000)
    by_rule = {each.rule: each for each in found(exceeded)}
    assert by_rule["rto_at_risk"].inhibited_by == ("rto_exceeded/shop",)
    assert reasons(exceeded) == {"rto": Level.CRITICAL}


def test_the_forecast_goes_by_the_rows_where_somebody_looked_inside() -> None:
    known = sized(1, 8, 9, 10, 11, seconds_each=100)
    newest = newest_id(known.repositories["local"])
    inside = {newest: {"public.t": TableSize(rows=1, size_bytes=9 * GIB)}}
    standing = standing_of(replace(known, contents=inside), SHOP)
    assert standing.recovery.forecast is not None
    assert standing.recovery.forecast.size_bytes == 9 * GIB
    assert standing_of(known, SHOP).recovery.forecast is None
    with_objects = sized(16 * GIB, 8, 9, 10, 11, seconds_each=1000)
    newest = newest_id(with_objects.repositories["local"])
    rows = {newest: {"public.t": TableSize(rows=1, size_bytes=3 * GIB)}}
    assert [each.rule for each in found(replace(with_objects, contents=rows))] == ["rto_at_risk"], (
        "large objects are restored too"
    )


def test_a_drill_of_a_smaller_backup_does_not_show_the_rto_of_the_newest() -> None:
    def representative(size_bytes: int) -> bool | None:
        return standing_of(sized(size_bytes, 8, seconds_each=100), SHOP).recovery.is_representative

    assert [representative(gib * GIB) for gib in (1, 8, 10, 11)] == [True, True, True, False]
    assert standing_of(facts(place()), SHOP).recovery.is_representative is None


# -- RPO of critical tables


def test_the_rpo_of_a_critical_table() -> None:
    shop = replace(SHOP, critical=("public.ledger", "public.other"))
    repository = place(drill_record())
    old, _, new = (record.id for record in repository.backups or ())
    row = RowMoment(at=NOW - 60 * H)
    contents = {
        old: {
            "public.ledger": TableSize(rows=1, size_bytes=1, newest_row=row),
            "public.other": TableSize(rows=1, size_bytes=1),
        },
        new: {"public.other": TableSize(rows=1, size_bytes=1)},
    }
    known = facts(repository, databases=(shop,), contents=contents)
    finding = only(known)
    assert (finding.fingerprint, finding.severity) == (
        "table_rpo_exceeded/shop/public.ledger",
        Severity.CRITICAL,
    )
    assert f"its newest row there is of {row.at:%Y-%m-%d %H:%M} UTC" in finding.message
    assert finding.inhibited_by == ("rpo_exceeded/shop", "unprotected/shop")
    ledger, other = standing_of(known, shop).tables
    assert (ledger.newest_row, ledger.is_missing, other.newest_row) == (row, True, None)
    assert judged(facts(repository, databases=(shop,))).is_undecided("table_rpo_exceeded/shop/public.ledger")
    assert found(facts(repository, databases=(replace(shop, rpo_s=None),), contents=contents)) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-20 10:11:12.345678+00", "2026-11-20T10:11:12.345678+00:00"),
        ("2026-11-20 10:11:12.3+00", "2026-11-20T10:11:12.300000+00:00"),
        ("2026-11-20 10:11:12+00", "2026-11-20T10:11:12+00:00"),
        ("2026-11-20 12:11:12+02", "2026-11-20T10:11:12+00:00"),
        ("2026-11-20 10:11:12", "2026-11-20T10:11:12"),
        ("2026-11-20", "2026-11-20T00:00:00"),
        ("0001-01-01 00:00:00+10", None),
        ("infinity", None),
        ("0044-03-15 10:00:00 BC", None),
        ("12026-11-20 10:11:12+00", None),
        ("4711", None),
        ("20261120", None),
        (None, None),
    ],
)
def test_newest_rows_as_postgresql_prints_them(value: str | None, expected: str | None) -> None:
    found = moment_of(NewestRow(column="at", value=value))
    assert (None if found is None else found.iso_text) == expected
    assert moment_of(None) is None
