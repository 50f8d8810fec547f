"""Every operation on a repository, with its store going wrong at every step in every way.

By default a part of the combinations is tried, one fault after the other, each at another point; PGSTOW_ALL_FAULTS=1
tries all.
"""

from __future__ import annotations

import itertools
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pgstow.core.secrets import Secret
from pgstow.postgres.server import Cluster
from pgstow.postgres.tools import ClientTools
from pgstow.repository import Repository
from pgstow.store.api import Store
from pgstow.store.local import LocalStore
from pgstow.store.opening import open_store
from support.fault_operation import Operation, Outcome, World, in_a_hurry
from support.fault_world import (
    ALL_OPERATIONS,
    TRY_ALL,
    Templates,
    chosen,
    make_templates,
    tell,
    work_until_killed,
)
from support.faults import FAULTS, Fault, FaultyStore, Kind, Point, patient
from support.oracle import Oracle, State
from support.restic import PASSWORD, Restic
from support.s3 import S3Bucket

SLACK_BYTES = 30_000  # of folders and a manifest, which differ from run to run
KILLED = ("init", "first backup", "backup with reuse")
IN_BUCKET = {
    "backup with reuse": 2,
    "prune": 1,
    "release": 1,
}  # and how many faults; all of all, if all are tried

Fresh = Callable[[str], Store]  # from a template, a store of its own in that state


@pytest.fixture(scope="module", autouse=True)
def hurry() -> Iterator[None]:
    with in_a_hurry():
        yield


@pytest.fixture(scope="module")
def templates(
    hurry: None,
    make_module_cluster: Callable[..., Cluster],
    client_tools: list[ClientTools],
    tmp_path_factory: pytest.TempPathFactory,
) -> Templates:
    cluster = make_module_cluster(15, settings={"wal_writer_delay": "10ms", "autovacuum": "off"})
    return make_templates(cluster, client_tools, tmp_path_factory.mktemp("templates"))


@pytest.fixture(scope="module")
def judged_before() -> set[State]:
    """The states that restic has seen, whichever operation led there."""
    return set()


@pytest.fixture
def judged(judged_before: set[State]) -> set[State]:
    """The states that restic need not look at again: where all is tried, it sees those of each operation."""
    return set() if TRY_ALL else judged_before


def acknowledge(oracle: Oracle, store: Store, outcome: Outcome) -> None:
    for backup_id in outcome.backups:
        oracle.acknowledge(Repository.open(store, Secret(PASSWORD)), backup_id)


def has_repository(store: Store) -> bool:
    """Whether an init came to its end."""
    return any(info.name == "config" for info in store.list(""))


def judge_next(operation: Operation, world: World, store: Store, oracle: Oracle) -> Outcome:
    """The operation succeeds when it is repeated, and then everything is in order."""
    again = operation.run_again(world, patient(store))
    assert again.errors == []
    if operation.is_judged:
        acknowledge(oracle, store, again)
        oracle.check(store)
    if isinstance(store, LocalStore):
        if not operation.cleans_up:
            store.remove_stale_temporaries()
        assert list(Path(store.location).glob("tmp/*")) == []
    return again


def or_earlier(point: Point) -> Iterator[Point]:
    """Yield the point, then those before it, of which any will do where it is not reached again.

    Threads that share a request or not make the number of some calls differ.
    """
    yield point
    if not TRY_ALL:
        yield from (replace(point, number=number) for number in reversed(range(1, point.number)))


# -- errors


def points_of(operation: Operation, templates: Templates, fresh: Fresh) -> list[Point]:
    """Return every call of the store that the operation makes when all is well, each time it is done."""
    found: list[set[Point]] = []
    for _ in range(2):  # threads that share a request or not make the number of some calls differ
        watched = FaultyStore(fresh(operation.template))
        outcome = operation.run(templates.world, patient(watched))
        assert outcome.errors == []
        found.append(set(watched.points))
    return sorted(set.intersection(*found))


