"""What a host keeps of its audit trail: its key, how far its chains are, and the entries that no repository took yet.

    AUDIT/host.key                        the host's key
    AUDIT/REPOSITORY/lock                 held while an entry is added
    AUDIT/REPOSITORY/heads/CHAIN          the newest entry of a chain that the repository took
    AUDIT/REPOSITORY/pending/NAME         entries that it did not take yet; NAME holds chain, number and digest
    AUDIT/REPOSITORY/seen                 the heads of other chains, as this host last saw them
    AUDIT/REPOSITORY/notes/NAME           small things to remember: the settings last used, the day of the last anchor
    AUDIT/unopened/HASH/NAME              what was tried with a repository that could not be opened

A host's chain goes on after whichever is newer: the head, or the last pending entry. An entry is on disk before it is sent;
it is forgotten here only once the head that stands for it is on disk too.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgstow.audit.documents import parse_entry
from pgstow.audit.entries import ChainHead, ForeignHead
from pgstow.audit.keys import HostKey, Signed
from pgstow.audit.trail import SignedEntry, digest_of
from pgstow.core.errors import StateError, UsageError
from pgstow.core.folders import make_private_folder

__all__ = ["Book", "Journal", "Mark", "read_waiting"]

_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")
_ID = re.compile(r"[0-9a-f]{1,64}")
_PENDING = re.compile(r"([0-9a-f]{64})-([0-9]{10})-([0-9a-f]{64})")
_LOCK_WAIT_S = 5.0
_LOCK_PAUSE_S = 0.02
_MOST_SEEN = 200
_MOST_ATTEMPTS = 100  # of one location: who tries passwords must not fill the disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far a chain is, and the month its newest entry is filed under."""

    head: ChainHead
    month: str


class Journal:
    """The folder of a host. Every method raises StateError when the folder cannot be used."""

    def __init__(self, folder: Path, *, key_file: Path | None = None) -> None:
        """``key_file`` holds a key that is used instead of one that is made here."""
        self.folder = folder
        self._key_file = key_file

    def key_choices(self) -> Iterator[HostKey]:
        """Yield the keys to write with, the first choice first; the last one is made when it is asked for."""
        given = self.given_key()
        if given is not None:
            yield given
        yield self._own_key()

    def given_key(self) -> HostKey | None:
        """Return the key that was given in a file, if one was."""
        return _read_key(self._key_file) if self._key_file is not None else None

    def key_problem(self, key: HostKey) -> str | None:
        """Return what is wrong with the file of this host's own key: one that others can read, they can write entries with.

        One that was given is its owner's business: files of secrets that are mounted often are everybody's to read.
        """
        path = self.folder / "host.key"
        with _translated(path):
            if not path.exists() or path.stat().st_mode & 0o077 == 0 or _read_key(path).chain != key.chain:
                return None
        return f"others can read {path}, and write audit entries in this host's name: chmod 600, or move it away for a new one"

    def _own_key(self) -> HostKey:
        path = self.folder / "host.key"
        with _translated(path):
            make_private_folder(self.folder)
            if not path.exists():
                _create(path, HostKey.generate().pem())
            return _read_key(path)

    def renew_key(self, worn: HostKey) -> HostKey:
        """Return a key of this host that is not ``worn``: made now, unless another process has done so.

        The old one is put aside, not removed.
        """
        path = self.folder / "host.key"
        with _translated(path), _locked(self.folder / "lock"):
            key = self._own_key()
            if key.chain == worn.chain:
                path.rename(self.folder / f"host-{worn.chain[:16]}.key")
                _sync(self.folder)
                key = self._own_key()
            return key

    @contextlib.contextmanager
    def book(self, repository: str) -> Iterator[Book]:
        """Give what is kept for one repository, alone among the processes of this host."""
        if not _ID.fullmatch(repository):
            raise StateError(f"{repository!r} is no id of a repository")
        folder = self.folder / repository
        with _translated(folder):
            make_private_folder(self.folder)
            make_private_folder(folder)
            with _locked(folder / "lock"):
                for each in (folder, folder / "heads", folder / "pending", folder / "notes"):
                    _sweep(each)
                yield Book(folder)

    def repositories(self) -> list[str]:
        """Return the repositories that something is kept for."""
        with _translated(self.folder):
            if not self.folder.is_dir():
                return []
            return sorted(
                each.name for each in self.folder.iterdir() if _ID.fullmatch(each.name) and each.is_dir()
            )

    def elsewhere(self, repository: str, *, most: int, most_seen: int) -> tuple[ForeignHead, ...]:
        """Return heads of the other repositories that this host writes to: its own, and some of the others it saw.

        Of ``most`` repositories, those it wrote to last. Files appear whole, so that no lock is needed.
        """
        with _translated(self.folder):
            others = [self.folder / each for each in self.repositories() if each != repository]
            others = [each for each in others if (each / "heads").is_dir()]
            others.sort(key=lambda each: (each / "heads").stat().st_mtime, reverse=True)
            found = []
            for each in others[:most]:
                book = Book(each)
                heads = [*book.taken(), *reversed(book.seen()[-most_seen:])] if most_seen else book.taken()
                found += [ForeignHead(repository=each.name, head=head) for head in heads]
            return tuple(found)

    # -- repositories that could not be opened

    def keep_attempt(self, location: str, content: bytes) -> None:
        """Write down what was tried with a repository that could not be opened, for when it can."""
        folder = self._attempts_folder(location)
        with _translated(folder):
            for each in (self.folder, folder.parent, folder):
                make_private_folder(each)
            if sum(1 for _ in folder.iterdir()) < _MOST_ATTEMPTS:
                _create(folder / f"{time.time_ns():020d}-{uuid.uuid4().hex}", content)

    def attempts(self, location: str) -> list[tuple[Path, bytes]]:
        """Return what was tried in vain, the oldest first; ``forget()`` removes one that was written elsewhere."""
        folder = self._attempts_folder(location)
        with _translated(folder):
            return [(path, path.read_bytes()) for path in _files(folder)]

    @staticmethod
    def forget(path: Path) -> None:
        with contextlib.suppress(OSError):  # told once more
            path.unlink()

    def _attempts_folder(self, location: str) -> Path:
        return self.folder / "unopened" / hashlib.sha256(location.encode()).hexdigest()[:32]


