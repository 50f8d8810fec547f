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
from pgstow.audit.trail import ANCHORS, FOLDER, SignedAnchor, anchor_name, place_of
from pgstow.core.errors import StateError
from pgstow.repository import Repository

__all__ = ["LockObject", "WrittenAnchor", "anchor_when_due", "heads_listed", "opened_anchors", "write_anchor"]

# Locks the object of that name and returns until when, as read back; None where the store has no such thing.
LockObject = Callable[[str], datetime | None]

_ANCHORED = "anchored"
_MOST_HEADS = 2000  # those that changed last: containers without a state folder begin a chain with every run
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
    """Write an anchor if this host has not done so today. Raises StoreError, StateError.

    A host that never did leaves it to others where one of them has today: it may be a container that forgets everything, and
    would write one with every run.
    """
    today = f"{now:%Y-%m-%d}"
    try:
        with journal.book(repository.id) as book:
            before = book.note(_ANCHORED)
            if before == today:
                return None
            book.remember(_ANCHORED, today)  # before: a store that refuses is asked once a day
    except StateError:  # without a memory it would be one for each access
        return None
    listed = _listed(repository)
    if before is None and any(moment.strftime("%Y-%m-%d") == today for moment in listed.anchored):
        return None
    return _write(repository, journal, listed.heads, now=now, lock=lock)


def write_anchor(
    repository: Repository, journal: Journal, *, now: datetime, lock: LockObject = lambda _name: None
) -> WrittenAnchor:
    """Write down the newest heads, and those this host saw elsewhere. Raises StoreError, StateError."""
    return _write(repository, journal, heads_listed(repository), now=now, lock=lock)


def _write(
    repository: Repository, journal: Journal, heads: tuple[ChainHead, ...], *, now: datetime, lock: LockObject
) -> WrittenAnchor:
    key = next(journal.key_choices())
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


def heads_listed(repository: Repository, *, most: int = _MOST_HEADS) -> tuple[ChainHead, ...]:
    """Return the newest entry of each chain, of so many that changed last, from names alone. Raises StoreError."""
    return _listed(repository, most).heads


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """What the names in a trail tell; ``anchored`` is when the store took each anchor."""

    heads: tuple[ChainHead, ...]
    anchored: tuple[datetime, ...]


def _listed(repository: Repository, most: int = _MOST_HEADS) -> _Listed:
    newest: dict[str, tuple[ChainHead, datetime]] = {}
    anchored = []
    for info in repository.store.list(FOLDER):
        if place := place_of(info.name):
            known = newest.get(place.head.chain)
            if known is None or known[0].number < place.head.number:
                newest[place.head.chain] = (place.head, info.modified)
        elif info.name.startswith(ANCHORS):
            anchored.append(info.modified)
    latest = sorted(newest.values(), key=lambda each: each[1])[-most:]
    return _Listed(heads=tuple(sorted(head for head, _ in latest)), anchored=tuple(anchored))


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
