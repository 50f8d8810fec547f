"""Assertions as people write them: in the settings file, and in a file of their own."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from pgstow.catalog.assertions import Assertion
from pgstow.config.assertions import read_assertions_file
from pgstow.core.errors import ConfigInvalid, UsageError
from support.settings_files import SMALL, look, told

SOME = """\
assertions:
  - name: the ledger balances
    sql: |
      SELECT sum(amount)
      \tFROM ledger
    equals: "0"
  - {name: no orphan, sql: SELECT min(id) FROM orphans, "null": true, severity: warning}
  - {name: rows, sql: SELECT count(*) FROM ledger, at_least: 1, at_most: 1e6, same_as_backup: true}
  - {name: empty, sql: SELECT '', equals: ''}
"""
MEANT = (
    Assertion(name="the ledger balances", sql="SELECT sum(amount)\n\tFROM ledger", equals="0"),
    Assertion(name="no orphan", sql="SELECT min(id) FROM orphans", is_null=True, severity="warning"),
    Assertion(
        name="rows",
        sql="SELECT count(*) FROM ledger",
        at_least=Decimal(1),
        at_most=Decimal(1_000_000),
        same_as_backup=True,
    ),
    Assertion(name="empty", sql="SELECT ''", equals=""),
)


def settings_text(assertions: str) -> str:
    """Return settings whose database has what the text of a file of checks holds; that text begins in line 5."""
    indented = "".join(f"    {line}\n" for line in assertions.splitlines())
    return SMALL.replace("    critical: [ledger]\n", f"    critical: [ledger]\n{indented}")


def test_a_file_and_the_settings_say_the_same(tmp_path: Path) -> None:
    file = tmp_path / "checks.yaml"
    file.write_text(SOME)
    assert read_assertions_file(file) == MEANT
    settings = look(settings_text(SOME)).settings
    assert settings is not None
    assert settings.databases["shop"].assertions == MEANT


WRONG = [
    ("{name: a, sql: SELECT 1}", "", ": says nothing to hold against: give equals, null, at_least, at_most or"),
    ("{name: a, sql: SELECT 1, null: false}", "", "says nothing to hold against"),
    ("{name: a, sql: SELECT 1, equals: 1, at_least: 2}", ".equals", "cannot hold together with at_least or at_most"),
    ("{name: a, sql: SELECT 1, equals: 1, null: true}", ".equals", "cannot hold together with null"),
    ("{name: a, sql: SELECT 1, null: true, at_most: 2}", ".null", "cannot hold together with at_least or at_most"),
    ("{name: a, sql: SELECT 1, at_least: 3, at_most: 2}", ".at_most", "is less than at_least: nothing can be both"),
    ("{name: a, sql: SELECT 1, equal: 1}", ".equal", 'unknown key; did you mean "equals"?'),
    ("{name: a, query: SELECT 1, equals: 1}", ".query", 'unknown key; did you mean "sql"?'),
    ("{name: a, sql: SELECT 1, min: 1}", ".min", 'unknown key; did you mean "at_least"?'),
    ("{name: a, equals: 1}", "", 'missing key "sql"'),
    ("{sql: SELECT 1, equals: 1}", "", 'missing key "name"'),
    ("{name: a, sql: '', equals: 1}", ".sql", "is empty: give a query"),
    ("{name: a, sql: SELECT 1, equals: ~}", ".equals", "has no value"),
    ("{name: a, sql: SELECT 1, equals: 1, same_as_backup: }", ".same_as_backup", "has no value"),
    ("{name: a, sql: SELECT 1, at_least: many}", ".at_least", "is not a number"),
    ("{name: a, sql: SELECT 1, at_least: NaN}", ".at_least", "is not a number"),
    ("{name: a, sql: SELECT 1, equals: 1, severity: warn}", ".severity", 'did you mean "warning"?'),
    ("{name: a, sql: SELECT 1, null: yes}", ".null", "write true or false"),
    ("{name: a, sql: [SELECT 1], equals: 1}", ".sql", "expected one value, not a list"),
]  # fmt: skip


@pytest.mark.parametrize(("assertion", "key", "message"), WRONG)
def test_errors_have_their_place_in_both_files(
    assertion: str, key: str, message: str, tmp_path: Path
) -> None:
    text = f"assertions:\n  - {{name: fine, sql: SELECT 1, equals: 1}}\n  - {assertion}\n"
    file = tmp_path / "checks.yaml"
    file.write_text(text)
    with pytest.raises(ConfigInvalid) as caught:
        read_assertions_file(file)
    problems = caught.value.facts["problems"]
    assert isinstance(problems, list)
    found = [line.removeprefix(f"{file}:") for line in problems]
    column = next(
        line.split(":")[1]
        for line in found
        if line.startswith("3:") and f": assertions[1]{key}: " in line and message in line
    )
    expected = f"7:{int(column) + 4}: databases.shop.assertions[1]{key}: "
    errors = told(settings_text(text))
    assert any(one.startswith(expected) and message in one for one in errors), errors
    assert len(errors) == len(problems)


def test_names_are_used_once(tmp_path: Path) -> None:
    file = tmp_path / "checks.yaml"
    one = "{name: a, sql: SELECT 1, equals: 1}"
    file.write_text(f"assertions: [{one}, {one}]\n")
    with pytest.raises(ConfigInvalid, match=r"1:58: assertions\[1\].name: another assertion has this name"):
        read_assertions_file(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1: the file is empty"),
        ("assertions: []\n", "1:13: assertions: is empty: nothing would be checked"),
        ("checks: []\n", '1:1: checks: unknown key; did you mean "assertions"?'),
        ("- {name: a}\n", "the file must be a mapping"),
        ("assertions: x\n", "1:13: assertions: expected a list"),
        ("assertions: [\n", "1:"),
        ("assertions: [{name: a, sql: SELECT 1, equals: 1}]\nplans: {}\n", "2:1: plans: unknown key"),
    ],
)
def test_files_that_are_none(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "checks.yaml"
    file.write_text(text)
    with pytest.raises(ConfigInvalid) as caught:
        read_assertions_file(file)
    assert message in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_assertions_file(tmp_path / "nothing.yaml")
