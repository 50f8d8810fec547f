"""What people see of an evidence report on a terminal of 80 columns."""

from __future__ import annotations

import io

from rich.console import Console

from pgstow.cli.evidence_report import _scrubbed
from pgstow.cli.evidence_view import report_view
from pgstow.cli.output import Output
from pgstow.evidence.report import judge, report_document
from support.evidence import good_facts, waiver


def test_what_is_found_stays_below_its_control_on_a_narrow_terminal() -> None:
    facts = good_facts()
    facts = facts.model_copy(
        update={"servers": (), "drills": (), "waivers": (waiver("C4", facts.made.date()),)}
    )
    console = Console(width=80, file=io.StringIO())
    for each in report_view(judge(facts), Output(command="evidence report"), target=None, signer=None):
        console.print(each)
    assert isinstance(console.file, io.StringIO)
    title, _, *lines = console.file.getvalue().splitlines()
    assert "2026-10-01..2026-10-31" in title
    assert max(map(len, lines)) <= 80
    controls = [line for line in lines if line[:4] in ("pass", "fail", "unkn", "waiv")]
    assert len(controls) == 22
    found = [line for line in lines[:-2] if line not in controls]
    assert len(found) > 22  # lines that were broken among them
    assert all(line.startswith(" " * 14) for line in found)


def test_a_password_that_is_a_word_of_ours_blanks_no_result() -> None:
    output = Output(command="evidence report")
    output.conceal("pass", "shop")
    document = _scrubbed(report_document(judge(good_facts())), output)
    assert {each["result"] for each in document["controls"]} == {"pass"}
    told = [finding for each in document["controls"] for finding in each["findings"]]
    assert {finding["result"] for finding in told} == {"pass"}
    assert any("***" in finding["subject"] for finding in told)
    assert not any("shop" in finding["subject"] + finding["text"] for finding in told)
