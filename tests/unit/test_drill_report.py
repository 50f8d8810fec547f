"""Reports of drills: they say what the record says, and nothing in them can act on whoever reads them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from pgstow.assurance.drill.checking import CODES as CHECKS
from pgstow.assurance.drill.next_steps import next_steps
from pgstow.assurance.drill.report import html_report, markdown_report
from pgstow.catalog.drills import CheckRecord, DrillRecord, PhaseRecord, TableProof
from support.drilling import drill_record

NASTY = "<script>alert(1)</script> | `x` [a](http://b) *b* \x1b[31m\u202eevil\n# heading &lt; \"' </td>"


def rich_record(outcome: Any = "passed", **more: Any) -> DrillRecord:
    values: dict[str, Any] = {
        "tables": (
            TableProof(schema_="app", name="small", rows=3, size_bytes=30, load_s=0.1, is_equal=True),
            TableProof(schema_="app", name="large", rows=997, size_bytes=9000, load_s=2.0, is_equal=True),
        ),
        "phases": (
            PhaseRecord(name="server", begun_s=0.0, seconds=25.0),
            PhaseRecord(name="data", begun_s=25.0, seconds=75.0, busy_s=135.0),
        ),
        "checks": (
            CheckRecord(code="content", outcome="pass", message="2 tables are equal", seconds=1.5),
            CheckRecord(code="roles", outcome="unknown", severity="warning", message="nobody could tell"),
        ),
        "tools": {"pg_restore": "15.18"},
        "manifest_sha256": "ab" * 32,
        "warnings": ("the locale differs",),
    }
    return drill_record(outcome, **(values | more))


def test_the_form_of_the_written_strategies() -> None:
    """Date, backup, time to restore, data integrity, issues found, notes."""
    text = markdown_report(
        rich_record(notes="first of the year", rto_target_s=4 * 3600.0, rpo_target_s=3600.0)
    )
    assert text.startswith("# Restore drill of shop: PASSED\n")
    rows = dict(re.findall(r"^\| ([A-Z][^|]*?) \| (.*) \|$", text, re.MULTILINE))
    assert rows["Date"] == "2026-11-18 12:00:00 UTC"
    assert "of shop (daily), data from 2026-11-18 05:00:00 UTC" in rows["Backup"]
    assert (
        rows["Time to restore"]
        == "40 min 00 s until the database could be used; 50 min 00 s until everything was checked"
    )
    assert rows["Data integrity"].startswith(
        "every row of 2 tables equals what the repository holds (1,000 rows"
    )
    assert rows["Issues found"] == "roles: nobody could tell"
    assert rows["Notes"] == "first of the year"
    assert rows["Recovery time (RTO)"] == "50 min 00 s | 4 h 00 min | met"
    assert rows["Recovery point (RPO)"] == "7 h 00 min | 1 h 00 min | MISSED"
    assert rows["Removed afterwards"] == "yes"
    assert "| data | 25.0 s | 1 min 15 s | 2 min 15 s | 84 % |" in text
    assert "| app.large | 997 | 8.8 KiB | 2.0 s | equal |" in text
    assert "ab" * 32 in text
    assert "the locale differs" in text


def test_what_differs_stands_first_and_is_loud() -> None:
    tables = (
        TableProof(schema_="app", name="large", rows=997, size_bytes=9000, load_s=2.0, is_equal=True),
        TableProof(schema_="app", name="ledger", rows=3, size_bytes=30, load_s=0.1, is_equal=False),
    )
    text = markdown_report(rich_record("failed", error=None, error_code=None, hint=None, tables=tables))
    assert "only 1 of 2 tables" in text
    assert text.index("NOT EQUAL") < text.index("app.large")


def test_nothing_is_claimed_of_what_was_not_done() -> None:
    record = rich_record(
        "failed", tables=(), checks=(), phases=(), restored_s=None, is_isolated=False, is_removed=False
    )
    for text in (markdown_report(record), html_report(record)):
        assert "not restored" in text
        assert "nothing was compared" in text
        assert "every row" not in text
        assert "unknown" in text
        assert re.search(r"Removed afterwards(</th><td>| \| )NO", text)


class Elements(HTMLParser):
    """Collects the elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def nasty_record() -> DrillRecord:
    """Return a record in which everything that is text comes from an enemy."""
    return rich_record(
        "failed",
        backup_name=NASTY,
        backup_kind=NASTY,
        notes=NASTY,
        error=NASTY,
        hint=NASTY,
        warnings=(NASTY,),
        server=NASTY,
        host=NASTY,
        by=NASTY,
        repository=NASTY,
        tools={NASTY: NASTY},
        source_version=NASTY,
        tables=(TableProof(schema_=NASTY, name=NASTY, rows=1, size_bytes=1, load_s=0.0, is_equal=True),),
        checks=(
            CheckRecord(
                code=NASTY, subject=NASTY, outcome="fail", message=NASTY, expected=NASTY, found=NASTY
            ),
        ),
    )


