"""Findings as the commands show them: as documents, and as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from pgstow.app.findings import Finding, Level
from pgstow.cli.formats import safe
from pgstow.cli.output import Output

__all__ = ["finding_document", "findings_table"]

_MARKS = {
    Level.OK: Text("ok", style="green"),
    Level.WARNING: Text("warning", style="yellow"),
    Level.PROBLEM: Text("problem", style="bold red"),
    Level.UNKNOWN: Text("unknown", style="magenta"),
}


def finding_document(finding: Finding, output: Output) -> dict[str, object]:
    """Return a finding as it appears in JSON documents."""
    return {
        "code": finding.code,
        "level": finding.level.value,
        "text": output.scrub(finding.text),
        "remedy": output.scrub(finding.remedy) if finding.remedy else None,
        "names": list(finding.names),
    }


def findings_table(findings: Sequence[Finding], output: Output) -> Table:
    """Return all findings; what matters most stands last, next to the verdict."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for level in (Level.OK, Level.UNKNOWN, Level.WARNING, Level.PROBLEM):
        for finding in findings:
            if finding.level is level:
                text = Text(safe(output.scrub(finding.text)))
                if finding.remedy and level is not Level.OK:
                    text.append(f"\n{safe(output.scrub(finding.remedy))}", style="dim")
                table.add_row(_MARKS[level], text)
    return table
