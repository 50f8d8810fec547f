"""The writer: each blob once, packs before indexes, failures told, nothing unbounded."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgstow.core.errors import RepositoryLocked, StoreError, StoreFull, StoreUnavailable
from pgstow.repository import BlobKind, BlobWriter, DirNode, FileNode, Repository
from pgstow.repository.crypto import SEAL_BYTES
from pgstow.store.memory import MemoryStore
from support.repositories import (
    MOMENT,
    WatchedStore,
    copy_text,
    init_repository,
    open_repository,
    random_bytes,
    save_backup,
)

PACK_BYTES = 256 << 10


@pytest.fixture(autouse=True)
def _small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgstow.repository.writer.PACK_BYTES", PACK_BYTES)


def packs_of(store: MemoryStore | WatchedStore) -> list[str]:
    return [info.name for info in store.list("data/")]


def test_what_was_saved_reads_back_in_a_fresh_process() -> None:
    store = MemoryStore()
    pieces = [copy_text(5000, seed) for seed in range(10)] + [random_bytes(100_000, 1), b"", b"x"]
    with init_repository(store).writer() as writer:
        saved = [writer.save(BlobKind.DATA, piece) for piece in pieces]
    assert all(each.is_new for each in saved)
    fresh = open_repository(store)
    for each, piece in zip(saved, pieces, strict=True):
        assert fresh.read_blob(BlobKind.DATA, each.id) == piece
        assert fresh.blob_size(BlobKind.DATA, each.id) == len(piece) == each.size_bytes
        assert fresh.blob_size(BlobKind.TREE, each.id) is None
    assert list(fresh.stream([each.id for each in saved])) == pieces


def test_compression_is_used_where_it_helps() -> None:
    with init_repository(MemoryStore()).writer() as writer:
        text = writer.save(BlobKind.DATA, copy_text(5000, 1))
        noise = writer.save(BlobKind.DATA, random_bytes(50_000, 1))
    assert text.stored_bytes < text.size_bytes / 2
    assert noise.stored_bytes == noise.size_bytes + SEAL_BYTES


def test_buffers_of_any_kind_can_be_saved() -> None:
    data = copy_text(100, 1)
    with init_repository(MemoryStore()).writer() as writer:
        ids = {writer.save(BlobKind.DATA, kind(data)).id for kind in (bytes, bytearray, memoryview)}
        assert len(ids) == 1
        assert writer.stats.new_blobs == 1


def test_known_blobs_cost_nothing_and_are_counted() -> None:
    store = MemoryStore()
    repository = init_repository(store)
    data = copy_text(1000, 1)
    with repository.writer() as writer:
        writer.save(BlobKind.DATA, data)
        assert not writer.save(BlobKind.DATA, data).is_new  # not yet uploaded
        writer.flush()
        assert not writer.save(BlobKind.DATA, data).is_new
        assert writer.save(BlobKind.TREE, data).is_new  # the kinds are apart
    before = len(packs_of(store))
    with open_repository(store).writer() as writer:
        again = writer.save(BlobKind.DATA, data)
        assert (again.is_new, again.stored_bytes) == (False, 0)
        assert (writer.stats.new_blobs, writer.stats.known_blobs, writer.stats.known_bytes) == (
            0,
            1,
            len(data),
        )
    assert len(packs_of(store)) == before == 2


def test_trees_and_data_are_in_packs_of_their_own() -> None:
    repository = init_repository(MemoryStore())
    save_backup(repository, {"a": [copy_text(100, seed) for seed in range(5)]})
    kinds = [{entry.kind for entry in pack.entries} for pack in repository.indexed_packs()]
    assert sorted(map(len, kinds)) == [1, 1]


def test_many_threads_store_each_blob_once() -> None:
    store = MemoryStore()
    pieces = [copy_text(300, seed) for seed in range(50)]
    gate = threading.Barrier(8)

    def save_all(writer: BlobWriter) -> int:
        gate.wait()
        return sum(writer.save(BlobKind.DATA, piece).is_new for piece in pieces)

    with init_repository(store).writer() as writer, ThreadPoolExecutor(8) as executor:
        counts = [future.result() for future in [executor.submit(save_all, writer) for _ in range(8)]]
        writer.flush()
        stats = writer.stats
    assert sum(counts) == len(pieces)
    assert (stats.new_blobs, stats.known_blobs) == (50, 350)
    entries = [entry for pack in open_repository(store).indexed_packs() for entry in pack.entries]
    assert len(entries) == len({entry.id for entry in entries}) == 50


def test_packs_are_full_and_then_a_new_one_begins() -> None:
    store = MemoryStore()
    with init_repository(store).writer() as writer:
        for seed in range(40):
            writer.save(BlobKind.DATA, random_bytes(16 << 10, seed))
    sizes = sorted(info.size_bytes for info in store.list("data/"))
    assert len(sizes) == 3
    assert all(PACK_BYTES - (32 << 10) < size <= PACK_BYTES for size in sizes[1:])


def test_a_blob_larger_than_a_pack() -> None:
    store = MemoryStore()
    data = random_bytes(PACK_BYTES + 5, 1)
    with init_repository(store).writer() as writer:
        writer.save(BlobKind.DATA, b"small")
        large = writer.save(BlobKind.DATA, data)
        writer.save(BlobKind.DATA, b"after")
    assert open_repository(store).read_blob(BlobKind.DATA, large.id) == data


def test_order_is_packs_then_index_then_snapshot() -> None:
    store = WatchedStore()
    repository = init_repository(store)
    store.calls.clear()
    save_backup(repository, {"a": [copy_text(100, seed) for seed in range(5)]})
    folders = [name.split("/")[0] for name in store.names("put")]
    assert folders == ["data", "data", "index", "snapshots"]


def test_flush_means_durable_and_readable_by_others() -> None:
    store = MemoryStore()
    with init_repository(store).writer() as writer:
        for seed in range(3):
            saved = writer.save(BlobKind.DATA, copy_text(100, seed))
            writer.flush()
            assert open_repository(store).read_blob(BlobKind.DATA, saved.id) == copy_text(100, seed)
    assert len(list(store.list("index/"))) == 3


def test_index_files_are_written_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgstow.repository.writer._INDEX_ENTRIES", 100)
    monkeypatch.setattr("pgstow.repository.writer._MAX_PACK_ENTRIES", 40)
    store = WatchedStore()
    repository = init_repository(store)
    with repository.writer() as writer:
        for number in range(1000):
            writer.save(BlobKind.DATA, b"%d" % number)
    listed = [len(pack.entries) for pack in repository.indexed_packs()]
    assert sum(listed) == 1000
    assert max(listed) == 40
    assert 5 <= sum(name.startswith("index/") for name in store.names("put")) <= 10
    index_positions = [at for at, name in enumerate(store.names("put")) if name.startswith("index/")]
    assert index_positions[0] < len(store.names("put")) / 2


def test_an_index_file_is_written_after_five_minutes() -> None:
    store = MemoryStore()
    repository = init_repository(store)
    now = [0.0]
    with BlobWriter(
        repository._files, repository._key, repository._index, guard=lambda: None, monotonic=lambda: now[0]
    ) as writer:
        for seed in range(20):
            writer.save(BlobKind.DATA, random_bytes(16 << 10, seed))
        now[0] = 301.0
        for seed in range(20, 60):
            writer.save(BlobKind.DATA, random_bytes(16 << 10, seed))
        while writer.stats.packs < 3:
            pass
        written = len(list(store.list("index/")))
    assert written >= 1


@pytest.mark.parametrize("error", [StoreFull("no room"), StoreUnavailable("gone"), MemoryError()])
def test_the_first_upload_error_surfaces_and_stays(error: Exception) -> None:
    def fail(method: str, name: str) -> None:
        if method == "put" and name.startswith("data/"):
            raise error

    store = WatchedStore()
    repository = init_repository(store)
    store.before = fail
    with pytest.raises(type(error)), repository.writer() as writer:  # noqa: PT012
        writer.save(BlobKind.DATA, b"x")
        with pytest.raises(type(error)):
            writer.flush()
        with pytest.raises(type(error)):
            writer.save(BlobKind.DATA, b"y")
        with pytest.raises(type(error)):
            writer.save(BlobKind.DATA, b"x")
        writer.flush()
    assert store.names("put")[-1].startswith("data/")  # no index file names what is not there


def test_an_error_of_the_index_file_surfaces() -> None:
    def fail(method: str, name: str) -> None:
        if method == "put" and name.startswith("index/"):
            raise StoreError("refused")

    store = WatchedStore()
    repository = init_repository(store)
    store.before = fail
    with pytest.raises(StoreError, match="refused"), repository.writer() as writer:
        writer.save(BlobKind.DATA, b"x")


def test_saves_wait_while_packs_are_on_their_way_and_give_up_on_failure() -> None:
    release = threading.Event()
    alive: list[str] = []
    most = 0

    def hold(method: str, name: str) -> None:
        nonlocal most
        if method == "put" and name.startswith("data/"):
            alive.append(name)
            most = max(most, len(alive))
            assert release.wait(30)
            alive.remove(name)

    store = WatchedStore()
    repository = init_repository(store)
    store.before = hold
    noise = random_bytes(100 << 10, 1)
    with repository.writer() as writer:

        def save_all() -> None:
            for number in range(30):
                writer.save(BlobKind.DATA, b"%d" % number + noise)

        thread = threading.Thread(target=save_all)
        thread.start()
        while len(alive) < 7:
            assert thread.is_alive()
        thread.join(0.3)
        assert thread.is_alive()  # blocked: eight packs hold all the memory they may
        assert writer.stats.new_blobs <= 16
        release.set()
        thread.join()
    assert most <= 8
    assert writer.stats.packs == 15


def test_leaving_with_an_exception_drops_what_is_open_and_indexes_what_is_durable() -> None:
    store = MemoryStore()
    with pytest.raises(KeyError), init_repository(store).writer() as writer:  # noqa: PT012
        for seed in range(20):
            writer.save(BlobKind.DATA, random_bytes(16 << 10, seed))
        while writer.stats.packs < 1:
            pass
        raise KeyError("the backup failed")
    assert len(packs_of(store)) == 1
    fresh = open_repository(store)
    assert len(fresh._index) in (14, 15)
    with fresh.writer() as writer:
        assert not writer.save(BlobKind.DATA, random_bytes(16 << 10, 0)).is_new


def test_nothing_is_written_once_the_lock_is_lost() -> None:
    store = WatchedStore()
    repository = init_repository(store)
    with pytest.raises(RepositoryLocked), repository.lock() as lock, repository.writer() as writer:  # noqa: PT012
        writer.save(BlobKind.DATA, b"before")
        writer.flush()
        lock._lost = "the repository lock was removed by someone else"
        writer.save(BlobKind.DATA, b"after")
        store.calls.clear()
        writer.flush()
    assert store.names("put") == []
    with pytest.raises(RepositoryLocked):
        lock.check()


def test_a_snapshot_is_not_published_without_the_lock() -> None:
    repository = init_repository(MemoryStore())
    with repository.lock() as lock:
        lock._lost = "lost"
        with pytest.raises(RepositoryLocked):
            save_backup(repository, {"a": []})
    assert repository.snapshots() == []


def test_a_file_of_another_type_ends_the_writer_cleanly() -> None:
    repository = init_repository(MemoryStore())
    with pytest.raises(TypeError), repository.writer() as writer:
        writer.save(BlobKind.DATA, "text")  # type: ignore[arg-type]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(blobs=st.lists(st.tuples(st.sampled_from(BlobKind), st.binary(max_size=300)), max_size=30))
def test_any_blobs_round_trip(blobs: list[tuple[BlobKind, bytes]], shared: Repository) -> None:
    with shared.writer() as writer:
        ids = [writer.save(kind, data).id for kind, data in blobs]
    for (kind, data), blob_id in zip(blobs, ids, strict=True):
        assert shared.read_blob(kind, blob_id) == data


@pytest.fixture
def shared() -> Repository:
    return init_repository(MemoryStore())


def test_trees_are_saved_by_the_writer() -> None:
    store = MemoryStore()
    nodes: list[FileNode | DirNode] = [
        FileNode(name="b", size_bytes=1, content=[b"\1" * 32], modified=MOMENT),
        DirNode(name="a", subtree=b"\2" * 32, modified=MOMENT),
    ]
    with init_repository(store).writer() as writer:
        tree = writer.save_tree(nodes)
    assert open_repository(store).read_tree(tree) == nodes[::-1]


def test_packs_that_no_index_file_lists_are_unknown_to_the_next_writer() -> None:
    """Of one process, too: a set of backups goes on after one of them has failed."""
    store = WatchedStore(inner=MemoryStore())
    repository = init_repository(store)

    def fail(method: str, name: str) -> None:
        if method == "put" and name.startswith("index/"):
            raise StoreUnavailable("gone")

    store.before = fail
    with pytest.raises(StoreUnavailable), repository.writer() as writer:
        writer.save(BlobKind.DATA, b"shared by all databases")
    store.before = lambda method, name: None

    repository.load_index()
    with repository.writer() as writer:
        saved = writer.save(BlobKind.DATA, b"shared by all databases")

    assert saved.is_new
    fresh = open_repository(store)
    fresh.load_index()
    assert fresh.read_blob(BlobKind.DATA, saved.id) == b"shared by all databases"
