"""What people see of evidence reports and of bundles that are checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from pgstow.cli.formats import plural, safe
from pgstow.cli.output import Output
from pgstow.evidence.controls import Result
from pgstow.evidence.report import ControlReport, Report
from pgstow.evidence.verifying import NOT_CHECKED, Verification
from pgstow.monitor.words import moment_words

__all__ = ["counts_text", "report_view", "verification_view"]

_STYLES = {
    Result.PASS: "green",
    Result.FAIL: "bold red",
    Result.UNKNOWN: "magenta",
    Result.WAIVED: "yellow",
}
_ATTESTED = " (attested, not measured)"
_INDENT = 14


def counts_text(report: Report) -> str:
    """Return how many controls came to what."""
    return ", ".join(f"{report.count(each)} {each.value}" for each in Result)


def report_view(
    report: Report, output: Output, *, target: Path | None, signer: str | None
) -> Iterator[RenderableType]:
    """Yield a report as lines: each control, and below it what does not pass."""
    facts = report.facts
    yield Text(
        f"Evidence for {facts.period.name}, from {moment_words(facts.begin)} to {moment_words(facts.until)}",
        style="bold",
    )
    yield Text()
    for each in report.controls:
        yield from _control(each, output)
    yield Text()
    yield Text(counts_text(report))
    if target is not None:
        signed = f"signed with key {signer}" if signer else "not signed"
        yield Text(f"written to {safe(str(target))}, {signed}", style="dim")


def _control(report: ControlReport, output: Output) -> Iterator[RenderableType]:
    mark = Text(f"{report.result.value:7}", style=_STYLES[report.result])
    how = (_ATTESTED, "italic") if report.is_attested else ""
    yield Text.assemble(mark, f"  {report.control.code:3}  {report.control.title}", how)
    for finding in report.findings:
        if finding.result is Result.PASS and not finding.is_attested:
            continue
        told = f"{finding.subject}: {finding.text}"
        yield _below(safe(output.scrub(told)), "dim")
        if finding.missing is not None:
            yield _below(f"needs {safe(output.scrub(finding.missing))}", "cyan")
    if report.waiver is not None and report.result is Result.WAIVED:
        waived = f"waived until {report.waiver.until} by {report.waiver.by}: {report.waiver.reason}"
        yield _below(safe(waived), "yellow")


def _below(words: str, style: str) -> RenderableType:
    """Return words that stay below their control where a narrow terminal breaks the line."""
    return Padding(Text(words, style=style), (0, 0, 0, _INDENT), expand=False)


def verification_view(verification: Verification) -> Iterator[RenderableType]:
    """Yield every problem of a bundle, who signed it, and what its controls come to."""
    for problem in verification.problems:
        yield Text.assemble(
            (f"{problem.kind:10}", "bold red"), f"  {safe(problem.subject)}: {safe(problem.message)}"
        )
    enrolment = verification.enrolment
    if verification.signer is not None:
        who = f", enrolled as {safe(enrolment.host)} on {enrolment.at:%Y-%m-%d}" if enrolment else ""
        yield Text(f"signed with key {verification.signer}{who}")
    if verification.report is not None:
        facts = verification.report.facts
        yield Text(
            f"{safe(facts.period.name)}, made on {moment_words(facts.made)} by {safe(facts.by)} on {safe(facts.host)}"
        )
        yield Text(f"databases: {safe(', '.join(each.name for each in facts.databases)) or 'none'}")
        places = [f"{each.name} at {each.location}" for each in facts.repositories]
        yield Text(f"repositories: {safe(', '.join(places)) or 'none'}")
        yield Text(f"by its facts: {counts_text(verification.report)}")
    if verification.other_rules is not None:
        yield Text(
            f"it was judged by rules {verification.other_rules}, which this version does not have: the report was not judged again",
            style="magenta",
        )
    if not verification.problems:
        yield Text(f"{plural(verification.files, 'file')} as they were signed", style="green")
        yield Text("A bundle alone does not show:", style="dim")
        yield from (Text(f"  - {each}", style="dim") for each in NOT_CHECKED)
