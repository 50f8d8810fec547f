"""Whole files of a repository: sealed, and named by the SHA-256 of their stored bytes.

Index, snapshot and lock files hold ``0x02 + zstd(JSON)``; restic also accepts bare JSON, which its
format 1 wrote.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from enum import Enum

from pgstow.core.errors import ObjectNotFound, RepositoryDamaged, StoreDenied
from pgstow.repository.compression import CompressionError, compress, decompress
from pgstow.repository.crypto import MasterKey
from pgstow.store.api import ObjectInfo, Store

__all__ = ["CONFIG", "FileKind", "SealedFiles", "list_ids", "pack_name", "read_verified"]

CONFIG = "config"

_COMPRESSED = b"\x02"
_LIMIT_BYTES = 512 << 20
_ID = re.compile(r"[0-9a-f]{64}")


class FileKind(Enum):
    """The folders of a repository."""

    KEY = "keys"
    INDEX = "index"
    SNAPSHOT = "snapshots"
    LOCK = "locks"
    PACK = "data"
    PRUNE_RECORD = "pgstow/prune"  # ours: packs that are about to be removed; restic ignores the folder

    def name_of(self, file_id: str) -> str:
        """Return the object name of a file of this kind."""
        return pack_name(file_id) if self is FileKind.PACK else f"{self.value}/{file_id}"


def pack_name(pack_id: str) -> str:
    """Return the object name of a pack: packs are spread over folders by their first byte."""
    return f"data/{pack_id[:2]}/{pack_id}"


def list_ids(store: Store, kind: FileKind) -> Iterator[tuple[str, ObjectInfo]]:
    """Yield the id and listing entry of every file of a kind; names that are no id are not ours."""
    for info in store.list(f"{kind.value}/"):
        file_id = info.name.rpartition("/")[2]
        if _ID.fullmatch(file_id) and info.name == kind.name_of(file_id):
            yield file_id, info


def read_verified(store: Store, kind: FileKind, file_id: str) -> bytes:
    """Return the stored bytes of a file; RepositoryDamaged unless their SHA-256 is its name.

    Raises ObjectNotFound if it is gone: snapshots and locks come and go.
    """
    name = kind.name_of(file_id)
    data = store.get(name)
    if hashlib.sha256(data).hexdigest() != file_id:
        raise RepositoryDamaged(f"{name} is damaged: its content does not match its name", file=name)
    return data


class SealedFiles:
    """Reads and writes index, snapshot and lock files."""

    def __init__(self, store: Store, key: MasterKey) -> None:
        self.store = store
        self._key = key

    def save(self, kind: FileKind, content: bytes) -> str:
        """Store ``content`` compressed and sealed; return its id once it is durable."""
        return self.save_sealed(kind, self.seal(content))

    def save_sealed(self, kind: FileKind, sealed: bytes) -> str:
        """Store what ``seal()`` made, which may be there already; return its id once it is durable."""
        file_id = hashlib.sha256(sealed).hexdigest()
        try:
            self.store.put(kind.name_of(file_id), sealed)
        except StoreDenied:  # where nobody may overwrite, what is there is what was to be written
            try:
                read_verified(self.store, kind, file_id)
            except (ObjectNotFound, RepositoryDamaged):
                is_there = False
            else:
                is_there = True
            if not is_there:
                raise
        return file_id

    def load(self, kind: FileKind, file_id: str) -> bytes:
        """Return the content of a file. Raises RepositoryDamaged, ObjectNotFound."""
        return self.unseal(kind.name_of(file_id), read_verified(self.store, kind, file_id))

    def load_present(self, kind: FileKind, file_id: str) -> bytes | None:
        """Return the content of a file, or None if it was removed since it was listed."""
        try:
            return self.load(kind, file_id)
        except ObjectNotFound:
            return None

    def save_as(self, name: str, content: bytes) -> None:
        """Store ``content``, compressed and sealed, under a name of our own below ``pgstow/``."""
        self.store.put(name, self.seal(content))

    def load_as(self, name: str) -> bytes:
        """Return what ``save_as()`` stored. Raises RepositoryDamaged, ObjectNotFound."""
        return self.unseal(name, self.store.get(name))

    def seal(self, content: bytes) -> bytes:
        """Return ``content`` as an object of ours: no two results are equal."""
        return self._key.seal(_COMPRESSED + compress(content))

    def unseal(self, name: str, sealed: bytes) -> bytes:
        """Return the content of the object ``name``, whose bytes are ``sealed``; RepositoryDamaged if it has none."""
        content = self._key.open(sealed)
        if content is None:
            raise RepositoryDamaged(f"{name} was not sealed with this repository's key", file=name)
        if content[:1] in (b"{", b"["):
            return content
        if content[:1] != _COMPRESSED:
            raise RepositoryDamaged(f"{name} has an unknown encoding", file=name)
        try:
            return decompress(memoryview(content)[1:], limit_bytes=_LIMIT_BYTES)
        except CompressionError as exc:
            raise RepositoryDamaged(f"{name} cannot be decompressed: {exc}", file=name) from exc

    def remove(self, kind: FileKind, file_id: str) -> None:
        """Remove a file; an absent one is fine."""
        self.store.delete(kind.name_of(file_id))
