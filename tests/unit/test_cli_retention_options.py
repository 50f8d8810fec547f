"""Rules, days and plans as people give them on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from pgstow.cli.retention_options import parse_day
from pgstow.cli.retention_rules import with_options
from pgstow.cli.retention_view import read_planned
from pgstow.core.errors import UsageError
from pgstow.retention import DEFAULT_RULES, RetentionPolicy, RetentionRule
from pgstow.upkeep.expire import PlannedDrops


def test_rules_are_the_default_ones_but_for_those_given() -> None:
    assert with_options(RetentionPolicy(), [], None, no_promote=False) == RetentionPolicy()
    policy = with_options(
        RetentionPolicy(),
        ["daily=14", "dr=10d:3", "weekly=forever", "mine=1"],
        "Europe/Berlin",
        no_promote=True,
    )
    rules = dict(DEFAULT_RULES)
    del rules["weekly"]
    rules |= {
        "daily": RetentionRule(days=14),
        "dr": RetentionRule(days=10, at_least=3),
        "mine": RetentionRule(days=1),
    }
    assert policy.rules == rules
    assert (policy.promotes, policy.time_zone) == (False, "Europe/Berlin")


def test_options_change_of_a_policy_only_what_they_name() -> None:
    own = RetentionPolicy(rules={"mine": RetentionRule(days=9)}, promotes=False, time_zone="Asia/Tokyo")
    assert with_options(own, [], None, no_promote=False) == own
    rules = {"mine": RetentionRule(days=9), "daily": RetentionRule(days=2)}
    assert with_options(own, ["daily=2"], None, no_promote=False) == replace(own, rules=rules)


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        (["daily"], "'daily' is no rule"),
        (["daily="], "'daily=' is no rule"),
        (["daily=-1"], "'daily=-1' is no rule"),
        (["daily=1:"], "'daily=1:' is no rule"),
        (["daily=for ever"], "is no rule"),
        (["daily=¹"], "is no rule"),
        (["=5"], "'=5' is no rule"),
        (["daily=1", "daily=2"], "two rules for daily"),
        (["daily=1", "daily=forever"], "two rules for daily"),
        (["daily=1:0"], "at_least cannot be 0"),
        (["daily=99999"], "cannot be kept for 99999 days"),
        (["a b=1"], "'a b' cannot be a backup kind"),
    ],
)
def test_what_is_no_rule(keep: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        with_options(RetentionPolicy(), keep, None, no_promote=False)


def test_a_time_zone_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="no time zone 'Europe/Berlim'"):
        with_options(RetentionPolicy(), [], "Europe/Berlim", no_promote=False)


def test_days() -> None:
    assert parse_day(None, option="--until") is None
    assert parse_day(" 2027-01-31 ", option="--until") == date(2027, 1, 31)
    for text in ("soon", "2027-02-30", "2027-01-31T10:00", ""):
        with pytest.raises(UsageError, match="--until: .* is not a day"):
            parse_day(text, option="--until")


def test_a_plan_by_its_hash_or_its_document(tmp_path: Path) -> None:
    assert read_planned(None) is None
    assert read_planned("0123456789abcdef") == PlannedDrops(hash="0123456789abcdef")
    file = tmp_path / "plan.json"
    decisions = [{"id": "a", "action": "drop"}, {"id": "b", "action": "keep"}]
    file.write_text(json.dumps({"plan": {"hash": "0123456789abcdef", "decisions": decisions}}))
    assert read_planned(str(file)) == PlannedDrops(hash="0123456789abcdef", backup_ids=frozenset({"a"}))
    for content in ("", "[]", "{}", '{"plan": {"hash": "x"}}', '{"plan": {"decisions": []}}'):
        file.write_text(content)
        with pytest.raises(UsageError, match="neither the hash of a plan nor a file with one"):
            read_planned(str(file))
    for text in ("0123", "", str(tmp_path)):
        with pytest.raises(UsageError):
            read_planned(text)
