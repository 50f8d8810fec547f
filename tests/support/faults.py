"""A store that goes wrong at one chosen operation.

It stands where a real store stands, below ``RetryingStore``. A first run without a fault tells which operations
there are; then one of them, a ``Point``, is made to fail in one of the ways below. Points are counted by method
and folder, not by a number over all: threads upload side by side, and their order changes from run to run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TypeVar

from pgstow.core.errors import StoreDenied, StoreError, StoreFull, StoreUnavailable
from pgstow.store import temporaries
from pgstow.store.api import ObjectInfo, Store
from pgstow.store.local import LocalStore
from pgstow.store.retrying import RetryingStore

__all__ = ["FAULTS", "Fault", "FaultyStore", "Kind", "Point", "patient"]

T = TypeVar("T")
Bytes = bytes | bytearray | memoryview

_WRITES = frozenset({"put", "delete"})
_READS = frozenset({"get", "get_range", "stat", "list"})
_ANY = frozenset({*_WRITES, *_READS, "remove_stale_temporaries"})
_SLOW_S = 0.005


class Kind(Enum):
    """How an operation goes wrong, and the methods it can happen to."""

    ERROR = "error", _ANY  # for good: StoreError
    TIMEOUT = "timeout", _ANY  # not carried out, then StoreUnavailable
    LOST_REPLY = "lost reply", _WRITES  # carried out, then StoreUnavailable
    TORN_WRITE = "torn write", frozenset({"put"})  # half of a temporary file stays
    SLOW = "slow", _ANY
    STALE_LIST = "stale list", frozenset({"list"})  # without the newest object
    LOST_DELETE = "lost delete", frozenset({"delete"})  # says done, and the object stays
    FULL = "full disk", frozenset({"put"})
    DENIED = "permission", _ANY
    KILL_BEFORE = "kill -9 before", _WRITES
    KILL_DURING = "kill -9 during", frozenset({"put"})
    KILL_AFTER = "kill -9 after", _WRITES
    KILL_AT_READ = "kill -9 at a read", _READS

    def __init__(self, title: str, methods: frozenset[str]) -> None:
        self.title = title
        self.methods = methods


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault, once or from the point on for ever."""

    kind: Kind
    for_ever: bool = False

    def __str__(self) -> str:
        return self.kind.title.replace(" ", "-") + ("-for-ever" if self.for_ever else "")

    @property
    def must_be_survived(self) -> bool:
        """Whether trying again is enough, so that the work has to succeed."""
        return self.kind is Kind.SLOW or (not self.for_ever and self.kind in (Kind.TIMEOUT, Kind.LOST_REPLY))


FAULTS = (
    Fault(Kind.ERROR),
    Fault(Kind.ERROR, for_ever=True),
    Fault(Kind.TIMEOUT),
    Fault(Kind.TIMEOUT, for_ever=True),
    Fault(Kind.LOST_REPLY),
    Fault(Kind.LOST_REPLY, for_ever=True),
    Fault(Kind.TORN_WRITE),
    Fault(Kind.SLOW, for_ever=True),
    Fault(Kind.STALE_LIST),
    Fault(Kind.STALE_LIST, for_ever=True),
    Fault(Kind.LOST_DELETE, for_ever=True),
    Fault(Kind.FULL),
    Fault(Kind.FULL, for_ever=True),
    Fault(Kind.DENIED),
    Fault(Kind.DENIED, for_ever=True),
)


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """The ``number``-th call of a method on names in one folder."""

    method: str
    folder: str
    number: int

    def __str__(self) -> str:
        return f"{self.method} {self.folder or '/'} #{self.number}"


