"""The report as a page for people: one file, nothing fetched, no scripts, made to be printed."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Iterator

from pgstow.evidence.clauses import STANDARDS
from pgstow.evidence.controls import Result
from pgstow.evidence.facts import DrillFacts, EvidenceFacts
from pgstow.evidence.report import ControlReport, Report
from pgstow.monitor.words import duration_words, moment_words

__all__ = ["report_page"]

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; }
h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .3rem; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0; font-size: .92em; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ddd; overflow-wrap: anywhere; }
th { background: #f4f4f4; }
.pass { color: #116329; } .fail { color: #a40e26; } .unknown { color: #6639ba; } .waived { color: #7d4e00; }
.attested { font-size: .85em; font-style: italic; }
.result { font-weight: 700; white-space: nowrap; }
.small { font-size: .88em; color: #555; }
code { font-size: .9em; overflow-wrap: anywhere; }
@media print { body { max-width: none; margin: 0; font-size: 11px; } h3, tr { break-inside: avoid; } h2 { break-after: avoid; } }
""".strip()

_ATTESTED = '<span class="attested">attested, not measured</span>'
_MEANINGS = {
    Result.PASS: "it was measured, or attested where that is said, and held throughout what could be looked at",
    Result.FAIL: "it did not hold",
    Result.UNKNOWN: "it could not be measured, or not all of it; this is no pass",
    Result.WAIVED: "it did not hold, and somebody accepted that until a day",
}


def report_page(report: Report) -> bytes:
    """Return the page: summary, every control, appendix. The same report gives the same bytes."""
    facts = report.facts
    title = f"Backup evidence, {facts.period.name}"
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{_text(title)}</title>",
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{_text(title)}</h1>",
        *_introduction(report),
        "<h2>Summary</h2>",
        *_summary(report),
        "<h2>Controls</h2>",
        *(line for each in report.controls for line in _control(each)),
        "<h2>Appendix</h2>",
        *_appendix(facts),
        "</body></html>",
    ]
    return ("\n".join(lines) + "\n").encode()


def _text(value: object) -> str:
    """Return foreign words as text of the page: no markup, and nothing that changes how the rest is read."""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value))
    return html.escape(shown, quote=True)


