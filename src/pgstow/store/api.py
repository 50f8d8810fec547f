"""What every object store promises."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pgstow.core.errors import StoreError

__all__ = ["ObjectInfo", "Store", "check_name", "check_prefix", "check_range", "is_name"]

_NAME = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))[A-Za-z0-9_.=@ ()+-]+(?:/[A-Za-z0-9_.=@ ()+-]+)*")
_LONGEST_NAME = 512
# tmp/ is where a local store keeps unfinished files; restic's local backend ends their names in -tmp-NUMBER.
_UNFINISHED = re.compile(r"tmp(?:/.*)?|.*-tmp-[0-9]+")


def is_name(name: str) -> bool:
    """Return whether ``name`` is a valid object name (and not that of an unfinished file)."""
    return len(name) <= _LONGEST_NAME and bool(_NAME.fullmatch(name)) and not _UNFINISHED.fullmatch(name)


def check_name(name: str) -> str:
    """Return ``name`` if it is a valid object name; StoreError otherwise.

    Names are checked going in and coming out, so a hostile listing cannot lead outside the store.
    """
    if not is_name(name):
        raise StoreError(f"{name!r} is not a valid object name")
    return name


def check_prefix(prefix: str) -> str:
    """Return ``prefix`` if it is ``""`` or a folder name that ends in a slash; StoreError otherwise."""
    if prefix and not (prefix.endswith("/") and is_name(prefix[:-1])):
        raise StoreError(f"{prefix!r} is not a valid folder to list")
    return prefix


def check_range(name: str, offset: int, length: int) -> None:
    """StoreError unless both numbers can be a range of an object."""
    if offset < 0 or length < 0:
        raise StoreError(f"{name} has no {length} bytes at offset {offset}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """An object as a listing shows it."""

    name: str
    size_bytes: int
    modified: datetime  # aware, UTC, by the store's clock


class Store(Protocol):
    """A place for objects. Every method may be called from several threads at once.

    Errors: ObjectNotFound, ObjectExists, StoreDenied, StoreFull and StoreError are permanent;
    StoreUnavailable may pass (``RetryingStore`` tries those again, nothing else does).
    """

    @property
    def location(self) -> str:
        """Where it is, for people: never holds a secret."""

    def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
        """Make ``data`` the object ``name``: whole or not at all, durable when this returns.

        An existing object is replaced, unless ``if_absent``: then ObjectExists, decided atomically by
        the store. After a lost reply this raises StoreUnavailable, and the object may be there:
        ``RetryingStore`` settles that by reading back, it is never assumed.
        """

    def get(self, name: str) -> bytes:
        """Return the whole object; ObjectNotFound if there is none."""

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``; StoreError if the object is shorter."""

    def stat(self, name: str) -> ObjectInfo:
        """Return size and time of one object; ObjectNotFound if there is none."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object whose name starts with the folder ``prefix`` (``""`` or ``"data/"``).

        Unordered, each object once. Objects that come or go meanwhile may or may not be seen. What
        has no valid name, such as the temporary file of an unfinished put, is never shown.
        """

    def delete(self, name: str) -> None:
        """Remove the object; an absent one is fine."""

    def remove_stale_temporaries(self) -> int:
        """Remove what interrupted puts of dead processes left behind; return how many there were.

        Never touches the unfinished put of a process that may still be alive.
        """
