"""Making and opening repositories: who wins, who is told what."""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from pgstow.core.errors import (
    NoRepository,
    PgstowError,
    RepositoryDamaged,
    RepositoryExists,
    StoreUnavailable,
    WrongPassword,
)
from pgstow.core.secrets import Secret
from pgstow.repository import Repository, RepositoryKin, Snapshot, SnapshotSummary
from pgstow.repository.config import RepositoryConfig
from pgstow.repository.crypto import MasterKey
from pgstow.repository.keys import wrap_key
from pgstow.repository.snapshot import decode_snapshot, encode_snapshot
from pgstow.store.memory import MemoryStore
from support.cheap_keys import with_ordinary_cost
from support.repositories import (
    MOMENT,
    WatchedStore,
    copy_text,
    init_repository,
    open_repository,
    read_files,
    save_backup,
    snapshot_of,
)


def test_what_was_made_can_be_opened() -> None:
    store = MemoryStore()
    made = init_repository(store, "pass wörd 🔑")
    assert open_repository(store, "pass wörd 🔑").id == made.id
    assert sorted(info.name.split("/")[0] for info in store.list("")) == ["config", "keys"]


def test_the_key_file_is_restic_s() -> None:
    store = MemoryStore()
    with with_ordinary_cost():
        Repository.init(store, Secret("x"), hostname="worker", username="tester")
    (info,) = store.list("keys/")
    fields = json.loads(store.get(info.name))
    assert list(fields) == ["created", "username", "hostname", "kdf", "N", "r", "p", "salt", "data"]
    assert (fields["kdf"], fields["N"], fields["r"], fields["p"]) == ("scrypt", 32768, 8, 1)
    assert (fields["hostname"], fields["username"]) == ("worker", "tester")


def test_the_wrong_password() -> None:
    store = MemoryStore()
    init_repository(store)
    with pytest.raises(WrongPassword, match="none of 1 key files"):
        open_repository(store, "wrong")
    with pytest.raises(WrongPassword):
        open_repository(store, "")


def test_nothing_there() -> None:
    with pytest.raises(NoRepository, match="no repository at memory"):
        open_repository(MemoryStore())


def test_a_second_init_is_refused_and_changes_nothing() -> None:
    store = MemoryStore()
    init_repository(store)
    before = {info.name: store.get(info.name) for info in store.list("")}
    with pytest.raises(RepositoryExists):
        init_repository(store, "another")
    assert {info.name: store.get(info.name) for info in store.list("")} == before


def test_of_many_inits_at_once_exactly_one_wins() -> None:
    gate = threading.Barrier(4)

    def wait_for_all(method: str, name: str) -> None:
        if method == "put" and name.startswith("keys/"):
            gate.wait()

    store = WatchedStore(before=wait_for_all)

    def init(number: int) -> Repository | PgstowError:
        try:
            return Repository.init(store, Secret(f"password {number}"), hostname="h", username="u")
        except RepositoryExists as exc:
            return exc

    with ThreadPoolExecutor(4) as executor:
        results = list(executor.map(init, range(4)))
    winners = [number for number, result in enumerate(results) if isinstance(result, Repository)]
    assert len(winners) == 1
    assert len(list(store.list("keys/"))) == 1
    opened = open_repository(store, f"password {winners[0]}")
    assert isinstance(results[winners[0]], Repository)
    assert opened.id == results[winners[0]].id  # type: ignore[union-attr]


class Overwriting(MemoryStore):
    """A store that ignores if_absent, as some S3 imitations do."""

    def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
        super().put(name, data)


def test_where_if_absent_is_ignored_the_loser_gives_way() -> None:
    store = Overwriting()
    slept: list[float] = []

    def other_init_meanwhile(seconds: float) -> None:
        slept.append(seconds)
        winner = MasterKey.generate()
        store.put("config", winner.seal(b"another config"))

    with pytest.raises(RepositoryExists, match="first"):
        Repository.init(store, Secret("x"), hostname="h", username="u", sleep=other_init_meanwhile)
    assert slept[0] >= 1
    assert list(store.list("keys/")) == []


