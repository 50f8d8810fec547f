"""Whether an audit trail is what was written: pure functions of what was read.

Within a repository the chains show that nothing between two entries was changed, left out or put in. That the *end* of a chain
was cut off shows only against a head that somebody wrote down elsewhere: an anchor.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pgstow.audit.documents import Enrolment
from pgstow.audit.entries import AuditProblem, AuditVerdict, ChainHead, ProblemKind
from pgstow.audit.trail import SignedEntry, Trail

__all__ = ["KnownHead", "enrolled_chains", "foreign_heads", "known_heads", "verify", "verify_chain"]

_STATEMENT = "statement"  # the fact of an entry that names what an administrator stated by that access


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHead:
    """A head that was written down somewhere; ``where`` says it to people. ``repository`` None: of the one it is held against."""

    head: ChainHead
    where: str
    repository: str | None = None


def verify(
    trail: Trail,
    *,
    administrators: Collection[str] = (),
    anchors: Iterable[KnownHead] = (),
    pending: int = 0,
) -> AuditVerdict:
    """Return whether every chain is as it was written, held against every head that is known of it.

    ``administrators`` are fingerprints; without any no key is known to be genuine, and every chain counts as unenrolled.
    ``anchors`` are heads from outside the repository. ``pending`` entries of this host are not in it yet.
    """
    check = _Check(trail, administrators)
    check.look_for_statements()
    for chain, entries in trail.chains.items():
        check.problems += verify_chain(entries, told=check.told[chain])
        check.notes += _notes(chain, entries)
    known = [*known_heads(trail), *(each for each in anchors if each.repository in (None, trail.repository))]
    for each in known:
        check.hold_against(each)
    unenrolled = tuple(chain for chain in trail.chains if not check.is_enrolled(chain))
    problems = dict.fromkeys((*trail.problems, *check.problems))  # several anchors may show one cut
    return AuditVerdict(
        repository=trail.repository,
        entries=len(trail.entries),
        heads=trail.heads,
        anchors=len(known),
        problems=tuple(sorted(problems, key=lambda each: (each.chain, each.number or 0, each.kind))),
        pending=pending,
        unenrolled=unenrolled,
        notes=tuple(check.notes),
    )


def enrolled_chains(trail: Trail, administrators: Collection[str]) -> frozenset[str]:
    """Return the chains whose keys are genuine by the word of these administrators, with or without entries."""
    return frozenset(_Check(trail, administrators).enrolled)


def known_heads(trail: Trail) -> Iterator[KnownHead]:
    """Yield the heads that this repository itself has of its chains: in entries of other chains, anchors and enrolments."""
    for each in trail.entries:
        for head in each.entry.heads:
            yield KnownHead(head=head, where=f"entry {each.entry.number} of chain {each.entry.chain[:16]}")
    for signed in trail.anchors:
        for head in signed.anchor.heads:
            yield KnownHead(head=head, where=f"the anchor of {signed.anchor.at:%Y-%m-%d %H:%M:%S}Z")
    for stated in trail.enrolments:
        enrolment = stated.enrolment
        if enrolment.head is not None and enrolment.repository == trail.repository:
            yield KnownHead(head=enrolment.head, where=f"an administrator's word of {enrolment.at:%Y-%m-%d}")


def foreign_heads(trail: Trail, repository: str) -> Iterator[KnownHead]:
    """Yield the heads of *another* repository's chains that this one has."""
    for each in trail.entries:
        for foreign in each.entry.elsewhere:
            if foreign.repository == repository:
                where = f"entry {each.entry.number} of chain {each.entry.chain[:16]} in another repository"
                yield KnownHead(head=foreign.head, where=where)
    for signed in trail.anchors:
        for foreign in signed.anchor.elsewhere:
            if foreign.repository == repository:
                when = f"{signed.anchor.at:%Y-%m-%d %H:%M:%S}Z"
                yield KnownHead(head=foreign.head, where=f"the anchor of {when} in another repository")


def verify_chain(
    entries: Sequence[SignedEntry], *, told: Collection[int] = (), is_whole: bool = True
) -> list[AuditProblem]:
    """Return what is wrong within one chain, whose entries come in the order of their numbers.

    Numbers that were ``told`` of already are not told as missing. A chain that is not ``is_whole`` is a part of one: it may
    begin anywhere.
    """
    if not entries:
        return []
    chain = entries[0].entry.chain
    problems: list[AuditProblem] = []

    def problem(kind: ProblemKind, number: int, message: str) -> None:
        problems.append(AuditProblem(kind=kind, chain=chain, number=number, message=message))

    by_number: defaultdict[int, list[SignedEntry]] = defaultdict(list)
    for each in entries:
        by_number[each.entry.number].append(each)
    digests = {each.digest: each.entry.number for each in entries}
    for first, last in _holes(
        [*by_number, *told], begin=min(by_number) if not is_whole else 1, end=max(by_number)
    ):
        which = f"entry {first} is" if first == last else f"the entries {first} to {last} are"
        problem("missing", first, f"{which} missing")
    for number, found in sorted(by_number.items()):
        if len(found) > 1:
            problem(
                "forked", number, f"there are {len(found)} entries with number {number}: two wrote one chain"
            )
        before = {each.digest for each in by_number.get(number - 1, [])}
        for each in found:
            previous = each.entry.previous
            if number == 1:
                if previous:
                    problem("edited", number, "the first entry names one before it")
            elif before and previous not in before:
                kind: ProblemKind = "reordered" if previous in digests else "edited"
                problem(kind, number, f"entry {number} does not follow the entry {number - 1} that is there")
    return problems


