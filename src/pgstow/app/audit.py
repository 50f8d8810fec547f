"""The use cases of ``pgstow audit``: read the trail, check it, write it out, say whose keys are genuine."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pgstow.app.auditing import note_access, object_lock_of
from pgstow.audit.anchoring import WrittenAnchor, heads_listed, opened_anchors, write_anchor
from pgstow.audit.checking import KnownHead, enrolled_chains, foreign_heads, verify
from pgstow.audit.documents import ANCHOR, ENROLMENT, Anchor, Enrolment, anchor_bytes, enrolment_bytes
from pgstow.audit.entries import AuditEntry, AuditProblem, AuditVerdict, ChainHead
from pgstow.audit.exporting import read_export, write_export
from pgstow.audit.journal import Journal
from pgstow.audit.keys import AdministratorKey, Signed, fingerprint
from pgstow.audit.trail import (
    ANCHORS,
    SignedEntry,
    StoredDocument,
    Trail,
    digest_of,
    enrolment_name,
    read_trail,
)
from pgstow.core.errors import Interrupted, PgstowError, RepositoryDamaged, StateError, UsageError
from pgstow.core.progress import Progress
from pgstow.core.secrets import Secret
from pgstow.repository import Repository

__all__ = [
    "Checked",
    "Listed",
    "TrailFilter",
    "anchor_now",
    "enroll",
    "export_trail",
    "list_trail",
    "make_administrator_key",
    "read_administrator_key",
    "read_heads",
    "verify_file",
    "verify_trail",
]

_READ_AGAIN = 2  # times, a trail that is not intact
_REPOSITORY_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailFilter:
    """Which entries are asked for; what is None asks for nothing."""

    since: datetime | None = None
    until: datetime | None = None
    action: str | None = None
    host: str | None = None
    backup: str | None = None  # the beginning of an id, or the name of a database

    def takes(self, entry: AuditEntry) -> bool:
        return (
            (self.since is None or entry.at >= self.since)
            and (self.until is None or entry.at <= self.until)
            and (self.action is None or entry.action == self.action)
            and (self.host is None or entry.host == self.host)
            and (self.backup is None or any(each.startswith(self.backup) for each in entry.subjects))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Entries, the oldest first; ``problems`` are of what could not be read, and was not listed for that."""

    entries: Sequence[SignedEntry]
    problems: Sequence[AuditProblem]