def test_where_if_absent_is_ignored_an_undisturbed_init_succeeds() -> None:
    store = Overwriting()
    made = Repository.init(store, Secret("x"), hostname="h", username="u", sleep=lambda _: None)
    assert open_repository(store, "x").id == made.id


@pytest.fixture
def interrupted() -> MemoryStore:
    """What an init leaves that could not write its config."""

    def fail_at_config(method: str, name: str) -> None:
        if (method, name) == ("put", "config"):
            raise StoreUnavailable("connection lost")

    inner = MemoryStore()
    with pytest.raises(StoreUnavailable):
        init_repository(WatchedStore(inner=inner, before=fail_at_config), "mine")
    with pytest.raises(NoRepository):
        open_repository(inner, "mine")
    return inner


def test_an_interrupted_init_is_finished_by_the_next_one(interrupted: MemoryStore) -> None:
    (left,) = interrupted.list("keys/")
    made = init_repository(interrupted, "mine")
    (key,) = interrupted.list("keys/")
    assert key.name == f"keys/{made.key_id}" != left.name
    assert open_repository(interrupted, "mine").id == made.id


def test_an_interrupted_init_with_another_password_is_explained(interrupted: MemoryStore) -> None:
    with pytest.raises(RepositoryExists, match="key files but no config") as caught:
        init_repository(interrupted, "another")
    assert "remove the folder keys" in (caught.value.hint or "")
    assert len(list(interrupted.list("keys/"))) == 1


def test_an_init_that_seemed_interrupted_and_goes_on_has_lost() -> None:
    inner = MemoryStore()
    ours: list[Repository] = []

    def init_meanwhile(method: str, name: str) -> None:
        if (method, name) == ("put", "config"):
            ours.append(init_repository(inner, "same"))

    with pytest.raises(RepositoryExists, match="first"):
        init_repository(WatchedStore(inner=inner, before=init_meanwhile), "same")
    assert open_repository(inner, "same").id == ours[0].id
    assert len(list(inner.list("keys/"))) == 1


def test_an_init_that_seemed_interrupted_and_finishes_has_won() -> None:
    inner = MemoryStore()
    kin = RepositoryKin.generate()
    master, config = kin.key, RepositoryConfig.generate(kin.chunker_polynomial)
    theirs = add_key(inner, master, "same")

    def finish(method: str, name: str) -> None:
        if (method, name) == ("put", "config"):
            inner.put("config", master.seal(config.encode()))

    with pytest.raises(RepositoryExists, match="first"):
        init_repository(WatchedStore(inner=inner, before=finish), "same")
    assert open_repository(inner, "same").id == config.id
    assert [info.name for info in inner.list("keys/")] == [f"keys/{theirs}"]


def add_key(store: MemoryStore, master: MasterKey, password: str) -> str:
    key = wrap_key(master, Secret(password), hostname="h", username="u")
    store.put(f"keys/{key.id}", key.data)
    return key.id


def test_the_key_of_an_init_that_lost_with_the_same_password_does_not_disturb() -> None:
    for _ in range(3):  # whichever sorts first
        store = MemoryStore()
        made = init_repository(store, "same")
        add_key(store, MasterKey.generate(), "same")
        assert open_repository(store, "same").id == made.id


def test_several_passwords_open_it() -> None:
    store = MemoryStore()
    made = init_repository(store, "first")
    added = add_key(store, made._key, "second")
    opened = open_repository(store, "second")
    assert (opened.id, opened.key_id) == (made.id, added)


@pytest.mark.parametrize("damage", [b"", b"{}", b"not json", b'{"kdf":"scrypt","N":2097152,"r":64,"p":1}'])
def test_damaged_key_files_of_others_do_not_stop_us(damage: bytes) -> None:
    store = MemoryStore()
    made = init_repository(store)
    store.put(f"keys/{hashlib.sha256(damage).hexdigest()}", damage)
    store.put("keys/" + "0" * 64, b"content of another name")
    store.put("keys/README", b"no key at all")
    assert open_repository(store).id == made.id
    with pytest.raises(WrongPassword, match="2 key files are damaged"):
        open_repository(store, "wrong")