def try_fault(
    operation: Operation, fault: Fault, point: Point, templates: Templates, oracle: Oracle, fresh: Fresh
) -> bool:
    """Do the operation with a fault, judge what is left, and do it again; return whether the point was reached."""
    store = fresh(operation.template)
    faulty = FaultyStore(store, fault, point, believed=operation.believes)
    outcome = operation.run(templates.world, patient(faulty))
    if fault.must_be_survived:
        assert outcome.errors == []
    if operation.seen is not None:
        operation.seen(templates.world, store, outcome)
    if operation.meanwhile is not None:
        operation.meanwhile(templates.world, store)
    elif operation.is_judged and has_repository(store):
        acknowledge(oracle, store, outcome)
        oracle.check(store)
    judge_next(operation, templates.world, store, oracle)
    return faulty.was_hit


def try_faults(
    operation: Operation,
    templates: Templates,
    fresh: Fresh,
    make_oracle: Callable[[], Oracle],
    *,
    title: str,
    tries: int,
    always: Callable[[Fault, Point], bool] = lambda _fault, _point: False,
) -> None:
    """Try the chosen pairs of a fault and a point, ``always`` among them, and raise all that went wrong."""
    points = points_of(operation, templates, fresh)
    pairs = [
        (fault, point)
        for fault in FAULTS
        for point in points
        if point.method in fault.kind.methods
        and not (fault.kind is Kind.STALE_LIST and point.folder in operation.believes)
    ]
    failures: list[Exception] = []
    tried = hit = restic_runs = 0
    picked = dict.fromkeys([*(pair for pair in pairs if always(*pair)), *chosen(pairs, tries)])
    for fault, point in picked:
        tried += 1
        for at in or_earlier(point):
            oracle = make_oracle()
            try:
                was_hit = try_fault(operation, fault, at, templates, oracle, fresh)
            except Exception as exc:  # noqa: BLE001  the others are tried all the same
                exc.add_note(f"{title}: {fault} at {at}")
                failures.append(exc)
                break
            finally:
                restic_runs += oracle.restic_runs
            if was_hit:
                hit += 1
                break
    tell(operation=title, points=len(points), pairs=len(pairs), tried=tried, hit=hit, restic=restic_runs)
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {tried} faults", failures)
    missed = tried - hit
    assert hit and missed <= tried // 10, "too many points were not reached again for this to mean anything"


@pytest.mark.parametrize("operation", ALL_OPERATIONS, ids=lambda operation: operation.name.replace(" ", "-"))
def test_faults_at_every_call_of_the_store(
    operation: Operation,
    templates: Templates,
    restic_binaries: list[Restic],
    judged: set[State],
    tmp_path: Path,
) -> None:
    try_faults(
        operation,
        templates,
        lambda template: templates.fresh(template, tmp_path / "repository"),
        lambda: templates.oracle(operation, restic_binaries, judged, tmp_path),
        title=operation.name,
        tries=operation.tries,
    )


def is_conditional_put_without_reply(fault: Fault, point: Point) -> bool:
    """Whether a bucket, asked again, says that somebody else was there first."""
    return fault == Fault(Kind.LOST_REPLY) and (point.method, point.folder.partition("/")[0]) == (
        "put",
        "pgstow",
    )


@pytest.mark.parametrize(
    "operation",
    [each for each in ALL_OPERATIONS if TRY_ALL or each.name in IN_BUCKET],
    ids=lambda operation: operation.name.replace(" ", "-"),
)
def test_faults_at_every_call_of_a_bucket(
    operation: Operation,
    templates: Templates,
    restic_binaries: list[Restic],
    judged: set[State],
    s3_bucket: S3Bucket,
    tmp_path: Path,
) -> None:
    there = replace(templates, world=replace(templates.world, environ=dict(s3_bucket.environ)))
    numbers = itertools.count()

    def fresh(template: str) -> Store:
        store = open_store(f"{s3_bucket.location}/{next(numbers)}", s3_bucket.environ)
        for path, data in templates.objects(template).items():
            store.put(path, data)
        return store

    try_faults(
        operation,
        there,
        fresh,
        lambda: templates.oracle(operation, restic_binaries, judged, tmp_path),
        title=f"{operation.name}, in a bucket",
        tries=IN_BUCKET.get(operation.name, operation.tries),
        always=is_conditional_put_without_reply,
    )


