"""Whether the facts of a bundle agree with the signed entries and records that come with them."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from pgstow.audit.checking import verify_chain
from pgstow.audit.documents import ENTRY, parse_entry
from pgstow.audit.keys import Signed
from pgstow.audit.trail import SignedEntry, digest_of
from pgstow.catalog.drills import parse_drill
from pgstow.core.errors import RepositoryDamaged
from pgstow.evidence.attestations import attestation_facts
from pgstow.evidence.bundle import ATTESTATIONS, AUDIT, drill_name
from pgstow.evidence.drills import drill_facts
from pgstow.evidence.enrolments import Enrolled
from pgstow.evidence.facts import AuditEntryFacts, AuditFacts, EvidenceFacts
from pgstow.evidence.problems import BundleProblem
from pgstow.evidence.trail import entry_facts

__all__ = ["attestation_problems", "audit_problems", "drill_problems"]


def drill_problems(facts: EvidenceFacts, files: Mapping[str, bytes]) -> Iterator[BundleProblem]:
    """Yield where the facts of drills are not those of their records."""
    told = {drill_name(drill.id): drill for drill in facts.drills}
    if len(told) < len(facts.drills):
        yield BundleProblem(kind="facts", subject="drills", message="a drill is told twice")
    for name in sorted(files):
        if name.startswith("drills/") and name not in told:
            yield BundleProblem(kind="facts", subject=name, message="the facts do not tell of this drill")
    for name, drill in told.items():
        content = files.get(name)
        if content is None:
            yield BundleProblem(kind="missing", subject=name, message="the record of a drill is missing")
            continue
        try:
            json.loads(content, object_pairs_hook=_named_once)
            record = parse_drill(content, where=name)
        except (ValueError, RecursionError) as exc:
            yield BundleProblem(kind="unreadable", subject=name, message=str(exc))
            continue
        except RepositoryDamaged as exc:
            yield BundleProblem(kind="unreadable", subject=name, message=exc.message)
            continue
        if drill_facts(record, content, repository=drill.repository) != drill:
            yield BundleProblem(
                kind="facts",
                subject=name,
                message="the facts tell something else than the record of this drill",
            )


def _named_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object of JSON; ValueError if it has a key twice: readers take the one or the other."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key stands twice in it")
    return fields


def audit_problems(facts: EvidenceFacts, content: bytes, enrolled: Enrolled) -> Iterator[BundleProblem]:
    """Yield where entries are not genuine, not whole within the period, or not what the facts tell of them."""
    entries: list[SignedEntry] = []
    for number, line in enumerate(content.splitlines(), start=1):
        read = _entry(line)
        if isinstance(read, str):
            yield BundleProblem(kind="audit", subject=f"{AUDIT}:{number}", message=read)
        else:
            entries.append(read)
    chains: defaultdict[tuple[str, str], list[SignedEntry]] = defaultdict(list)
    for each in entries:
        chains[each.entry.repository, each.entry.chain].append(each)
    trails: defaultdict[str, list[AuditFacts]] = defaultdict(
        list
    )  # settings may name copies of one repository
    for audit in facts.audit:
        if audit.id is not None:
            trails[audit.id].append(audit)
    told: defaultdict[tuple[str, str], list[AuditEntryFacts]] = defaultdict(list)
    for entry in facts.audit_entries:
        told[entry.repository, entry.chain].append(entry)
    for (repository_id, chain), found in chains.items():
        known = [
            (audit, head.number)
            for audit in trails.get(repository_id, ())
            for head in audit.heads
            if head.chain == chain
        ]
        if not known:
            yield _of_chain(chain, "its entries belong to no repository of the facts")
            continue
        newest = max(number for _, number in known)
        for audit, number in known:
            # A copy may be behind: of it the entries up to its head count.
            mine = found if number == newest else [each for each in found if each.entry.number <= number]
            mine_told = told.pop((audit.repository, chain), [])
            if mine:
                yield from _chain_problems(facts, audit, mine, enrolled)
            yield from _told_problems(facts, audit, chain, mine, mine_told)
    yield from _lost(facts, chains)
    for repository, chain in told:
        yield _of_chain(chain, f"the facts tell of entries in repository {repository} that are not there")


def attestation_problems(
    facts: EvidenceFacts, content: bytes | None, enrolled: Enrolled
) -> Iterator[BundleProblem]:
    """Yield where the facts tell of other attestations than were signed."""
    told = list(facts.attestations)
    if content is None:
        if told:  # a version that knew of none wrote no such file
            yield BundleProblem(kind="missing", subject=ATTESTATIONS, message="the file is missing")
        return
    for number, line in enumerate(content.splitlines(), start=1):
        subject = f"{ATTESTATIONS}:{number}"
        read = _entry(line)
        if isinstance(read, str):
            yield BundleProblem(kind="audit", subject=subject, message=read)
            continue
        audits = [each for each in facts.audit if each.id == read.entry.repository]
        meant = [attestation_facts(read.entry, read.digest, repository=each.repository) for each in audits]
        # A copy of a repository may be behind: one of them has it.
        if not any(each in told for each in meant):
            message = "the facts do not tell of this attestation as it was signed"
            yield BundleProblem(kind="facts", subject=subject, message=message)
        told = [each for each in told if each not in meant]
        for audit in audits:
            yield from _revoked_problems(audit, [read], enrolled)
            yield from _unenrolled_problems(audit, read.entry.chain, enrolled)
    for each in told:
        message = f"the facts tell of an attestation in repository {each.repository} that is not there"
        yield BundleProblem(kind="facts", subject=each.control, message=message)


def _entry(line: bytes) -> SignedEntry | str:
    """Return the entry in a line, or what is wrong with it."""
    try:
        signed = Signed.decode(line)
        entry = parse_entry(signed.content)
    except (ValueError, RecursionError) as exc:
        return f"the line is no entry: {exc}"
    if not signed.is_genuine(ENTRY):
        return f"the signature of entry {entry.number} is wrong"
    if signed.signer != entry.chain:
        return f"entry {entry.number} is signed with the key of another chain"
    return SignedEntry(entry=entry, digest=digest_of(line), raw=line)


def _chain_problems(
    facts: EvidenceFacts, audit: AuditFacts, found: Sequence[SignedEntry], enrolled: Enrolled
) -> Iterator[BundleProblem]:
    """Yield where a chain is broken or cut, but for what the facts themselves say is wrong with it."""
    chain = found[0].entry.chain
    known = {each.number for each in audit.problems if each.chain == chain}
    for problem in verify_chain(found, is_whole=False):
        if problem.number not in known:
            yield _of_chain(chain, problem.message)
    if any(later.entry.number < earlier.entry.number for earlier, later in itertools.pairwise(found)):
        yield _of_chain(chain, "its entries are not in order")
    first, last = found[0].entry, found[-1]
    if first.number > 1 and first.at >= facts.begin and first.number - 1 not in known:
        yield _of_chain(chain, f"entries before {first.number} may belong to the period and are not there")
    head = next(each for each in audit.heads if each.chain == chain)
    if last.entry.number < head.number and last.entry.at < facts.period.end:
        yield _of_chain(
            chain, f"it goes to entry {head.number}, and what follows {last.entry.number} is not there"
        )
    same = [each for each in found if each.entry.number >= head.number]
    if any(each.entry.number > head.number for each in same) or (
        same and head.number not in known and head.digest not in {each.digest for each in same}
    ):
        yield _of_chain(chain, "its newest entry is not the one that the facts name")
    yield from _revoked_problems(audit, found, enrolled)
    yield from _unenrolled_problems(audit, chain, enrolled)


def _unenrolled_problems(audit: AuditFacts, chain: str, enrolled: Enrolled) -> Iterator[BundleProblem]:
    """Yield that the facts trust a key of which this administrator says nothing."""
    if chain not in audit.unenrolled and not enrolled.is_good(chain) and chain not in enrolled.revoked:
        yield BundleProblem(
            kind="unenrolled",
            subject=f"chain {chain[:16]}",
            message="the facts count its key as enrolled, and nothing of this administrator says so",
        )


def _revoked_problems(
    audit: AuditFacts, found: Sequence[SignedEntry], enrolled: Enrolled
) -> Iterator[BundleProblem]:
    """Yield where entries were written with a key after it was revoked, and the facts do not say so."""
    chain = found[0].entry.chain
    statement = enrolled.revoked.get(chain)
    if statement is None:
        return
    known = {each.number for each in audit.problems if each.chain == chain}
    head = statement.head if statement.repository == found[0].entry.repository else None
    for each in found:
        is_later = each.entry.number > head.number if head is not None else each.entry.at > statement.at
        if is_later and each.entry.number not in known:
            yield BundleProblem(
                kind="unenrolled",
                subject=f"chain {chain[:16]}",
                message=f"entry {each.entry.number} was written with a revoked key, and the facts do not say so",
            )


def _told_problems(
    facts: EvidenceFacts,
    audit: AuditFacts,
    chain: str,
    found: Sequence[SignedEntry],
    told: Sequence[AuditEntryFacts],
) -> Iterator[BundleProblem]:
    inside = [
        entry_facts(each.entry, repository=audit.repository)
        for each in found
        if facts.begin <= each.entry.at < facts.period.end
    ]
    if sorted(inside, key=_order) != sorted(told, key=_order):
        yield BundleProblem(
            kind="facts",
            subject=f"chain {chain[:16]}",
            message=f"the facts tell of other entries in repository {audit.repository} than were signed",
        )


def _order(entry: AuditEntryFacts) -> tuple[int, str]:
    return entry.number, entry.model_dump_json()


def _lost(facts: EvidenceFacts, chains: Mapping[tuple[str, str], object]) -> Iterator[BundleProblem]:
    for audit in facts.audit:
        if audit.error is None and audit.entries and (audit.id is None or not audit.heads):
            yield BundleProblem(
                kind="audit",
                subject=f"repository {audit.repository}",
                message="the facts tell of an audit trail and do not say which",
            )
        for head in audit.heads:
            if audit.id is not None and (audit.id, head.chain) not in chains:
                yield _of_chain(head.chain, f"no entry of it in repository {audit.repository} is there")


def _of_chain(chain: str, message: str) -> BundleProblem:
    return BundleProblem(kind="audit", subject=f"chain {chain[:16]}", message=message)
