"""The passwords of a repository: added, listed, removed, replaced, and never all lost."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from pgstow.app.keys import add_key, change_password, remove_key
from pgstow.core.errors import (
    RepositoryDamaged,
    RepositoryError,
    RepositoryLocked,
    StoreUnavailable,
    UsageError,
    WrongPassword,
)
from pgstow.core.secrets import Secret
from pgstow.repository import LockTimes, Repository
from pgstow.store.memory import MemoryStore
from support.repositories import WatchedStore, init_repository, open_repository
from support.restic import PASSWORD

OLD, NEW = Secret(PASSWORD), Secret("battery staple")
WHO = {"hostname": "worker", "username": "tester"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locking takes no time."""
    monkeypatch.setattr("pgstow.repository.repository.LockTimes", lambda: LockTimes(settle_s=0.001))


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


@pytest.fixture
def repository(store: WatchedStore) -> Repository:
    return init_repository(store)


def opens(store: WatchedStore, password: Secret) -> bool:
    try:
        open_repository(store.inner, password.reveal())
    except WrongPassword:
        return False
    return True


def fail_at(store: WatchedStore, method: str, folder: str, error: Exception) -> None:
    def before(called: str, name: str) -> None:
        if called == method and name.startswith(folder):
            raise error

    store.before = before


def test_added_password_opens_the_same_repository(store: WatchedStore, repository: Repository) -> None:
    key_id = add_key(repository, NEW, **WHO)
    again = open_repository(store, NEW.reveal())
    assert (again.id, again.key_id) == (repository.id, key_id)
    assert again.shares_key_with(repository)
    assert opens(store, OLD)


def test_listed_with_who_made_them_and_when(repository: Repository) -> None:
    key_id = add_key(repository, NEW, hostname="other", username="someone")
    first, second = repository.key_files()
    assert (first.id, first.hostname, first.username) == (repository.key_id, "worker", "tester")
    assert (second.id, second.hostname, second.username) == (key_id, "other", "someone")
    assert second.created is not None
    assert timedelta(0) <= datetime.now(UTC) - second.created < timedelta(minutes=5)
    assert first.damage is None is second.damage


def test_key_that_does_not_come_back_as_written_is_taken_away(
    store: WatchedStore, repository: Repository
) -> None:
    inner = store.inner
    assert isinstance(inner, MemoryStore)
    before = {info.name for info in inner.list("keys/")}

    def spoil(method: str, name: str) -> None:
        if method == "get" and name.startswith("keys/") and name not in before:
            inner.put(name, inner.get(name)[:-1])

    store.before = spoil
    with pytest.raises(RepositoryDamaged, match="does not match its name"):
        add_key(repository, NEW, **WHO)
    assert {info.name for info in inner.list("keys/")} == before


