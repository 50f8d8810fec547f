"""A process that dies at any write leaves garbage at most: never a lie, and nothing that stops the next run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pgstow.assurance.verify import verify
from pgstow.store.memory import MemoryStore
from support.repositories import (
    WatchedStore,
    contents,
    copy_text,
    init_repository,
    open_repository,
    random_bytes,
    read_files,
    save_backup,
)

PACK_BYTES = 64 << 10
FIRST = {"3456.dat": [copy_text(500, seed) for seed in range(4)], "toc.dat": [b"PGDMP"]}
SECOND = {
    "3456.dat": [copy_text(500, seed) for seed in (0, 9, 2, 3)],
    "large": [random_bytes(40_000, s) for s in range(4)],
}


class DiedError(BaseException):
    """Not an error that anything may handle: the process is gone."""


def die_at(write: int) -> WatchedStore:
    """Return a store with one backup, on which nothing arrives from the given write on."""
    store = WatchedStore()
    save_backup(init_repository(store), FIRST, run="run-1")
    writes = 0

    def count(method: str, name: str) -> None:
        nonlocal writes
        if method in ("put", "delete"):
            writes += 1
            if writes >= write:
                raise DiedError

    store.before = count
    return store


@pytest.mark.parametrize("write", range(1, 13))
def test_whatever_the_last_write_was(write: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgstow.repository.writer.PACK_BYTES", PACK_BYTES)
    store = die_at(write)
    repository = open_repository(store)
    died = False
    try:
        with repository.lock():
            save_backup(repository, SECOND, run="run-2")
    except DiedError:
        died = True
    rest = store.inner
    survivor = open_repository(rest)
    report = verify(survivor, read_data=True)
    assert report.problems == ()
    published = {snapshot.tags[-1]: snapshot for snapshot in survivor.snapshots()}
    assert read_files(survivor, published["run=run-1"]) == {
        f"/shop/archive/{n}": d for n, d in contents(FIRST).items()
    }
    assert died or "run=run-2" in published
    save_backup(survivor, SECOND, run="run-3")
    assert verify(survivor, read_data=True).problems == ()
    (again,) = (each for each in survivor.snapshots() if "run=run-3" in each.tags)
    assert read_files(survivor, again) == {f"/shop/archive/{n}": d for n, d in contents(SECOND).items()}


def test_every_step_of_a_backup_was_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgstow.repository.writer.PACK_BYTES", PACK_BYTES)
    store = WatchedStore(inner=MemoryStore())
    repository = init_repository(store)
    save_backup(repository, FIRST, run="run-1")
    store.calls.clear()
    with repository.lock():
        save_backup(repository, SECOND, run="run-2")
    steps = [name.split("/")[0] for method, name in store.calls if method in ("put", "delete")]
    assert len(steps) < 12
    assert {"locks", "data", "index", "snapshots"} == set(steps)


MEMORY_PROBE = """
import os, resource, hashlib
from pgstow.repository.index import BlobIndex
from pgstow.repository.packs import PackEntry
from pgstow.repository.ids import BlobKind
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
index = BlobIndex()
count = 400_000
for pack in range(count // 50):
    ids = [hashlib.sha256(b"%d %d" % (pack, blob)).digest() for blob in range(50)]
    entries = [PackEntry(BlobKind.DATA, blob_id, at * 300_000, 300_000, 1 << 20) for at, blob_id in enumerate(ids)]
    index.add_pack(hashlib.sha256(b"%d" % pack).digest(), entries)
assert len(index) == count
print((peak() - before) / count)
"""


def test_a_million_blobs_take_less_than_100_megabytes() -> None:
    output = subprocess.run([sys.executable, "-c", MEMORY_PROBE], check=True, capture_output=True).stdout
    assert float(output) < 100
