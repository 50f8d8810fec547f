"""Applying a retention plan: it removes what it said and nothing else, whole at whatever point it dies."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from pgstow.app.marking import hold_backup, release_backup, retire_database
from pgstow.app.retention import AppliedRetention, RetentionRequest, apply_retention, plan_retention_only
from pgstow.catalog.backups import list_backups
from pgstow.core.errors import (
    BackupNotFound,
    Interrupted,
    PgstowError,
    RepositoryDamaged,
    RepositoryLocked,
    StoreUnavailable,
    UsageError,
)
from pgstow.core.progress import SilentProgress
from pgstow.repository import LockTimes, Proof, Repository
from pgstow.retention import Attempt, AttemptHistory, RetentionPolicies, RetentionPolicy
from pgstow.store.api import Store
from pgstow.store.memory import MemoryStore
from pgstow.upkeep.expire import ExpiryPlan, PlannedDrops
from pgstow.upkeep.prune_plan import PruneOptions
from support.dated_backups import backup_id, save_dated
from support.pruning import Clock, assert_sound, copy_of, objects, remove_locks, remove_snapshots
from support.repositories import WatchedStore, init_repository, open_repository, save_backup

POLICY = RetentionPolicies(default=RetentionPolicy(promotes=False))
NO_WAIT = LockTimes(settle_s=0, conflict_s=0.01)
AGES = (100, 60, 40, 31, 30, 1, 0)
OLD = (100, 60, 40, 31)


@dataclass
class Scene:
    """Daily backups of ``shop``, numbered by their age in days, in a store whose clock the test moves."""

    clock: Clock = field(default_factory=Clock)
    store: MemoryStore = field(init=False)

    def __post_init__(self) -> None:
        self.store = MemoryStore(now=self.clock)
        repository = init_repository(self.store)
        for age in AGES:
            self.save(repository, age)

    def save(self, repository: Repository, age: int, **fields: Any) -> str:
        return save_dated(repository, age, self.clock() - timedelta(days=age), **fields)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def opened(store: Store) -> Repository:
    repository = open_repository(store)
    repository.lock_times = NO_WAIT
    return repository


def plan_now(store: Store, **request: Any) -> ExpiryPlan:
    asked = RetentionRequest(**{"policy": POLICY, **request})
    return plan_retention_only(opened(store), asked, SilentProgress())


def apply_now(
    store: Store,
    *,
    planned: PlannedDrops | None = None,
    prune: PruneOptions | None = None,
    show: Callable[[ExpiryPlan], None] = lambda _: None,
    **request: Any,
) -> AppliedRetention:
    asked = RetentionRequest(**{"policy": POLICY, **request})
    return apply_retention(opened(store), asked, SilentProgress(), planned=planned, prune=prune, show=show)


def ages(store: Store) -> list[int]:
    return [int(record.short_id) for record in list_backups(open_repository(store))]


def dropped(plan: ExpiryPlan) -> tuple[int, ...]:
    return tuple(int(decision.backup.short_id) for decision in plan.dropped)


def hold(store: Store, age: int) -> None:
    hold_backup(opened(store), backup_id(age), SilentProgress(), by="me", reason="case 7", until=None)


# -- what is removed


def test_apply_does_what_the_plan_says(scene: Scene) -> None:
    before = {name: scene.store.get(name) for name in objects(scene.store, "snapshots")}
    plan = plan_now(scene.store)
    assert dropped(plan) == OLD
    assert objects(scene.store, "snapshots") == set(before)
    applied = apply_now(scene.store, planned=PlannedDrops(hash=plan.hash))
    assert dropped(applied.plan) == OLD
    assert ages(scene.store) == [30, 1, 0]
    gone = {f"snapshots/{snapshot}" for age in OLD for snapshot in plan.snapshots[backup_id(age)]}
    assert objects(scene.store, "snapshots") == set(before) - gone
    assert dropped(apply_now(scene.store).plan) == ()


def test_prune_frees_what_only_they_needed(scene: Scene) -> None:
    applied = apply_now(scene.store, prune=PruneOptions(max_unused=0))
    assert applied.prune is not None
    assert applied.prune[0].recorded
    scene.clock.pass_s(2 * 86400)
    packs = objects(scene.store, "data")
    again = apply_now(scene.store, prune=PruneOptions())
    assert dropped(again.plan) == ()
    assert objects(scene.store, "data") < packs
    assert_sound(scene.store)
    assert ages(scene.store) == [30, 1, 0]


def test_a_prune_that_fails_is_told_beside_what_was_removed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: PgstowError) -> AppliedRetention:
        def prune(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("pgstow.app.retention.prune_under", prune)
        return apply_now(scene.store, prune=PruneOptions())

    error = StoreUnavailable("the store went away")
    applied = fail(error)
    assert (applied.prune, applied.prune_error) == (None, error)
    assert ages(scene.store) == [30, 1, 0]
    with pytest.raises(Interrupted):
        fail(Interrupted("by SIGINT"))


def test_snapshots_that_pgstow_did_not_make_stay(scene: Scene) -> None:
    repository = open_repository(scene.store)
    theirs = save_backup(repository, {"f": [b"x"]}, time=scene.clock() - timedelta(days=900))
    snapshot = next(each for each in repository.snapshots() if each.id == theirs)
    remove_snapshots(scene.store, theirs)
    kept = repository.save_snapshot(
        type(snapshot)(time=snapshot.time, tree=snapshot.tree, paths=("/home",), tags=("nightly", "db=shop"))
    )
    plan = plan_now(scene.store)
    assert len(plan.decisions) == len(AGES)
    apply_now(scene.store)
    assert f"snapshots/{kept}" in objects(scene.store, "snapshots")


def test_every_snapshot_of_a_backup_goes_and_the_one_that_stands_for_it_last(scene: Scene) -> None:
    repository = open_repository(scene.store)
    (first,) = (r.snapshot.id for r in list_backups(repository) if r.id == backup_id(100))
    second = scene.save(repository, 100, original=first)
    watched = WatchedStore(inner=scene.store)
    apply_now(watched)
    removed = [name for name in watched.names("delete") if name.startswith("snapshots/")]
    assert removed[:2] == [f"snapshots/{first}", f"snapshots/{second}"]
    assert len(removed) == len(OLD) + 1
    assert ages(scene.store) == [30, 1, 0]


def test_one_database_alone(scene: Scene) -> None:
    repository = open_repository(scene.store)
    for number, age in enumerate((90, 0), 500):
        save_dated(repository, number, scene.clock() - timedelta(days=age), name="books")
    plan = plan_now(scene.store, name="books")
    assert dropped(plan) == (500,)
    assert len(plan.decisions) == 2
    apply_now(scene.store, name="books", planned=PlannedDrops(hash=plan.hash))
    assert set(ages(scene.store)) == {*AGES, 501}
    with pytest.raises(BackupNotFound, match="no backup of nobody"):
        plan_now(scene.store, name="nobody")


def test_a_snapshot_that_only_claims_the_same_run_is_not_removed_with_it(scene: Scene) -> None:
    """Tags can be given by hand. What was not judged does not go."""
    repository = open_repository(scene.store)
    other = save_dated(repository, 100, scene.clock() - timedelta(days=2), name="ledger")
    plan = plan_now(scene.store)
    apply_now(scene.store)
    assert f"snapshots/{other}" in objects(scene.store, "snapshots")
    assert other not in plan.snapshots[backup_id(100)]
    assert [r.name for r in list_backups(open_repository(scene.store)) if r.id == backup_id(100)] == [
        "ledger"
    ]
    assert dropped(plan_now(scene.store)) == ()


# -- what protects


def test_a_clock_that_was_set_back_does_not_make_the_newest_backups_the_oldest(scene: Scene) -> None:
    scene.clock.pass_s(2 * 3600)
    repository = open_repository(scene.store)
    save_dated(repository, 700, scene.clock() - timedelta(days=400))
    plan = plan_now(scene.store)
    assert dropped(plan) == ()
    reasons = [reason.text for reason in plan.decisions[0].reasons if reason.code.keeps]
    assert "the backup that was written last, 00000700, is from 2006-01-25, before 00000000" in reasons[-1]
    scene.clock.pass_s(86400)
    save_dated(repository, 701, scene.clock(), original="ab" * 32)
    assert dropped(plan_now(scene.store)) == (), "a copy says nothing of when the server makes its own"
    save_dated(repository, 702, scene.clock())
    assert 700 in dropped(plan_now(scene.store)), "the clock is right again"


def test_holds_proofs_and_failed_runs_protect(scene: Scene) -> None:
    hold(scene.store, 100)
    opened(scene.store).marks().prove(Proof(backup_id=backup_id(60), when=scene.clock(), what="drill"))
    assert dropped(plan_now(scene.store)) == (40, 31)
    failed = {"shop": Attempt(name="shop", when=scene.clock(), has_succeeded=False, error="disk full")}
    assert dropped(plan_now(scene.store, history=lambda: AttemptHistory(attempts=failed))) == ()
    release_backup(opened(scene.store), backup_id(100), SilentProgress(), by="me", reason="closed")
    apply_now(scene.store)
    assert ages(scene.store) == [60, 30, 1, 0]
    assert len(objects(scene.store, "pgstow")) == 3, "marks of what is gone stay as evidence"


def test_a_backup_that_is_held_after_the_plan_was_shown_stays(scene: Scene) -> None:
    plan = plan_now(scene.store)
    known = frozenset(backup_id(age) for age in OLD)
    hold(scene.store, 60)
    with pytest.raises(
        PgstowError, match="is now kept: 1 backup: 00000060 of shop from 2006-12-31 \\(held since"
    ):
        apply_now(scene.store, planned=PlannedDrops(hash=plan.hash, backup_ids=known))
    with pytest.raises(PgstowError, match="it would now be 3 backups: 00000100 of shop"):
        apply_now(scene.store, planned=PlannedDrops(hash=plan.hash))
    assert ages(scene.store) == list(AGES)


def test_a_plan_of_yesterday_is_not_carried_out(scene: Scene) -> None:
    plan = plan_now(scene.store)
    known = frozenset(backup_id(age) for age in OLD)
    scene.clock.pass_s(86400)
    save_dated(open_repository(scene.store), 900, scene.clock())
    remove_snapshots(scene.store, *plan.snapshots[backup_id(60)])
    with pytest.raises(PgstowError, match="nothing was removed") as caught:
        apply_now(scene.store, planned=PlannedDrops(hash=plan.hash, backup_ids=known))
    assert "was not planned: 1 backup: 00000030 of shop" in caught.value.message
    assert "is no longer there: 00000060" in caught.value.message
    assert caught.value.exit_code == 1
    assert ages(scene.store) == [100, 40, 31, 30, 1, 0, 900]


def test_the_hash_says_what_goes_and_from_where(scene: Scene) -> None:
    plan = plan_now(scene.store)
    assert plan.hash == plan_now(scene.store).hash
    save_dated(open_repository(scene.store), 900, scene.clock())
    assert plan.hash == plan_now(scene.store).hash, "another backup that stays changes nothing"
    assert plan.hash != plan_now(Scene().store).hash
    hold(scene.store, 60)
    assert plan.hash != plan_now(scene.store).hash


def test_a_plan_that_removes_nothing_is_not_that_of_another_repository() -> None:
    apply_now((one := Scene()).store)
    apply_now((other := Scene()).store)
    assert plan_now(one.store).dropped == plan_now(other.store).dropped == []
    assert plan_now(one.store).hash != plan_now(other.store).hash


@pytest.mark.parametrize("trouble", ["alarm", "damaged", "no manifest", "future"])
def test_nothing_expires_while_the_newest_backup_is_in_doubt(scene: Scene, trouble: str) -> None:
    repository = open_repository(scene.store)
    if trouble == "no manifest":
        save_backup(repository, {"f": [b"x"]}, run=backup_id(900), time=scene.clock())
    else:
        moment = scene.clock() + timedelta(days=3 if trouble == "future" else 0, minutes=1)
        alarms = ["range 3 of t differs"] if trouble == "alarm" else []
        tags = ["damaged"] if trouble == "damaged" else []
        save_dated(repository, 900, moment, alarms=alarms, tags=tags)
    plan = plan_now(scene.store)
    assert dropped(plan) == ()
    said = {
        "alarm": "raised an alarm (range 3 of t differs)",
        "damaged": "is damaged",
        "no manifest": "cannot be read",
        "future": "from the future",
    }
    reasons = [reason.text for decision in plan.decisions for reason in decision.reasons]
    assert sum(said[trouble] in text for text in reasons) == len(plan.decisions)
    apply_now(scene.store)
    assert set(ages(scene.store)) == {*AGES, 900}


def test_nothing_expires_while_a_snapshot_cannot_be_read(scene: Scene) -> None:
    scene.store.put(f"snapshots/{'ab' * 32}", b"nonsense")
    with pytest.raises(RepositoryDamaged, match="so nothing expires"):
        apply_now(scene.store)
    assert len(objects(scene.store, "snapshots")) == len(AGES) + 1


def test_while_somebody_uses_the_repository(scene: Scene) -> None:
    """A running backup and its base, a restore: whoever holds the shared lock. And nobody holds while it runs."""
    with opened(scene.store).lock(times=NO_WAIT):
        plan_now(scene.store)
        with pytest.raises(RepositoryLocked):
            apply_now(scene.store)
    assert ages(scene.store) == list(AGES)

    def too_late(_: ExpiryPlan) -> None:
        with pytest.raises(RepositoryLocked):
            hold(scene.store, 60)

    apply_now(scene.store, show=too_late)
    assert ages(scene.store) == [30, 1, 0]


def test_a_lock_that_is_lost_ends_it(scene: Scene) -> None:
    watched = WatchedStore(inner=scene.store)

    def lose(method: str, name: str) -> None:
        if method == "delete" and name.startswith("snapshots/"):
            watched.before = lambda *_: None
            repository._locks[0]._lost = "the lock was taken for dead"

    watched.before = lose
    repository = opened(watched)
    with pytest.raises(RepositoryLocked, match="taken for dead"):
        apply_retention(
            repository, RetentionRequest(policy=POLICY), SilentProgress(), planned=None, prune=None
        )
    assert ages(scene.store) == [60, 40, 31, 30, 1, 0]


# -- marking


def test_what_cannot_be_marked(scene: Scene) -> None:
    repository = opened(scene.store)
    done = SilentProgress()
    with pytest.raises(BackupNotFound):
        hold_backup(repository, "ffff", done, by="me", reason="x", until=None)
    with pytest.raises(UsageError, match="reason is empty"):
        hold_backup(repository, "shop@latest", done, by="me", reason=" ", until=None)
    yesterday = scene.clock().date() - timedelta(days=1)
    with pytest.raises(UsageError, match="is over"):
        hold_backup(repository, "shop@latest", done, by="me", reason="x", until=yesterday)
    with pytest.raises(UsageError, match="is not held"):
        release_backup(repository, "shop@latest", done, by="me", reason="x")
    with pytest.raises(BackupNotFound, match="no backup of books"):
        retire_database(repository, "books", done, by="me", reason="x", is_undone=False)
    with pytest.raises(UsageError, match="shop is not retired"):
        retire_database(repository, "shop", done, by="me", reason="x", is_undone=True)
    assert objects(scene.store, "pgstow") == set()


def test_a_database_that_is_gone_goes_to_the_last_backup(scene: Scene) -> None:
    def retire(*, is_undone: bool) -> None:
        repository = opened(scene.store)
        retire_database(
            repository, "shop", SilentProgress(), by="me", reason="shut down", is_undone=is_undone
        )

    scene.clock.pass_s(40 * 86400)
    assert dropped(plan_now(scene.store)) == OLD
    retire(is_undone=False)
    assert dropped(plan_now(scene.store)) == AGES
    retire(is_undone=True)
    assert dropped(plan_now(scene.store)) == OLD
    retire(is_undone=False)
    apply_now(scene.store)
    assert ages(scene.store) == []


def test_a_held_backup_that_vanished_is_told(scene: Scene) -> None:
    hold(scene.store, 100)
    (snapshot,) = plan_now(scene.store).snapshots[backup_id(100)]
    remove_snapshots(scene.store, snapshot)
    (note,) = plan_now(scene.store).notes
    assert f"backup {backup_id(100)} is held and is not in the repository" in note
    # Whoever knows that ends the hold by its id, and is not warned for ever.
    repository, quiet = opened(scene.store), SilentProgress()
    with pytest.raises(BackupNotFound):
        release_backup(repository, "000", quiet, by="me", reason="known")
    released = release_backup(repository, backup_id(100)[:8], quiet, by="me", reason="known")
    assert (released.backup_id, released.backup, len(released.holds)) == (backup_id(100), None, 1)
    assert plan_now(scene.store).notes == ()
    with pytest.raises(BackupNotFound):
        release_backup(repository, backup_id(100), quiet, by="me", reason="again")


# -- dying in the middle


class DiedError(BaseException):
    """Not an error that anything may handle: the process is gone."""


_CHANGES = ("put", "delete")


def run_until(store: MemoryStore, error: type[BaseException], at: int, methods: Sequence[str]) -> bool:
    """Apply with a prune; the call number ``at`` fails. Return whether it was reached."""
    count = itertools.count()

    def fail(method: str, name: str) -> None:
        if method in methods and next(count) == at:
            raise error(f"{method} {name}")

    def fail_ever_after(method: str, name: str) -> None:
        if method in methods and next(count) >= at:
            raise error(f"{method} {name}")

    before = fail_ever_after if error is DiedError else fail
    with contextlib.suppress(DiedError, PgstowError):
        apply_now(WatchedStore(inner=store, before=before), prune=PruneOptions(max_unused=0))
    return next(count) > at


def assert_recovers(scene: Scene, store: MemoryStore) -> None:
    remove_locks(store)
    left = ages(store)
    assert left[-3:] == [30, 1, 0]
    assert left[:-3] == list(OLD)[len(OLD) - len(left[:-3]) :], "the oldest go first, one after the other"
    assert_sound(store)
    assert_marks(store)
    apply_now(store, prune=PruneOptions(max_unused=0))
    assert ages(store) == [30, 1, 0]
    assert_sound(store)


def assert_marks(store: Store) -> None:
    assert set(open_repository(store).marks().holds()) == {backup_id(30)}


@pytest.mark.parametrize(
    ("error", "methods"), [(DiedError, _CHANGES), (StoreUnavailable, (*_CHANGES, "get", "list", "stat"))]
)
def test_dead_or_failing_at_every_operation(
    scene: Scene, error: type[BaseException], methods: Sequence[str]
) -> None:
    hold(scene.store, 30)
    step = 1 if error is DiedError else 3
    for at in itertools.count(0, step):
        store = copy_of(scene.store)
        is_reached = run_until(store, error, at, methods)
        assert_recovers(scene, store)
        if not is_reached:
            break
    assert at > 10