def test_key_that_wraps_another_master_key_is_taken_away(
    store: WatchedStore, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the derivation gave something else the second time: broken memory, a broken library."""
    monkeypatch.setattr("pgstow.repository.keys._open_key", lambda *_: init_repository(MemoryStore()).kin.key)
    with pytest.raises(RepositoryDamaged, match="does not open"):
        add_key(repository, NEW, **WHO)
    monkeypatch.undo()
    assert [key.id for key in repository.key_files()] == [repository.key_id]


def test_unreachable_store_leaves_only_the_old_password(store: WatchedStore, repository: Repository) -> None:
    fail_at(store, "put", "keys/", StoreUnavailable("gone"))
    with pytest.raises(StoreUnavailable):
        add_key(repository, NEW, **WHO)
    assert opens(store, OLD) and not opens(store, NEW)


def test_removed_by_a_unique_beginning(store: WatchedStore, repository: Repository) -> None:
    key_id = add_key(repository, NEW, **WHO)
    text = next(key_id[:n] for n in range(1, 65) if not repository.key_id.startswith(key_id[:n]))
    assert remove_key(repository, text).id == key_id
    assert opens(store, OLD) and not opens(store, NEW)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", UsageError, "not the beginning"),
        ("xyz", UsageError, "not the beginning"),
        ("0" * 64, RepositoryError, "no key begins"),
    ],
)
def test_removing_what_is_not_there(
    repository: Repository, text: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        remove_key(repository, text)


def test_ambiguous_beginning(repository: Repository) -> None:
    while len({key.id[0] for key in repository.key_files()}) == len(repository.key_files()):
        add_key(repository, NEW, **WHO)
    letters = [key.id[0] for key in repository.key_files()]
    (twice,) = {letter for letter in letters if letters.count(letter) > 1}
    with pytest.raises(RepositoryError, match="2 keys begin"):
        remove_key(repository, twice)


def test_neither_the_only_key_nor_the_one_in_use_is_removed(
    store: WatchedStore, repository: Repository
) -> None:
    with pytest.raises(RepositoryError, match="is the only one"):
        remove_key(repository, repository.key_id)
    add_key(repository, NEW, **WHO)
    with pytest.raises(RepositoryError, match="in use") as caught:
        remove_key(repository, repository.key_id)
    assert "keys passwd" in (caught.value.hint or "")
    assert opens(store, OLD)


def test_damaged_key_is_shown_and_can_be_removed(store: WatchedStore, repository: Repository) -> None:
    store.put("keys/" + "ab" * 32, b"torn")
    again = open_repository(store)
    (damaged,) = [key for key in again.key_files() if key.damage]
    assert damaged.id == "ab" * 32
    assert "damaged" in (damaged.damage or "")
    assert again.key_files()[-1].damage
    with pytest.raises(RepositoryError, match="is the only one"):
        remove_key(again, again.key_id)  # a damaged key is no other key
    remove_key(again, "abab")
    assert [key.id for key in again.key_files()] == [again.key_id]


def test_two_sessions_cannot_remove_each_others_key(store: WatchedStore, repository: Repository) -> None:
    add_key(repository, NEW, **WHO)
    other = open_repository(store, NEW.reveal())
    remove_key(other, repository.key_id)
    with pytest.raises(RepositoryError, match="gone or damaged"):
        remove_key(repository, other.key_id)
    assert opens(store, NEW)


def test_changed_password(store: WatchedStore, repository: Repository) -> None:
    change = change_password(repository, OLD, NEW, **WHO)
    assert change.removed == repository.key_id
    assert change.also_opened == ()
    assert opens(store, NEW) and not opens(store, OLD)
    assert [key.id for key in repository.key_files()] == [change.added]


def test_old_password_that_opens_another_key_is_told(store: WatchedStore, repository: Repository) -> None:
    second = add_key(repository, OLD, **WHO)
    change = change_password(repository, OLD, NEW, **WHO)
    assert {change.removed, *change.also_opened} == {repository.key_id, second}
    assert opens(store, OLD)


def test_same_password_is_no_change(repository: Repository) -> None:
    with pytest.raises(UsageError, match="the old one"):
        change_password(repository, OLD, OLD, **WHO)


def test_failure_before_the_old_key_goes_leaves_both(store: WatchedStore, repository: Repository) -> None:
    fail_at(store, "delete", "keys/", StoreUnavailable("gone"))
    with pytest.raises(StoreUnavailable):
        change_password(repository, OLD, NEW, **WHO)
    assert opens(store, OLD) and opens(store, NEW)


def operations() -> Iterator[int]:
    store = WatchedStore()
    repository = init_repository(store)
    store.calls.clear()
    change_password(repository, OLD, NEW, **WHO)
    yield from range(1, len(store.calls) + 1)


def test_whatever_operation_fails_one_password_opens() -> None:
    tried = 0
    for last in operations():
        store = WatchedStore()
        repository = init_repository(store)
        store.before = fail_from(last)
        with contextlib.suppress(StoreUnavailable, RepositoryError):
            change_password(repository, OLD, NEW, **WHO)
            assert opens(store, NEW) and not opens(store, OLD)
        assert opens(store, OLD) or opens(store, NEW)
        tried += 1
        if any(key.damage for key in open_any(store).key_files()):
            pytest.fail("a damaged key was left")
    assert tried >= 10


def fail_from(last: int) -> Callable[[str, str], None]:
    calls = 0

    def before(method: str, name: str) -> None:
        nonlocal calls
        calls += 1
        if calls >= last:
            raise StoreUnavailable("the store went away")

    return before


def open_any(store: WatchedStore) -> Repository:
    return open_repository(store.inner, (OLD if opens(store, OLD) else NEW).reveal())


def test_removing_needs_the_repository_for_itself_and_adding_does_not(
    store: WatchedStore, repository: Repository
) -> None:
    other = open_repository(store)
    with other.lock():
        key_id = add_key(repository, NEW, **WHO)
        with pytest.raises(RepositoryLocked):
            remove_key(repository, key_id)
        with pytest.raises(RepositoryLocked):
            change_password(repository, OLD, Secret("a third one"), **WHO)
    assert len(repository.key_files()) == 2
