"""Parts of a drill that need no server: globals.sql, room on the disk, which server, what needs an extension, the work folder."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pgstow.app.drill_request import DrillRequest, DrillTerms
from pgstow.assurance.drill.globals import statements_of
from pgstow.assurance.drill.memory import Memory, memory_of, refuse_too_little_memory, usable_cpus
from pgstow.assurance.drill.next_steps import next_steps
from pgstow.assurance.drill.place import Place
from pgstow.assurance.drill.room import refuse_too_little_room, restored_bytes
from pgstow.assurance.drill.throwaway import pick_server
from pgstow.catalog.backups import BackupFiles, list_backups
from pgstow.catalog.manifest import LargeObjectsRecord, Manifest, TableRecord
from pgstow.core.errors import (
    ConnectionFailed,
    DiskFull,
    PgstowError,
    PostgresError,
    RestoreError,
    TargetRefused,
    ToolMissing,
)
from pgstow.postgres.archive import Section, Toc, TocEntry
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.extension_packages import packages_of
from pgstow.postgres.server import ServerBinaries
from pgstow.postgres.workspace import Workspace, remove_leftovers, working_folder
from pgstow.restore.extensions import needing_extensions, without_extensions
from pgstow.restore.request import RestoreOptions
from pgstow.restore.selection import Selection
from pgstow.store.memory import MemoryStore
from support.archives import entry as made_up
from support.archives import header
from support.dated_backups import save_dated
from support.drilling import drill_record
from support.repositories import init_repository

# -- the command


def test_a_drill_loads_neither_the_services_database_nor_what_only_dumps_need() -> None:
    """Together they cost a third of the time until a drill does anything."""
    asked = "import sys, pgstow.cli.application, pgstow.cli.drill; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", asked], check=True, capture_output=True, text=True)
    assert not {"sqlalchemy", "dbos", "pgstow.app.import_dump"} & set(loaded.stdout.split())


# -- globals.sql


def test_statements_end_where_pg_dumpall_ends_them() -> None:
    sql = rb"""--
-- comment; with a semicolon
--
\restrict abc;def

SET standard_conforming_strings = on;
CREATE ROLE "we;ird ""role";
ALTER ROLE "we;ird ""role" WITH PASSWORD 'SCRAM;''x\';
COMMENT ON ROLE a IS E'it\'s; one';
ALTER ROLE b SET search_path TO '$user', 'a--b';

\unrestrict abc
"""
    assert list(statements_of(sql)) == [
        b"SET standard_conforming_strings = on",
        b'CREATE ROLE "we;ird ""role"',
        rb"""ALTER ROLE "we;ird ""role" WITH PASSWORD 'SCRAM;''x\'""",
        rb"COMMENT ON ROLE a IS E'it\'s; one'",
        b"ALTER ROLE b SET search_path TO '$user', 'a--b'",
    ]


# -- what needs an extension


def entry(number: int, desc: str, tag: str, *needs: int, section: Section = Section.PRE_DATA) -> TocEntry:
    has_data = desc == "TABLE DATA"
    return made_up(
        number, desc.encode(), tag.encode(), dependencies=needs, section=section, has_data=has_data
    )


def toc_of(*entries: TocEntry) -> Toc:
    encoding = made_up(99, b"ENCODING", b"ENCODING", defn=b"SET client_encoding = 'UTF8';\n")
    return Toc(header=header(), entries=(encoding, *entries))


TOC = toc_of(
    entry(1, "EXTENSION", "vector"),
    entry(2, "COMMENT", "EXTENSION vector", 1, section=Section.NONE),
    entry(3, "EXTENSION", "hstore"),
    entry(4, "VIEW", "reads_items", 5),  # stands before what it needs
    entry(5, "TABLE", "items", 1),
    entry(6, "TABLE", "orders"),
    entry(7, "TABLE DATA", "items", 5, section=Section.DATA),
    entry(8, "FK CONSTRAINT", "orders items", 5, 6, section=Section.POST_DATA),
    entry(9, "TABLE DATA", "orders", 6, section=Section.DATA),
)


def test_everything_that_needs_an_extension_goes_with_it() -> None:
    assert set(needing_extensions(TOC, ["vector"])) == {1, 2, 4, 5, 7, 8}
    assert set(needing_extensions(TOC, ["hstore", "no such one"])) == {3}
    assert needing_extensions(TOC, []) == {}


def test_what_is_left_out_is_said() -> None:
    whole = Selection(entries=TOC.entries[1:8], foreign_keys=(TOC.entries[8],))
    left = without_extensions(TOC, whole, ["vector"])
    assert {one.dump_id for one in left.entries} == {3, 6}
    assert left.foreign_keys == ()
    assert len(left.skipped) == 6
    assert all("vector" in one.why and not one.is_loss for one in left.skipped)