def test_html_needs_nothing_and_runs_nothing() -> None:
    plain, nasty = Elements(html_report(rich_record("failed"))), Elements(html_report(nasty_record()))
    assert nasty.names == plain.names | {"code"}  # of backquotes
    assert (
        nasty.attributes == plain.attributes == {"lang", "charset", "name", "content", "http-equiv", "class"}
    )
    assert not {"script", "img", "link", "iframe", "a", "form"} & plain.names
    assert "default-src 'none'" in html_report(rich_record())
    assert "alert(1)" in nasty.text
    assert not set("\x1b\u202e") & set(nasty.text)


def test_markdown_keeps_its_tables_whatever_names_there_are() -> None:
    text = markdown_report(nasty_record())
    assert not set("\x1b\u202e") & set(text)
    assert not re.search(r"(?<!\\)<", text)
    assert not re.search(r"(?<!\\)\[a", text)
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 5, 6), line
    assert len(re.findall(r"^#", text, re.MULTILINE)) == len(re.findall(r"^##? [A-Z]", text, re.MULTILINE))


CODES = [
    "repository_damaged", "content_mismatch", "target_refused", "restore", "tool_missing", "connection_failed",
    "store_unavailable", "store_denied", "repository_locked", "process_failed", "disk_full", "internal", "something_new",
]  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_every_failure_says_what_to_do(code: str) -> None:
    steps = list(next_steps(drill_record("failed", error_code=code)))
    assert len(steps) >= 2
    assert all(step.endswith(".") for step in steps)


@pytest.mark.parametrize("code", CHECKS)
def test_every_check_that_fails_says_what_to_do(code: str) -> None:
    check = CheckRecord(code=code, outcome="fail", message="m")
    first, *_ = next_steps(rich_record("failed", error_code=None, error=None, checks=(check,)))
    assert "Look at what the check" not in first


def test_what_is_not_about_the_backup_is_not_held_against_it() -> None:
    (_, machine), (_, backup) = (
        list(next_steps(drill_record("failed", error_code=code)))
        for code in ("connection_failed", "repository_damaged")
    )
    assert "Nothing was found wrong" in machine
    assert "may not come back" in backup


def test_what_could_not_be_found_out_is_not_told_as_damage() -> None:
    check = CheckRecord(code="amcheck", outcome="unknown", message="m")
    steps = list(next_steps(rich_record("failed", error_code=None, error=None, checks=(check,))))
    assert "could not be found out" in steps[0] and "amcheck" in steps[0]
    assert "Nothing was found wrong" in steps[1]
    wrong = CheckRecord(code="content", outcome="fail", message="m")
    steps = list(next_steps(rich_record("failed", error_code=None, error=None, checks=(check, wrong))))
    assert "Rows came back" in steps[0] and "amcheck" in steps[1] and "may not come back" in steps[2]


def test_a_partial_backup_that_cannot_stand_alone() -> None:
    steps = " ".join(next_steps(drill_record("failed", error_code="restore", is_partial=True)))
    assert "whole backup" in steps
    assert "whole backup" not in " ".join(next_steps(drill_record("failed", error_code="restore")))


def test_nothing_is_achieved_with_a_backup_that_fails() -> None:
    targets = {"rto_target_s": 3600.0, "rpo_target_s": 3600.0}
    failed = rich_record("failed", error_code=None, error=None, proven_s=None, lost_s=60.0, **targets)
    text = markdown_report(failed)
    assert text.count("| 1 h 00 min | not proven |") == 2 and "| met |" not in text


def test_steps_follow_from_what_was_found() -> None:
    checks = tuple(
        CheckRecord(code=code, outcome="fail", message="m") for code in ("indexes", "indexes", "new_check")
    )
    steps = list(next_steps(rich_record("failed", error_code=None, error=None, checks=checks)))
    assert sum("amcheck" in step for step in steps) == 1
    assert any("new_check" in step for step in steps)
    assert list(next_steps(rich_record())) == []
    assert list(next_steps(rich_record("interrupted"))) == [
        "The drill was interrupted and says nothing about the backup: drill again."
    ]
    slow = list(next_steps(rich_record(rto_target_s=60.0)))
    assert len(slow) == 1 and "longer than the target" in slow[0]
    assert any("still there" in step for step in next_steps(rich_record(is_removed=False)))
