"""The numbers of a repository."""

from __future__ import annotations

from dataclasses import replace

from pgstow.core.progress import SilentProgress
from pgstow.repository import DirNode
from pgstow.store.memory import MemoryStore
from pgstow.upkeep.stats import RepositoryStats, repository_stats
from support.pruning import prune_now, remove_snapshots
from support.repositories import (
    MOMENT,
    init_repository,
    open_repository,
    random_bytes,
    save_backup,
    save_file,
    snapshot_of,
)


def stats_of(store: MemoryStore) -> RepositoryStats:
    return repository_stats(open_repository(store), SilentProgress())


def test_an_empty_repository() -> None:
    store = MemoryStore()
    init_repository(store)
    stats = stats_of(store)
    assert (stats.snapshots, stats.sources, stats.logical_bytes, stats.objects) == (0, (), 0, 2)
    assert stats.deduplication is None


def test_backups_of_several_sources_and_a_snapshot_of_restic_s() -> None:
    store = MemoryStore()
    repository = init_repository(store)
    first = random_bytes(50_000, 1)
    save_backup(repository, {"a": [first, b"x" * 1000]}, run="1")
    save_backup(repository, {"a": [first, b"y" * 1000]}, run="2")
    save_backup(repository, {"b": [first]}, run="3", folder="books")
    with repository.writer() as writer:  # a folder that stands in two places counts twice
        inner = writer.save_tree([save_file(writer, "f", [b"12345"])])
        nodes = [DirNode(name=name, subtree=inner, modified=MOMENT) for name in ("one", "two")]
        tree = writer.save_tree([*nodes, save_file(writer, "g", [b"1"])])
    repository.save_snapshot(replace(snapshot_of(tree, []), tags=(), summary=None))
    stats = stats_of(store)
    assert [(each.name, each.backups, each.size_bytes) for each in stats.sources] == [
        ("books", 1, 50_000),
        ("shop", 2, 102_000),
    ]
    assert (stats.snapshots, stats.other_snapshots) == (4, 1)
    assert stats.logical_bytes == 50_000 + 102_000 + 11
    assert stats.packs.size_bytes == sum(info.size_bytes for info in store.list("data/"))
    assert stats.deduplication == stats.logical_bytes / stats.packs.size_bytes > 2
    assert (stats.unused_bytes, stats.waiting.packs, stats.orphans.packs) == (0, 0, 0)
    assert stats.index_files == len(list(store.list("index/")))
    assert stats.objects == len(list(store.list("")))


def test_what_is_not_needed_waits_or_was_left_behind() -> None:
    store = MemoryStore()
    repository = init_repository(store)
    save_backup(repository, {"a": [random_bytes(10_000, 1)]}, run="1")
    gone = save_backup(repository, {"a": [random_bytes(20_000, 2)]}, run="2")
    used = stats_of(store).used_bytes
    remove_snapshots(store, gone)
    stats = stats_of(store)
    assert stats.used_bytes + stats.unused_bytes == used
    assert stats.unused_bytes > 20_000
    plan, _ = prune_now(store)
    stats = stats_of(store)
    assert stats.unused_bytes == 0
    assert stats.waiting.packs == len(plan.recorded)
    for info in list(store.list("pgstow/")):
        store.delete(info.name)
    stats = stats_of(store)
    assert (stats.waiting.packs, stats.orphans.packs) == (0, len(plan.recorded))
