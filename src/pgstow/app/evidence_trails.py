"""Reading from audit trails what an evidence report is judged by, and what it hands on of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from pgstow.app.audit import verify_trail
from pgstow.app.evidence_repositories import Insides
from pgstow.audit.journal import Journal
from pgstow.audit.trail import Trail, read_trail
from pgstow.core.errors import RepositoryError, StateError, StoreError
from pgstow.evidence import facts as evidence
from pgstow.evidence.attestations import LATE_DAYS, attestation_facts
from pgstow.evidence.trail import audit_facts, entry_facts, part_of_chain

__all__ = ["GatheredTrails", "LetGo", "gather_trails"]

_EXPIRED = "expired"  # in entries of retention: how many backups it removed
_REMOVED_KEY = "removed_key"  # in entries of keys remove and keys passwd
_ATTESTED_BEFORE = timedelta(days=366 + LATE_DAYS)  # so old can be what still counts in a period


@dataclass(frozen=True, slots=True, kw_only=True)
class LetGo:
    """Ids of backups that retention removed, by the audit trail. ``unnamed_until``: an entry of then does not name all of its."""

    ids: frozenset[str] = frozenset()
    unnamed_until: datetime | None = None

    def explains(self, backup_id: str, made: datetime) -> bool:
        """Whether retention removed this backup, or may have done so without naming it."""
        return backup_id in self.ids or (self.unnamed_until is not None and made < self.unnamed_until)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatheredTrails:
    """What checking each trail showed; the entries of the period, as facts and as they were signed with their neighbours.

    ``attestations`` of the time that counts, ``attested`` as they were signed. ``keys_removed``: when keys were removed after
    the period, by repository; of one whose trail is not as it was written nothing is known.
    """

    audits: tuple[evidence.AuditFacts, ...]
    facts: tuple[evidence.AuditEntryFacts, ...]
    entries: tuple[bytes, ...]
    enrolments: tuple[bytes, ...]
    let_go: Mapping[str, LetGo]
    attestations: tuple[evidence.AttestationFacts, ...] = ()
    attested: tuple[bytes, ...] = ()
    keys_removed: Mapping[str, tuple[datetime, ...]] = field(default_factory=dict)


def gather_trails(
    read: Sequence[Insides],
    journal: Journal,
    *,
    administrators: Sequence[str],
    begin: datetime,
    end: datetime,
) -> GatheredTrails:
    """Return the audit trails of repositories, each held against what the others and this host know of it."""
    audits: list[evidence.AuditFacts] = []
    facts: list[evidence.AuditEntryFacts] = []
    entries: list[bytes] = []
    enrolments: dict[bytes, None] = {}
    let_go: dict[str, LetGo] = {}
    attestations: list[tuple[evidence.AttestationFacts, bytes]] = []
    keys_removed: dict[str, tuple[datetime, ...]] = {}
    for insides in read:
        found = _checked(insides, read, journal, administrators)
        if isinstance(found, evidence.AuditFacts):
            audits.append(found)
            continue
        trail, audit = found
        audits.append(audit)
        enrolments |= dict.fromkeys(each.raw for each in trail.enrolments)
        let_go[insides.name] = _let_go(trail)
        attestations += _attestations(trail, insides.name, since=begin - _ATTESTED_BEFORE)
        if not audit.problems:
            keys_removed[insides.name] = _keys_removed(trail, since=end)
        for chain in trail.chains.values():
            part = part_of_chain(chain, begin, end)
            entries += [each.raw for each in part]
            facts += [
                entry_facts(each.entry, repository=insides.name)
                for each in part
                if begin <= each.entry.at < end
            ]
    return GatheredTrails(
        audits=tuple(audits),
        facts=tuple(facts),
        # Two settings may lead to one repository, or to copies of one: an entry is told of each and handed on once.
        entries=tuple(dict.fromkeys(entries)),
        enrolments=tuple(enrolments),
        let_go=let_go,
        attestations=tuple(each for each, _ in attestations),
        attested=tuple(dict.fromkeys(raw for _, raw in attestations)),
        keys_removed=keys_removed,
    )


def _attestations(
    trail: Trail, repository: str, *, since: datetime
) -> Iterator[tuple[evidence.AttestationFacts, bytes]]:
    for each in trail.entries:
        if each.entry.at >= since and (
            found := attestation_facts(each.entry, each.digest, repository=repository)
        ):
            yield found, each.raw


def _keys_removed(trail: Trail, *, since: datetime) -> tuple[datetime, ...]:
    return tuple(
        each.entry.at
        for each in trail.entries
        if _REMOVED_KEY in each.entry.facts and each.entry.result != "begun" and each.entry.at >= since
    )


def _let_go(trail: Trail) -> LetGo:
    ids: set[str] = set()
    unnamed = []
    for each in trail.entries:
        count = each.entry.facts.get(_EXPIRED)
        if count is None:
            continue
        ids.update(each.entry.subjects)
        if not count.isdecimal() or int(count) > len(each.entry.subjects):
            unnamed.append(each.entry.at)
    return LetGo(ids=frozenset(ids), unnamed_until=max(unnamed, default=None))


def _checked(
    insides: Insides, read: Sequence[Insides], journal: Journal, administrators: Sequence[str]
) -> tuple[Trail, evidence.AuditFacts] | evidence.AuditFacts:
    """Return a trail and what checking it showed; only the latter, with an error, where that could not be done."""
    repository = insides.repository
    if repository is None:
        return evidence.AuditFacts(repository=insides.name, error=insides.error or "it was not opened")
    others = [each.repository for each in read if each is not insides and each.repository is not None]
    try:
        checked = verify_trail(
            repository, journal, insides.environ, administrators=administrators, against=others
        )
        trail = read_trail(repository)
    except (StoreError, RepositoryError, StateError) as exc:
        return evidence.AuditFacts(repository=insides.name, error=exc.message)
    # Read after it was checked, so that nothing which was checked is missing; what was added meanwhile counts as well.
    newest = replace(checked.verdict, entries=len(trail.entries), heads=trail.heads)
    return trail, audit_facts(newest, repository=insides.name, repository_id=repository.id)