def test_the_only_key_file_damaged() -> None:
    store = MemoryStore()
    init_repository(store)
    (info,) = store.list("keys/")
    store.put(info.name, store.get(info.name)[:-5])
    with pytest.raises(RepositoryDamaged, match="does not match its name"):
        open_repository(store)


def test_no_key_file() -> None:
    store = MemoryStore()
    init_repository(store)
    (info,) = store.list("keys/")
    store.delete(info.name)
    with pytest.raises(NoRepository, match="no key file"):
        open_repository(store)


def test_a_damaged_config() -> None:
    store = MemoryStore()
    init_repository(store)
    store.put("config", store.get("config")[:-1] + b"\0")
    with pytest.raises(RepositoryDamaged, match="config"):
        open_repository(store)


FULL = Snapshot(
    time=MOMENT,
    tree=bytes(range(32)),
    paths=("/shop", "/<b>"),
    hostname="h",
    username="u",
    tags=("pgstow", "label=a&b"),
    program_version="pgstow 1",
    summary=SnapshotSummary(backup_start=MOMENT, backup_end=MOMENT, files_new=1, data_added_packed=7),
    parent="a" * 64,
    original="b" * 64,
    excludes=("*.tmp",),
    uid=5,
    gid=6,
    id="c" * 64,
)


@pytest.mark.parametrize(
    "snapshot", [FULL, snapshot_of(bytes(32), [1, 2]), replace(FULL, summary=None, tags=())]
)
def test_snapshot_round_trip(snapshot: Snapshot) -> None:
    assert decode_snapshot(encode_snapshot(snapshot), snapshot.id or "") == replace(
        snapshot, id=snapshot.id or ""
    )


def test_snapshot_json_has_restic_s_fields_in_its_order() -> None:
    fields = json.loads(encode_snapshot(FULL))
    assert list(fields) == (
        [
            "time",
            "parent",
            "tree",
            "paths",
            "hostname",
            "username",
            "uid",
            "gid",
            "excludes",
            "tags",
            "original",
            "program_version",
            "summary",
        ]
    )
    assert list(fields["summary"])[:3] == ["backup_start", "backup_end", "files_new"]
    assert len(fields["summary"]) == 14
    assert list(json.loads(encode_snapshot(Snapshot(time=MOMENT, tree=bytes(32), paths=())))) == [
        "time",
        "tree",
        "paths",
    ]


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"time":"x","tree":"","paths":[]}'])
def test_what_is_no_snapshot(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"missing or malformed|Expecting value|is not a tree|indices"):
        decode_snapshot(data, "id")


def test_snapshots_are_listed_oldest_first_and_read_back() -> None:
    store = MemoryStore()
    repository = init_repository(store)
    late = save_backup(repository, {"a": [copy_text(10, 1)]}, run="late")
    early = save_backup(repository, {"b": [copy_text(10, 2)]}, run="early", time=MOMENT.replace(year=2025))
    again = open_repository(store)
    assert [snapshot.id for snapshot in again.snapshots()] == [early, late]
    assert read_files(again, again.snapshots()[1]) == {"/shop/archive/a": copy_text(10, 1)}


def test_a_damaged_snapshot_raises_or_is_collected() -> None:
    store = MemoryStore()
    repository = init_repository(store)
    good, bad = (save_backup(repository, {"a": [b"x"]}, run=run) for run in ("good", "bad"))
    data = bytearray(store.get(f"snapshots/{bad}"))
    data[20] ^= 1
    store.put(f"snapshots/{bad}", data)
    with pytest.raises(RepositoryDamaged, match=bad):
        repository.snapshots()
    damaged: list[RepositoryDamaged] = []
    assert [snapshot.id for snapshot in repository.snapshots(damaged=damaged)] == [good]
    assert bad in damaged[0].message


def test_a_snapshot_forgotten_since_it_was_listed_is_left_out() -> None:
    store = WatchedStore()
    repository = init_repository(store)
    kept, gone = (save_backup(repository, {"a": [b"x"]}, run=run) for run in ("kept", "gone"))

    def forget(method: str, name: str) -> None:
        if (method, name) == ("get", f"snapshots/{gone}"):
            store.inner.delete(name)

    store.before = forget
    assert [snapshot.id for snapshot in repository.snapshots()] == [kept]
