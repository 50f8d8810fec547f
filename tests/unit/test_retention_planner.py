"""Which backups are kept: every reason by itself, and what it is not a reason for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from pgstow.core.errors import UsageError
from pgstow.repository import Hold
from pgstow.retention import (
    DEFAULT_RULES,
    Attempt,
    BackupFacts,
    ReasonCode,
    RetentionPlan,
    RetentionPolicies,
    RetentionPolicy,
    RetentionRule,
    plan_retention,
)
from support.retention import (
    NOON,
    attempt,
    backup,
    by_id,
    dropped,
    hold,
    plan,
    proof,
    retirement,
    state,
)

PLAIN = RetentionPolicy(promotes=False)


def codes(made: RetentionPlan, backup_id: str) -> set[str]:
    return {str(reason.code) for reason in by_id(made)[backup_id].reasons}


def text(made: RetentionPlan, backup_id: str) -> str:
    return "; ".join(reason.text for reason in by_id(made)[backup_id].reasons)


# -- rules


@pytest.mark.parametrize("kind", sorted(DEFAULT_RULES))
def test_a_kind_is_kept_for_its_days_and_no_longer(kind: str) -> None:
    days = DEFAULT_RULES[kind].days
    old = [backup("out", days + 1, kind=kind), backup("in", days, kind=kind)]
    made = plan(state([*old, backup("new", kind=kind)]), PLAIN)
    assert dropped(made) == ["out"]
    until = (NOON - timedelta(days=days)).date() + timedelta(days=days)
    assert f"until {until}" in text(made, "in")
    assert f"was kept for {days} days, until {until - timedelta(days=1)}" in text(made, "out")


def test_the_whole_last_day_counts_in_the_stated_zone() -> None:
    """Kept for one day in New York: the 20th, local time, and all of the 21st."""
    policy = RetentionPolicy(
        promotes=False, time_zone="America/New_York", rules={"daily": RetentionRule(days=1)}
    )
    local = backup("x", datetime(2026, 11, 20, 23, 59, tzinfo=policy.zone).astimezone(UTC))
    for hour, expected in ((23, []), (24, ["x"])):
        moment = datetime(2026, 11, 21, tzinfo=policy.zone).astimezone(UTC) + timedelta(hours=hour)
        newest = backup("new", moment - timedelta(minutes=1))
        if hour == 24:
            newest = backup("new", moment)
        assert dropped(plan(replace(state([local, newest]), now=moment), policy)) == expected


@pytest.mark.parametrize(
    ("zone", "day"), [("Europe/Berlin", date(2026, 3, 29)), ("America/New_York", date(2026, 11, 1))]
)
def test_a_day_on_which_clocks_change_is_one_day(zone: str, day: date) -> None:
    policy = RetentionPolicy(promotes=False, time_zone=zone, rules={"daily": RetentionRule(days=1)})
    before = datetime(day.year, day.month, day.day, 0, 1, tzinfo=policy.zone) - timedelta(days=1)
    old = backup("old", before.astimezone(UTC))
    last = datetime(day.year, day.month, day.day, 23, 59, tzinfo=policy.zone).astimezone(UTC)
    after = datetime(day.year, day.month, day.day, tzinfo=policy.zone) + timedelta(days=1, minutes=1)
    for moment, expected in ((last, []), (after.astimezone(UTC), ["old"])):
        assert dropped(plan(replace(state([old, backup("new", moment)]), now=moment), policy)) == expected


def test_a_kind_without_a_rule_never_expires() -> None:
    made = plan(state([backup("old", 9000, kind="yearly"), backup("new", kind="yearly"), backup("day")]))
    assert dropped(made) == []
    assert codes(made, "old") == {"no_rule"}


def test_nothing_ages_while_there_is_no_newer_backup() -> None:
    """The jobs stopped 300 days ago, or the clock of the store jumped: what was kept then is kept still."""
    backups = [backup(f"{age}", age) for age in range(300, 345)]
    made = plan(state(backups), PLAIN)
    assert dropped(made) == [f"{age}" for age in range(344, 330, -1)]
    assert codes(made, "330") == {"not_aged"}
    assert "nothing ages without a newer backup of shop" in text(made, "330")


def test_imported_dumps_do_not_make_backups_age_and_are_not_the_last_whole_one() -> None:
    imports = [backup(f"i{age}", age, kind="import") for age in range(10)]
    made = plan(state([backup("a", 50), backup("b", 41), *imports]), PLAIN)
    assert dropped(made) == []
    assert "last_whole" in codes(made, "b")


def test_partial_backups_do_not_make_whole_ones_age() -> None:
    critical = [backup(f"c{age}", age, kind="critical", is_partial=True) for age in range(10)]
    made = plan(state([backup("a", 50), backup("b", 41), *critical]), PLAIN)
    assert dropped(made) == ["c9", "c8"]


def test_every_database_has_its_own_policy() -> None:
    short = RetentionPolicy(promotes=False, rules={"daily": RetentionRule(days=1)})
    backups = [backup(f"{name}{age}", age, name=name) for name in ("shop", "test") for age in (5, 0)]
    made = plan_retention(state(backups), RetentionPolicies(default=PLAIN, by_name={"test": short}))
    assert dropped(made) == ["test5"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RetentionRule(days=-1), "cannot be kept for -1 days"),
        (lambda: RetentionRule(days=10**9), "cannot be kept for 1000000000 days"),
        (lambda: RetentionRule(days=1, at_least=0), "at_least cannot be 0"),
        (lambda: RetentionPolicy(time_zone="Mars/Base"), "no time zone 'Mars/Base'"),
        (lambda: RetentionPolicy(time_zone="America"), "no time zone 'America'"),
        (lambda: RetentionPolicy(time_zone="../etc/passwd"), "no time zone"),
        (lambda: RetentionPolicy(time_zone=""), "no time zone ''"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()


# -- promotion


def days_of(year: int, *days: tuple[int, int]) -> list[BackupFacts]:
    return [backup(f"{month:02d}{day:02d}", datetime(year, month, day, 2, tzinfo=UTC)) for month, day in days]


def test_the_first_of_each_period_stands_for_it() -> None:
    backups = days_of(2026, (6, 1), (6, 2), (6, 8), (6, 9), (7, 1), (7, 3), (11, 20), (11, 21))
    made = plan(state(backups))
    assert dropped(made) == ["0602", "0608", "0609", "0703"]
    assert "first of the month 2026-06: kept for 365 days, as monthly, until 2027-06-01" in text(made, "0601")
    assert "first of the year 2026" in text(made, "0601")
    assert "first of the week 2026-W24: was kept for 90 days, as weekly, until 2026-09-06" in text(
        made, "0608"
    )


def test_where_the_first_is_missing_the_first_there_is_stands_for_it() -> None:
    made = plan(state(days_of(2026, (6, 1), (7, 9), (7, 10), (11, 21))))
    assert dropped(made) == ["0710"]
    assert "first of the month 2026-07" in text(made, "0709")


def test_weekly_backups_stand_for_months_and_years_but_not_the_other_way_round() -> None:
    backups = [
        backup("w1", datetime(2026, 1, 4, tzinfo=UTC), kind="weekly"),
        backup("d1", datetime(2026, 1, 5, tzinfo=UTC)),
        backup("m1", datetime(2026, 1, 3, tzinfo=UTC), kind="monthly"),
        backup("x1", datetime(2026, 1, 1, tzinfo=UTC), kind="pre-deployment"),
        *[backup(f"{kind}-new", kind=kind) for kind in ("daily", "weekly", "monthly")],
    ]
    made = plan(state(backups))
    assert "first of the month 2026-01" in text(made, "w1")
    assert "first of the year 2026" in text(made, "m1")
    assert "first of" not in text(made, "x1")
    assert dropped(made) == ["d1"]


def test_a_period_without_a_rule_keeps_its_first_for_ever() -> None:
    policy = RetentionPolicy(rules={"daily": RetentionRule(days=1)})
    made = plan(state([*days_of(2016, (6, 6), (6, 7)), backup("new")]), policy)
    assert dropped(made) == ["0607"]
    assert "weekly has no rule and never expires" in text(made, "0606")


def test_a_damaged_or_partial_first_does_not_take_the_place_of_a_whole_one() -> None:
    june = [replace(each, is_damaged=each.id == "0601") for each in days_of(2026, (6, 1), (6, 2), (6, 3))]
    partial = backup("part", datetime(2026, 6, 1, tzinfo=UTC), is_partial=True)
    made = plan(state([partial, *june, backup("new"), backup("new part", is_partial=True)]))
    assert dropped(made) == ["0603"]


def test_partial_backups_stand_for_periods_among_themselves() -> None:
    """A database of which something is left out on purpose may have no others."""
    june = [replace(each, is_partial=True) for each in days_of(2026, (6, 1), (6, 2), (6, 3))]
    made = plan(state([*june, backup("new", is_partial=True)]))
    assert dropped(made) == ["0602", "0603"]
    assert "first of the month 2026-06" in text(made, "0601")


# -- floors


def test_floors_keep_the_newest_of_a_kind() -> None:
    rules = {"daily": RetentionRule(days=1, at_least=3), "dr": RetentionRule(days=1)}
    backups = [backup(f"d{age}", age) for age in range(9, 3, -1)]
    drs = [backup("r9", 9, kind="dr"), backup("r8", 8, kind="dr")]
    other = backup("new", kind="weekly")
    made = plan(state([*backups, *drs, other]), RetentionPolicy(promotes=False, rules=rules))
    assert dropped(made) == ["d9", "r9", "d8", "d7"]
    assert "one of the newest 3 of kind daily" in text(made, "d6")
    assert "the newest of kind dr" in text(made, "r8")


def test_a_damaged_backup_does_not_fill_a_floor() -> None:
    backups = [
        backup("whole", 90),
        backup("damaged", 80, is_damaged=True),
        backup("new", kind="weekly"),
    ]
    made = plan(state(backups), PLAIN)
    assert dropped(made) == ["damaged"]
    assert "floor" in codes(made, "whole")
    only = [
        backup("d1", 90, is_damaged=True),
        backup("d2", 80, is_damaged=True),
        backup("new", kind="weekly"),
    ]
    assert dropped(plan(state(only), PLAIN)) == ["d1"]


def test_partial_and_whole_backups_have_floors_of_their_own() -> None:
    backups = [
        backup("whole", 90),
        backup("part1", 80, is_partial=True),
        backup("part2", 70, is_partial=True),
        backup("new part", kind="critical", is_partial=True),
        backup("new", kind="weekly"),
    ]
    assert dropped(plan(state(backups), PLAIN)) == ["part1"]


# -- holds and proofs


@pytest.mark.parametrize(
    ("held", "is_kept"),
    [
        (hold("old"), True),
        (hold("old", until=NOON.date()), True),
        (hold("old", until=NOON.date() - timedelta(days=1)), False),
        (hold("old", problem="mark 2 of its holds cannot be read"), True),
        (hold("another"), False),
    ],
)
def test_holds_win_over_every_rule(held: Hold, is_kept: bool) -> None:
    made = plan(state([backup("old", 90), backup("new")], holds=[held]), PLAIN)
    assert (dropped(made) == []) is is_kept
    if is_kept:
        assert "held" in codes(made, "old")


def test_a_hold_does_not_end_by_a_clock_that_jumps() -> None:
    """Its last day is over when there is a backup from after it; a database that is gone goes by the calendar."""
    backups = [backup("old", 90), backup("new", 3)]
    until = hold("old", until=NOON.date() - timedelta(days=1))
    assert dropped(plan(state(backups, holds=[until]), PLAIN)) == []
    assert "old" in dropped(plan(state(backups, holds=[until], retirements={"shop": retirement()}), PLAIN))
    assert dropped(plan(state([*backups, backup("newer")], holds=[until]), PLAIN)) == ["old"]


def test_a_hold_is_told_with_who_and_why() -> None:
    held = hold("old", until=date(2027, 1, 31))
    made = plan(state([backup("old", 90), backup("new")], holds=[held]), PLAIN)
    assert "held since 2026-11-21, until 2027-01-31 by anna@host: case 7" in text(made, "old")


def test_the_newest_proven_backup_stays() -> None:
    backups = [backup("p1", 90), backup("p2", 80), backup("x", 70), backup("new")]
    made = plan(state(backups, proofs=[proof("p2"), proof("p1")]), PLAIN)
    assert dropped(made) == ["p1", "x"]
    assert "proven by a restore (2026-11-21: whole database" in text(made, "p2")


def test_a_proof_that_cannot_be_read_protects_too_and_takes_nobodys_place() -> None:
    backups = [backup("p1", 90), backup("p2", 80), backup("new")]
    made = plan(state(backups, proofs=[proof("p1")], doubtful_proofs={"p2"}), PLAIN)
    assert dropped(made) == []


def test_a_damaged_proven_backup_does_not_let_the_whole_one_go() -> None:
    backups = [backup("p1", 90), backup("p2", 80, is_damaged=True), backup("new")]
    made = plan(state(backups, proofs=[proof("p1"), proof("p2")]), PLAIN)
    assert dropped(made) == []


# -- freezes


def test_nothing_expires_while_the_newest_run_failed() -> None:
    backups = [backup("old", 90), backup("new", 1), backup("other", 90, name="b"), backup("b", name="b")]
    made = plan(state(backups, attempts={"shop": attempt(has_succeeded=False)}), PLAIN)
    assert dropped(made) == ["other"]
    assert "nothing of shop expires: its newest run failed (2026-11-21 12:00Z: disk full)" in text(
        made, "old"
    )


@pytest.mark.parametrize(
    "run",
    [
        attempt(has_succeeded=True),
        attempt(has_succeeded=None),
        attempt(has_succeeded=False, when=NOON - timedelta(days=2)),  # there is a newer backup
    ],
)
def test_a_run_that_did_not_fail_last_is_no_reason(run: Attempt) -> None:
    assert dropped(plan(state([backup("old", 90), backup("new", 1)], attempts={"shop": run}), PLAIN)) == [
        "old"
    ]


@pytest.mark.parametrize(
    ("newer", "frozen"),
    [
        (backup("new part", 0, kind="critical", is_partial=True), True),
        (backup("new", 0, kind="pre-deployment"), False),
        (backup("new", 0, is_partial=True), False),
    ],
)
def test_what_makes_up_for_a_failed_run(newer: BackupFacts, frozen: bool) -> None:
    """A backup of the same kind, or one of everything; not one of a few tables."""
    run = replace(attempt(has_succeeded=False, when=NOON - timedelta(hours=6)), kind="daily")
    backups = [backup("old", 90), backup("older part", 80, is_partial=True), backup("then", 1), newer]
    made = plan(state(backups, attempts={"shop": run}), PLAIN)
    assert (dropped(made) == []) is frozen
    assert ("its newest run of kind daily failed" in text(made, "old")) is frozen


def test_nothing_expires_while_the_newest_backup_is_damaged_doubtful_or_from_the_future() -> None:
    old = backup("old", 90)
    damaged = plan(state([old, backup("new", is_damaged=True)]), PLAIN)
    assert "damaged" in codes(damaged, "old")
    partial = plan(state([old, backup("part", 1, is_partial=True, is_damaged=True), backup("new")]), PLAIN)
    assert "damaged" in codes(partial, "old")
    doubtful = plan(state([old, backup("new")], doubts={"shop": "its newest backup raised an alarm"}), PLAIN)
    assert "nothing of shop expires: its newest backup raised an alarm" in text(doubtful, "old")
    future = plan(state([old, backup("new", -0.02)]), PLAIN)
    assert "from the future (2026-11-21 12:28Z)" in text(future, "old")
    assert [dropped(made) for made in (damaged, partial, doubtful, future)] == [[], [], [], []]
    assert dropped(plan(state([old, backup("new", -0.01)]), PLAIN)) == [
        "old"
    ]  # a quarter of an hour is nothing


# -- databases that are gone


def test_retiring_ends_floors_and_ages_by_the_calendar() -> None:
    backups = [backup("old", 90), backup("new", 40), backup("dr", 200, kind="dr")]
    assert dropped(plan(state(backups), PLAIN)) == ["old"]
    made = plan(state(backups, retirements={"shop": retirement()}), PLAIN)
    assert dropped(made) == ["old", "new"]
    assert "shop was retired on 2026-11-21 by anna@host: shut down" in text(made, "new")
    assert codes(made, "dr") == {"rule", "retired"}


def test_retiring_ends_neither_holds_nor_rules_and_drops_what_is_proven_last() -> None:
    backups = [backup("held", 90), backup("proven", 80), backup("x", 40)]
    gone = {"shop": retirement()}
    made = plan(state(backups, retirements=gone, holds=[hold("held")], proofs=[proof("proven")]), PLAIN)
    assert dropped(made) == ["x"]
    made = plan(state(backups, retirements=gone, proofs=[proof("proven")]), PLAIN)
    assert dropped(made) == ["held", "proven", "x"]


def test_a_failed_last_run_does_not_keep_a_retired_database_for_ever() -> None:
    backups = [backup("old", 90), backup("new", 40, is_damaged=True)]
    failed = {"shop": attempt(has_succeeded=False)}
    made = plan(state(backups, retirements={"shop": retirement()}, attempts=failed), PLAIN)
    assert dropped(made) == ["old", "new"]


def test_a_backup_after_it_was_retired_ends_that() -> None:
    backups = [backup("old", 90), backup("new", 40)]
    made = plan(state(backups, retirements={"shop": retirement(NOON - timedelta(days=41))}), PLAIN)
    assert dropped(made) == ["old"]
    assert made.notes == (
        "shop was retired on 2026-10-11 and has been backed up since: that it is gone does not count any more",
    )


def test_codes_are_a_contract() -> None:
    assert {str(code) for code in ReasonCode if not code.keeps} == {"expired", "retired"}