def _holes(numbers: Iterable[int], *, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield first and last of each run of numbers from ``begin`` to ``end`` that are not there.

    As runs, since whoever has the repository's password can begin a chain with an entry 9,999,999,999.
    """
    expected = begin
    for number in sorted({number for number in numbers if begin <= number <= end}):
        if number > expected:
            yield expected, number - 1
        expected = number + 1


def _notes(chain: str, entries: Sequence[SignedEntry]) -> Iterator[str]:
    for before, after in itertools.pairwise(entries):
        if after.entry.at < before.entry.at:
            back = before.entry.at - after.entry.at
            yield (
                f"chain {chain[:16]}: the clock of {after.entry.host} was set back by {back} before entry "
                f"{after.entry.number}"
            )


@dataclass(slots=True)
class _Check:
    """What is found while a trail is held against what is known of it."""

    trail: Trail
    administrators: Collection[str]
    problems: list[AuditProblem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    told: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    _digests: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    _newest: dict[str, int] = field(default_factory=dict)
    enrolled: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for problem in self.trail.problems:
            if problem.number is not None:
                self.told[problem.chain].add(problem.number)
        for each in self.trail.entries:
            self._digests.setdefault((each.entry.chain, each.entry.number), set()).add(each.digest)
            self._newest[each.entry.chain] = max(self._newest.get(each.entry.chain, 0), each.entry.number)
        self._read_enrolments()

    def is_enrolled(self, chain: str) -> bool:
        """Whether an administrator who counts has said that the key of this chain is a host's."""
        return chain in self.enrolled

    def look_for_statements(self) -> None:
        """Tell what an administrator stated by an entry of the trail, and is not there: a revocation that somebody took away."""
        there = {each.digest for each in self.trail.enrolments}
        for each in self.trail.entries:
            digest = each.entry.facts.get(_STATEMENT)
            if digest is not None and digest not in there:
                chain = each.entry.facts.get("chain", "")
                self._problem(
                    "missing",
                    chain,
                    None,
                    f"what an administrator stated by entry {each.entry.number} of chain {each.entry.chain[:16]}"
                    f" ({each.entry.action}) is gone",
                )

    def hold_against(self, known: KnownHead) -> None:
        """Look whether the chain still holds what somebody saw in it."""
        head = known.head
        there = self._digests.get((head.chain, head.number))
        if there is None:
            newest = self._newest.get(head.chain, 0)
            if head.number in self.told[head.chain]:
                return
            if newest < head.number:
                end = f"ends with entry {newest}" if newest else "is gone"
                self._problem(
                    "truncated",
                    head.chain,
                    head.number,
                    f"{known.where} knows entry {head.number}; the chain {end}",
                )
        elif head.digest not in there:
            self._problem(
                "forked", head.chain, head.number, f"{known.where} knows another entry {head.number}"
            )

    def _read_enrolments(self) -> None:
        revoked: dict[str, Enrolment] = {}
        for stated in self.trail.enrolments:
            chain = stated.enrolment.chain
            if stated.administrator not in self.administrators:
                if self.administrators:
                    self._problem(
                        "unenrolled",
                        chain,
                        None,
                        f"key {stated.administrator[:16]} enrols it, which is no administrator's",
                    )
            elif stated.enrolment.is_revoked:
                revoked[chain] = stated.enrolment
            else:
                self.enrolled.add(chain)
        for chain, statement in revoked.items():
            self.enrolled.discard(chain)
            self._check_revoked(chain, statement)

    def _check_revoked(self, chain: str, statement: Enrolment) -> None:
        """Tell the entries that were written with a key after it was revoked."""
        is_here = statement.repository == self.trail.repository
        last = statement.head.number if is_here and statement.head is not None else None
        for each in self.trail.chains.get(chain, []):
            is_later = each.entry.number > last if last is not None else each.entry.at > statement.at
            if is_later:
                self._problem(
                    "unenrolled",
                    chain,
                    each.entry.number,
                    f"entry {each.entry.number} was written with a revoked key",
                )

    def _problem(self, kind: ProblemKind, chain: str, number: int | None, message: str) -> None:
        self.problems.append(AuditProblem(kind=kind, chain=chain, number=number, message=message))
