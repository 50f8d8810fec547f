"""Damaging a repository on purpose, and saying what of it is still there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pgstow.catalog.backups import BackupFiles, list_backups
from pgstow.core.errors import RepositoryDamaged
from pgstow.core.secrets import Secret
from pgstow.repository import Repository
from pgstow.store.api import Store
from pgstow.store.memory import MemoryStore
from support.restic import PASSWORD

__all__ = ["Point", "objects_of", "points", "readable_members", "store_of"]

Objects = Mapping[str, bytes]


@dataclass(frozen=True)
class Point:
    """One way to damage one object; ``data`` None: it is gone."""

    name: str
    how: str
    data: bytes | None

    def __str__(self) -> str:
        return f"{self.name[:20]} {self.how}"

    def applied(self, objects: Objects) -> MemoryStore:
        """Return a store with these objects, one of them damaged."""
        changed = {name: data for name, data in objects.items() if name != self.name}
        if self.data is not None:
            changed[self.name] = self.data
        return store_of(changed)


def objects_of(store: MemoryStore) -> dict[str, bytes]:
    return {info.name: store.get(info.name) for info in store.list("")}


def store_of(objects: Objects) -> MemoryStore:
    store = MemoryStore()
    for name, data in objects.items():
        store.put(name, data)
    return store


def points(objects: Objects, places: Mapping[str, list[int]]) -> Iterator[Point]:
    """Yield every way to damage every object: bits flipped at ``places`` and at the ends, cut off, gone.

    Leases and claims of runs that have ended are left out: nothing needs them.
    """
    for name, data in sorted(objects.items()):
        if name.startswith(("pgstow/leases/", "pgstow/runs/")):
            continue
        last = len(data) - 1
        spread = {last * step // 12 for step in range(13)}
        for place in sorted({1, 16, last - 4, last - 20, *spread, *places.get(name, ())}):
            if 0 <= place <= last:
                flipped = bytearray(data)
                flipped[place] ^= 1 << (place % 8)
                yield Point(name, f"bit flipped in byte {place}", bytes(flipped))
        for length in sorted({0, 1, len(data) // 2, last}):
            yield Point(name, f"cut to {length} bytes", data[:length])
        yield Point(name, "gone", None)


def readable_members(
    store: Store, *, without_config: bool = False
) -> tuple[dict[str, dict[str, bytes]], set[tuple[str, str]]]:
    """Return every member that can be read, by backup, and (backup, path) of those that cannot."""
    repository = Repository.open(store, Secret(PASSWORD), without_config=without_config)
    records = list_backups(repository, damaged=[])
    repository.load_index(damaged=[])
    found: dict[str, dict[str, bytes]] = {}
    lost: set[tuple[str, str]] = set()
    for record in records:
        files = BackupFiles(repository, record)
        found[record.id] = {}
        try:
            names = [name for name, _ in files.members()]
        except RepositoryDamaged:
            lost.add((record.id, "/"))
            continue
        for name in names:
            try:
                found[record.id][name] = files.read(name)
            except RepositoryDamaged:
                lost.add((record.id, name))
    return found, lost
