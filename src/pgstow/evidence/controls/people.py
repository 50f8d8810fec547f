"""Controls of what people do. No program can look: somebody states it, with name, day and signature. It is never measured."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pgstow.evidence.attestations import ATTEST, STATEMENTS, Span, attested_spans, is_vouched_for
from pgstow.evidence.controls.findings import Control, Finding, Result, day, unknown
from pgstow.evidence.controls.happened import first_known, repository_known
from pgstow.evidence.facts import AttestationFacts, EvidenceFacts

__all__ = ["CONTROLS"]

_RESTORED = ("done", "partial")


def _stated(facts: EvidenceFacts, code: str, subject: str) -> Finding:
    """Return whether what the control demands was attested throughout the period."""
    statement = STATEMENTS[code]
    recorded = [each for each in facts.attestations if each.control == code and each.at <= facts.made]
    vouched = [each for each in recorded if is_vouched_for(each, facts.audit)]
    spans = [each for each in attested_spans(vouched, statement.days) if each.begin < facts.until]
    if not spans:
        text = "nobody has stated it, and no program can look"
        if recorded:
            text = "what was stated of it cannot be relied on: it was written down too late, or no administrator vouches for the key"
        return unknown(subject, text, statement.missing)
    told = "; ".join(_words(each.attestation) for each in spans[-2:])
    begin = _begin(facts)
    first = spans[0]
    if first.begin > begin and first.begin - _known(facts) > timedelta(days=statement.days):
        text = f"{told}; nothing is stated of the time before {day(first.begin)}"
        return unknown(subject, text, statement.missing)
    hole = _hole(spans, max(first.begin, begin), facts.until)
    if hole is not None:
        text = f"{told}; it could be relied on until {day(hole)}, and was not stated again then"
        return Finding(subject=subject, result=Result.FAIL, text=text, is_attested=True)
    if first.begin > begin:
        told += f"; before {day(first.begin)} it was not due yet"
    return Finding(subject=subject, result=Result.PASS, text=told, is_attested=True)


def _hole(spans: Sequence[Span], begin: datetime, until: datetime) -> datetime | None:
    """Return from when on nothing could be relied on, between two moments; None where there always was something."""
    covered = begin
    for span in spans:
        if span.begin <= covered:
            covered = max(covered, span.end)
    return covered if covered < until else None


def _words(stated: AttestationFacts) -> str:
    told = f"{stated.by} states for {_day_text(stated)}: {stated.statement}"
    if stated.note:
        told += f" ({stated.note})"
    if stated.file is not None and stated.file_sha256 is not None:
        told += f"; {stated.file}, SHA-256 {stated.file_sha256}"
    if stated.until is not None:
        told += f"; until {stated.until}"
    return told


def _day_text(stated: AttestationFacts) -> str:
    """Return the day of an attestation, and when it was written down if that was later."""
    written = day(stated.at)
    return str(stated.on) if written == str(stated.on) else f"{stated.on} (written down on {written})"


def _known(facts: EvidenceFacts) -> datetime:
    """Return since when there is any sign of what the controls are about."""
    signs = [first_known(facts, each.name) for each in facts.databases]
    signs += [repository_known(facts, each) for each in facts.repositories]
    return min((each for each in signs if each is not None), default=facts.begin)


def _begin(facts: EvidenceFacts) -> datetime:
    return max(facts.begin, _known(facts))


def _access(facts: EvidenceFacts) -> list[Finding]:
    """C14."""
    return [_stated(facts, "C14", "people")]


def _exercised(facts: EvidenceFacts) -> list[Finding]:
    """C16."""
    return [_stated(facts, "C16", "exercise")]


def _contacts(facts: EvidenceFacts) -> list[Finding]:
    """C17."""
    if not facts.contacts:
        return [
            Finding(subject="contacts", result=Result.FAIL, text="the settings name nobody who is to be told")
        ]
    named = Finding(subject="contacts", result=Result.PASS, text=f"the settings name {facts.contacts}")
    return [named, _stated(facts, "C17", "runbook and contacts")]


def _erasure(facts: EvidenceFacts) -> list[Finding]:
    """C19."""
    found = [_stated(facts, "C19", "erasures")]
    restores = [each for each in facts.audit_entries if each.action == "restore" and each.result in _RESTORED]
    if restores and found[0].result is Result.PASS:
        newest = max(each.at for each in restores)
        # What was done on a day before the restore cannot be about it, however late it was written down.
        has_looked = any(
            newest <= each.at <= facts.made and each.on >= newest.astimezone(UTC).date()
            for each in facts.attestations
            if each.control == "C19" and is_vouched_for(each, facts.audit)
        )
        if not has_looked:
            text = f"something was restored on {day(newest)}, and nobody has stated since that erasures were applied to it"
            found.append(unknown("restores", text, STATEMENTS["C19"].missing))
    return found


CONTROLS = (
    Control(
        code="C14",
        title="Access is reviewed",
        demand="Who has access is reviewed every quarter, and logs in with a second factor.",
        looked_at="what people state, in the audit trail: attested, not measured",
        judge=_access,
        actions=frozenset({ATTEST}),
    ),
    Control(
        code="C16",
        title="The whole plan is exercised",
        demand="A disaster recovery exercise took place within twelve months, and its actions are closed.",
        looked_at="what people state, in the audit trail: attested, not measured",
        judge=_exercised,
        actions=frozenset({ATTEST}),
    ),
    Control(
        code="C17",
        title="Runbook and contacts are reviewed",
        demand="The runbook and the contacts in it were reviewed within 90 days.",
        looked_at="whether the settings name contacts; what people state, in the audit trail: attested, not measured",
        judge=_contacts,
        actions=frozenset({ATTEST}),
    ),
    Control(
        code="C19",
        title="Erasures are replayed",
        demand="What a person had erased does not come back with a restore.",
        looked_at="what people state, in the audit trail: attested, not measured; and whether that was after the last restore",
        judge=_erasure,
        actions=frozenset({ATTEST, "restore"}),
    ),
)