def test_packages_of_what_is_missing() -> None:
    assert packages_of(["postgis", "postgis_topology", "vector", "hstore", "own"], 16) == (
        "postgresql-16-postgis-3",
        "postgresql-16-pgvector",
        "postgresql-16",
    )


# -- room


@cache
def small_manifest() -> Manifest:
    repository = init_repository(MemoryStore())
    repository.load_index()
    save_dated(repository, 1, datetime(2026, 11, 20, tzinfo=UTC))
    (record,) = list_backups(repository)
    return BackupFiles(repository, record).manifest


def manifest(rows: int, size_bytes: int) -> Manifest:
    table = TableRecord.model_validate(
        {"dump_id": 9, "member": "archive/9.dat", "oid": 1, "schema": "app", "name": "orders", "rows": rows,
         "size_bytes": size_bytes, "read_by": "copy", "seconds": 0.0}
    )  # fmt: skip
    return small_manifest().model_copy(
        update={"tables": (table,), "large_objects": LargeObjectsRecord(count=1, size_bytes=1000)}
    )


def test_room_grows_with_rows_bytes_and_indexes() -> None:
    key = replace(
        entry(10, "CONSTRAINT", "orders pk", 6),
        defn=b"ALTER TABLE ONLY app.orders ADD CONSTRAINT pk PRIMARY KEY (id);",
    )
    check = replace(
        entry(11, "CONSTRAINT", "orders ck", 6),
        defn=b"ALTER TABLE app.orders ADD CONSTRAINT ck CHECK (a > 0);",
    )
    index = entry(12, "INDEX", "orders_i", 6)

    def needed(rows: int, size_bytes: int, *more: TocEntry) -> int:
        return restored_bytes(manifest(rows, size_bytes), toc_of(*TOC.entries[1:], *more))

    base = needed(0, 0)
    assert needed(0, 10**9) - base == 10**9
    one, two = needed(10**6, 0, key), needed(10**6, 0, key, index)
    assert base < needed(10**6, 0) < one < two
    assert needed(10**6, 0, check) == needed(10**6, 0)


def test_a_disk_that_is_too_small_is_refused(tmp_path: Path) -> None:
    refuse_too_little_room(tmp_path, 1)
    with pytest.raises(TargetRefused, match=r"will take about 1048576\.0 GiB") as caught:
        refuse_too_little_room(tmp_path, 1 << 50)
    assert "TMPDIR" in str(caught.value.hint)
    assert "--on URL" in str(caught.value.hint)


def test_the_machine() -> None:
    memory = memory_of()
    assert 1 << 20 < memory.available_bytes <= memory.total_bytes
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)


def a_system(root: Path, files: dict[str, str]) -> Path:
    for name, content in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


MEMINFO = (
    "MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable: 4194304 kB\nSwapTotal: 9 kB\nSwapFree: 1048576 kB\n"
)
SERVICE = "sys/fs/cgroup/system.slice/pgstow.service"
OLD = "sys/fs/cgroup/memory/docker/4711"
GIB = 1 << 30


@pytest.mark.parametrize(
    ("files", "total_gib", "available_gib"),
    [
        ({}, 8, 5),
        ({"proc/self/cgroup": "0::/system.slice/pgstow.service\n", f"{SERVICE}/memory.max": f"{GIB}\n",
          f"{SERVICE}/memory.current": f"{GIB}\n", f"{SERVICE}/memory.stat": f"anon 5\ninactive_file {GIB // 2}\nactive_file 0\n"},
         1, 0.5),
        ({"proc/self/cgroup": "0::/system.slice/pgstow.service\n", f"{SERVICE}/memory.max": "max\n",
          "sys/fs/cgroup/system.slice/memory.max": f"{3 * GIB}\n", "sys/fs/cgroup/system.slice/memory.current": f"{GIB}\n"}, 3, 2),
        ({"sys/fs/cgroup/memory.max": f"{2 * GIB}\n", "sys/fs/cgroup/memory.current": f"{3 * GIB}\n"}, 2, 0),
        ({"proc/self/cgroup": "4:cpu,memory:/docker/4711\n", f"{OLD}/memory.limit_in_bytes": f"{GIB}\n",
          f"{OLD}/memory.usage_in_bytes": f"{GIB // 4}\n"}, 1, 0.75),
        ({"proc/self/cgroup": "0::/../../etc\n", "etc/memory.max": "1\n"}, 8, 5),
    ],
    ids=["machine", "service", "slice", "full container", "version 1", "no way out"],
)  # fmt: skip
def test_memory_is_what_limits_leave(
    files: dict[str, str], total_gib: float, available_gib: float, tmp_path: Path
) -> None:
    memory = memory_of(a_system(tmp_path, files))
    assert memory == Memory(total_bytes=int(total_gib * GIB), available_bytes=int(available_gib * GIB))


