"""Which backup a drill takes: pure, and over a year every tier is taken once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgstow.assurance.drill.selection import choose
from pgstow.catalog.backups import BackupRecord, backups_among
from pgstow.catalog.drills import DrillRecord
from pgstow.core.errors import BackupNotFound
from support.drilling import drill_record
from support.policies import backup_snapshot

NOW = datetime(2026, 11, 21, 2, tzinfo=UTC)
DAY = timedelta(days=1)


def backups(*ages: int, name: str = "shop", kind: str = "daily", partial: bool = False) -> list[BackupRecord]:
    """Return backups of these ages in days, the oldest first."""
    found = backups_among(
        backup_snapshot(NOW - age * DAY, name=name, kind=kind, run=f"{name}-{kind}-{age}") for age in ages
    )
    assert len(found) == len(ages)
    return [replace(one, is_partial=partial) for one in found]


def drilled(backup: BackupRecord, when: datetime, outcome: Any = "passed") -> DrillRecord:
    return drill_record(
        outcome, backup_id=backup.id, backup_name=backup.name, backup_kind=backup.kind, started=when
    )


def age_of(backup: BackupRecord) -> int:
    return (NOW - backup.time).days


def test_latest_and_oldest() -> None:
    records = backups(9, 5, 1)
    assert age_of(choose(records, "latest").backup) == 1
    assert age_of(choose(records, "oldest").backup) == 9


def test_latest_among_several_names_is_refused() -> None:
    records = [*backups(2), *backups(1, name="club")]
    with pytest.raises(BackupNotFound, match="ambiguous.*club, shop") as caught:
        choose(records, "latest")
    assert "--database" in str(caught.value.hint)
    assert choose(records, "latest", database="shop").backup.name == "shop"


def test_random_tells_its_seed_and_the_seed_chooses_again() -> None:
    records = backups(*range(1, 60))
    chosen = choose(records, "random")
    assert chosen.seed is not None
    assert choose(list(reversed(records)), "random", seed=chosen.seed) == chosen
    assert len({choose(records, "random").backup.id for _ in range(20)}) > 1


def test_partial_backups_only_where_their_kind_is_named_or_in_turn() -> None:
    whole, part = backups(5), backups(1, kind="critical", partial=True)
    assert choose([*whole, *part], "latest").backup.kind == "daily"
    assert choose([*whole, *part], "latest", kind="critical").backup.kind == "critical"
    assert {choose([*whole, *part], "random").backup.kind for _ in range(20)} == {"daily"}
    turn = choose([*whole, *part], "rotate").backup
    assert choose([*whole, *part], "rotate", drills=[drilled(turn, NOW)]).backup.kind != turn.kind


def test_backups_that_are_partial_by_intent_count_as_whole() -> None:
    """Of this database every backup leaves out what its settings name; its critical tables are something else."""
    part, critical = backups(5, 3, partial=True), backups(1, kind="critical", partial=True)
    club = backups(2, name="club", partial=True)
    everything = [*part, *critical, *club]
    for strategy in ("latest", "oldest", "random"):
        with pytest.raises(BackupNotFound, match="no whole backup of shop") as caught:
            choose(everything, strategy, database="shop")
        assert "--kind" in str(caught.value.hint)
        chosen = choose(everything, strategy, partial_by_intent={"shop"}).backup
        assert chosen in part
    assert choose(everything, "latest", partial_by_intent={"shop"}).backup == part[-1]


def test_an_imported_dump_is_not_the_latest() -> None:
    made, imported = backups(5), backups(1, kind="import")
    assert choose([*made, *imported], "latest").backup == made[0]
    assert choose(imported, "latest").backup == imported[0]
    assert choose([*made, *imported], "latest", kind="import").backup == imported[0]


def test_damaged_backups_never() -> None:
    (good,), (bad,) = backups(5), backups(1)
    bad = replace(bad, is_damaged=True)
    for strategy in ("latest", "oldest", "random", "rotate"):
        assert choose([good, bad], strategy).backup == good
    with pytest.raises(BackupNotFound):
        choose([bad], "latest")


@pytest.mark.parametrize("strategy", ["latest", "oldest", "random", "rotate"])
def test_nothing_to_choose_from(strategy: Any) -> None:
    with pytest.raises(BackupNotFound, match="no backup of club of kind weekly"):
        choose(backups(1), strategy, database="club", kind="weekly")


def test_never_drilled_comes_first_then_what_was_drilled_longest_ago() -> None:
    daily, weekly, annual = backups(1), backups(3, kind="weekly"), backups(300, kind="annual")
    drills = [drilled(daily[0], NOW - 60 * DAY), drilled(weekly[0], NOW - 30 * DAY)]
    records = [*daily, *weekly, *annual]
    assert choose(records, "rotate", drills=drills).backup.kind == "annual"
    drills.append(drilled(annual[0], NOW))
    assert choose(records, "rotate", drills=drills).backup.kind == "daily"


def test_an_interrupted_drill_does_not_count_and_a_failed_one_does() -> None:
    daily, weekly = backups(1), backups(3, kind="weekly")
    records = [*daily, *weekly]
    assert choose(records, "rotate", drills=[drilled(daily[0], NOW, "interrupted")]).backup.kind == "daily"
    assert choose(records, "rotate", drills=[drilled(daily[0], NOW, "failed")]).backup.kind == "weekly"


def test_every_age_of_a_tier_comes_in_turn() -> None:
    records = backups(*range(1, 31))
    drills: list[DrillRecord] = []
    for month in range(6):
        drills.append(drilled(choose(records, "rotate", drills=drills).backup, NOW + 30 * month * DAY))
    ages = [age_of(next(r for r in records if r.id == drill.backup_id)) for drill in drills]
    assert [(age - 1) // 10 for age in ages] == [0, 1, 2, 0, 1, 2]
    assert len(set(ages)) == len(ages)


# -- over a year

TIERS = st.dictionaries(
    st.tuples(
        st.sampled_from(["shop", "club", "bank"]), st.sampled_from(["daily", "weekly", "monthly", "dr"])
    ),
    st.lists(st.integers(0, 2000), min_size=1, max_size=6, unique=True),
    min_size=1,
    max_size=12,
)


@given(
    tiers=TIERS,
    outcomes=st.lists(st.sampled_from(["passed", "failed"]), min_size=12, max_size=12),
    keeps=st.booleans(),
)
def test_with_a_drill_a_month_every_tier_is_drilled_within_a_year(
    tiers: dict[tuple[str, str], list[int]], outcomes: list[str], keeps: bool
) -> None:
    """Twelve tiers at most; backups come and go meanwhile, and some drills fail."""
    drills: list[DrillRecord] = []
    for month in range(12):
        now = NOW + 30 * month * DAY
        records = stock(tiers, month, keeps=keeps)
        chosen = choose(records, "rotate", drills=drills).backup
        drills.append(drilled(chosen, now, outcomes[month]))
    assert {(one.backup_name, one.backup_kind) for one in drills} == set(tiers)
    assert_fair(drills, len(tiers))


def stock(tiers: dict[tuple[str, str], list[int]], month: int, *, keeps: bool) -> list[BackupRecord]:
    """Return the backups of a month: the same all year, or new ones every month."""
    return [
        replace(record, id=record.id if keeps else f"{month}-{record.id}")
        for (name, kind), ages in tiers.items()
        for record in backups(*ages, name=name, kind=kind)
    ]


def assert_fair(drills: Sequence[DrillRecord], tiers: int) -> None:
    """Between two drills of a tier every other one had its turn."""
    for first in range(len(drills) - tiers + 1):
        window: Iterable[DrillRecord] = drills[first : first + tiers]
        assert len({(one.backup_name, one.backup_kind) for one in window}) == tiers
