"""What is done to what a repository keeps beside restic's format: marks, records of drills, the audit trail.

Rows of OPERATIONS like those of ``fault_operations``. A host's own memory (records that could not be saved, its audit journal) is
in a folder that the first attempt begins with and the second one finds.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg

from pgstow.app.auditing import Access, Who, opened, opening, recording
from pgstow.app.drill import drill_and_tell
from pgstow.app.drill_records import kept_drills
from pgstow.app.drill_request import DrillRequest
from pgstow.app.marking import hold_backup, release_backup, retire_database
from pgstow.app.repository_check import check_repository
from pgstow.audit.checking import verify
from pgstow.audit.journal import Journal
from pgstow.audit.trail import read_trail
from pgstow.catalog.drills import read_drills
from pgstow.core.errors import PgstowError, RepositoryDamaged, StoreUnavailable
from pgstow.core.progress import SilentProgress
from pgstow.postgres.conninfo import ConnInfo
from pgstow.store.api import Store
from support.dated_backups import backup_id
from support.fault_operation import (
    AGED_NAME,
    BACKUP_NAME,
    HELD_AGE,
    OLD_AGES,
    Operation,
    Outcome,
    World,
    marks_of,
    open_plainly,
)

__all__ = ["OPERATIONS_ON_MARKS"]

_PATIENCE_S = 600.0  # nothing in these stores takes long, but the machine may be busy

Work = Callable[[World, Store, Outcome], None]


def _state(world: World) -> Path:
    return world.scratch / "state"


def _with_new_state(work: Work) -> Work:
    """Return the work of a host that remembers nothing of earlier tries."""

    def begin(world: World, store: Store, outcome: Outcome) -> None:
        shutil.rmtree(_state(world), ignore_errors=True)
        work(world, store, outcome)

    return begin


# -- marks


def _release(world: World, store: Store, outcome: Outcome) -> None:
    release_backup(
        open_plainly(store), backup_id(HELD_AGE), SilentProgress(), by="tests", reason="case 6 is closed"
    )


def _release_unless_done(world: World, store: Store, outcome: Outcome) -> None:
    if _is_held(store):
        _release(world, store, outcome)
    assert not _is_held(store)


def _is_held(store: Store) -> bool:
    return backup_id(HELD_AGE) in open_plainly(store).marks().holds()


def _retire(world: World, store: Store, outcome: Outcome) -> None:
    retire_database(
        open_plainly(store), AGED_NAME, SilentProgress(), by="tests", reason="it is gone", is_undone=False
    )


def _retire_again(world: World, store: Store, outcome: Outcome) -> None:
    _retire(world, store, outcome)
    (retired,) = open_plainly(store).marks().retirements([AGED_NAME]).values()
    assert retired.reason == "it is gone"


def _check(world: World, store: Store, outcome: Outcome) -> None:
    report = check_repository(open_plainly(store), SilentProgress(), read_data=True)
    if not report.is_sound:
        raise RepositoryDamaged("the repository is not sound")


def _check_again(world: World, store: Store, outcome: Outcome) -> None:
    _check(world, store, outcome)
    assert marks_of(store) == world.marks


# -- drills


def _drill(world: World, store: Store, outcome: Outcome) -> None:
    request = DrillRequest(
        strategy="rotate",
        database=BACKUP_NAME,
        server=ConnInfo.parse(world.maintenance),
        state_folder=_state(world),
        host="tests",
        username="tests",
    )
    drilled = drill_and_tell(request, open_plainly(store), world.tools, SilentProgress())
    outcome.drills.append(drilled.record)
    assert (drilled.unsaved is None) == (drilled.kept_in is None), "a drill is saved or kept"
    if drilled.unsaved is not None:
        raise drilled.unsaved
    if not drilled.record.is_passed:
        raise RepositoryDamaged(drilled.record.error or "the drill failed")


def _check_drills(world: World, store: Store, outcome: Outcome) -> None:
    """Every drill that was carried out is saved or kept, proofs are those of drills that passed, and nothing is left of any."""
    repository = open_plainly(store)
    saved = {record.id: record for record in read_drills(repository)}
    kept = {record.id: record for _, record in kept_drills(_state(world), repository.id)}
    for record in outcome.drills:
        assert {**kept, **saved}.get(record.id) == record
        assert record.is_removed
    proven = _proven(store)
    assert all({**kept, **saved}[drill_id].is_passed for drill_id in proven)
    assert proven >= {one.id for one in saved.values() if one.is_passed and one.id not in kept}
    with psycopg.connect(world.maintenance) as connection:
        query = r"SELECT count(*) FROM pg_database WHERE datname LIKE 'pgstow\_drill\_%'"
        assert connection.execute(query).fetchone() == (0,)


def _proven(store: Store) -> set[str]:
    """Return the drills that proofs speak of."""
    repository = open_plainly(store)
    backups = {info.name.split("/")[2] for info in repository.store.list("pgstow/proofs/")}
    proofs, doubtful = repository.marks().proofs(backups)
    assert not doubtful
    return {proof.what.split(":")[0].removeprefix("drill ") for proof in proofs}


def _drill_again(world: World, store: Store, outcome: Outcome) -> None:
    """Carry out another one, which saves what had to wait."""
    kept = [record for _, record in kept_drills(_state(world), open_plainly(store).id)]
    _drill(world, store, outcome)
    outcome.drills += kept
    assert kept_drills(_state(world), open_plainly(store).id) == []
    _check_drills(world, store, outcome)


# -- the audit trail


def _hold_on_record(world: World, store: Store, outcome: Outcome) -> None:
    """Hold a backup, as the command does whose accesses are recorded before it begins and when it has ended."""
    access = Access(
        "hold",
        who=Who(host="tests", user="tests"),
        journal=Journal(_state(world) / "audit"),
        is_destructive=True,
        patience_s=_PATIENCE_S,
    )
    with recording(access):
        try:
            with opening(store.location):
                repository = open_plainly(store)
            opened(repository, world.environ)
            hold_backup(
                repository, backup_id(OLD_AGES[0]), SilentProgress(), by="tests", reason="case 9", until=None
            )
        except PgstowError as exc:
            access.finish("failed", exc.code)
            raise
        else:
            access.finish("done")
        finally:
            access.settle()
    if access.warnings:
        raise StoreUnavailable("; ".join(access.warnings))


def _hold_on_record_again(world: World, store: Store, outcome: Outcome) -> None:
    """The trail then has each access once, in its order, in one chain without a hole."""
    _hold_on_record(world, store, outcome)
    trail = read_trail(open_plainly(store))
    assert verify(trail).is_intact
    (chain,) = trail.chains.values()
    accesses = [(each.entry.action, each.entry.result) for each in chain]
    first = [("hold", result) for result in ("begun", "done")]
    assert accesses[-2:] == first
    assert accesses[:-2] in (first, [first[0], ("hold", "failed")], [("hold", "failed")])


OPERATIONS_ON_MARKS: Sequence[Operation] = (
    Operation(name="release", template="aged", work=_release, again=_release_unless_done, tries=4),
    Operation(name="retire", template="aged", work=_retire, again=_retire_again, tries=4),
    Operation(name="check beside marks", template="two backups", work=_check, again=_check_again, tries=4),
    Operation(
        name="drill",
        template="two backups",
        work=_with_new_state(_drill),
        again=_drill_again,
        seen=_check_drills,
        tries=3,
    ),
    Operation(
        name="hold on record",
        template="aged",
        work=_with_new_state(_hold_on_record),
        again=_hold_on_record_again,
        tries=6,
    ),
)