def list_trail(repository: Repository, wanted: TrailFilter, progress: Progress) -> Listed:
    """Return the entries that are asked for. Nothing is checked here but each signature."""
    trail = read_trail(repository, since=wanted.since, progress=progress)
    entries = sorted(
        (each for each in trail.entries if wanted.takes(each.entry)),
        key=lambda each: (each.entry.at, each.entry.chain, each.entry.number),
    )
    return Listed(entries=entries, problems=trail.problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A verdict, and the names of the chains' hosts, as they say."""

    verdict: AuditVerdict
    hosts: Mapping[str, str]


def verify_trail(
    repository: Repository,
    journal: Journal,
    environ: Mapping[str, str],
    *,
    administrators: Collection[str] = (),
    anchors: Sequence[KnownHead] = (),
    against: Sequence[Repository] = (),
    progress: Progress | None = None,
) -> Checked:
    """Return whether the trail is as it was written; ``against`` are repositories that may hold heads of this one.

    What this host remembers of the trail, and versions of anchors that a bucket with Object Lock kept, count as well.
    Raises UsageError when ``anchors`` are all of other repositories.
    """
    _refuse_foreign(anchors, repository.id)
    # Before the trail is listed: a head that somebody writes meanwhile must not seem to be missing from it.
    known = [*anchors, *_remembered(journal, repository.id)]
    for other in against:
        known += foreign_heads(read_trail(other), repository.id)
    kept, unread = _kept_versions(repository, environ)
    known += kept
    pending = _pending(journal, repository.id)
    had: dict[str, StoredDocument] = {}

    def check(progress: Progress | None) -> tuple[Trail, AuditVerdict]:
        trail = read_trail(repository, progress=progress, had=had)
        return trail, verify(trail, administrators=administrators, anchors=known, pending=pending)

    trail, verdict = check(progress)
    for _ in range(_READ_AGAIN):
        if verdict.is_intact:
            break
        # A listing is no snapshot: what was written while it went on may show one entry and not another.
        trail, verdict = check(None)
    if unread is not None:
        verdict = replace(verdict, notes=(*verdict.notes, unread))
    return Checked(verdict=verdict, hosts=_hosts(trail))


def _refuse_foreign(anchors: Sequence[KnownHead], repository: str) -> None:
    """Raise UsageError where heads were given, and none is of this repository: nothing would be held against them."""
    if anchors and all(each.repository not in (None, repository) for each in anchors):
        raise UsageError(f"{anchors[0].where} holds no heads of this repository's audit trail")


def _hosts(trail: Trail) -> dict[str, str]:
    return {chain: entries[-1].entry.host for chain, entries in trail.chains.items()}


def _remembered(journal: Journal, repository: str) -> list[KnownHead]:
    try:
        with journal.book(repository) as book:
            return [KnownHead(head=head, where="this host") for head in (*book.taken(), *book.seen())]
    except StateError:
        return []


def _pending(journal: Journal, repository: str) -> int:
    try:
        with journal.book(repository) as book:
            return len(book.waiting())
    except StateError:
        return 0


def _kept_versions(repository: Repository, environ: Mapping[str, str]) -> tuple[list[KnownHead], str | None]:
    """Return heads in anchors that are hidden or overwritten, and that the bucket still has; a note where it does not tell."""
    location = repository.store.location
    if not location.startswith("s3://"):
        return [], None
    # Imported here because botocore takes a third of a second, which no local repository should pay.
    from pgstow.store.object_lock import LockableBucket  # noqa: PLC0415

    raws, unread = [], None
    try:
        for name, sealed in LockableBucket(location, environ).hidden_versions(ANCHORS):
            try:
                raws.append(repository.open_note(name, sealed))
            except RepositoryDamaged:
                continue  # nobody with the key wrote it
    except Interrupted:
        raise
    except PgstowError as exc:  # not every bucket, and not every key, lets versions be listed
        unread = f"not held against hidden versions of anchors: {exc.message}"
    known = [
        KnownHead(head=head, where=f"a kept version of the anchor of {each.anchor.at:%Y-%m-%d %H:%M:%S}Z")
        for each in opened_anchors(raws, repository.id)
        for head in each.anchor.heads
    ]
    return known, unread


def verify_file(
    path: Path, *, administrators: Collection[str] = (), anchors: Sequence[KnownHead] = ()
) -> Checked:
    """Return whether an exported trail is as it was written; needs no repository. Raises UsageError.

    Whoever cuts a file can sign its first line anew with a key of his own: whose key that is belongs to the verdict.
    """
    exported = read_export(path)
    if exported.anchor is None:
        raise UsageError(f"the signature in the first line of {path} is wrong")
    _refuse_foreign(anchors, exported.trail.repository)
    known = [*exported.known_heads(), *anchors]
    verdict = verify(exported.trail, administrators=administrators, anchors=known)
    writer, hosts = exported.anchor.chain, _hosts(exported.trail)
    if writer in hosts:
        note = f"the file was written with the key of chain {writer[:16]}"
    else:
        note = f"the file was written with a key that has no chain in it, {writer[:16]}"
    verdict = replace(verdict, notes=(*verdict.notes, f"{note}: its end is as that host says"))
    if writer not in verdict.unenrolled and writer not in enrolled_chains(exported.trail, administrators):
        verdict = replace(verdict, unenrolled=(*verdict.unenrolled, writer))
    return Checked(verdict=verdict, hosts=hosts)


def read_heads(path: Path) -> list[KnownHead]:
    """Return the heads in a JSON document: what ``audit verify`` or ``audit anchor`` printed, or a report."""
    try:
        found = list(_heads_in(json.loads(path.read_text(encoding="utf-8"))))
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc.strerror}") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise UsageError(f"{path} holds no heads of an audit trail: {exc}") from exc
    if not found:
        raise UsageError(f"{path} holds no heads of an audit trail")
    return [KnownHead(head=head, where=str(path), repository=repository) for head, repository in found]


def _heads_in(document: Any) -> Iterable[tuple[ChainHead, str | None]]:  # noqa: ANN401  JSON
    """Yield every list called ``heads``, wherever it stands, with the repository that each head is of, if that is said.

    One host has one key, and chains of one name in several repositories: a report may hold heads of all of them.
    """
    if isinstance(document, dict):
        for key, value in document.items():
            if key == "heads" and isinstance(value, list):
                for each in value:
                    head = ChainHead(
                        chain=str(each["chain"]), number=int(each["number"]), digest=str(each["digest"])
                    )
                    yield head, _repository_of(each) or _repository_of(document)
            else:
                yield from _heads_in(value)
    elif isinstance(document, list):
        for each in document:
            yield from _heads_in(each)


