"""The report: what every control comes to, by the facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgstow.evidence.clauses import CLAUSES
from pgstow.evidence.controls import CONTROLS, Control, Finding, Result, result_of
from pgstow.evidence.facts import EvidenceFacts, WaiverFacts

__all__ = ["REPORT_FORMAT", "ControlReport", "Report", "judge", "report_document", "time_text"]

REPORT_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlReport:
    """A control and what it comes to. ``drills`` and ``audit`` are what is behind it, as they are called in the bundle."""

    control: Control
    result: Result
    findings: tuple[Finding, ...]
    waiver: WaiverFacts | None
    drills: tuple[str, ...]
    audit: tuple[str, ...]

    @property
    def clauses(self) -> Mapping[str, str]:
        return CLAUSES[self.control.code]

    @property
    def is_attested(self) -> bool:
        """Whether it rests on what somebody states, in part at least."""
        return any(finding.is_attested for finding in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All controls, in their order."""

    facts: EvidenceFacts
    controls: tuple[ControlReport, ...]

    def count(self, result: Result) -> int:
        """Return how many controls come to that."""
        return sum(each.result is result for each in self.controls)


def judge(facts: EvidenceFacts) -> Report:
    """Return what the controls come to: nothing but the facts decides it."""
    return Report(facts=facts, controls=tuple(_judged(control, facts) for control in CONTROLS))


def _judged(control: Control, facts: EvidenceFacts) -> ControlReport:
    findings = tuple(control.judge(facts)) or (
        Finding(
            subject="nothing",
            result=Result.UNKNOWN,
            text="there was nothing to look at",
            missing="databases and repositories in the settings",
        ),
    )
    result = result_of(findings)
    waiver = _waiver(control.code, facts)
    if result is Result.FAIL and waiver is not None:
        # What is unknown cannot be accepted: nobody knows what it is.
        is_known = all(each.result is not Result.UNKNOWN for each in findings)
        result = Result.WAIVED if is_known else Result.UNKNOWN
    drills = dict.fromkeys(drill for finding in findings for drill in finding.drills)
    entries = [each.reference for each in facts.audit_entries if each.action in control.actions]
    return ControlReport(
        control=control,
        result=result,
        findings=findings,
        waiver=waiver,
        drills=tuple(drills),
        audit=tuple(entries),
    )


def _waiver(code: str, facts: EvidenceFacts) -> WaiverFacts | None:
    """Return the waiver of a control that lasts longest; None where none is in force on the day of the report."""
    known = [each for each in facts.waivers if each.control == code and each.until >= facts.made.date()]
    return max(known, key=lambda each: each.until, default=None)


def report_document(report: Report) -> dict[str, Any]:
    """Return the report as it stands in ``report.json``."""
    facts = report.facts
    return {
        "format": REPORT_FORMAT,
        "rules": facts.rules,
        "pgstow": facts.pgstow,
        "made": time_text(facts.made),
        "host": facts.host,
        "by": facts.by,
        "period": {
            "name": facts.period.name,
            "begin": time_text(facts.begin),
            "end": time_text(facts.period.end),
            "until": time_text(facts.until),
        },
        "summary": {result.value: report.count(result) for result in Result},
        "controls": [_control_document(each) for each in report.controls],
        "heads": [
            {
                "repository": audit.repository,
                "repository_id": audit.id,
                "chain": head.chain,
                "number": head.number,
                "digest": head.digest,
            }
            for audit in facts.audit
            for head in audit.heads
        ],
    }


def _control_document(report: ControlReport) -> dict[str, Any]:
    control, waiver = report.control, report.waiver
    return {
        "code": control.code,
        "title": control.title,
        "demand": control.demand,
        "looked_at": control.looked_at,
        "result": report.result.value,
        "attested": report.is_attested,
        "waiver": None
        if waiver is None
        else {"until": waiver.until.isoformat(), "reason": waiver.reason, "by": waiver.by},
        "findings": [
            {
                "subject": finding.subject,
                "result": finding.result.value,
                "text": finding.text,
                "missing": finding.missing,
                "drills": list(finding.drills),
                "attested": finding.is_attested,
            }
            for finding in report.findings
        ],
        "clauses": dict(report.clauses),
        "drills": list(report.drills),
        "audit": list(report.audit),
    }


def time_text(moment: datetime) -> str:
    """Return a moment as documents show it, in UTC."""
    return moment.isoformat().replace("+00:00", "Z")
