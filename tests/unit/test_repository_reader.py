"""Reading: in order, coalesced, ahead, bounded, and never a wrong byte."""

from __future__ import annotations

import hashlib
import random
import threading

import pytest

from pgstow.core.errors import RepositoryDamaged, StoreUnavailable
from pgstow.core.secrets import Secret
from pgstow.repository import BlobId, BlobKind, Repository
from pgstow.store.memory import MemoryStore
from support.repositories import WatchedStore, copy_text, init_repository, open_repository, random_bytes
from support.restic import PASSWORD


@pytest.fixture
def _small_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgstow.repository.reader._SPAN_BYTES", 4 << 10)
    monkeypatch.setattr("pgstow.repository.reader._GAP_BYTES", 0)


def fill(store: MemoryStore | WatchedStore, pieces: list[bytes]) -> tuple[Repository, list[BlobId]]:
    with init_repository(store).writer() as writer:
        ids = [writer.save(BlobKind.DATA, piece).id for piece in pieces]
    return open_repository(store), ids


def the_pack(store: MemoryStore) -> str:
    (info,) = store.list("data/")
    return info.name


def damage(store: MemoryStore, name: str, position: int) -> None:
    data = bytearray(store.get(name))
    data[position] ^= 0x40
    store.put(name, data)


def test_streams_come_in_the_order_asked_for() -> None:
    pieces = [copy_text(200, seed) for seed in range(30)]
    repository, ids = fill(MemoryStore(), pieces)
    order = [random.Random(1).randrange(30) for _ in range(100)]
    assert list(repository.stream([ids[at] for at in order])) == [pieces[at] for at in order]
    assert list(repository.stream(iter(ids), read_ahead=1)) == pieces
    assert list(repository.stream([])) == []


def test_neighbours_are_fetched_by_one_request() -> None:
    store = WatchedStore()
    repository, ids = fill(store, [copy_text(1000, seed) for seed in range(60)])
    store.calls.clear()
    assert len(list(repository.stream(ids))) == 60
    assert len(store.names("get_range")) == 1
    store.calls.clear()
    assert len(list(repository.stream(ids[::7]))) == 9  # what lies between is read past
    assert len(store.names("get_range")) == 1


@pytest.mark.usefixtures("_small_spans")
def test_one_request_never_asks_for_much() -> None:
    store = WatchedStore()
    repository, ids = fill(store, [random_bytes(1 << 10, seed) for seed in range(40)])
    store.calls.clear()
    assert sum(map(len, repository.stream(ids))) == 40 << 10
    assert len(store.names("get_range")) >= 10


@pytest.mark.usefixtures("_small_spans")
def test_reading_runs_ahead_of_the_consumer_but_not_far() -> None:
    store = WatchedStore()
    repository, ids = fill(store, [random_bytes(4 << 10, seed) for seed in range(12)])
    store.calls.clear()
    stream = repository.stream(ids, read_ahead=3)
    next(stream)
    stream.close()
    assert 1 <= len(store.names("get_range")) <= 3
    assert len(list(repository.stream(ids[:2]))) == 2  # and the threads serve the next stream


@pytest.mark.usefixtures("_small_spans")
def test_a_consumer_that_stops_leaves_nothing_running() -> None:
    entered, release = threading.Semaphore(0), threading.Event()

    def hold(method: str, name: str) -> None:
        if method == "get_range":
            entered.release()
            assert release.wait(30)

    store = WatchedStore()
    repository, ids = fill(store, [random_bytes(4 << 10, seed) for seed in range(20)])
    store.calls.clear()
    store.before = hold
    stream = repository.stream(ids, read_ahead=15)
    first = threading.Thread(target=next, args=(stream,))
    first.start()
    for _ in range(8):
        assert entered.acquire(timeout=30)
    release.set()
    first.join()
    stream.close()
    done = len(store.names("get_range"))
    assert done <= 15


@pytest.mark.usefixtures("_small_spans")
def test_errors_of_the_store_reach_the_consumer() -> None:
    store = WatchedStore()
    repository, ids = fill(store, [random_bytes(4 << 10, seed) for seed in range(4)])

    def fail(method: str, name: str) -> None:
        if method == "get_range":
            raise StoreUnavailable("gone")

    store.before = fail
    with pytest.raises(StoreUnavailable):
        list(repository.stream(ids))
    with pytest.raises(StoreUnavailable):
        repository.read_blob(BlobKind.DATA, ids[0])