# -- kill -9


def kill(operation: Operation, fault: Fault, point: Point, templates: Templates, folder: Path) -> bool:
    """Run the operation in a child; return whether it was killed before it had ended."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work_until_killed.__module__])  # with all that it needs, once
    arguments = (operation.name, templates.world, str(folder), fault, point)
    child = context.Process(target=work_until_killed, args=arguments)
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL)
    was_killed = child.exitcode != 0
    child.close()
    return was_killed


def stored_bytes(store: LocalStore) -> int:
    return sum(info.size_bytes for info in store.list("data/"))


def indexed_bytes(store: LocalStore) -> int:
    """Return how many bytes of blobs the index files list."""
    repository = Repository.open(store, Secret(PASSWORD))
    repository.load_index()
    return sum(entry.length for pack in repository.indexed_packs() for entry in pack.entries)


def judge_killed(
    operation: Operation, templates: Templates, oracle: Oracle, store: LocalStore, full_bytes: int
) -> bool:
    """What a killed process left is sound, and the next run needs no help and stores nothing a second time.

    Return whether there was something that it could find again.
    """
    if has_repository(store):
        oracle.check(store)
    if operation.name == "init":
        judge_next(operation, templates.world, store, oracle)
        return True
    before, known = stored_bytes(store), indexed_bytes(store)
    begun_with = stored_bytes(LocalStore(templates.folders[operation.template]))
    judge_next(operation, templates.world, store, oracle)
    assert list(Path(store.location).glob("locks/*")) == [], "the lock of a dead process was not removed"
    added = stored_bytes(store) - before
    found_again = max(0, known - begun_with)
    assert added <= full_bytes - found_again + SLACK_BYTES
    return found_again > SLACK_BYTES


@pytest.mark.parametrize("name", KILLED)
def test_killed_at_every_write(
    name: str,
    templates: Templates,
    restic_binaries: list[Restic],
    judged: set[State],
    tmp_path: Path,
) -> None:
    (operation,) = [each for each in ALL_OPERATIONS if each.name == name]
    folder = tmp_path / "repository"
    points = points_of(operation, templates, lambda template: templates.fresh(template, folder))
    full_bytes = stored_bytes(LocalStore(folder)) - stored_bytes(
        LocalStore(templates.folders[operation.template])
    )
    pairs = [
        (Fault(kind), point)
        for point in points
        for kind in (Kind.KILL_BEFORE, Kind.KILL_DURING, Kind.KILL_AFTER)
        if point.method in kind.methods
    ]
    failures: list[Exception] = []
    tried = killed = found_again = 0
    for fault, point in chosen(pairs, 10):
        tried += 1
        for at in or_earlier(point):
            oracle = templates.oracle(operation, restic_binaries, judged, tmp_path)
            store = templates.fresh(operation.template, folder)
            try:
                was_killed = kill(operation, fault, at, templates, folder)
                found_again += judge_killed(operation, templates, oracle, store, full_bytes)
            except Exception as exc:  # noqa: BLE001  the others are tried all the same
                exc.add_note(f"{operation.name}: {fault} at {at}")
                failures.append(exc)
                break
            if was_killed:
                killed += 1
                break
    tell(operation=f"{name}, killed", points=len(points), pairs=len(pairs), tried=tried, hit=killed)
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {tried} kills", failures)
    assert killed >= tried * 0.9, "too many points were not reached again for this to mean anything"
    assert found_again, "no run was killed after its first index file"