def _repository_of(fields: Mapping[str, Any]) -> str | None:
    """Return the id of the repository that a part of a document is about; under ``repository`` some have its name."""
    given = (fields.get(key) for key in ("repository_id", "repository", "id"))
    return next((each for each in given if isinstance(each, str) and _REPOSITORY_ID.fullmatch(each)), None)


def export_trail(
    repository: Repository, journal: Journal, output: Path, *, now: datetime
) -> tuple[Trail, int]:
    """Write the trail to a file that does not exist yet; return it and how many documents there are."""
    key = next(journal.key_choices())
    heads = heads_listed(repository)  # before: what is written meanwhile must not seem to be missing
    trail = read_trail(repository)
    anchor = Anchor(chain=key.chain, repository=repository.id, at=now, heads=heads)
    signed = key.signed(ANCHOR, anchor_bytes(anchor)).encode()
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with temporary.open("x", encoding="ascii") as file:
            count = write_export(trail, signed, file)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, output)  # a rename would replace what is there
    except FileExistsError as exc:
        raise UsageError(f"{output} is there already", hint="name a file that does not exist") from exc
    except OSError as exc:
        raise UsageError(f"{output} cannot be written: {exc.strerror}") from exc
    finally:
        temporary.unlink(missing_ok=True)
    return trail, count


def anchor_now(
    repository: Repository, journal: Journal, environ: Mapping[str, str], *, now: datetime
) -> WrittenAnchor:
    """Write down the heads of every chain, locked where the bucket can do that."""
    lock = object_lock_of(repository.store.location, environ, now=now)
    return write_anchor(repository, journal, now=now, lock=lock)


def make_administrator_key(path: Path, passphrase: Secret) -> AdministratorKey:
    """Make a key in a file that does not exist yet, readable for its owner alone."""
    key = AdministratorKey.generate()
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(handle, "wb") as file:  # noqa: PTH123  a descriptor, not a path
            file.write(key.pem(passphrase))
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as exc:
        raise UsageError(f"{path} is there already", hint="name a file that does not exist") from exc
    except OSError as exc:
        raise UsageError(f"{path} cannot be written: {exc.strerror}") from exc
    return key


def read_administrator_key(path: Path, passphrase: Secret) -> AdministratorKey:
    """Return the key in a file. Raises UsageError."""
    try:
        pem = path.read_bytes()
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc.strerror}") from exc
    try:
        return AdministratorKey.from_pem(pem, passphrase)
    except UsageError as exc:
        raise UsageError(f"{path}: {exc.message}") from exc


def enroll(
    repository: Repository,
    journal: Journal,
    key: AdministratorKey,
    chain: str | None,
    *,
    is_revoked: bool = False,
    reason: str = "",
) -> Enrolment:
    """Write an administrator's word on the key of a chain: this host's, or the one that ``chain`` begins.

    With ``is_revoked`` that it is not to be believed from here on.
    """
    trail = read_trail(repository)
    host_key, host = _host_of(trail, journal, chain)
    name = fingerprint(host_key)
    entries = trail.chains.get(name, [])
    enrolment = Enrolment(
        chain=name,
        host=entries[-1].entry.host if entries else host,
        host_key=host_key,
        at=datetime.now(UTC),
        repository=repository.id,
        is_revoked=is_revoked,
        reason=reason,
        head=entries[-1].head if entries else None,
    )
    raw = key.signed(ENROLMENT, enrolment_bytes(enrolment)).encode()
    repository.save_note(enrolment_name(name, raw), raw)
    # The entry of this access names it: nobody can take a revocation away without being found.
    note_access(chain=name, statement=digest_of(raw))
    return enrolment


def _host_of(trail: Trail, journal: Journal, chain: str | None) -> tuple[bytes, str]:
    """Return the public key of a chain, and its host's name."""
    if chain is None:
        return next(journal.key_choices()).public_key, os.uname().nodename
    found = {
        name: entries[-1]
        for name, entries in trail.chains.items()
        if name.startswith(chain) or entries[-1].entry.host == chain
    }
    if len(found) != 1:
        count = f"{len(found)} chains are" if found else "no chain is"
        raise UsageError(f"{count} called {chain}", hint="pgstow audit verify shows the chains")
    newest = next(iter(found.values()))
    return Signed.decode(newest.raw).public_key, newest.entry.host