class Book:
    """What is kept for one repository, while its lock is held. Made by ``Journal.book()``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def mark(self, chain: str) -> Mark | None:
        """Return how far a chain is: the newest entry written here, taken by the repository or not."""
        marks = list(self._taken(chain))
        for path, head in sorted(self.waiting(), key=lambda each: each[1].number, reverse=True):
            if head.chain == chain and (each := read_waiting(path, head)) is not None:
                marks.append(_mark_of(each))
                break
        return max(marks, key=lambda mark: mark.head.number, default=None)

    def taken(self) -> list[ChainHead]:
        """Return the newest entry of each chain of this host that the repository took."""
        folder = self._folder / "heads"
        return [mark.head for path in _files(folder) for mark in self._taken(path.name)]

    def _taken(self, chain: str) -> Iterator[Mark]:
        fields = _read_json(self._folder / "heads" / chain)
        with contextlib.suppress(KeyError, TypeError, ValueError):
            head = ChainHead(chain=chain, number=int(fields["number"]), digest=str(fields["digest"]))
            if _MONTH.fullmatch(month := str(fields["month"])):
                yield Mark(head=head, month=month)

    def keep(self, raw: bytes) -> None:
        """Add an entry; it is on disk when this returns."""
        entry = parse_entry(Signed.decode(raw).content)
        folder = self._folder / "pending"
        make_private_folder(folder)
        head = ChainHead(chain=entry.chain, number=entry.number, digest=digest_of(raw))
        _create(folder / _pending_name(head), raw)

    def waiting(self) -> list[tuple[Path, ChainHead]]:
        """Return the files of entries that the repository did not take yet, each chain in its order.

        Only their names are looked at: on a host that may only read there can be many. See ``read_waiting()``.
        """
        return [
            (path, ChainHead(chain=match[1], number=int(match[2]), digest=match[3]))
            for path in _files(self._folder / "pending")
            if (match := _PENDING.fullmatch(path.name))
        ]

    def settle(self, taken: Sequence[SignedEntry]) -> None:
        """Forget entries that the repository has, once it is on disk how far their chains are."""
        newest = {each.entry.chain: each for each in sorted(taken, key=lambda each: each.entry.number)}
        for chain, each in newest.items():
            if all(mark.head.number < each.entry.number for mark in self._taken(chain)):
                self.adopt(_mark_of(each))
        for each in taken:
            path = self._folder / "pending" / _pending_name(each.head)
            path.unlink(missing_ok=True)

    def adopt(self, mark: Mark) -> None:
        """Write down that the repository has a chain up to here."""
        folder = self._folder / "heads"
        make_private_folder(folder)
        fields = {"number": mark.head.number, "digest": mark.head.digest, "month": mark.month}
        _replace(folder / mark.head.chain, json.dumps(fields).encode())

    def saw(self, heads: Sequence[ChainHead]) -> None:
        """Remember heads of other chains; an older one of a chain gives way to the newer."""
        known = {head.chain: head for head in self.seen()}
        changed = False
        for head in heads:
            if head.chain not in known or known[head.chain].number < head.number:
                known.pop(head.chain, None)
                known[head.chain] = head  # at the end: the one that was seen to change last
                changed = True
        if changed:
            kept = list(known.values())[-_MOST_SEEN:]
            content = [[head.chain, head.number, head.digest] for head in kept]
            _replace(self._folder / "seen", json.dumps(content).encode(), is_synced=False)

    def seen(self) -> list[ChainHead]:
        """Return the heads of other chains as this host last saw them, the latest change last."""
        rows = _read_json(self._folder / "seen")
        heads = []
        for row in rows if isinstance(rows, list) else []:
            with contextlib.suppress(TypeError, ValueError):
                chain, number, digest = row
                heads.append(ChainHead(chain=str(chain), number=int(number), digest=str(digest)))
        return heads

    def note(self, name: str) -> str | None:
        """Return what was remembered under a name."""
        try:
            return (self._folder / "notes" / name).read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            return None

    def remember(self, name: str, text: str) -> None:
        folder = self._folder / "notes"
        make_private_folder(folder)
        _replace(folder / name, text.encode(), is_synced=False)


def read_waiting(path: Path, head: ChainHead) -> SignedEntry | None:
    """Return the entry in a file of ``Book.waiting()``; None if it is gone by now, or not whole: then it was never promised."""
    try:
        raw = path.read_bytes()
        if digest_of(raw) != head.digest:
            return None
        return SignedEntry(entry=parse_entry(Signed.decode(raw).content), digest=head.digest, raw=raw)
    except (FileNotFoundError, ValueError):
        return None


def _pending_name(head: ChainHead) -> str:
    return f"{head.chain}-{head.number:010d}-{head.digest}"


def _mark_of(each: SignedEntry) -> Mark:
    return Mark(head=each.head, month=f"{each.entry.at:%Y-%m}")


def _read_key(path: Path) -> HostKey:
    with _translated(path):
        pem = path.read_bytes()
    try:
        return HostKey.from_pem(pem)
    except UsageError as exc:
        raise StateError(f"{path}: {exc.message}", hint="it must hold an Ed25519 key, unencrypted") from exc


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StateError(
            f"the audit trail cannot be kept in {path}: {exc.strerror or exc}",
            hint="PGSTOW_STATE_DIR names a folder that pgstow may write to",
        ) from exc


@contextlib.contextmanager
def _locked(
    path: Path, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold a lock that the system releases with the process. OSError if others do not let go of it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = clock() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock() > deadline:
                    raise
                sleep(_LOCK_PAUSE_S)
        yield
    finally:
        os.close(file)


def _files(folder: Path) -> list[Path]:
    """Return the finished files of a folder by name; unfinished ones begin with a dot."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []


def _read_json(path: Path) -> Any:  # noqa: ANN401  JSON
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}


def _create(path: Path, content: bytes) -> None:
    """Make a file that others see whole or not at all; one that is there already stays."""
    temporary = _temporary(path, content)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()
    _sync(path.parent)


def _replace(path: Path, content: bytes, *, is_synced: bool = True) -> None:
    _temporary(path, content, is_synced=is_synced).replace(path)
    if is_synced:
        _sync(path.parent)


def _temporary(path: Path, content: bytes, *, is_synced: bool = True) -> Path:
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(file, "wb") as stream:  # noqa: PTH123  a descriptor, not a path
            stream.write(content)
            stream.flush()
            if is_synced:
                os.fsync(stream.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sweep(folder: Path) -> None:
    """Remove unfinished files: the lock is held, so whoever began them is dead."""
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if path.name.startswith("."):
                path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
