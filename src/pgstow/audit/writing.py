"""Adding entries to the audit trail of a repository.

An entry is first kept on this host and then sent, with what waits there already, in order: so a chain in the repository never
has a hole. What cannot be sent now is sent by the next access. A host that can keep nothing writes a chain of its own for
this one access. Nothing here stops the access that the entry tells of.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from pgstow.audit.documents import ENTRY, entry_bytes
from pgstow.audit.entries import AuditEntry, ChainHead
from pgstow.audit.journal import Book, Journal, Mark, read_waiting
from pgstow.audit.keys import HostKey
from pgstow.audit.trail import (
    FOLDER,
    EntryPlace,
    SignedEntry,
    digest_of,
    entry_name,
    genuine_entry,
    month_of,
    place_of,
)
from pgstow.core.errors import StateError
from pgstow.repository import Repository
from pgstow.store.api import ObjectInfo

__all__ = ["Sight", "Written", "look", "send", "write"]

_MOST_MONTHS = 3  # listed one by one; more, and everything is listed
_MOST_HEADS = 16  # of other chains in an entry: those that changed last. Anchors name all
_MOST_ELSEWHERE = 4  # other repositories in an entry, with this host's head and so many others
_MOST_SEEN_ELSEWHERE = 3
# Entries that are sent before it is written down that they were: the process may end before a long backlog is through, and
# the next one must not begin anew.
_BATCH = 20

_BEHIND = (
    "the repository holds entries of this host's audit chain {chain} that were not written here: a machine set back to an"
    " earlier state, or two machines with one key; this one goes on in a new chain"
)
_UNSEEN = "the audit trail could not be looked at: this access is not in the chain of the key that was given"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """The newest entry of each chain that a listing showed, and when the store took it.

    ``at_newest`` are all digests with that number: more than one is a fork. One that ``is_known`` not is of a store that did
    not answer.
    """

    is_known: bool = True

    newest: dict[str, Mark] = field(default_factory=dict)
    at_newest: dict[str, frozenset[str]] = field(default_factory=dict)
    modified: dict[str, datetime] = field(default_factory=dict)

    def others(self, chain: str) -> list[ChainHead]:
        """Return the heads of other chains, the one that changed last first."""
        chains = sorted(
            (each for each in self.newest if each != chain),
            key=lambda each: self.modified[each],
            reverse=True,
        )
        return [self.newest[each].head for each in chains]

    def is_behind(self, chain: str, mark: Mark | None) -> bool:
        """Whether the chain has entries that somebody else wrote: this host has it up to ``mark``."""
        newest = self.newest.get(chain)
        if newest is None or mark is None:
            return False
        if newest.head.number == mark.head.number:
            return mark.head.digest not in self.at_newest[chain] or len(self.at_newest[chain]) > 1
        return newest.head.number > mark.head.number


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Entries that were added. ``unkept`` are not on this host's disk: sending them is their only chance.

    ``warnings`` are for people.
    """

    unkept: tuple[SignedEntry, ...] = ()
    warnings: tuple[str, ...] = ()


def look(repository: Repository, journal: Journal, *, now: datetime) -> Sight:
    """Return what the trail's newest months show, at one or two listings; all of it where this host is new here.

    Raises StoreError.
    """
    names: defaultdict[str, defaultdict[int, list[tuple[EntryPlace, ObjectInfo]]]]
    names = defaultdict(lambda: defaultdict(list))
    marks = _marks(repository, journal)
    known = min((mark.month for mark in marks.values() if mark is not None), default=None)
    for prefix in _prefixes(known, month_of(now)):
        for info in repository.store.list(prefix):
            if place := place_of(info.name):
                names[place.head.chain][place.head.number].append((place, info))
    for chain, mark in marks.items():
        if chain in names:
            _leave_out_forged(repository, names[chain], mark)
    newest = {chain: max(numbers) for chain, numbers in names.items() if numbers}
    found = {chain: names[chain][number] for chain, number in newest.items()}
    marked = {
        chain: min((Mark(head=place.head, month=place.month) for place, _ in each), key=lambda one: one.head)
        for chain, each in found.items()
    }
    return Sight(
        newest=marked,
        at_newest={chain: frozenset(place.head.digest for place, _ in each) for chain, each in found.items()},
        modified={chain: max(info.modified for _, info in each) for chain, each in found.items()},
    )


def _marks(repository: Repository, journal: Journal) -> dict[str, Mark | None]:
    """Return how far this host knows the chains that it may write; None if it never wrote here."""
    try:
        with journal.book(repository.id) as book:
            return {key.chain: book.mark(key.chain) for key in journal.key_choices()}
    except StateError:
        given = None
        with contextlib.suppress(StateError):
            given = journal.given_key()
        return {given.chain: None} if given is not None else {}


def _leave_out_forged(
    repository: Repository, numbers: dict[int, list[tuple[EntryPlace, ObjectInfo]]], mark: Mark | None
) -> None:
    """Take objects away from what a listing showed of an own chain that are not entries with its signature.

    Whoever may write to the store can give an object any name; that must not make a host give its chain up, or go on after
    what is none. Only what this host did not write is read: nothing, as a rule.
    """
    for number in sorted(numbers, reverse=True):
        if mark is not None and number < mark.head.number:
            return
        genuine = [
            (place, info)
            for place, info in numbers[number]
            if (mark is not None and place.head == mark.head)
            or genuine_entry(repository, place, info.name, info.size_bytes) is not None
        ]
        if genuine:
            numbers[number] = genuine
            return
        del numbers[number]


