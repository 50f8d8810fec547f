"""What is done to a repository while its store goes wrong: one row per operation.

An operation begins from a template, a repository in a known state, and works through whatever store it is handed.
It is repeated without faults afterwards, which has to succeed. To try another command, add a row to OPERATIONS.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import psycopg

from pgstow.app.backup import BackupRequest, FailedBackup, backup, backup_all, backup_to
from pgstow.app.copy import copy_repository, rekey_repository
from pgstow.app.export import export
from pgstow.app.keys import change_password
from pgstow.app.marking import hold_backup
from pgstow.app.prune import prune_repository
from pgstow.app.repository_repair import repair_repository
from pgstow.app.restore import restore
from pgstow.app.retention import RetentionRequest, apply_retention
from pgstow.app.verify import verify_backups
from pgstow.assurance.compare import compare_databases
from pgstow.assurance.verify import verify
from pgstow.capture.destinations import Destination
from pgstow.catalog.backups import list_backups
from pgstow.core.errors import NoRepository, PgstowError, RepositoryDamaged, WrongPassword
from pgstow.core.progress import SilentProgress
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.repository import Repository
from pgstow.restore.export import ExportFormat, ExportRequest
from pgstow.restore.request import RestoreOptions
from pgstow.retention import RetentionPolicies, RetentionPolicy
from pgstow.store.api import Store
from pgstow.store.local import LocalStore
from pgstow.upkeep.prune_plan import PruneOptions
from pgstow.upkeep.repair_report import RepairReport
from support.damage import readable_members
from support.dated_backups import backup_id
from support.fault_operation import (
    AGED_NAME,
    HELD_AGE,
    OLD_AGES,
    OLD_PASSWORD,
    YOUNG_AGES,
    Operation,
    Outcome,
    World,
    marks_of,
    open_plainly,
)
from support.oracle import contents_of, files_below
from support.restic import PASSWORD

__all__ = ["OPERATIONS"]


def _init(world: World, store: Store, outcome: Outcome) -> None:
    Repository.init(store, Secret(PASSWORD), hostname="tests", username="tests", sleep=lambda _: None)


def _init_unless_there(world: World, store: Store, outcome: Outcome) -> None:
    """Back up as a person would who was told that init failed."""
    try:
        open_plainly(store)
    except NoRepository:
        _init(world, store, outcome)
    _back_up(world, store, outcome)


def _back_up(world: World, store: Store, outcome: Outcome) -> None:
    taken = backup(world.request, open_plainly(store), world.tools, SilentProgress())
    outcome.backups.append(taken.manifest.backup_id)


def _back_up_all(world: World, store: Store, outcome: Outcome) -> None:
    request = BackupRequest(source=ConnInfo.parse(world.maintenance))
    for result in backup_all(request, open_plainly(store), world.tools, SilentProgress()):
        if isinstance(result, FailedBackup):
            outcome.errors.append(result.error)
        else:
            outcome.backups.append(result.manifest.backup_id)


def _verify(world: World, store: Store, outcome: Outcome) -> None:
    report = verify_backups([], open_plainly(store), SilentProgress(), read_data=True)
    outcome.errors += [RepositoryDamaged(problem.message) for problem in report.problems]


def _verify_damaged(world: World, store: Store, outcome: Outcome) -> None:
    """Whatever else goes wrong, damage must never be overlooked."""
    report = verify_backups([], open_plainly(store), SilentProgress(), read_data=True)
    assert not report.is_sound


def _export(world: World, store: Store, outcome: Outcome) -> None:
    output = world.scratch / "export"
    request = ExportRequest(format=ExportFormat.DIRECTORY, output=output)
    try:
        export(
            world.newest,
            request,
            open_plainly(store),
            world.tools,
            SilentProgress(),
            stdout=io.BytesIO(),
        )
        written = files_below(output)
        assert {f"archive/{name}": digest for name, digest in written.items()}.items() >= world.rows.items()
        shutil.rmtree(output)
    finally:
        assert not list(world.scratch.glob("*export*")), "half an export was left behind"


def _restore(world: World, store: Store, outcome: Outcome) -> None:
    source, target = ConnInfo.parse(world.source), ConnInfo.parse(world.target)
    options = RestoreOptions(create=True, no_owner=True)
    try:
        restore(world.newest, target, options, open_plainly(store), world.tools, SilentProgress())
        assert [each for each in compare_databases(source, target) if not each.is_equal] == []
    except PgstowError as exc:
        _check_what_is_left(world, exc)
        raise
    finally:
        with psycopg.connect(world.maintenance, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {target.dbname} WITH (FORCE)")


def _check_what_is_left(world: World, error: PgstowError) -> None:
    """The error says so if the database that was made for the restore is still there, and only then."""
    assert _exists(world) == ("is incomplete" in (error.hint or ""))


def _exists(world: World) -> bool:
    with psycopg.connect(world.maintenance) as connection:
        query = "SELECT FROM pg_database WHERE datname = %s"
        return connection.execute(query, (ConnInfo.parse(world.target).dbname,)).fetchone() is not None


def _prune(world: World, store: Store, outcome: Outcome) -> None:
    """Take out of use what the backup that was removed needed alone, and remove it the next time."""
    options = PruneOptions(grace_s=0, max_unused=0)
    prune_repository(open_plainly(store), options, SilentProgress(), show=lambda _plan: None)


def _expire(world: World, store: Store, outcome: Outcome) -> None:
    """Remove what is older than 30 days, and what only that needed."""
    request = RetentionRequest(policy=RetentionPolicies(default=RetentionPolicy(promotes=False)))
    options = PruneOptions(grace_s=0, max_unused=0)
    applied = apply_retention(open_plainly(store), request, SilentProgress(), planned=None, prune=options)
    if applied.prune_error is not None:
        raise applied.prune_error


def _expire_the_rest(world: World, store: Store, outcome: Outcome) -> None:
    _expire(world, store, outcome)
    assert _aged_in(store) == {HELD_AGE, *YOUNG_AGES}


def _aged_in(store: Store) -> set[int]:
    """Return the ages of the aged backups that are there."""
    return {int(each.short_id) for each in list_backups(open_plainly(store)) if each.name == AGED_NAME}


def _hold(world: World, store: Store, outcome: Outcome) -> None:
    """Keep a backup that is about to expire: from when that is told, it has to stay."""
    held = backup_id(OLD_AGES[-1])
    hold_backup(open_plainly(store), held, SilentProgress(), by="tests", reason="case 7", until=None)
    outcome.backups.append(held)


def _hold_another_and_expire(world: World, store: Store, outcome: Outcome) -> None:
    held = backup_id(OLD_AGES[0])
    hold_backup(open_plainly(store), held, SilentProgress(), by="tests", reason="case 8", until=None)
    outcome.backups.append(held)
    _expire(world, store, outcome)
    assert _aged_in(store) >= {HELD_AGE, OLD_AGES[0], *YOUNG_AGES}


def _copy(world: World, store: Store, outcome: Outcome) -> None:
    source = open_plainly(LocalStore(world.two_backups))
    report = copy_repository(source, open_plainly(store), [world.newest], SilentProgress(), dry_run=False)
    if not report.is_complete:
        raise RepositoryDamaged("the copy is not complete")
    outcome.backups.append(world.newest)


def _copy_out(world: World, store: Store, outcome: Outcome) -> None:
    """Copy into a new repository, which stays as it is, from one that goes wrong."""
    shutil.rmtree(_second(world), ignore_errors=True)
    shutil.copytree(world.elsewhere, _second(world))
    _copy_out_again(world, store, outcome)


def _copy_out_again(world: World, store: Store, outcome: Outcome) -> None:
    second = LocalStore(_second(world))
    report = copy_repository(open_plainly(store), open_plainly(second), [], SilentProgress(), dry_run=False)
    if not report.is_complete:
        raise RepositoryDamaged("the copy is not complete")
    ids = [{each.id for each in list_backups(open_plainly(one))} for one in (store, second)]
    outcome.backups += sorted(ids[0])
    assert ids[0] == ids[1]


def _second(world: World) -> Path:
    return world.scratch / "second"


def _check_second(world: World, store: Store, outcome: Outcome) -> None:
    """What the second repository has is whole, and what was reported is in it."""
    second = open_plainly(LocalStore(_second(world)))
    assert verify(second, read_data=True).is_sound
    there = {record.id: contents_of(second, record) for record in list_backups(second)}
    assert {*outcome.backups} <= {*there}
    first = open_plainly(store)
    first.load_index()
    for record in list_backups(first):
        assert there.get(record.id) in (None, contents_of(first, record))


def _back_up_into_two(world: World, store: Store, outcome: Outcome) -> None:
    """Back up into two repositories at once, of which the second stays as it is."""
    shutil.rmtree(_second(world), ignore_errors=True)
    shutil.copytree(world.one_elsewhere, _second(world))
    _back_up_into_two_again(world, store, outcome)


def _back_up_into_two_again(world: World, store: Store, outcome: Outcome) -> None:
    """Whatever goes wrong with the first, the second has the backup."""
    destinations = [
        Destination(name="first", open=lambda: open_plainly(store)),
        Destination(name="second", open=lambda: open_plainly(LocalStore(_second(world)))),
    ]
    try:
        taken = backup_to(world.request, destinations, world.tools, SilentProgress())
    except PgstowError as exc:
        raise AssertionError("one repository that goes wrong ended the backup into the other") from exc
    first, second = taken.destinations
    assert second.error is None, second.error
    there = open_plainly(LocalStore(_second(world)))
    there.load_index()
    (record,) = [each for each in list_backups(there) if each.id == taken.manifest.backup_id]
    assert world.rows.items() <= contents_of(there, record).items()
    if first.error is not None:
        raise first.error
    outcome.backups.append(taken.manifest.backup_id)


def _rekey(world: World, store: Store, outcome: Outcome) -> None:
    """Make a repository with another master key, unless an earlier run did, and bring everything there."""
    try:
        target = open_plainly(store)
    except NoRepository:
        target = Repository.init(
            store, Secret(PASSWORD), hostname="tests", username="tests", sleep=lambda _: None
        )
    source = open_plainly(LocalStore(world.one_of_two))
    report = rekey_repository(source, target, SilentProgress(), read_data=True)
    if not report.is_complete:
        raise RepositoryDamaged("the new repository is not complete")
    assert marks_of(store) == marks_of(LocalStore(world.one_of_two))
    outcome.backups.append(world.newest)


def _change_password(world: World, store: Store, outcome: Outcome) -> None:
    old, new = Secret(OLD_PASSWORD), Secret(PASSWORD)
    change_password(Repository.open(store, old), old, new, hostname="tests", username="tests")


def _change_password_again(world: World, store: Store, outcome: Outcome) -> None:
    """Repeat it, where the old password still opens; afterwards it no longer does."""
    if _opens(store, OLD_PASSWORD):
        _change_password(world, store, outcome)
    assert not _opens(store, OLD_PASSWORD)


def _opens(store: Store, password: str) -> bool:
    try:
        Repository.open(store, Secret(password))
    except WrongPassword:
        return False
    return True


def _check_some_password_opens(world: World, store: Store) -> None:
    """Nobody is shut out, whatever happened."""
    assert _opens(store, PASSWORD) or _opens(store, OLD_PASSWORD)


def _repair(world: World, store: Store, outcome: Outcome) -> None:
    if _repaired(store).not_mended:
        raise RepositoryDamaged("the repair is not complete")


def _repaired(store: Store, *, dry_run: bool = False) -> RepairReport:
    repository = Repository.open(store, Secret(PASSWORD), without_config=True)
    return repair_repository(
        repository, SilentProgress(), read_data=True, dry_run=dry_run, approve=lambda _plan: None
    )


def _repair_and_back_up(world: World, store: Store, outcome: Outcome) -> None:
    """Finish what a repair began: nothing is left to do then, and a backup can be made."""
    _repair(world, store, outcome)
    assert not _repaired(store, dry_run=True).is_needed
    assert marks_of(store) == world.marks
    _back_up(world, store, outcome)


def _nothing_more_lost(template: str) -> Callable[[World, Store], None]:
    """Return what asserts that whatever can be read in a damaged template can still be read."""

    def check(world: World, store: Store) -> None:
        before, _ = readable_members(LocalStore(world.damaged[template]), without_config=True)
        now, _ = readable_members(store, without_config=True)
        for own_id, members in before.items():
            assert members.items() <= now.get(own_id, {}).items(), own_id

    return check


OPERATIONS = (
    Operation(
        name="init", template="nothing", work=_init, again=_init_unless_there, tries=15, cleans_up=True
    ),
    Operation(name="first backup", template="empty", work=_back_up, tries=15, cleans_up=True),
    Operation(name="backup with reuse", template="one backup", work=_back_up, tries=15, cleans_up=True),
    Operation(name="verify", template="two backups", work=_verify, tries=15),
    Operation(name="verify of damage", template="damaged", work=_verify_damaged, tries=15, is_judged=False),
    Operation(name="export", template="two backups", work=_export, tries=15),
    Operation(name="restore", template="two backups", work=_restore, tries=10),
    Operation(name="all databases", template="one backup", work=_back_up_all, tries=5, cleans_up=True),
    Operation(name="copy", template="elsewhere", work=_copy, tries=15, cleans_up=True),
    Operation(
        name="copy out of it",
        template="two backups",
        work=_copy_out,
        again=_copy_out_again,
        seen=_check_second,
        tries=6,
        believes=("snapshots",),
    ),
    Operation(
        name="backup into two",
        template="one backup",
        work=_back_up_into_two,
        again=_back_up_into_two_again,
        seen=_check_second,
        tries=2,
        cleans_up=True,
    ),
    Operation(
        name="prune", template="one of two", work=_prune, tries=15, cleans_up=True, believes=("snapshots",)
    ),
    Operation(
        name="retention apply",
        template="aged",
        work=_expire,
        again=_expire_the_rest,
        tries=15,
        cleans_up=True,
        believes=("snapshots", "pgstow/holds"),
    ),
    Operation(
        name="hold", template="aged", work=_hold, again=_hold_another_and_expire, tries=15, cleans_up=True
    ),
    Operation(name="rekey", template="nothing", work=_rekey, tries=12, cleans_up=True),
    Operation(
        name="change of password",
        template="old password",
        work=_change_password,
        again=_change_password_again,
        meanwhile=_check_some_password_opens,
        tries=15,
    ),
    *(
        Operation(
            name=f"repair of a {template}",
            template=template,
            work=_repair,
            again=_repair_and_back_up,
            meanwhile=_nothing_more_lost(template),
            tries=8,
            cleans_up=True,
            believes=believed,
        )
        for template, believed in (("lost pack", ()), ("lost index file", ("index",)))
    ),
)
