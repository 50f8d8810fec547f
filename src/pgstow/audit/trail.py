"""Everything a repository holds of the audit trail.

    pgstow/audit/YYYY-MM/CHAIN/NUMBER-DIGEST      an entry; NUMBER is ten digits and counts from 1
    pgstow/audit/hosts/CHAIN/DIGEST               what an administrator says of the key of a chain
    pgstow/audit/anchors/CHAIN/TIME-DIGEST        heads that the host of CHAIN saw

Each is a signed document, sealed with the repository's key. DIGEST is the SHA-256 of the signed document, so that nothing ever
takes the place of something else: writing needs no condition, and two entries with one number are seen in the listing. It
tells nothing to who has no key, since nobody but the host can make the signature that is part of it.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from pgstow.audit.documents import (
    ANCHOR,
    ENROLMENT,
    ENTRY,
    Anchor,
    Enrolment,
    parse_anchor,
    parse_enrolment,
    parse_entry,
)
from pgstow.audit.entries import AuditEntry, AuditProblem, ChainHead, ProblemKind
from pgstow.audit.keys import Signed, fingerprint
from pgstow.core.errors import ObjectNotFound, RepositoryDamaged
from pgstow.core.progress import Progress
from pgstow.repository import Repository

__all__ = [
    "ANCHORS",
    "FOLDER",
    "EntryPlace",
    "SignedAnchor",
    "SignedEnrolment",
    "SignedEntry",
    "StoredDocument",
    "Trail",
    "anchor_name",
    "digest_of",
    "enrolment_name",
    "entry_name",
    "genuine_entry",
    "month_of",
    "place_of",
    "read_trail",
    "trail_of",
]

FOLDER = "pgstow/audit/"
ANCHORS = f"{FOLDER}anchors/"

_READERS = 16
_MOST_BYTES = 16 << 20  # of an object of ours: many times what the largest anchor takes
_HEX = r"[0-9a-f]{64}"
_ENTRY = re.compile(rf"{FOLDER}([0-9]{{4}}-[0-9]{{2}})/({_HEX})/([0-9]{{10}})-({_HEX})")
_HOST = re.compile(rf"{FOLDER}hosts/({_HEX})/({_HEX})")
_ANCHOR = re.compile(rf"{FOLDER}anchors/({_HEX})/([0-9TZ-]+)-({_HEX})")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPlace:
    """What the name of an entry's object says."""

    month: str
    head: ChainHead


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedEntry:
    """An entry whose signature is that of its chain's key, and the bytes it was read from."""

    entry: AuditEntry
    digest: str
    raw: bytes

    @property
    def head(self) -> ChainHead:
        return ChainHead(chain=self.entry.chain, number=self.entry.number, digest=self.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedEnrolment:
    """What the administrator with this fingerprint says of a host's key; his signature is right."""

    enrolment: Enrolment
    administrator: str
    raw: bytes

    @property
    def digest(self) -> str:
        return digest_of(self.raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedAnchor:
    """Heads that a host saw; its signature is right."""

    anchor: Anchor
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDocument:
    """An object of the trail as it was read: its signed document, or why there is none."""

    name: str
    raw: bytes | None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """All of it, by chain and number. What is not as it was written is among ``problems`` and nowhere else."""

    repository: str
    entries: tuple[SignedEntry, ...] = ()
    enrolments: tuple[SignedEnrolment, ...] = ()
    anchors: tuple[SignedAnchor, ...] = ()
    problems: tuple[AuditProblem, ...] = ()

    @property
    def chains(self) -> Mapping[str, list[SignedEntry]]:
        """The entries of each chain in the order of their numbers; several with one number are a fork."""
        found: defaultdict[str, list[SignedEntry]] = defaultdict(list)
        for each in self.entries:
            found[each.entry.chain].append(each)
        return found

    @property
    def heads(self) -> tuple[ChainHead, ...]:
        """The newest entry of each chain."""
        return tuple(chain[-1].head for chain in self.chains.values())

    def newest_first(self) -> list[SignedEntry]:
        """Return the entries as a person reads them."""
        return sorted(self.entries, key=lambda each: (each.entry.at, each.entry.number), reverse=True)


def digest_of(raw: bytes) -> str:
    """Return what names a signed document: the SHA-256 of its bytes, in hex."""
    return hashlib.sha256(raw).hexdigest()


def month_of(moment: datetime) -> str:
    """Return the folder of what was written at ``moment``."""
    return f"{moment.astimezone(UTC):%Y-%m}"


def entry_name(entry: AuditEntry, raw: bytes) -> str:
    """Return the name of the object that holds an entry."""
    return f"{FOLDER}{month_of(entry.at)}/{entry.chain}/{entry.number:010d}-{digest_of(raw)}"


def enrolment_name(chain: str, raw: bytes) -> str:
    """Return the name of the object that holds an administrator's statement."""
    return f"{FOLDER}hosts/{chain}/{digest_of(raw)}"


def anchor_name(anchor: Anchor, raw: bytes) -> str:
    """Return the name of the object that holds an anchor."""
    return f"{FOLDER}anchors/{anchor.chain}/{anchor.at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{digest_of(raw)}"


def place_of(name: str) -> EntryPlace | None:
    """Return what the name of an object says, if it is that of an entry."""
    found = _ENTRY.fullmatch(name)
    if found is None:
        return None
    return EntryPlace(month=found[1], head=ChainHead(chain=found[2], number=int(found[3]), digest=found[4]))


def read_trail(
    repository: Repository,
    *,
    since: datetime | None = None,
    progress: Progress | None = None,
    had: dict[str, StoredDocument] | None = None,
) -> Trail:
    """Return the trail of a repository. Raises StoreError; what cannot be read of it is a problem, not an error.

    With ``since`` entries of months before are left out: enough to list, not to verify. ``had`` are documents that were read
    before, by name; what is read now joins them. A name says what it holds, so that none is read twice.
    """
    first = month_of(since) if since is not None else ""
    had = {} if had is None else had
    found = sorted(
        (info.name, info.size_bytes)
        for info in repository.store.list(FOLDER)
        if (place := place_of(info.name)) is None or place.month >= first
    )
    if progress is not None:
        progress.expect(size_bytes=sum(size_bytes for _, size_bytes in found))

    def read(one: tuple[str, int]) -> StoredDocument | None:
        name, size_bytes = one
        document = had.get(name) or _read(repository, name, size_bytes)
        if progress is not None:
            progress.advance(size_bytes=size_bytes)
        return document

    with ThreadPoolExecutor(_READERS, thread_name_prefix="audit") as executor:
        documents = [document for document in executor.map(read, found) if document is not None]
    had |= {document.name: document for document in documents if document.raw is not None}
    return trail_of(repository.id, documents)


def _read(repository: Repository, name: str, size_bytes: int) -> StoredDocument | None:
    """Return a document; None if it is gone, which nothing of ours does: the chain has a hole then."""
    if size_bytes > _MOST_BYTES:  # whoever may write to the store must not fill the memory of who checks
        return StoredDocument(
            name=name, raw=None, problem=f"{name} is larger than anything that pgstow writes"
        )
    try:
        return StoredDocument(name=name, raw=repository.read_note(name))
    except RepositoryDamaged as exc:
        return StoredDocument(name=name, raw=None, problem=exc.message)
    except ObjectNotFound:
        return None


def genuine_entry(
    repository: Repository, place: EntryPlace, name: str, size_bytes: int
) -> SignedEntry | None:
    """Return the entry that is stored under a name, if it is what the name says and its host signed it."""
    document = _read(repository, name, size_bytes)
    if document is None:
        return None
    found = trail_of(repository.id, [document]).entries
    return found[0] if found and found[0].head == place.head else None


def trail_of(repository_id: str, documents: Iterable[StoredDocument]) -> Trail:
    """Return the trail that stored documents make up; each is checked by itself, not yet against the others."""
    reading = _Reading(repository_id)
    for document in documents:
        reading.take(document)
    return Trail(
        repository=repository_id,
        entries=tuple(sorted(reading.entries, key=lambda each: each.head)),
        enrolments=tuple(sorted(reading.enrolments, key=lambda each: each.enrolment.at)),
        anchors=tuple(sorted(reading.anchors, key=lambda each: each.anchor.at)),
        problems=tuple(reading.problems),
    )


class _Reading:
    """Takes documents one by one and sorts them into what they are, and what is wrong with them."""

    def __init__(self, repository_id: str) -> None:
        self._repository = repository_id
        self.entries: list[SignedEntry] = []
        self.enrolments: list[SignedEnrolment] = []
        self.anchors: list[SignedAnchor] = []
        self.problems: list[AuditProblem] = []

    def take(self, document: StoredDocument) -> None:
        name = document.name
        if place := place_of(name):
            kind, chain, number, digest = ENTRY, place.head.chain, place.head.number, place.head.digest
        elif found := _HOST.fullmatch(name):
            kind, chain, number, digest = ENROLMENT, found[1], None, found[2]
        elif found := _ANCHOR.fullmatch(name):
            kind, chain, number, digest = ANCHOR, found[1], None, found[3]
        else:
            self._problem("unreadable", "", None, f"{name} is nothing that pgstow writes")
            return
        signed = self._signed(document, kind, chain, number, digest)
        if signed is None:
            return
        try:
            self._sort(kind, signed, document, chain, number)
        except ValueError as exc:
            self._problem("unreadable", chain, number, f"{name}: {exc}")

    def _signed(
        self, document: StoredDocument, kind: str, chain: str, number: int | None, digest: str
    ) -> Signed | None:
        """Return the signed document, if it is whole and the signature is right."""
        if document.raw is None:
            self._problem("unreadable", chain, number, document.problem)
            return None
        if digest_of(document.raw) != digest:
            self._problem("edited", chain, number, f"{document.name} does not hold what its name says")
            return None
        try:
            signed = Signed.decode(document.raw)
        except ValueError as exc:
            self._problem("unreadable", chain, number, f"{document.name}: {exc}")
            return None
        if not signed.is_genuine(kind):
            self._problem("unsigned", chain, number, f"the signature of {document.name} is wrong")
            return None
        return signed

    def _sort(
        self, kind: str, signed: Signed, document: StoredDocument, chain: str, number: int | None
    ) -> None:
        raw, name = document.raw or b"", document.name
        if kind == ENROLMENT:
            enrolment = parse_enrolment(signed.content)
            if enrolment.chain != chain or fingerprint(enrolment.host_key) != chain:
                self._problem("reordered", chain, None, f"{name} is about another key than its name says")
                return
            self.enrolments.append(SignedEnrolment(enrolment=enrolment, administrator=signed.signer, raw=raw))
            return
        if signed.signer != chain:
            self._problem("unsigned", chain, number, f"{name} is signed with the key of another chain")
            return
        if kind == ANCHOR:
            anchor = parse_anchor(signed.content)
            if anchor.chain != chain or anchor.repository != self._repository:
                self._problem("reordered", chain, None, f"{name} was written elsewhere")
                return
            self.anchors.append(SignedAnchor(anchor=anchor, raw=raw))
            return
        self._take_entry(parse_entry(signed.content), raw, name, chain, number)

    def _take_entry(self, entry: AuditEntry, raw: bytes, name: str, chain: str, number: int | None) -> None:
        if entry.repository != self._repository:
            self._problem("reordered", chain, number, f"{name} was written for another repository")
        elif entry_name(entry, raw) != name:
            self._problem(
                "reordered", chain, number, f"{name} holds entry {entry.number} of chain {entry.chain[:16]}"
            )
        else:
            self.entries.append(SignedEntry(entry=entry, digest=digest_of(raw), raw=raw))

    def _problem(self, kind: ProblemKind, chain: str, number: int | None, message: str) -> None:
        self.problems.append(AuditProblem(kind=kind, chain=chain, number=number, message=message))


def stored(entries: Iterable[SignedEntry]) -> Iterator[StoredDocument]:
    """Yield entries as the documents they were read from."""
    for each in entries:
        yield StoredDocument(name=entry_name(each.entry, each.raw), raw=each.raw)
