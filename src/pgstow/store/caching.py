"""Small files of a far store, kept on this machine.

Index and snapshot files are named by the SHA-256 of their bytes and never change, so a copy that has its name is as
good as the original, and one that has not is fetched again. Records of drills are never changed either, but have other names: a
copy stands for one only as long as the store lists it with the size and the time that it had when it was fetched. Whoever
replaces it there cannot choose that time. All are kept as they are stored: encrypted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pgstow.core.folders import make_private_folder
from pgstow.store.api import ObjectInfo, Store

__all__ = ["CachingStore", "cache_folder"]

_NAMED_BY_CONTENT = ("index/", "snapshots/")
_LISTED = ("pgstow/drills/",)
_KEPT = (*_NAMED_BY_CONTENT, *_LISTED)
_DIGEST_BYTES = 32
_UNUSED_S = 30 * 86400.0


def cache_folder(root: Path, location: str) -> Path:
    """Return where below ``root`` the copies of the store at ``location`` are kept."""
    return root / hashlib.sha256(location.encode()).hexdigest()[:16]


class CachingStore:
    """A store whose index and snapshot files, and records of drills, are read from ``folder`` where that has them.

    A folder that cannot be read or written only makes it slower: nothing depends on a copy being there. What a
    listing no longer shows is dropped, and so are the folders of repositories that were not used for a month.
    """

    def __init__(self, inner: Store, folder: Path) -> None:
        self._inner = inner
        self._folder = folder
        self._listed: dict[
            str, ObjectInfo
        ] = {}  # what the last listing said of those that are not named by content
        with contextlib.suppress(OSError):
            make_private_folder(folder)
            os.utime(folder)
            _remove_unused(folder.parent)

    def __repr__(self) -> str:
        return f"CachingStore({self._inner!r})"

    @property
    def location(self) -> str:
        return self._inner.location

    def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
        self._forget(name)  # before: an older copy must not be left where this fails half-way
        self._inner.put(name, data, if_absent=if_absent)
        if name.startswith(_NAMED_BY_CONTENT):
            self._keep(name, data)

    def get(self, name: str) -> bytes:
        if name.startswith(_NAMED_BY_CONTENT):
            data = self._copy(name)
            if data is None or hashlib.sha256(data).hexdigest() != name.rpartition("/")[2]:
                data = self._inner.get(name)
                self._keep(name, data)
            return data
        if (info := self._listed.get(name)) is not None:
            return self._get_as_listed(info)
        return self._inner.get(name)

    def _get_as_listed(self, info: ObjectInfo) -> bytes:
        """Return an object by its copy, which begins with a digest of what it was fetched as: bytes, size and time."""
        copy = self._copy(info.name) or b""
        data = copy[_DIGEST_BYTES:]
        if copy[:_DIGEST_BYTES] != _digest_as_listed(info, data):
            data = self._inner.get(info.name)
            if len(data) == info.size_bytes:  # else it is not what was listed
                self._keep(info.name, _digest_as_listed(info, data) + data)
        return data

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self._inner.get_range(name, offset, length)

    def stat(self, name: str) -> ObjectInfo:
        return self._inner.stat(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        shown: set[str] = set()
        for info in self._inner.list(prefix):
            if info.name.startswith(_KEPT):
                shown.add(info.name)
            if info.name.startswith(_LISTED):
                self._listed[info.name] = info
            yield info
        if prefix in _KEPT:
            self._drop_others(prefix, shown)

    def delete(self, name: str) -> None:
        self._inner.delete(name)
        self._forget(name)

    def remove_stale_temporaries(self) -> int:
        return self._inner.remove_stale_temporaries()

    def _copy(self, name: str) -> bytes | None:
        with contextlib.suppress(OSError):
            return (self._folder / name).read_bytes()
        return None

    def _forget(self, name: str) -> None:
        self._listed.pop(name, None)
        if name.startswith(_KEPT):
            with contextlib.suppress(OSError):
                (self._folder / name).unlink()

    def _keep(self, name: str, data: bytes | bytearray | memoryview) -> None:
        place = self._folder / name
        with contextlib.suppress(OSError):
            make_private_folder(place.parent)
            handle, unfinished = tempfile.mkstemp(dir=place.parent, prefix="tmp-")
            try:
                with open(handle, "wb") as stream:  # noqa: PTH123  a descriptor, not a path
                    stream.write(data)
                Path(unfinished).rename(place)
            except BaseException:
                Path(unfinished).unlink()
                raise

    def _drop_others(self, prefix: str, shown: set[str]) -> None:
        """Remove copies of what is no longer in the store. Others may be writing theirs: those are young."""
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._folder / prefix):
                if prefix + entry.name not in shown and time.time() - entry.stat().st_mtime > 60:
                    Path(entry.path).unlink(missing_ok=True)


def _digest_as_listed(info: ObjectInfo, data: bytes) -> bytes:
    """Return what ties bytes to an object as a listing shows it."""
    listed = f"{info.name} {info.size_bytes} {info.modified.timestamp()!r}\n"
    return hashlib.sha256(listed.encode() + data).digest()


def _remove_unused(root: Path) -> None:
    for entry in os.scandir(root):
        if time.time() - entry.stat().st_mtime > _UNUSED_S:
            shutil.rmtree(entry.path, ignore_errors=True)
