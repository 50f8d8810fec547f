"""A small database, and repositories in the states from which operations begin."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from pgstow.app.backup import BackupRequest, backup, backup_all
from pgstow.app.copy import copy_repository
from pgstow.app.drill_records import publish_drill
from pgstow.app.keys import change_password
from pgstow.capture.options import CapturedBackup
from pgstow.catalog.backups import BackupFiles, list_backups
from pgstow.core.progress import SilentProgress
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.postgres.tools import ClientTools
from pgstow.repository import BlobKind, Repository, pack_name
from pgstow.store.local import LocalStore
from pgstow.upkeep.repair import repair
from support.damage import readable_members
from support.dated_backups import backup_id, save_dated
from support.drilling import drill_record
from support.fault_marks import OPERATIONS_ON_MARKS
from support.fault_operation import (
    AGED_NAME,
    BACKUP_NAME,
    HELD_AGE,
    OLD_AGES,
    OLD_PASSWORD,
    YOUNG_AGES,
    Operation,
    World,
    in_a_hurry,
    marks_of,
)
from support.fault_operations import OPERATIONS
from support.faults import Fault, FaultyStore, Point, patient
from support.oracle import Oracle, State, Whole, contents_of
from support.repositories import init_repository
from support.restic import PASSWORD, Restic

__all__ = [
    "ALL_OPERATIONS",
    "TRY_ALL",
    "Templates",
    "chosen",
    "make_database",
    "make_templates",
    "tell",
    "work_until_killed",
]

ALL_OPERATIONS = (*OPERATIONS, *OPERATIONS_ON_MARKS)

# "1": every fault at every point, restic as by default; "restic": and restic looks at each of the states
TRY_ALL = bool(os.environ.get("PGSTOW_ALL_FAULTS"))
_IS_THOROUGH = os.environ.get("PGSTOW_ALL_FAULTS") == "restic"
_TEMPLATES = (
    *(
        "nothing",
        "empty",
        "elsewhere",
        "one backup",
        "one elsewhere",
        "two backups",
        "one of two",
        "old password",
    ),
    *("damaged", "lost pack", "lost index file", "aged"),
)
_STRIDE = 7  # the number of points is rarely a multiple of it

# ledger has two page ranges, of which the second changes; a large object and an index come along.
_MADE = """
CREATE TABLE ledger AS SELECT i AS id, md5(i::text) || md5((-i)::text) AS entry, repeat('x', 80) AS note
    FROM generate_series(1, 8000) AS i;
