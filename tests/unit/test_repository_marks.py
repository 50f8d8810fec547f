"""Holds, proofs and retirements: what was written is there, and nobody without the key can change what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime

import pytest

from pgstow.core.errors import ObjectExists, StoreError, StoreUnavailable, UsageError
from pgstow.repository import Hold, LockTimes, Marks, Proof, Repository
from pgstow.store.api import Store
from pgstow.store.memory import MemoryStore
from support.repositories import WatchedStore, init_repository, open_repository

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
A, B = "aaaaaaaa-1111-4111-8111-111111111111", "bbbbbbbb-2222-4222-8222-222222222222"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def marks(store: MemoryStore) -> Marks:
    return init_repository(store).marks()


def hold(marks: Marks, backup: str = A, reason: str = "case 7", until: date | None = None) -> None:
    marks.hold(backup, at=AT, by="anna@host", reason=reason, until=until)


def release(marks: Marks, backup: str = A) -> None:
    marks.release(backup, at=AT, by="bert@host", reason="case closed")


def reasons(marks: Marks, backup: str = A) -> list[str]:
    return [each.reason or f"? {each.problem}" for each in marks.holds().get(backup, [])]


def names(store: Store, folder: str) -> list[str]:
    return sorted(info.name for info in store.list(f"pgstow/{folder}/"))


def test_held_until_released_and_held_again(marks: Marks, store: MemoryStore) -> None:
    assert marks.holds() == {}
    hold(marks, until=date(2027, 1, 31))
    hold(marks, reason="audit")
    hold(marks, B)
    again = open_repository(store).marks()
    assert again.holds()[A] == [
        Hold(backup_id=A, since=AT, by="anna@host", reason="case 7", until=date(2027, 1, 31)),
        Hold(backup_id=A, since=AT, by="anna@host", reason="audit"),
    ]
    release(marks)
    assert reasons(again) == []
    assert reasons(again, B) == ["case 7"]
    hold(again, reason="third")
    assert reasons(marks) == ["third"]
    assert names(store, "holds") == [
        *[f"pgstow/holds/{A}/00000{n}" for n in (1, 2, 3, 4)],
        f"pgstow/holds/{B}/000001",
    ]


def test_nothing_can_be_read_without_the_key(marks: Marks, store: MemoryStore) -> None:
    hold(marks, reason="the merger with Acme")
    marks.retire("secret-project", at=AT, by="anna@host", reason="cancelled")
    marks.prove(Proof(backup_id=A, when=AT, what="whole database"))
    for info in store.list("pgstow/"):
        assert b"Acme" not in store.get(info.name)
        assert "secret" not in info.name


# -- who can write but has no key


def garbage(marks: Marks, store: MemoryStore) -> None:
    store.put(f"pgstow/holds/{A}/000002", b"nonsense" * 20)


def hold_overwritten(marks: Marks, store: MemoryStore) -> None:
    store.put(f"pgstow/holds/{A}/000001", b"\0" * 300)


def release_of_another_backup(marks: Marks, store: MemoryStore) -> None:
    hold(marks, B)
    release(marks, B)
    store.put(f"pgstow/holds/{A}/000002", store.get(f"pgstow/holds/{B}/000002"))


def old_release_again(marks: Marks, store: MemoryStore) -> None:
    release(marks)
    hold(marks)
    store.put(f"pgstow/holds/{A}/000004", store.get(f"pgstow/holds/{A}/000002"))


def retirement_in_place_of_a_release(marks: Marks, store: MemoryStore) -> None:
    for _ in range(2):
        marks.retire(A, at=AT, by="x", reason="y", is_undone=True)
    store.put(f"pgstow/holds/{A}/000002", store.get(names(store, "retired")[1]))


def release_of_another_repository(marks: Marks, store: MemoryStore) -> None:
    other = MemoryStore()
    theirs = init_repository(other).marks()
    hold(theirs)
    release(theirs)
    store.put(f"pgstow/holds/{A}/000002", other.get(f"pgstow/holds/{A}/000002"))


def hold_removed_before_a_later_one(marks: Marks, store: MemoryStore) -> None:
    hold(marks, reason="later")
    store.delete(f"pgstow/holds/{A}/000001")


def highest_number(marks: Marks, store: MemoryStore) -> None:
    store.put(f"pgstow/holds/{A}/999999", b"")


FORGERIES = (
    garbage,
    hold_overwritten,
    release_of_another_backup,
    old_release_again,
    retirement_in_place_of_a_release,
    release_of_another_repository,
    hold_removed_before_a_later_one,
    highest_number,
)


@pytest.mark.parametrize("forge", FORGERIES)
def test_a_release_cannot_be_forged(
    marks: Marks, store: MemoryStore, forge: Callable[[Marks, MemoryStore], None]
) -> None:
    hold(marks)
    forge(marks, store)
    assert reasons(marks)
    assert any(each.problem for each in marks.holds()[A])


@pytest.mark.parametrize("forge", [each for each in FORGERIES if each is not highest_number])
def test_who_has_the_key_can_release_whatever_was_forged(
    marks: Marks, store: MemoryStore, forge: Callable[[Marks, MemoryStore], None]
) -> None:
    hold(marks)
    forge(marks, store)
    release(marks)
    assert reasons(marks) == []


def test_the_highest_number_is_told_and_not_passed(marks: Marks, store: MemoryStore) -> None:
    highest_number(marks, store)
    with pytest.raises(StoreError, match="highest number"):
        release(marks)


def test_a_release_that_is_gone_is_none(marks: Marks, store: MemoryStore) -> None:
    hold(marks)
    release(marks)
    store.delete(f"pgstow/holds/{A}/000002")
    assert reasons(marks) == ["case 7"]


def test_what_a_newer_program_writes_counts_as_a_hold(marks: Marks, store: MemoryStore) -> None:
    hold(marks)
    release(marks)
    name = f"pgstow/holds/{A}/000002"
    fields = json.loads(marks._files.load_as(name))
    assert fields["format"] == 1
    marks._files.save_as(name, json.dumps(fields | {"format": 2}).encode())
    marks._files.save_as(f"pgstow/holds/{B}/000001", b"[]")
    assert len(reasons(marks)) == 2
    assert len(reasons(marks, B)) == 1


def test_a_proof_cannot_be_forged_or_moved(marks: Marks, store: MemoryStore) -> None:
    proof = Proof(backup_id=A, when=AT, what="whole database")
    marks.prove(proof)
    assert marks.proofs({A, B}) == ([proof], set())
    (name,) = names(store, "proofs")
    store.put(f"pgstow/proofs/{B}/{'0' * 32}", store.get(name))
    assert marks.proofs({A, B}) == ([proof], {B})
    assert marks.proofs({A}) == ([proof], set())
    store.put(name, b"\1" * 400)
    assert marks.proofs({A, B}) == ([], {A, B})
    store.delete(name)
    assert marks.proofs({A}) == ([], set())


def test_retirements_go_on_and_off_and_what_is_not_certain_is_none(marks: Marks, store: MemoryStore) -> None:
    assert marks.retirements(["shop"]) == {}
    marks.retire("shop", at=AT, by="anna@host", reason="shut down")
    found = marks.retirements(["shop", "books"])
    assert (found.keys(), found["shop"].reason, found["shop"].when) == ({"shop"}, "shut down", AT)
    assert marks.retirements(["books"]) == {}
    (name,) = names(store, "retired")
    store.put(name[:-1] + "2", b"nonsense")
    assert marks.retirements(["shop"]) == {}
    store.delete(name[:-1] + "2")
    marks.retire("shop", at=AT, by="anna@host", reason="a mistake", is_undone=True)
    assert marks.retirements(["shop"]) == {}
    marks.retire("books", at=AT, by="x", reason="y")
    theirs = next(each for each in names(store, "retired") if not each.startswith(name[:-6]))
    store.put(name[:-1] + "3", store.get(theirs))
    assert marks.retirements(["shop"]) == {}


# -- writing


def test_two_at_the_same_moment_both_stand(store: MemoryStore) -> None:
    init_repository(store)
    second = open_repository(store).marks()
    turns = iter([True])

    def meanwhile(method: str, name: str) -> None:
        if method == "put" and name.startswith("pgstow/holds/") and next(turns, False):
            hold(second, reason="the other")

    hold(open_repository(WatchedStore(inner=store, before=meanwhile)).marks(), reason="mine")
    assert reasons(second) == ["the other", "mine"]


@pytest.mark.parametrize("answer", ["overwrites", "rejects"])
def test_in_a_store_that_cannot_create_conditionally(store: MemoryStore, answer: str) -> None:
    class Simple(WatchedStore):
        def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
            if if_absent and answer == "rejects":
                raise StoreError("not implemented", http_status=501)
            super().put(name, data)

    init_repository(store)
    marks = open_repository(Simple(inner=store)).marks()
    hold(marks)
    release(marks)
    hold(marks, reason="again")
    assert reasons(marks) == ["again"]


def test_what_was_not_written_is_not_reported_as_held(store: MemoryStore) -> None:
    class Forgetful(WatchedStore):
        def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
            super().put(name, b"something else" if name.startswith("pgstow/") else data)

    init_repository(store)
    marks = open_repository(Forgetful(inner=store)).marks()
    with pytest.raises(StoreUnavailable):
        hold(marks)
    with pytest.raises(StoreUnavailable):
        marks.prove(Proof(backup_id=A, when=AT, what="x"))


def test_a_series_that_always_changes_is_given_up(store: MemoryStore) -> None:
    class Busy(WatchedStore):
        def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
            raise ObjectExists(name)

    init_repository(store)
    with pytest.raises(StoreUnavailable, match="keeps changing"):
        hold(open_repository(Busy(inner=store)).marks())


@pytest.mark.parametrize("backup_id", ["", "../config", "a/b", "a b", "x" * 65, "-a"])
def test_an_id_that_pgstow_never_gave_is_refused(marks: Marks, backup_id: str) -> None:
    with pytest.raises(UsageError, match="not an id"):
        hold(marks, backup_id)
    with pytest.raises(UsageError, match="not an id"):
        marks.prove(Proof(backup_id=backup_id, when=AT, what="x"))


@pytest.fixture
def repository(store: MemoryStore) -> Repository:
    return init_repository(store)


def test_who_lost_his_lock_writes_nothing(repository: Repository, store: MemoryStore) -> None:
    now = [0.0]
    times = LockTimes(settle_s=0, clock_s=lambda: now[0])
    with repository.lock(times=times):
        now[0] = 1400.0
        with pytest.raises(Exception, match="lock"):
            hold(repository.marks())
        now[0] = 0.0
    assert names(store, "holds") == []