def test_too_little_memory_is_refused() -> None:
    small = Memory(total_bytes=GIB, available_bytes=256 << 20)
    refuse_too_little_memory(small, shared_buffers=32 << 20, build_bytes=16 << 20, jobs=2)
    with pytest.raises(
        TargetRefused, match=r"256 MiB of memory are available, and a drill with 3 jobs"
    ) as caught:
        refuse_too_little_memory(small, shared_buffers=32 << 20, build_bytes=64 << 20, jobs=3)
    assert "--jobs 1" in str(caught.value.hint)


# -- what is asked for


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        ({}, 60.0),
        ({"backup": "shop@latest"}, 60.0),
        ({"strategy": "oldest"}, None),
        ({"strategy": "rotate"}, None),
        ({"backup": "4711abcd"}, None),
        ({"strategy": "oldest", "rpo_target_s": 5.0}, 5.0),
    ],
)
def test_the_age_of_an_old_backup_is_no_missed_target(asked: dict[str, Any], target: float | None) -> None:
    terms = {"shop": DrillTerms(rpo_target_s=60.0, rto_target_s=9.0)}
    request = DrillRequest(host="h", username="u", terms=terms, **asked)
    of_shop = request.for_backups_of("shop")
    assert (of_shop.rpo_target_s, of_shop.rto_target_s) == (target, 9.0)


# -- what an error comes from


class MadeUpPlace(Place):
    kind = "throwaway"
    _when_full = "take a larger disk"
    remains = "/var/tmp/x"  # type: ignore[assignment]  # a property
    log = ""

    def options(self, options: RestoreOptions) -> RestoreOptions:
        return options

    def make(self) -> None: ...

    def _remove(self) -> None: ...

    def _log_tail(self) -> str:
        return self.log


FULL_LOG = "LOG: starting\nPANIC: could not write to file: No space left on device"


@pytest.mark.parametrize(
    ("error", "log", "is_full"),
    [
        (PostgresError("could not extend file", sqlstate="53100"), "", True),
        (RestoreError("pg_restore failed: could not extend file: No space left on device"), "", True),
        (ConnectionFailed("the server closed the connection"), FULL_LOG, True),
        (RestoreError("syntax error"), FULL_LOG, False),
        (ConnectionFailed("the server closed the connection"), "LOG: starting", False),
        (PostgresError("division by zero", sqlstate="22012"), "", False),
    ],
)
def test_a_full_disk_is_no_fault_of_the_backup(error: PgstowError, log: str, is_full: bool) -> None:
    place = MadeUpPlace()
    place.log = log
    found = place.explained(error)
    assert isinstance(found, DiskFull) is is_full
    assert is_full or found is error
    if is_full:
        assert error.message in found.message and "/var/tmp/x" in found.message
        assert found.hint == "take a larger disk"
        failed = drill_record("failed", error_code=found.code)
        steps = " ".join(next_steps(failed))
        assert "Nothing was found wrong with the backup" in steps and "may not come back" not in steps


def test_a_server_that_fell_over_leaves_its_last_words() -> None:
    place = MadeUpPlace()
    place.look_back()
    assert place.warnings == []
    place.log = "LOG: starting\nLOG: server process (PID 7) was terminated by signal 9: Killed\nLOG: ready"
    place.look_back()
    place.explained(ConnectionFailed("gone"))
    words = "the server's last words: LOG: server process (PID 7) was terminated by signal 9: Killed"
    assert place.warnings == [words, words]


# -- which server


def server(major: int, minor: int, *, embedded: bool = False) -> ServerBinaries:
    folder = Path(f"/{major}.{minor}")
    return ServerBinaries(version=(major, minor), bin_dir=folder, bundle=(folder,) if embedded else ())


def test_the_same_major_release_else_the_next_newer() -> None:
    backup = manifest(0, 0)
    major = backup.server.version_num // 10000
    installed, embedded = server(major, 1), server(major, 9, embedded=True)
    newer = server(major + 1, 0)
    assert pick_server([newer, embedded, installed], backup) == installed
    assert pick_server([newer, embedded], backup) == embedded
    assert pick_server([server(major + 2, 5), newer, server(major - 1, 9)], backup) == newer
    for there, found in (([server(major - 1, 9)], str(major - 1)), ([], "none")):
        with pytest.raises(ToolMissing, match=f"found: {found}") as caught:
            pick_server(there, backup)
        assert f"postgresql-{major}" in str(caught.value.hint)
        assert "--on URL" in str(caught.value.hint)


