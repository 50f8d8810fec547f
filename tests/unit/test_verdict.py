"""What is wrong, and how badly. Each way in which backups go wrong has its reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from pgstow.core.errors import StateError
from pgstow.monitor.facts import AlertFacts, DatabaseFacts, Facts
from pgstow.monitor.levels import Level, worst
from pgstow.monitor.storage import Forecast, StorageFacts
from pgstow.monitor.verdict import judge
from pgstow.repository import Snapshot
from support.facts import AWAY, NIGHTLY, facts_of, one, repository_facts, run, tables
from support.policies import NOW, daily

H, DAY = timedelta(hours=1), timedelta(days=1)


def reasons(facts: Facts, **options: float) -> set[tuple[str, str]]:
    return {(reason.level.value, reason.code) for _, reason in judge(facts, **options).all_reasons}


def test_healthy() -> None:
    verdict = judge(facts_of(runs=[run()], alerts=()))
    assert verdict.all_reasons == []
    assert verdict.level is Level.OK


def test_that_nobody_looks_for_alerts_is_told_where_somebody_wants_them() -> None:
    unknown = facts_of(runs=[run()], alerts=None)
    assert reasons(unknown) == set()
    assert reasons(replace(unknown, has_channels=True)) == {("warning", "alerts_unknown")}
    assert reasons(replace(unknown, has_channels=True, alerts=())) == set()


def both(*snapshots: Snapshot) -> Facts:
    return facts_of(repository_facts("local", snapshots), repository_facts("far", snapshots))


def test_no_backup_at_all() -> None:
    assert reasons(both()) == {("critical", "no_backup"), ("critical", "missing")}


def test_none_that_can_be_seen_is_unknown_not_missing() -> None:
    found = reasons(facts_of(repository_facts("local"), AWAY("far")))
    assert found == {("unknown", "no_backup"), ("unknown", "missing"), ("unknown", "repository_unknown")}


def test_a_new_plan_misses_nothing_before_it_was_due_once() -> None:
    """An annual backup is not missing in November; but a plan that we have known for longer, or of which there was one, is."""
    annual = replace(NIGHTLY, plan="annual", kind="annual", expected_since=NOW - 300 * DAY)
    nights = daily(5)
    both_hold = repository_facts("local", nights), repository_facts("far", nights)
    of_kind = {f"shop/annual@{name}": NOW - H for name in ("local", "far")}
    new = facts_of(*both_hold, plans=(NIGHTLY, annual), known_since=of_kind)
    assert reasons(new) == set()
    waited = replace(new, known_since=dict.fromkeys(of_kind, NOW - 301 * DAY))
    assert reasons(waited) == {("critical", "missing")}
    assert reasons(replace(new, known_since={})) == {("critical", "missing")}  # nobody remembers
    one_long_known = replace(new, known_since={**of_kind, "shop/annual@far": NOW - 301 * DAY})
    assert reasons(one_long_known) == {("critical", "missing")}
    held = [one(NOW - 400 * DAY, kind="annual"), *nights]
    older = facts_of(
        repository_facts("local", held), repository_facts("far", held),
        plans=(NIGHTLY, annual), known_since=of_kind,
    )  # fmt: skip
    assert reasons(older) == {("critical", "missing")}
    assert ("unknown", "missing") in reasons(
        facts_of(both_hold[0], AWAY("far"), plans=(NIGHTLY, annual), known_since=of_kind)
    )


def test_last_night_is_missing() -> None:
    assert reasons(both(*daily(5)[:-1])) == {("critical", "missing"), ("critical", "rpo")}


def test_a_repository_that_is_away_leaves_the_others() -> None:
    found = reasons(facts_of(repository_facts("local", daily(5)), AWAY("far")))
    assert found == {("unknown", "repository_unknown")}


def test_a_copy_is_missing_only_after_the_grace() -> None:
    nights = daily(5)
    facts = facts_of(repository_facts("local", nights), repository_facts("far", nights[:-1]))
    assert reasons(facts) == {("warning", "destination")}
    fresh = [*nights, one(NOW - timedelta(minutes=59))]
    assert reasons(facts_of(repository_facts("local", fresh), repository_facts("far", nights))) == set()


def test_too_old() -> None:
    assert reasons(both(*daily(5)), max_age_s=9 * 3600.0) == {("critical", "too_old")}
    assert reasons(both(*daily(5)), max_age_s=11 * 3600.0) == set()


@pytest.mark.parametrize("outcome", ["failed", "partial", "interrupted", "abandoned", "missed"])
def test_the_last_attempt_failed(outcome: str) -> None:
    ended = replace(run(), outcome=outcome)
    assert reasons(facts_of(runs=[ended, run(ago=DAY)])) == {("warning", "last_attempt")}
    assert reasons(facts_of(runs=[run(), replace(ended, started=NOW - DAY)])) == set()


def test_the_history_is_away() -> None:
    facts = facts_of(runs=None, runs_error=StateError("the state database is away"))
    assert reasons(facts) == {("unknown", "history_unknown")}


def test_an_unreadable_snapshot() -> None:
    nights = daily(5)
    far = repository_facts("far", nights, unreadable=("snapshots/ab is damaged",))
    assert reasons(facts_of(repository_facts("local", nights), far)) == {("unknown", "snapshot_unreadable")}


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        (StorageFacts(where="d", free_bytes=100, total_bytes=1000), set()),
        (StorageFacts(where="d", free_bytes=99, total_bytes=1000), {("warning", "storage_low")}),
        (StorageFacts(where="d", free_bytes=30, total_bytes=1000), {("warning", "storage_low")}),
        (StorageFacts(where="d", free_bytes=29, total_bytes=1000), {("critical", "storage_low")}),
        (StorageFacts(where="d", used_bytes=5), set()),
        (
            StorageFacts(
                where="d",
                free_bytes=900,
                total_bytes=1000,
                forecast_full=Forecast(at=NOW + 13 * DAY, earliest=NOW, latest=None),
            ),
            {("warning", "storage_forecast")},
        ),
        (
            StorageFacts(
                where="d",
                free_bytes=900,
                total_bytes=1000,
                forecast_full=Forecast(at=NOW + 15 * DAY, earliest=NOW, latest=None),
            ),
            set(),
        ),
    ],
)
def test_storage(storage: StorageFacts, expected: set[tuple[str, str]]) -> None:
    nights = daily(5)
    local = repository_facts("local", nights, storage=(storage,))
    assert reasons(facts_of(local, repository_facts("far", nights))) == expected


def test_critical_tables() -> None:
    database = DatabaseFacts(name="shop", critical=("public.ledger",), rpo_s=86400.0)
    nights = [one(NOW - 9 * H, run="w")]
    places = repository_facts("local", nights), repository_facts("far", nights)

    def found(**contents: object) -> set[tuple[str, str]]:
        return reasons(facts_of(*places, databases=[database], contents=contents))

    assert found(w=tables("public.ledger")) == set()
    assert found(w=tables("public.other")) == {("critical", "critical_table")}
    assert found() == {("unknown", "critical_table_unknown")}


def test_a_critical_table_has_an_rpo_of_its_own() -> None:
    """The whole backup is new, but the settings leave the table out of it: only an old one holds it."""
    database = DatabaseFacts(name="shop", critical=("public.ledger",), rpo_s=3600.0)
    taken = [one(NOW - 5 * H, run="c", kind="critical"), one(NOW - H / 2, run="w")]
    facts = facts_of(
        repository_facts("local", taken),
        repository_facts("far", taken),
        databases=[database],
        contents={"c": tables("public.ledger"), "w": tables("public.ledger")},
    )
    assert reasons(facts) == set()
    without = replace(facts, contents={"c": tables("public.ledger")})
    assert reasons(without) == {("critical", "table_rpo")}


def test_open_alerts() -> None:
    alert = AlertFacts(
        fingerprint="f", rule="r", severity="critical", subject="s", message="m", since=NOW, database="shop"
    )
    general = replace(alert, severity="warning", database=None)
    assert reasons(facts_of(alerts=(alert, general))) == {("critical", "alert"), ("warning", "alert")}


def test_plans_that_were_never_due_miss_nothing() -> None:
    later = replace(NIGHTLY, expected_since=None)
    assert reasons(
        facts_of(repository_facts("local", daily(1)), repository_facts("far", daily(0)), plans=[later])
    ) == {("warning", "destination")}


def test_the_worst_comes_first() -> None:
    assert worst([]) is Level.OK
    assert worst([Level.WARNING, Level.OK]) is Level.WARNING
    assert worst([Level.WARNING, Level.UNKNOWN]) is Level.UNKNOWN
    assert worst([Level.CRITICAL, Level.UNKNOWN]) is Level.CRITICAL
    verdict = judge(facts_of(repository_facts("local", daily(3)[:-1]), AWAY("far"), runs=[run("failed")]))
    levels = [reason.level.rank for _, reason in verdict.all_reasons]
    assert levels == sorted(levels, reverse=True)