def _prefixes(first: str | None, last: str) -> list[str]:
    if first is None:
        return [FOLDER]
    months = []
    year, month = map(int, first.split("-"))
    while (text := f"{year:04d}-{month:02d}") <= last:
        months.append(f"{FOLDER}{text}/")
        if len(months) > _MOST_MONTHS:
            return [FOLDER]
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    return months or [FOLDER]  # a clock that was set back


def write(
    repository: Repository, journal: Journal, drafts: Sequence[AuditEntry], sight: Sight | None
) -> Written:
    """Add entries, which are given without chain, number, heads; they are on this host's disk when this returns.

    ``sight`` None: what is in the repository is not known.
    """
    sight = sight or Sight(is_known=False)
    try:
        with journal.book(repository.id) as book:
            return _write(repository, journal, book, drafts, sight)
    except StateError as exc:
        return _write_unkept(repository, journal, drafts, sight, exc)


def _write(
    repository: Repository, journal: Journal, book: Book, drafts: Sequence[AuditEntry], sight: Sight
) -> Written:
    key, mark, warnings = _choose_key(journal, book, sight)
    if (problem := journal.key_problem(key)) is not None:
        warnings.append(problem)
    others = sight.others(key.chain)
    elsewhere = journal.elsewhere(repository.id, most=_MOST_ELSEWHERE, most_seen=_MOST_SEEN_ELSEWHERE)
    for draft in drafts:
        entry = replace(draft, heads=tuple(others[:_MOST_HEADS]), elsewhere=elsewhere)
        signed = _signed(entry, key, mark.head if mark else None, repository.id)
        book.keep(signed.raw)
        mark = Mark(head=signed.head, month=month_of(entry.at))
    book.saw(others)
    return Written(warnings=tuple(warnings))


def _choose_key(journal: Journal, book: Book, sight: Sight) -> tuple[HostKey, Mark | None, list[str]]:
    """Return the key to write with, and how far its chain is: never one that others write with."""
    warnings: list[str] = []
    given = journal.given_key()
    key: HostKey | None = None
    for key in journal.key_choices():
        mark = book.mark(key.chain)
        if mark is None and not sight.is_known and given is not None and key.chain == given.chain:
            warnings.append(
                _UNSEEN
            )  # its chain may be long already, and would have two entries with number 1
            continue
        if mark is None and (there := sight.newest.get(key.chain)) is not None:
            book.adopt(there)  # this host lost what it kept, or was given the key
            mark = there
        if not sight.is_behind(key.chain, mark):
            return key, mark, warnings
        warnings.append(_BEHIND.format(chain=key.chain[:16]))
    assert key is not None  # there always is the host's own
    fresh = journal.renew_key(key)
    return fresh, book.mark(fresh.chain), warnings


def _write_unkept(
    repository: Repository,
    journal: Journal,
    drafts: Sequence[AuditEntry],
    sight: Sight,
    problem: StateError,
) -> Written:
    """Return entries of a key that was given, or else of one that lives as long as this access."""
    warnings = [f"{problem.message}; {problem.hint}" if problem.hint else problem.message]
    key, mark = HostKey.generate(), None
    try:
        given = journal.given_key()
    except StateError as exc:
        warnings.append(exc.message)
        given = None
    if given is not None and sight.is_known:
        key, mark = given, sight.newest.get(given.chain)
    else:
        warnings.append("this access has an audit chain of its own")
    entries = []
    head = mark.head if mark else None
    for draft in drafts:
        entry = replace(draft, heads=tuple(sight.others(key.chain)[:_MOST_HEADS]))
        signed = _signed(entry, key, head, repository.id)
        entries.append(signed)
        head = signed.head
    return Written(unkept=tuple(entries), warnings=tuple(warnings))


def _signed(entry: AuditEntry, key: HostKey, head: ChainHead | None, repository: str) -> SignedEntry:
    whole = replace(
        entry,
        repository=repository,
        chain=key.chain,
        number=head.number + 1 if head else 1,
        previous=head.digest if head else "",
    )
    raw = key.signed(ENTRY, entry_bytes(whole)).encode()
    return SignedEntry(entry=whole, digest=digest_of(raw), raw=raw)


def send(
    repository: Repository,
    journal: Journal,
    unkept: Sequence[SignedEntry] = (),
    *,
    put: Callable[[str, bytes], None] | None = None,
) -> None:
    """Send what waits for this repository, each chain in its order, and forget here what it took.

    Sending twice is harmless: an object's name says what it holds. Raises StoreError, StateError; what was not sent waits.
    """
    put = put or repository.save_note
    for each in unkept:
        put(entry_name(each.entry, each.raw), each.raw)
    try:
        with journal.book(repository.id) as book:
            waiting = book.waiting()
    except StateError:
        if unkept:
            return  # told already
        raise
    for start in range(0, len(waiting), _BATCH):
        taken: list[SignedEntry] = []
        try:
            for path, head in waiting[start : start + _BATCH]:
                if (kept := read_waiting(path, head)) is not None:  # else another process has sent it by now
                    put(entry_name(kept.entry, kept.raw), kept.raw)
                    taken.append(kept)
        finally:
            if taken:
                with journal.book(repository.id) as book:
                    book.settle(taken)
