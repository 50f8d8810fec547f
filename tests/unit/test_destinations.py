"""Several destinations of one backup: who gets what, and what becomes of those that fail."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pgstow.capture.destinations import Destination, Destinations, FanOutWriter
from pgstow.core.errors import (
    Interrupted,
    NoRepository,
    RepositoryError,
    RepositoryLocked,
    StoreError,
    StoreFull,
    UsageError,
)
from pgstow.core.progress import SilentProgress
from pgstow.repository import BlobIds, BlobKind, Repository, writer
from support.backups import Notes
from support.repositories import WatchedStore, init_repository, random_bytes


def repositories(count: int) -> list[Repository]:
    return [init_repository(WatchedStore()) for _ in range(count)]


def named(*made: Repository) -> list[Destination]:
    """Return destinations a, b, c..."""
    return [
        Destination(name=name, open=lambda one=one: one)  # type: ignore[misc]  # a default binds it
        for name, one in zip("abcdef", made, strict=False)
    ]


def opened(*made: Repository, progress: SilentProgress | None = None) -> Destinations:
    return Destinations(named(*made), progress or SilentProgress())


def refusing(name: str, error: Exception) -> Destination:
    def refuse() -> Repository:
        raise error

    return Destination(name=name, open=refuse)


def fail_at(repository: Repository, method: str, prefix: str, error: Exception) -> None:
    """Let every such request to the repository's store fail from now on."""

    def before(called: str, name: str) -> None:
        if called == method and name.startswith(prefix):
            raise error

    assert isinstance(repository.store, WatchedStore)
    repository.store.before = before


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by one with each blob that is compressed."""
    calls: list[int] = []
    honest: Callable[..., bytes] = writer.compress

    def compress(data: bytes) -> bytes:
        calls.append(len(data))
        return honest(data)

    monkeypatch.setattr(writer, "compress", compress)
    return calls


def fill(destinations: Destinations) -> None:
    with FanOutWriter(destinations) as fan_out:
        for seed in range(20):
            fan_out.save(BlobKind.DATA, random_bytes(2_000_000, seed))


def ids_in(repository: Repository, *blobs: bytes) -> list[bool]:
    repository.load_index()
    return [repository.has_blob(BlobKind.DATA, blob) for blob in blobs]


def test_every_destination_gets_every_blob_and_each_is_compressed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = repositories(2)
    with b.writer() as own:
        there = own.save(BlobKind.DATA, b"b has this" * 99).id
    compressed = counted(monkeypatch)
    with FanOutWriter(opened(a, b)) as fan_out:
        known = fan_out.save(BlobKind.DATA, b"b has this" * 99)
        new = fan_out.save(BlobKind.DATA, b"nobody has this" * 99)
        again = fan_out.save(BlobKind.DATA, b"nobody has this" * 99)
    assert len(compressed) == 2
    assert (known.id, known.is_new, new.is_new, again.is_new) == (there, True, True, False)
    assert ids_in(a, known.id, new.id) == ids_in(b, known.id, new.id) == [True, True]
    assert fan_out.stats_of("a").new_blobs == 2
    assert fan_out.stats_of("b").new_blobs == 1
    assert fan_out.stats == fan_out.stats_of("a")
    assert b.read_blob(BlobKind.DATA, new.id) == b"nobody has this" * 99


def test_nothing_is_compressed_where_all_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = repositories(3)
    for _ in range(2):
        with FanOutWriter(opened(*made)) as fan_out:
            fan_out.save(BlobKind.DATA, b"all of them" * 99)
            compressed = counted(monkeypatch)
    assert compressed == []


def test_who_fails_is_dropped_and_the_others_go_on() -> None:
    a, b, c = repositories(3)
    notes = Notes()
    destinations = opened(a, b, c, progress=notes)
    fail_at(b, "put", "data/", StoreFull("no room"))
    with FanOutWriter(destinations) as fan_out:
        saved = [fan_out.save(BlobKind.DATA, random_bytes(2_000_000, seed)).id for seed in range(40)]
        for name in ("a", "c"):
            fan_out.flush(name)
    assert [one.name for one in destinations.alive] == ["a", "c"]
    assert isinstance(destinations.error_of("b"), StoreFull)
    assert notes.notes == ["b: no room; going on without this destination"]
    assert all(ids_in(a, *saved) + ids_in(c, *saved))
    assert not any(ids_in(b, *saved))


def test_the_first_one_failing_leaves_the_answers_to_the_next() -> None:
    a, b = repositories(2)
    with b.writer() as own:
        own.save(BlobKind.DATA, b"known to b")
    destinations = opened(a, b)
    with FanOutWriter(destinations) as fan_out:
        destinations.drop("a", StoreError("gone"))
        assert not fan_out.save(BlobKind.DATA, b"known to b").is_new
        assert fan_out.stats.known_blobs == 1


def test_the_error_of_a_single_destination_is_raised_as_it_is() -> None:
    (a,) = repositories(1)
    error = StoreFull("no room")
    fail_at(a, "put", "data/", error)
    with pytest.raises(StoreFull) as raised:
        fill(opened(a))
    assert raised.value is error


@pytest.mark.parametrize(
    ("errors", "kind", "hint"),
    [
        ((RepositoryLocked("x", hint="wait"), RepositoryLocked("y", hint="wait")), RepositoryLocked, "wait"),
        ((StoreError("x", hint="wait"), RepositoryLocked("y")), RepositoryError, "a: wait"),
        (
            (StoreError("x", hint="pay"), RepositoryLocked("y", hint="wait")),
            RepositoryError,
            "a: pay; b: wait",
        ),
        ((StoreError("x"), RepositoryLocked("y")), RepositoryError, None),
    ],
)
def test_when_all_fail_the_run_fails_and_names_them(
    errors: tuple[StoreError, StoreError], kind: type, hint: str | None
) -> None:
    destinations = opened(*repositories(2))
    destinations.drop("a", errors[0])
    with pytest.raises(kind, match="no destination is left: a: x; b: y") as raised:
        destinations.drop("b", errors[1])
    assert type(raised.value) is kind
    assert raised.value.hint == hint
    assert raised.value.facts["destinations"] == ["a: x", "b: y"]
    with pytest.raises(kind):
        _ = destinations.first


def test_all_threads_hear_of_the_end() -> None:
    a, b = repositories(2)
    destinations = opened(a, b)
    for one in (a, b):
        fail_at(one, "put", "data/", StoreFull("no room"))
    with ThreadPoolExecutor(4) as pool, FanOutWriter(destinations) as fan_out:
        waiting = [
            pool.submit(fan_out.save, BlobKind.DATA, random_bytes(2_000_000, seed)) for seed in range(60)
        ]
        failed = [error for error in (each.exception() for each in waiting) if error is not None]
    assert failed
    assert {type(error) for error in failed} == {StoreFull}
    assert destinations.alive == ()


def test_an_interruption_is_nobody_s_failure() -> None:
    destinations = opened(*repositories(2))

    def interrupted(_: object) -> None:
        raise Interrupted("by you")

    with pytest.raises(Interrupted):
        destinations.each(interrupted)
    assert len(destinations.alive) == 2


def test_a_destination_that_cannot_be_opened() -> None:
    (a,) = repositories(1)
    destinations = Destinations(
        [refusing("gone", NoRepository("nothing there")), *named(a)], notes := Notes()
    )
    assert [one.name for one in destinations.alive] == ["a"]
    assert destinations.location_of("gone") is None
    assert notes.notes == ["gone: nothing there; going on without this destination"]
    with pytest.raises(NoRepository, match="^nothing there$"):
        Destinations([refusing("gone", NoRepository("nothing there"))], Notes())
    with pytest.raises(Interrupted):
        Destinations([*named(a), refusing("late", Interrupted("by you"))], Notes())


def test_the_same_repository_twice() -> None:
    (a,) = repositories(1)
    destinations = opened(a, a)
    assert [one.name for one in destinations.alive] == ["a"]
    assert "same repository" in str(destinations.error_of("b"))
    with pytest.raises(UsageError, match="a is given twice"):
        Destinations([*named(a), *named(a)], SilentProgress())


def test_what_is_reused_must_be_in_all_that_are_left() -> None:
    a, b = repositories(2)
    with a.writer() as writer_a, b.writer() as writer_b:
        both = [writer_a.save(BlobKind.DATA, data).id for data in (b"one", b"two")]
        writer_b.save(BlobKind.DATA, b"one")
    for one in (a, b):
        one.load_index()
    destinations = opened(a, b)
    assert destinations.hold(BlobIds.of(both[:1]), 3)
    assert not destinations.hold(BlobIds.of(both[:1]), 4)
    assert not destinations.hold(BlobIds.of(both), 6)
    destinations.drop("b", StoreError("gone"))
    assert destinations.hold(BlobIds.of(both), 6)


def test_each_goes_on_without_who_fails_and_keeps_the_order_asked_for() -> None:
    made = repositories(3)
    destinations = opened(*made)
    seen: list[str] = []

    def work(one: object) -> int:
        name = one.name  # type: ignore[attr-defined]  # an OpenDestination
        seen.append(name)
        if name == "b":
            raise StoreError("gone")
        return len(seen)

    done = destinations.each(work, order=lambda one: one.repository.id)
    by_id = sorted(zip("abc", made, strict=True), key=lambda pair: pair[1].id)
    assert seen == [name for name, _ in by_id]
    assert set(done) == {"a", "c"}
