"""What people state to be so where no program can look, as signed entries of the audit trail. It is never measured.

An entry names who did what when, the sentence that he stands for, and the hash of a file if there is one. How long it may be
relied on is the control's rule, not his: he can only shorten it. The newest one of a control counts from its day on.

A test of a password that is kept elsewhere is filed here too: that it opened the repository was measured, from where it was
fetched is somebody's word.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from types import MappingProxyType
from typing import Any

from pgstow.audit.entries import AuditEntry
from pgstow.evidence.facts import AttestationFacts, AuditFacts

__all__ = [
    "ATTEST",
    "ESCROW",
    "ESCROW_DAYS",
    "LATE_DAYS",
    "STATEMENTS",
    "TESTED",
    "TESTED_KEY",
    "Span",
    "Statement",
    "attestation_facts",
    "attested_spans",
    "entry_words",
    "is_vouched_for",
]

ATTEST, TESTED = "evidence attest", "keys test"  # actions in the audit trail
TESTED_KEY = "tested_key"  # in entries of the latter: the key that the password opened
ESCROW = "C10"
ESCROW_DAYS = 365
LATE_DAYS = 90  # so late may be written down what was done: minutes take a while, memories do not last

_NOTE = "note"
_STATES = "states"  # "statement" in an entry is the digest of what an administrator signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What somebody stands for with an attestation of a control, and for how many days it may be relied on."""

    text: str
    days: int
    missing: str  # what it takes to know it


STATEMENTS: Mapping[str, Statement] = MappingProxyType(
    {
        "C14": Statement(
            text="who may use the machines, stores, databases and passwords of backups was reviewed, and all of them"
            " log in with a second factor",
            days=92,
            missing="a review of access in every quarter, recorded with pgstow evidence attest C14",
        ),
        "C16": Statement(
            text="an exercise of the whole recovery plan took place with its people, and its actions are closed",
            days=366,
            missing="an exercise within twelve months, recorded with pgstow evidence attest C16",
        ),
        "C17": Statement(
            text="the runbook and the contacts in it were reviewed and are right",
            days=90,
            missing="a review within 90 days, recorded with pgstow evidence attest C17",
        ),
        "C19": Statement(
            text="every erasure that was asked for is on a list, and the list was applied again to what was restored from"
            " backups",
            days=92,
            missing="a look at the list of erasures in every quarter and after every restore, recorded with pgstow evidence"
            " attest C19",
        ),
    }
)


def entry_words(
    control: str, *, by: str, on: date, until: date | None, note: str, file: str | None, content: bytes | None
) -> dict[str, str]:
    """Return the facts of the entry that attests a control; ``content`` is that of ``file``."""
    words = {
        "id": str(uuid.uuid4()),
        "control": control,
        "by": by,
        "on": on.isoformat(),
        _STATES: STATEMENTS[control].text,
        _NOTE: note,
    }
    if until is not None:
        words["until"] = until.isoformat()
    if file is not None and content is not None:
        words |= {"file": file, "file_sha256": hashlib.sha256(content).hexdigest()}
    return words


def attestation_facts(entry: AuditEntry, digest: str, *, repository: str) -> AttestationFacts | None:
    """Return what an entry attests; None for one that attests nothing, or nothing that can be understood."""
    if entry.result != "done":
        return None
    try:
        words = _words(entry, digest)
        if words is None:
            return None
        return AttestationFacts(
            repository=repository,
            chain=entry.chain,
            number=entry.number,
            at=entry.at,
            host=entry.host,
            user=entry.user,
            note=entry.facts.get(_NOTE, ""),
            **words,
        )
    except (KeyError, ValueError):
        return None


def _words(entry: AuditEntry, digest: str) -> dict[str, Any] | None:
    said = entry.facts
    if entry.action == TESTED:
        day = entry.at.astimezone(UTC).date()
        return {
            "control": ESCROW,
            "by": f"{entry.user} on {entry.host}",
            "on": day,
            "key": said[TESTED_KEY],
            "id": digest[:16],
        }
    if entry.action != ATTEST or said["control"] not in STATEMENTS:
        return None
    return {
        "control": said["control"],
        "by": said["by"],
        "on": date.fromisoformat(said["on"]),
        "until": date.fromisoformat(said["until"]) if "until" in said else None,
        "statement": said[_STATES],
        "file": said.get("file"),
        "file_sha256": said.get("file_sha256"),
        "id": said["id"],
    }


def is_vouched_for(attestation: AttestationFacts, audits: Iterable[AuditFacts]) -> bool:
    """Whether the entry can be believed: an administrator stands for the key of its chain, and nothing is wrong with that."""
    return any(
        audit.repository == attestation.repository
        and audit.error is None
        and attestation.chain not in audit.unenrolled
        and not any(each.chain == attestation.chain and each.kind != "gap" for each in audit.problems)
        for audit in audits
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The time for which an attestation may be relied on: from ``begin`` on, before ``end``."""

    attestation: AttestationFacts
    begin: datetime
    end: datetime


def attested_spans(attestations: Sequence[AttestationFacts], days: int) -> list[Span]:
    """Return for what time each may be relied on, in order; the same one in several repositories counts once.

    What was written down too late counts for nothing. The next one, once it is written down, takes the place of the one
    before: so a day that was set too late can be taken back.
    """
    found: list[Span] = []
    for each in sorted(
        {each.id: each for each in attestations}.values(), key=lambda one: (one.on, one.at, one.id)
    ):
        begin = datetime.combine(each.on, time(), UTC)
        if not begin <= each.at <= begin + timedelta(days=LATE_DAYS + 1):
            continue
        end = begin + timedelta(days=days)
        if (
            each.until is not None and each.until < end.date()
        ):  # compared first: the last of all days has no next
            end = min(end, datetime.combine(each.until, time(), UTC) + timedelta(days=1))
        if found and found[-1].end > begin:
            last = found.pop()
            found.append(Span(attestation=last.attestation, begin=last.begin, end=begin))
        found.append(Span(attestation=each, begin=begin, end=end))
    return [each for each in found if each.begin < each.end]