def test_every_damaged_byte_of_a_blob_is_noticed() -> None:
    store = MemoryStore()
    repository, ids = fill(store, [b"first" * 30, b"second" * 30])
    pack = the_pack(store)
    original = store.get(pack)
    first_length = repository._index.find(BlobKind.DATA, ids[0]).length  # type: ignore[union-attr]
    for position in range(first_length):
        damage(store, pack, position)
        with pytest.raises(RepositoryDamaged, match=ids[0].hex()) as caught:
            repository.read_blob(BlobKind.DATA, ids[0])
        assert caught.value.facts["file"] == pack
        assert caught.value.facts["blob"] == ids[0].hex()
        with pytest.raises(RepositoryDamaged, match=ids[0].hex()):
            list(repository.stream(ids))
        assert repository.read_blob(BlobKind.DATA, ids[1]) == b"second" * 30
        store.put(pack, original)


def test_a_truncated_pack_and_a_missing_pack() -> None:
    store = MemoryStore()
    repository, ids = fill(store, [random_bytes(1000, 1)])
    pack = the_pack(store)
    store.put(pack, store.get(pack)[:500])
    with pytest.raises(RepositoryDamaged, match="has 500 bytes"):
        repository.read_blob(BlobKind.DATA, ids[0])
    store.delete(pack)
    with pytest.raises(RepositoryDamaged, match="is missing"):
        repository.read_blob(BlobKind.DATA, ids[0])
    with pytest.raises(RepositoryDamaged, match="is missing"):
        list(repository.stream(ids))


def test_an_unknown_blob() -> None:
    repository, _ = fill(MemoryStore(), [b"x"])
    with pytest.raises(RepositoryDamaged, match="in no index file"):
        repository.read_blob(BlobKind.DATA, bytes(32))
    with pytest.raises(RepositoryDamaged, match="in no index file"):
        list(repository.stream([bytes(32)]))


def test_another_intact_copy_is_used() -> None:
    store = MemoryStore()
    pieces = [copy_text(1000, seed) for seed in range(3)]
    other = init_repository(store)
    with open_repository(store).writer() as writer:
        ids = [writer.save(BlobKind.DATA, piece).id for piece in pieces]
    with other.writer() as writer:  # does not know what is there already
        assert [writer.save(BlobKind.DATA, piece).is_new for piece in pieces] == [True] * 3
    fresh = open_repository(store)
    place = fresh._index.find(BlobKind.DATA, ids[1])
    assert place is not None
    damage(store, f"data/{place.pack_id.hex()[:2]}/{place.pack_id.hex()}", place.offset + 50)
    assert fresh.read_blob(BlobKind.DATA, ids[1]) == pieces[1]
    assert list(fresh.stream(ids)) == pieces


def test_content_under_a_wrong_id_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # A blob that was sealed correctly but is not what its id says: only the hash can tell.
    store = MemoryStore()
    repository = init_repository(store)
    real = hashlib.sha256
    with repository.writer() as writer:
        monkeypatch.setattr("pgstow.repository.writer.hashlib.sha256", lambda data: real(b"other" + data))
        wrong = writer.save(BlobKind.DATA, b"content").id
        monkeypatch.undo()
    with pytest.raises(RepositoryDamaged, match="does not match its id"):
        repository.read_blob(BlobKind.DATA, wrong)


def test_the_index_follows_what_others_write() -> None:
    store = MemoryStore()
    repository, _ = fill(store, [b"first"])
    with open_repository(store).writer() as writer:
        saved = writer.save(BlobKind.DATA, b"second")
    assert repository.blob_size(BlobKind.DATA, saved.id) is None
    repository.load_index()
    assert repository.blob_size(BlobKind.DATA, saved.id) == 6


def test_index_files_are_read_once() -> None:
    store = WatchedStore()
    repository, _ = fill(store, [b"first"])
    with repository.writer() as writer:
        writer.save(BlobKind.DATA, b"second")
    store.calls.clear()
    repository.load_index()
    assert store.names("get") == []


def test_a_damaged_index_file_is_named_or_collected() -> None:
    store = MemoryStore()
    repository, ids = fill(store, [b"first"])
    with repository.writer() as writer:
        second = writer.save(BlobKind.DATA, b"second").id
    names = [info.name for info in store.list("index/")]
    store.put(names[0], store.get(names[0])[:-1])
    with pytest.raises(RepositoryDamaged, match=names[0]):
        open_repository(store)
    damaged: list[RepositoryDamaged] = []
    fresh = Repository.open(store, Secret(PASSWORD))
    fresh.load_index(damaged=damaged)
    assert [exc.facts["file"] for exc in damaged] == [names[0]]
    assert sorted(fresh.blob_size(BlobKind.DATA, blob) is None for blob in (ids[0], second)) == [False, True]