# -- the folder


def test_a_folder_in_use_is_left_alone_and_one_of_the_dead_is_removed(tmp_path: Path) -> None:
    said: list[str] = []
    mine = Workspace(tmp_path)
    script = (
        "import os, sys; from pathlib import Path; from pgstow.postgres.workspace import Workspace;"
        "print(Workspace(Path(sys.argv[1])).folder, flush=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    left = Path(killed.stdout.decode().strip())
    (left / "pgstow-x" / "data").mkdir(parents=True)
    assert left.is_dir() and left.parent == tmp_path
    remove_leftovers(tmp_path, said.append)
    assert not left.exists()
    assert mine.folder.exists()
    assert len(said) == 1 and str(left) in said[0]
    mine.remove()
    mine.remove()
    assert not mine.folder.exists()


def test_a_folder_that_still_changes_is_removed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An initdb that nobody ended makes and removes files."""
    left, real, failed = tmp_path / "pgstow-drill-left", shutil.rmtree, list[Path]()
    (left / "pgstow-x" / "data").mkdir(parents=True)
    (left / "lock").touch()

    def rmtree(path: Path) -> None:
        if not failed:
            failed.append(path)
            assert (left / "lock").exists()
            raise FileNotFoundError(errno.ENOENT, "gone meanwhile", path / "data" / "file")
        real(path)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    said: list[str] = []
    remove_leftovers(tmp_path, said.append)
    assert failed and not left.exists()
    assert len(said) == 1


def test_what_is_not_a_drills_folder_is_left_alone(tmp_path: Path) -> None:
    """A folder that somebody else made under such a name, a file, a link, one that is just being made."""
    target = tmp_path / "precious"
    target.mkdir()
    (target / "file").write_text("x")
    (tmp_path / "pgstow-drill-linked").symlink_to(target)
    (tmp_path / "pgstow-drill-file").write_text("x")
    young = tmp_path / "pgstow-drill-young"
    young.mkdir()
    (young / "lock.new").touch()
    of_somebody = tmp_path / "pgstow-drill-reports"
    of_somebody.mkdir()
    (of_somebody / "november.md").write_text("x")
    os.utime(of_somebody, (time.time() - 7200, time.time() - 7200))
    said: list[str] = []
    remove_leftovers(tmp_path, said.append)
    assert (target / "file").exists() and young.exists() and (tmp_path / "pgstow-drill-file").exists()
    assert said == []
    os.utime(young, (time.time() - 7200, time.time() - 7200))
    remove_leftovers(tmp_path, said.append)
    assert not young.exists()
    assert (of_somebody / "november.md").exists()


def test_the_process_of_a_stale_pid_file_is_not_ended(tmp_path: Path) -> None:
    """The number in it is somebody else's by now."""
    workspace = Workspace(tmp_path)
    data = workspace.folder / "pgstow-x" / "data"
    data.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as other:
        (data / "postmaster.pid").write_text(f"{other.pid}\n{data}\n")
        workspace.remove()
        assert other.poll() is None
        other.kill()
    assert not workspace.folder.exists()


def test_what_killed_restores_and_connections_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Definitions and connection parameters may hold passwords, so they must not stay there for good."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    script = (
        "import os, sys; from pathlib import Path; from pgstow.postgres.workspace import Workspace;"
        "kept = [Workspace(Path(sys.argv[1]), kind) for kind in ('restore', 'connection')];"
        "[(one.folder / 'secret').write_text('x') for one in kept]; os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    of_the_dead = {path.name.split("-")[1] for path in tmp_path.iterdir()}
    assert of_the_dead == {"restore", "connection"}
    with working_folder(tmp_path, lambda _: None, "restore") as ours:
        assert [path for path in tmp_path.glob("pgstow-restore-*") if path != ours] == []
        assert ours.stat().st_mode & 0o777 == 0o700
        with working_folder(tmp_path, lambda _: None, "restore"):
            assert ours.exists(), "it is in use"
    # One parameter without a variable of its own goes through a file, beside which others are looked for.
    with ConnInfo.parse("host=h connect_timeout=3 tcp_user_timeout=5").tool_env() as env:
        kept = Path(env["PGSERVICEFILE"]).parent
        assert list(tmp_path.iterdir()) == [kept]
    assert list(tmp_path.iterdir()) == []
