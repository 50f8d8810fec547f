"""The repositories that one backup goes to.

Rows are read, cut and hashed once; each destination has its own index, keys, packs, locks and snapshot. A destination
that fails is dropped from the run at that moment, and the others go on: what was said of it holds until the end. When
the last one fails the run does, with that one's error if there was no other.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from pgstow.core.errors import Interrupted, PgstowError, RepositoryError, UsageError
from pgstow.core.progress import Progress
from pgstow.repository import (
    BlobId,
    BlobIds,
    BlobKind,
    BlobWriter,
    DirNode,
    FileNode,
    PreparedBlob,
    Repository,
    SavedBlob,
    WriterStats,
    encode_tree,
)

__all__ = ["Destination", "Destinations", "FanOutWriter", "OpenDestination"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a backup is to go. ``name`` is for people; what ``open`` raises is the failure of this one alone."""

    name: str
    open: Callable[[], Repository]

    @classmethod
    def of(cls, repository: Repository) -> Destination:
        """Return a repository that is open already as a destination."""
        return cls(name=repository.store.location, open=lambda: repository)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDestination:
    """A repository that a backup goes to."""

    name: str
    repository: Repository


class Destinations:
    """Who is left of them, in the order given, and why the others are not. Safe to use from several threads."""

    def __init__(self, destinations: Sequence[Destination], progress: Progress) -> None:
        """Open all of them. Raises when none can be opened, UsageError for a name that is used twice."""
        self.names = tuple(destination.name for destination in destinations)
        twice = [name for name in self.names if self.names.count(name) > 1]
        if twice or not self.names:
            raise UsageError(f"{twice[0]} is given twice" if twice else "a backup needs a destination")
        self._progress = progress
        self._guard = threading.Lock()
        self._failures: dict[str, PgstowError] = {}
        self._alive: tuple[OpenDestination, ...] = ()
        self._locations: dict[str, str] = {}
        self._to_open = list(destinations)
        while self._to_open:
            self._open(self._to_open.pop(0))

    def _open(self, destination: Destination) -> None:
        try:
            repository = destination.open()
            self._locations[destination.name] = repository.store.location
            self._refuse_same(repository)
        except Interrupted:
            raise
        except PgstowError as exc:
            self.drop(destination.name, exc)
        else:
            self._alive = (*self._alive, OpenDestination(name=destination.name, repository=repository))

    def _refuse_same(self, repository: Repository) -> None:
        for other in self._alive:
            if other.repository.id == repository.id:
                raise UsageError(
                    f"{repository.store.location} and {other.repository.store.location} are the same repository, or one"
                    " is a copy of the other's files",
                    hint="pgstow init makes another one",
                )

    @property
    def are_several(self) -> bool:
        """Whether the backup was to go to more than one, whatever became of them."""
        return len(self.names) > 1

    @property
    def alive(self) -> tuple[OpenDestination, ...]:
        return self._alive

    @property
    def first(self) -> OpenDestination:
        """The first one that is left; raises when nobody is."""
        alive = self._alive
        if not alive:
            raise self.none_left()
        return alive[0]

    def is_alive(self, name: str) -> bool:
        return name not in self._failures

    def error_of(self, name: str) -> PgstowError | None:
        """Return why a destination was dropped; None if it was not."""
        return self._failures.get(name)

    def location_of(self, name: str) -> str | None:
        """Return where a destination is; None if it could not be opened."""
        return self._locations.get(name)

    def each(
        self,
        work: Callable[[OpenDestination], T],
        *,
        order: Callable[[OpenDestination], str] | None = None,
    ) -> dict[str, T]:
        """Do ``work`` for all that are left, one after the other, and return the results by name.

        One that fails is dropped; raises when nobody is left.
        """
        results: dict[str, T] = {}
        for one in sorted(self._alive, key=order) if order else self._alive:
            if not self.is_alive(one.name):
                continue
            try:
                results[one.name] = work(one)
            except Interrupted:
                raise
            except PgstowError as exc:
                self.drop(one.name, exc)
        return {one.name: results[one.name] for one in self._alive}

    def drop(self, name: str, exc: PgstowError) -> None:
        """Go on without a destination. Raises when that was the last one."""
        with self._guard:
            is_news = name not in self._failures
            self._failures.setdefault(name, exc)
            self._alive = tuple(one for one in self._alive if one.name != name)
            is_over = not self._alive and not self._to_open
        if is_over:
            raise self.none_left()
        if is_news:
            self._progress.note(f"{name}: {exc.message}; going on without this destination")

    def none_left(self) -> PgstowError:
        """Return what to raise when everyone was dropped: the one error there is, or one that names them all."""
        errors = [self._failures[name] for name in self.names]
        if len(errors) == 1:
            return errors[0]
        kinds = {type(error) for error in errors}
        kind = kinds.pop() if len(kinds) == 1 else RepositoryError
        hints = {error.hint for error in errors}
        told = [f"{name}: {self._failures[name].message}" for name in self.names]
        return kind(
            f"no destination is left: {'; '.join(told)}",
            hint=hints.pop() if len(hints) == 1 else self._hints(),
            destinations=told,
        )

    def _hints(self) -> str:
        """Return what to do about each."""
        hints = ((name, self._failures[name].hint) for name in self.names)
        return "; ".join(f"{name}: {hint}" for name, hint in hints if hint)

    def said_of(self, name: str, message: str) -> str:
        """Return a message about one destination; its name is only said where there are several."""
        return f"{name}: {message}" if self.are_several else message

    def hold(self, content: Iterable[BlobId], size_bytes: int) -> bool:
        """Whether every destination that is left lists all of these blobs, and they have ``size_bytes`` together."""
        ids = BlobIds.of(content)
        return all(_holds(one.repository, ids, size_bytes) for one in self._alive)