CREATE TABLE account (id serial PRIMARY KEY, owner text NOT NULL);
INSERT INTO account (owner) SELECT 'owner ' || i FROM generate_series(1, 200) AS i;
CREATE TABLE nothing_yet (at timestamptz);
SELECT lo_from_bytea(4711, convert_to(repeat('large', 5000), 'UTF8'));
VACUUM ledger
"""
_CHANGED = """
INSERT INTO ledger SELECT i, md5(i::text), repeat('y', 80) FROM generate_series(8001, 8400) AS i;
UPDATE account SET owner = 'somebody else' WHERE id % 10 = 0
"""


def make_database(cluster: Cluster, name: str) -> ConnInfo:
    """Return a database with a little of everything, before its change."""
    with psycopg.connect(cluster.conninfo(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    made = ConnInfo.parse(cluster.conninfo(name))
    _execute(made, _MADE)
    return made


def _execute(conninfo: ConnInfo, statements: str) -> None:
    with psycopg.connect(conninfo.connect_string(), autocommit=True) as connection:
        for statement in statements.split(";"):
            connection.execute(statement)


@dataclass(frozen=True, slots=True, kw_only=True)
class Templates:
    """Folders to begin from, and what is in them: by template, then by backup id."""

    world: World
    folders: Mapping[str, Path]
    acknowledged: Mapping[str, Mapping[str, Mapping[str, str]]]
    rows: Mapping[str, Mapping[str, str]]  # by backup name
    known: dict[bytes, Whole] = field(default_factory=dict)  # to the oracles

    def fresh(self, template: str, folder: Path) -> LocalStore:
        """Return a copy of a template at ``folder``, where nothing may be left from before."""
        shutil.rmtree(folder, ignore_errors=True)
        if self.folders[template].exists():
            shutil.copytree(self.folders[template], folder)
        return LocalStore(folder)

    def objects(self, template: str) -> dict[str, bytes]:
        """Return what is in a template."""
        store = LocalStore(self.folders[template])
        return {info.name: store.get(info.name) for info in store.list("")}

    def oracle(
        self, operation: Operation, restics: list[Restic], judged: set[State], scratch: Path
    ) -> Oracle:
        """Return who judges what an operation leaves."""
        return Oracle(
            restics=restics,
            scratch=scratch,
            acknowledged=dict(self.acknowledged.get(operation.template, {})),
            rows=self.rows,
            is_thorough=_IS_THOROUGH,
            take_turns=not TRY_ALL,
            judged=judged,
            known=self.known,
        )


def make_templates(cluster: Cluster, tools: list[ClientTools], folder: Path) -> Templates:
    """Make the database and the templates; the database is then one change ahead of "one backup"."""
    source = make_database(cluster, "tiny")
    request = BackupRequest(source=source, name=BACKUP_NAME)
    folders = {name: folder / name.replace(" ", "-") for name in _TEMPLATES}
    init_repository(LocalStore(folders["empty"]))
    init_repository(LocalStore(folders["elsewhere"]))
    first = _next(folders["empty"], folders["one backup"])
    backup(request, first, tools, SilentProgress())
    copy_repository(
        first, _next(folders["elsewhere"], folders["one elsewhere"]), [], SilentProgress(), dry_run=False
    )
    _execute(source, _CHANGED)
    second = _next(folders["one backup"], folders["two backups"])
    taken = backup(request, second, tools, SilentProgress())
    _mark(second, taken.manifest.backup_id)
    assert [t.reused_ranges for t in taken.manifest.tables if t.name == "ledger"] == [1]
    _damage(_next(folders["two backups"], folders["damaged"]), taken.manifest.tables[0].member)
    left = _next(folders["two backups"], folders["one of two"])
    left.remove_snapshot(list_backups(left)[0].snapshot.id or "")
    ledger = taken.manifest.tables[0].member
    _lose_pack(_next(folders["two backups"], folders["lost pack"]))
    _lose_index_file(_next(folders["two backups"], folders["lost index file"]), ledger)
    change_password(
        _next(folders["two backups"], folders["old password"]), Secret(PASSWORD), Secret(OLD_PASSWORD),
        hostname="tests", username="tests",
    )  # fmt: skip
    _age(_next(folders["two backups"], folders["aged"]))
    rows = _reference_rows(cluster, _next(folders["empty"], folder / "all"), tools)
    world = World(
        source=source.connect_string(),
        maintenance=cluster.conninfo(),
        target=cluster.conninfo("brought_back"),
        tools=tools,
        scratch=folder / "scratch",
        newest=taken.manifest.backup_id,
        one_elsewhere=folders["one elsewhere"],
        two_backups=folders["two backups"],
        one_of_two=folders["one of two"],
        elsewhere=folders["elsewhere"],
        damaged={name: folders[name] for name in ("lost pack", "lost index file")},
        rows=dict(rows[source.dbname or ""]),
        marks=marks_of(LocalStore(folders["two backups"])),
    )
    world.scratch.mkdir()
    acknowledged: dict[str, Mapping[str, Mapping[str, str]]] = {
        name: _contents(folders[name])
        for name in ("empty", "elsewhere", "one backup", "one elsewhere", "two backups", "one of two")
    }
    acknowledged["old password"] = acknowledged["lost index file"] = acknowledged["two backups"]
    acknowledged["lost pack"] = _left_of(folders["lost pack"], acknowledged["two backups"])
    acknowledged["aged"] = {
        each: found
        for each, found in _contents(folders["aged"]).items()
        if each not in map(backup_id, OLD_AGES)
    }
    return Templates(
        world=world,
        folders=folders,
        acknowledged=acknowledged,
        rows={**rows, BACKUP_NAME: rows[source.dbname or ""], AGED_NAME: {}},
    )


def _next(template: Path, folder: Path) -> Repository:
    shutil.copytree(template, folder)
    return Repository.open(LocalStore(folder), Secret(PASSWORD))


def _contents(folder: Path) -> dict[str, Mapping[str, str]]:
    repository = Repository.open(LocalStore(folder), Secret(PASSWORD))
    repository.load_index()
    return {record.id: contents_of(repository, record) for record in list_backups(repository)}


def _reference_rows(
    cluster: Cluster, repository: Repository, tools: list[ClientTools]
) -> dict[str, Mapping[str, str]]:
    """Return, by name, the table members that a backup of each database has now."""
    request = BackupRequest(source=ConnInfo.parse(cluster.conninfo()))
    rows: dict[str, Mapping[str, str]] = {}
    for taken in backup_all(request, repository, tools, SilentProgress()):
        assert isinstance(taken, CapturedBackup)
        (record,) = [each for each in list_backups(repository) if each.id == taken.manifest.backup_id]
        members = {table.member for table in taken.manifest.tables}
        found = contents_of(repository, record)
        rows[record.name] = {name: found[name] for name in members}
    return rows


def _left_of(folder: Path, whole: Mapping[str, Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    """Return what a repair leaves: all that can still be read, and parts of what cannot."""
    readable, _ = readable_members(LocalStore(folder))
    repaired = folder.with_name(f"{folder.name}, repaired")
    repair(_next(folder, repaired), SilentProgress())
    left = _contents(repaired)
    for own_id, members in whole.items():
        kept = {name: digest for name, digest in left[own_id].items() if not name.startswith("salvaged/")}
        assert kept.items() < members.items()
        assert readable[own_id].keys() <= kept.keys()
    return left


def _pack_of(repository: Repository, member: str) -> bytes:
    """Return the pack that holds the beginning of a member of the oldest backup."""
    repository.load_index()
    node = BackupFiles(repository, list_backups(repository)[0]).member(member)
    assert node is not None
    pack = repository.pack_of(BlobKind.DATA, next(iter(node.content)))
    assert pack is not None
    return pack


def _mark(repository: Repository, newest: str) -> None:
    """Leave a mark of every kind, and the record of a drill."""
    now, marks = datetime.now(UTC), repository.marks()
    marks.hold(newest, at=now, by="tests", reason="case 5")
    marks.retire(BACKUP_NAME, at=now, by="tests", reason="nobody needs it")
    drilled = drill_record(backup_id=newest, backup_name=BACKUP_NAME)
    publish_drill(repository, drilled)


def _age(repository: Repository) -> None:
    """Save backups that are old, of which one is held."""
    repository.load_index()
    now = datetime.now(UTC)
    for age in (HELD_AGE, *OLD_AGES, *YOUNG_AGES):
        save_dated(repository, age, now - timedelta(days=age), name=AGED_NAME)
    repository.marks().hold(backup_id(HELD_AGE), at=now, by="tests", reason="case 6")


def _damage(repository: Repository, member: str) -> None:
    """Flip one bit in the pack that holds the beginning of a member of the oldest backup: a stale list shows that."""
    path = Path(repository.store.location) / pack_name(_pack_of(repository, member).hex())
    written = path.stat()
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))


def _lose_pack(repository: Repository) -> None:
    """Remove a pack without which both backups lack something, and neither is of no use at all."""
    repository.load_index()
    store = repository.store
    for name in sorted(pack_name(pack.pack_id.hex()) for pack in repository.indexed_packs()):
        data = store.get(name)
        store.delete(name)
        plan = repair(repository, SilentProgress(), dry_run=True)
        if len(plan.mended) == 2 and not plan.dropped:
            return
        store.put(name, data)
    raise AssertionError("there is no such pack")


def _lose_index_file(repository: Repository, member: str) -> None:
    """Remove what alone lists a pack that both backups need."""
    pack = _pack_of(repository, member)
    (index_id,) = [
        index_id
        for index_id in repository.index_ids()
        if any(contents.pack_id == pack for contents in repository.index_file(index_id))
    ]
    repository.store.delete(f"index/{index_id}")


def chosen(pairs: Sequence[tuple[Fault, Point]], tries: int) -> list[tuple[Fault, Point]]:
    """Return all, or at most ``tries`` of them: every fault in turn, each beginning at another point.

    With 15 each of FAULTS has its turn; with fewer the first of them have.
    """
    if TRY_ALL:
        return list(pairs)
    by_fault: dict[Fault, list[Point]] = {}
    for fault, point in pairs:
        by_fault.setdefault(fault, []).append(point)
    picked: dict[tuple[Fault, Point], None] = {}
    for number in range(tries):
        turn, place = divmod(number, len(by_fault))
        fault, points = list(by_fault.items())[place]
        picked[fault, points[(place * _STRIDE + turn) % len(points)]] = None
    return list(picked)


def tell(**line: object) -> None:
    """Append how much was tried to the file that PGSTOW_FAULTS_REPORT names."""
    if path := os.environ.get("PGSTOW_FAULTS_REPORT"):
        with Path(path).open("a") as file:
            file.write(json.dumps(line) + "\n")


def work_until_killed(name: str, world: World, folder: str, fault: Fault, point: Point) -> None:
    """Run in a child process, which the fault ends."""
    (operation,) = [each for each in ALL_OPERATIONS if each.name == name]
    with in_a_hurry():
        operation.run(world, patient(FaultyStore(LocalStore(Path(folder)), fault, point)))
