"""How a database stands, from made-up facts."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgstow.monitor.facts import DatabaseFacts, Facts
from pgstow.monitor.standing import (
    DatabaseStanding,
    KindStanding,
    known_databases,
    longest_gap_s,
    standing_of,
)
from support.facts import AWAY, NIGHTLY, facts_of, one, repository_facts, run, tables
from support.policies import NOW, daily

H, DAY = timedelta(hours=1), timedelta(days=1)


def only(facts: Facts) -> DatabaseStanding:
    return standing_of(facts, facts.databases[0])


def only_kind(facts: Facts) -> KindStanding:
    (kind,) = only(facts).kinds
    return kind


def test_healthy() -> None:
    standing = only(facts_of(runs=[run("done"), run("failed", ago=DAY)]))
    kind = standing.kinds[0]
    assert standing.achieved_rpo_s == (10 * H).total_seconds() - 7
    assert standing.longest_gap_s == DAY.total_seconds()
    assert (kind.kind, kind.is_known, kind.is_missing, kind.next_due) == (
        "daily",
        True,
        False,
        NIGHTLY.next_due,
    )
    assert kind.last_attempt is not None
    assert kind.last_attempt.outcome == "done"
    assert [place.lacks for place in kind.destinations] == [(), ()]


def test_one_backup_in_two_repositories_is_one() -> None:
    nights = daily(3)
    kind = only_kind(facts_of(repository_facts("local", nights), repository_facts("far", nights[:2])))
    assert len(kind.sizes) == 3
    far = kind.destinations[1]
    assert far.newest is not None
    assert far.newest.time == nights[1].time
    assert far.lacks is not None
    assert [record.time for record in far.lacks] == [nights[2].time]


def test_an_old_copy_that_is_missing_counts_no_more() -> None:
    nights = daily(20)
    kind = only_kind(facts_of(repository_facts("local", nights), repository_facts("far", nights[13:])))
    assert kind.destinations[1].lacks == ()


def test_where_backups_of_no_plan_should_be_is_not_known() -> None:
    by_hand = one(NOW - H, kind="pre-deployment")
    facts = facts_of(repository_facts("local", [*daily(2), by_hand]), repository_facts("far", daily(2)))
    kind = next(kind for kind in only(facts).kinds if kind.kind == "pre-deployment")
    assert [(place.repository, place.lacks) for place in kind.destinations] == [("local", ())]


def test_what_is_away_lacks_nothing_that_is_known_of() -> None:
    kind = only_kind(facts_of(repository_facts("local", daily(3)), AWAY("far")))
    assert not kind.is_known
    assert kind.destinations[1].lacks is None
    assert kind.newest is not None


def test_a_repository_with_an_unreadable_snapshot_is_not_known() -> None:
    nights = daily(3)
    far = repository_facts("far", nights, unreadable=("snapshots/ab is damaged",))
    kind = only_kind(facts_of(repository_facts("local", nights), far))
    assert not kind.is_known
    assert kind.destinations[1].lacks is None


def test_missing_is_told_by_the_moment_a_backup_shows() -> None:
    due = NIGHTLY.expected_since
    assert due is not None
    for time, is_missing in ((due, False), (due - timedelta(microseconds=1), True)):
        nights = [one(time)]
        facts = facts_of(repository_facts("local", nights), repository_facts("far", nights))
        assert only_kind(facts).is_missing is is_missing
    assert only_kind(facts_of(repository_facts("local"), repository_facts("far"))).is_missing


def test_partial_and_damaged_backups_do_not_count_as_whole() -> None:
    whole, part = one(NOW - 20 * H), one(NOW - 5 * H, marks=["partial"])
    damaged = one(NOW - 3 * H, marks=["damaged"])
    critical = one(NOW - H, kind="critical", marks=["partial"])
    facts = facts_of(repository_facts("local", [whole, part, damaged, critical]), repository_facts("far"))
    assert only(facts).achieved_rpo_s == (20 * H).total_seconds()
    by_intent = DatabaseFacts(name="shop", is_partial=True)  # the settings leave something out
    assert standing_of(facts, by_intent).achieved_rpo_s == (5 * H).total_seconds()


def test_a_backup_from_the_future_is_not_younger_than_now() -> None:
    facts = facts_of(repository_facts("local", [one(NOW + H)]), repository_facts("far"))
    assert only(facts).achieved_rpo_s == 0
    assert only(facts).longest_gap_s == 0


def test_a_table_was_saved_by_whichever_backup_holds_it() -> None:
    whole, critical = one(NOW - 20 * H, run="w"), one(NOW - H, kind="critical", run="c", marks=["partial"])
    database = DatabaseFacts(name="shop", critical=("public.ledger", "public.bookings", "public.gone"))
    contents = {"w": tables("public.ledger", "public.bookings"), "c": tables("public.ledger")}
    places = repository_facts("local", [whole, critical]), repository_facts("far")
    standing = only(facts_of(*places, databases=[database], contents=contents))
    found = {each.table: (each.newest and each.newest.id, each.is_missing) for each in standing.tables}
    assert found == {
        "public.ledger": ("c", False),
        "public.bookings": ("w", False),
        "public.gone": (None, True),
    }
    unread = only(facts_of(*places, databases=[database]))
    assert {(each.newest, each.is_missing) for each in unread.tables} == {(None, None)}


def test_sources_that_no_plan_knows_are_found_in_repositories() -> None:
    repositories = [repository_facts("local", [one(NOW), one(NOW, name="books")]), AWAY("far")]
    assert known_databases(repositories) == ["books", "shop"]


@pytest.mark.parametrize(
    ("hours_ago", "gap_h"),
    [
        ([5], 5),
        ([53, 29, 5], 24),
        ([100, 29, 5], 71),
        ([40 * 24, 5], 40 * 24 - 5),  # it began before the window, and ended in it
        ([60 * 24, 40 * 24, 20 * 24], 20 * 24),
        ([45 * 24], 45 * 24),
    ],
)
def test_longest_gap(hours_ago: list[int], gap_h: int) -> None:
    assert longest_gap_s([NOW - hours * H for hours in hours_ago], NOW) == gap_h * 3600


def test_no_gap_without_backups() -> None:
    assert longest_gap_s([], NOW) is None


@given(st.lists(st.integers(0, 29 * 86400), min_size=1, unique=True))
def test_a_gap_is_what_lies_between_neighbours_or_before_now(ages: list[int]) -> None:
    times = sorted(NOW - timedelta(seconds=age) for age in ages)
    expected = max((later - earlier).total_seconds() for earlier, later in pairwise([*times, NOW]))
    assert longest_gap_s(times, NOW) == expected