def _holds(repository: Repository, content: BlobIds, size_bytes: int) -> bool:
    sizes = [repository.blob_size(BlobKind.DATA, blob) for blob in content]
    return None not in sizes and sum(size or 0 for size in sizes) == size_bytes


class FanOutWriter:
    """Gives every blob to every destination that is left: a BlobWriter of several repositories.

    A blob is hashed once, and compressed once if any of them lacks it. The slowest destination sets the pace: each lets
    a bounded number of packs wait, and then ``save()`` waits. Used in a with block.
    """

    def __init__(self, destinations: Destinations) -> None:
        self.destinations = destinations
        self._writers: dict[str, BlobWriter] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for one in self.destinations.alive:
            writer = one.repository.writer()
            self._stack.push(partial(self._end, one.name, writer.__enter__()))
            self._writers[one.name] = writer
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, exc, traceback)

    def _end(
        self,
        name: str,
        writer: BlobWriter,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End one writer; that of a destination that was dropped only makes sure that what is durable is listed."""
        error = self.destinations.error_of(name)
        if error is not None and exc is None:
            writer.__exit__(type(error), error, error.__traceback__)
        else:
            writer.__exit__(kind, exc, traceback)

    def save(self, kind: BlobKind, data: bytes | bytearray | memoryview) -> SavedBlob:
        """Store ``data`` where it is not there yet; the answer is that of the first destination."""
        blob = PreparedBlob(kind, data)
        first: SavedBlob | None = None
        for one in self.destinations.alive:
            try:
                saved = self._writers[one.name].save_prepared(blob)
            except Interrupted:
                raise
            except PgstowError as exc:
                self.destinations.drop(one.name, exc)
            else:
                first = first or saved
        if first is None:  # all that were left have been dropped meanwhile, by other threads
            raise self.destinations.none_left()
        return first

    def save_tree(self, nodes: Iterable[FileNode | DirNode]) -> BlobId:
        """Store a folder and return its id."""
        return self.save(BlobKind.TREE, encode_tree(nodes)).id

    def count_known(self, blobs: int, size_bytes: int) -> None:
        """Count blobs that are referred to without having been given to ``save()``."""
        for one in self.destinations.alive:
            self._writers[one.name].count_known(blobs, size_bytes)

    def flush(self, name: str) -> None:
        """Return once everything is durable and listed in one destination; raises the first failure there."""
        self._writers[name].flush()

    @property
    def stats(self) -> WriterStats:
        """What was new to the first destination that is left."""
        return self.stats_of(self.destinations.first.name)

    def stats_of(self, name: str) -> WriterStats:
        """What was new to one destination; nothing where the run was over for it before anything was read."""
        writer = self._writers.get(name)
        return writer.stats if writer is not None else WriterStats()
