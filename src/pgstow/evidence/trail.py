"""The part of an audit trail that belongs to a period, and what a report says of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pgstow.audit.entries import HAD_SECRETS, STORE_TLS, AuditEntry, AuditVerdict
from pgstow.audit.trail import SignedEntry
from pgstow.evidence.facts import AuditEntryFacts, AuditFacts, AuditProblemFacts, HeadFacts

__all__ = ["audit_facts", "entry_facts", "part_of_chain"]


def part_of_chain(chain: Sequence[SignedEntry], begin: datetime, end: datetime) -> Sequence[SignedEntry]:
    """Return the entries of a chain from the last one before ``begin`` to the first one at or after ``end``.

    These two show that nothing was left out at either end. The entries come in the order of their numbers; where a clock
    was set back, everything between the first and the last entry of the period counts.
    """
    later = [number for number, each in enumerate(chain) if each.entry.at >= begin]
    earlier = [number for number, each in enumerate(chain) if each.entry.at < end]
    first = later[0] if later else len(chain)
    last = earlier[-1] if earlier else -1
    start = max(0, first - 1)
    return chain[start : max(last + 2, start + 1)]


def entry_facts(entry: AuditEntry, *, repository: str) -> AuditEntryFacts:
    """Return what a report says of an entry; ``repository`` is the name it has in the settings."""
    return AuditEntryFacts(
        repository=repository,
        chain=entry.chain,
        number=entry.number,
        at=entry.at,
        host=entry.host,
        user=entry.user,
        action=entry.action,
        subjects=entry.subjects,
        result=entry.result,
        had_secrets=HAD_SECRETS in entry.facts,
        tls=entry.facts.get(STORE_TLS),
    )


def audit_facts(verdict: AuditVerdict, *, repository: str, repository_id: str) -> AuditFacts:
    """Return what checking a trail has shown."""
    return AuditFacts(
        repository=repository,
        id=repository_id,
        entries=verdict.entries,
        anchors=verdict.anchors,
        heads=tuple(
            HeadFacts(chain=each.chain, number=each.number, digest=each.digest) for each in verdict.heads
        ),
        problems=tuple(
            AuditProblemFacts(kind=each.kind, chain=each.chain, number=each.number, message=each.message)
            for each in verdict.problems
        ),
        pending=verdict.pending,
        unenrolled=verdict.unenrolled,
    )
