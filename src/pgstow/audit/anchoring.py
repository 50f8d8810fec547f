"""Anchors: all heads of a repository's chains, written down where cutting a chain off does not reach.

A host writes one into each repository once a day, with the heads it saw in the other repositories it writes to. Where the
store can lock objects the anchor is locked, and what the store says of that is believed, not what was asked of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from pgstow.audit.documents import ANCHOR, Anchor, anchor_bytes, parse_anchor
from pgstow.audit.entries import ChainHead
from pgstow.audit.journal import Journal
from pgstow.audit.keys import Signed
from pgstow.audit.trail import FOLDER, SignedAnchor, anchor_name, place_of
from pgstow.core.errors import StateError
from pgstow.repository import Repository

__all__ = ["LockObject", "WrittenAnchor", "anchor_when_due", "heads_listed", "opened_anchors", "write_anchor"]

# Locks the object of that name and returns until when, as read back; None where the store has no such thing.
LockObject = Callable[[str], datetime | None]

_ANCHORED = "anchored"
_MOST_ELSEWHERE = 50
_MOST_SEEN_ELSEWHERE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenAnchor:
    """An anchor that is in the repository; ``locked_until`` as the store says."""

    signed: SignedAnchor
    name: str
    locked_until: datetime | None = None


def anchor_when_due(
    repository: Repository, journal: Journal, *, now: datetime, lock: LockObject = lambda _name: None
) -> WrittenAnchor | None:
    """Write an anchor if this host has not done so today. Raises StoreError, StateError."""
    today = f"{now:%Y-%m-%d}"
    try:
        with journal.book(repository.id) as book:
            if book.note(_ANCHORED) == today:
                return None
            book.remember(_ANCHORED, today)  # before: a store that refuses is asked once a day
    except StateError:  # without a memory it would be one for each access
        return None
    return write_anchor(repository, journal, now=now, lock=lock)


def write_anchor(
    repository: Repository, journal: Journal, *, now: datetime, lock: LockObject = lambda _name: None
) -> WrittenAnchor:
    """Write down the heads of every chain, and those this host saw elsewhere. Raises StoreError, StateError."""
    key = next(journal.key_choices())
    heads = heads_listed(repository)
    anchor = Anchor(
        chain=key.chain,
        repository=repository.id,
        at=now,
        heads=heads,
        elsewhere=journal.elsewhere(repository.id, most=_MOST_ELSEWHERE, most_seen=_MOST_SEEN_ELSEWHERE),
    )
    raw = key.signed(ANCHOR, anchor_bytes(anchor)).encode()
    name = anchor_name(anchor, raw)
    repository.save_note(name, raw)
    with journal.book(repository.id) as book:
        book.saw([head for head in heads if head.chain != key.chain])
    return WrittenAnchor(signed=SignedAnchor(anchor=anchor, raw=raw), name=name, locked_until=lock(name))


def heads_listed(repository: Repository) -> tuple[ChainHead, ...]:
    """Return the newest entry of every chain, from the names of the objects alone. Raises StoreError."""
    newest: dict[str, ChainHead] = {}
    for info in repository.store.list(FOLDER):
        if place := place_of(info.name):
            known = newest.get(place.head.chain)
            if known is None or known.number < place.head.number:
                newest[place.head.chain] = place.head
    return tuple(sorted(newest.values()))


def opened_anchors(raws: Iterable[bytes], repository: str) -> list[SignedAnchor]:
    """Return those of the signed documents that are anchors of this repository with a right signature."""
    found = []
    for raw in raws:
        try:
            signed = Signed.decode(raw)
            anchor = parse_anchor(signed.content)
        except ValueError:
            continue
        if signed.is_genuine(ANCHOR) and signed.signer == anchor.chain and anchor.repository == repository:
            found.append(SignedAnchor(anchor=anchor, raw=raw))
    return found