@dataclass
class FaultyStore:
    """Passes everything on to ``inner``, except what ``fault`` does at ``at``.

    ``points`` are those that were passed; ``passing`` is told each of them before anything is done there. Lists of the
    folders ``believed`` are never stale: the operation has no choice but to believe them.
    """

    inner: Store
    fault: Fault | None = None
    at: Point | None = None
    sleep: Callable[[float], None] = time.sleep
    passing: Callable[[Point], object] = lambda _point: None
    believed: Collection[str] = ()
    points: list[Point] = field(default_factory=list)
    was_hit: bool = False
    _seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def location(self) -> str:
        return self.inner.location

    def put(self, name: str, data: Bytes, *, if_absent: bool = False) -> None:
        kind = self._fault("put", name)
        if kind in (Kind.TORN_WRITE, Kind.KILL_DURING):
            self._leave_half(data, is_ours=kind is Kind.KILL_DURING)
        self._before(kind, f"write {name}")
        self.inner.put(name, data, if_absent=if_absent)
        self._after(kind, f"write {name}")

    def get(self, name: str) -> bytes:
        self._before(self._fault("get", name), f"read {name}")
        return self.inner.get(name)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        self._before(self._fault("get_range", name), f"read {name}")
        return self.inner.get_range(name, offset, length)

    def stat(self, name: str) -> ObjectInfo:
        self._before(self._fault("stat", name), f"look at {name}")
        return self.inner.stat(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects. What goes wrong does so after half of them have been shown."""
        kind = self._fault("list", prefix)
        found = list(self.inner.list(prefix))
        if kind is Kind.STALE_LIST and found and prefix.rstrip("/") not in self.believed:
            found.remove(max(found, key=lambda info: info.modified))
        half = len(found) // 2
        yield from found[:half]
        self._before(kind, f"list {prefix}")
        yield from found[half:]

    def delete(self, name: str) -> None:
        kind = self._fault("delete", name)
        if kind is Kind.LOST_DELETE:
            return
        self._before(kind, f"delete {name}")
        self.inner.delete(name)
        self._after(kind, f"delete {name}")

    def remove_stale_temporaries(self) -> int:
        self._before(self._fault("remove_stale_temporaries", ""), "clean up")
        return self.inner.remove_stale_temporaries()

    def _fault(self, method: str, name: str) -> Kind | None:
        """Count a call and return what goes wrong with it."""
        folder = name.partition("/")[0] if "/" in name else name
        if folder == "pgstow":  # one kind of state per folder
            folder = "/".join(name.split("/")[:2]) if not name.startswith("pgstow/probe-") else "pgstow/probe"
        with self._guard:
            self._seen[method, folder] += 1
            point = Point(method, folder, self._seen[method, folder])
            self.points.append(point)
            self.passing(point)
            if self.fault is None:
                return None
            is_here = point == self.at
            self.was_hit |= is_here
            is_now = is_here or (self.was_hit and self.fault.for_ever)
            return self.fault.kind if is_now and method in self.fault.kind.methods else None

    def _before(self, kind: Kind | None, what: str) -> None:
        """Fail before the operation is carried out, if that is how it fails."""
        message = f"cannot {what} in {self.location}: injected"
        match kind:
            case Kind.ERROR | Kind.TORN_WRITE:
                raise StoreError(message)
            case Kind.TIMEOUT:
                raise StoreUnavailable(f"{message} timeout")
            case Kind.FULL:
                raise StoreFull(f"{message}: no space left on device")
            case Kind.DENIED:
                raise StoreDenied(f"{message}: permission denied")
            case Kind.SLOW:
                self.sleep(_SLOW_S)
            case Kind.KILL_BEFORE | Kind.KILL_DURING | Kind.KILL_AT_READ:
                os.kill(os.getpid(), signal.SIGKILL)

    def _after(self, kind: Kind | None, what: str) -> None:
        if kind is Kind.LOST_REPLY:
            raise StoreUnavailable(f"cannot {what} in {self.location}: the reply was lost")
        if kind is Kind.KILL_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)

    def _leave_half(self, data: Bytes, *, is_ours: bool) -> None:
        """Leave what an unfinished put of a folder leaves. In a bucket a put is whole or not there."""
        if not isinstance(self.inner, LocalStore):
            return
        folder = Path(self.inner.location) / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        name = temporaries.new_temporary_name() if is_ours else _name_of_the_dead()
        (folder / name).write_bytes(bytes(memoryview(data)[: len(data) // 2]))


def _name_of_the_dead() -> str:
    """Return the name of a temporary file whose owner has ended: this process goes on, its torn writes do not matter."""
    ended = subprocess.Popen([sys.executable, "-S", "-E", "-c", "pass"])
    ended.wait()
    mine = temporaries.new_temporary_name().split("-")
    return "-".join((*mine[:3], str(ended.pid), *mine[4:]))


def patient(store: Store) -> RetryingStore:
    """Return the store as it is used, with pauses that cost no time."""
    now_s = 0.0
    guard = threading.Lock()

    def sleep(pause_s: float) -> None:
        nonlocal now_s
        with guard:
            now_s += pause_s

    return RetryingStore(store, clock=lambda: now_s, sleep=sleep)