def _row(cells: Iterable[str], *, tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield "<table>"
    yield _row(head, tag="th")
    yield from (_row(row) for row in rows)
    yield "</table>"


def _mark(result: Result) -> str:
    return f'<span class="result {result.value}">{result.value}</span>'


def _introduction(report: Report) -> Iterator[str]:
    facts = report.facts
    yield (
        f"<p>From {_text(moment_words(facts.begin))} to {_text(moment_words(facts.until))}. Made on"
        f" {_text(moment_words(facts.made))} by {_text(facts.by)} on {_text(facts.host)} with pgstow {_text(facts.pgstow)}"
        f" (rules {facts.rules}).</p>"
    )
    if facts.until < facts.period.end:
        yield f"<p>The period ends on {_text(moment_words(facts.period.end))}: of the rest nothing is known yet.</p>"
    yield (
        '<p class="small">Everything here follows from facts.json of the same bundle; pgstow evidence verify judges them'
        " again and checks the signatures. A control is evidence for a clause, and never the whole of it.</p>"
    )


def _summary(report: Report) -> Iterator[str]:
    yield from _table(
        ("Result", "Controls", "Meaning"),
        ((_mark(each), str(report.count(each)), _text(_MEANINGS[each])) for each in Result),
    )
    yield from _table(
        ("Control", "", "Result"),
        (
            (
                f'<a href="#{each.control.code}">{each.control.code}</a>',
                _text(each.control.title),
                _mark(each.result) + _until(each) + (f" {_ATTESTED}" if each.is_attested else ""),
            )
            for each in report.controls
        ),
    )


def _until(report: ControlReport) -> str:
    return f" until {report.waiver.until}" if report.waiver and report.result is Result.WAIVED else ""


def _control(report: ControlReport) -> Iterator[str]:
    control = report.control
    yield f'<h3 id="{control.code}">{control.code} {_text(control.title)}: {_mark(report.result)}{_until(report)}</h3>'
    yield f"<p>{_text(control.demand)}</p>"
    yield from _table(
        ("About", "Result", "What was found"),
        (
            (
                _text(finding.subject),
                _mark(finding.result) + (f"<br>{_ATTESTED}" if finding.is_attested else ""),
                _text(finding.text)
                + (
                    f'<br><span class="small">To know it: {_text(finding.missing)}.</span>'
                    if finding.missing
                    else ""
                ),
            )
            for finding in report.findings
        ),
    )
    if report.waiver is not None:
        yield (
            f"<p>Waiver until {report.waiver.until} by {_text(report.waiver.by)}: {_text(report.waiver.reason)}"
            + ("" if report.result is Result.WAIVED else " (it covers failures only)")
            + "</p>"
        )
    clauses = "; ".join(f"{_text(STANDARDS[key])} {_text(value)}" for key, value in report.clauses.items())
    yield f'<p class="small">Looked at: {_text(control.looked_at)}.<br>Evidence for: {clauses}.'
    if report.drills:
        yield "<br>Drills: " + ", ".join(f"<code>{_text(each[:8])}</code>" for each in report.drills)
    if report.audit:
        yield f"<br>Audit entries: {_ranges(report.audit)}"
    yield "</p>"


def _ranges(references: Iterable[str]) -> str:
    """Return references such as ``main/4f1e.../12`` with the numbers of each chain in runs."""
    numbers: dict[str, list[int]] = {}
    for reference in references:
        chain, _, number = reference.rpartition("/")
        numbers.setdefault(chain, []).append(int(number))
    told = []
    for chain, found in numbers.items():
        runs: list[list[int]] = []
        for each in sorted(found):
            if runs and each == runs[-1][1] + 1:
                runs[-1][1] = each
            else:
                runs.append([each, each])
        spans = ", ".join(f"{first}" if first == last else f"{first}&ndash;{last}" for first, last in runs)
        told.append(f"<code>{_text(chain)}</code> {spans}")
    return "; ".join(told)


def _appendix(facts: EvidenceFacts) -> Iterator[str]:
    yield "<h3>Databases</h3>"
    yield from _table(
        ("Database", "RPO", "RTO", "Backups of the period that are there"),
        (
            (
                _text(each.name),
                duration_words(each.rpo_s) if each.rpo_s is not None else "not set",
                duration_words(each.rto_s) if each.rto_s is not None else "not set",
                str(
                    sum(
                        b.database == each.name and facts.begin <= b.time < facts.until for b in facts.backups
                    )
                ),
            )
            for each in facts.databases
        ),
    )
    yield "<h3>Repositories</h3>"
    yield from _table(
        ("Repository", "Location", "State"),
        (
            (_text(each.name), _text(each.location), _text(each.error or "read"))
            for each in facts.repositories
        ),
    )
    yield "<h3>Drills of the period</h3>"
    drills = facts.drills_of(since=facts.begin)
    yield from _table(
        ("Drill", "Begun", "Backup", "Result", "Until proven", "Tables equal"),
        (_drill(each) for each in drills),
    )
    yield "<h3>Audit trail</h3>"
    yield from _table(
        ("Repository", "Chain", "Newest entry", "SHA-256"),
        (
            (
                _text(audit.repository),
                f"<code>{_text(head.chain)}</code>",
                str(head.number),
                f"<code>{_text(head.digest)}</code>",
            )
            for audit in facts.audit
            for head in audit.heads
        ),
    )
    yield from _accesses(facts)


def _drill(drill: DrillFacts) -> tuple[str, ...]:
    return (
        f"<code>{_text(drill.id[:8])}</code>",
        _text(moment_words(drill.started)),
        _text(f"{drill.backup_id[:8]} of {drill.database} ({drill.kind})"),
        _text(drill.outcome),
        duration_words(drill.proven_s) if drill.proven_s is not None else "",
        f"{drill.tables_equal} of {drill.tables_compared}",
    )


def _accesses(facts: EvidenceFacts) -> Iterator[str]:
    counts = Counter((each.action, each.user, each.host, each.result) for each in facts.audit_entries)
    if not counts:
        return
    yield "<h3>Accesses of the period, by the audit trail</h3>"
    yield from _table(
        ("What", "Who", "Where", "Result", "Times"),
        ((*map(_text, key), str(count)) for key, count in sorted(counts.items())),
    )
