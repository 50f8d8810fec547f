"""Whole drills: what passes, what fails, and that nothing is left of either."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pgstow.app import drill_run
from pgstow.app.audit import read_heads, verify_trail
from pgstow.app.drill import drill, drill_and_tell
from pgstow.app.drill_request import DrillRequest, DrillTerms
from pgstow.app.restore import restore
from pgstow.assurance.drill import given_server, throwaway
from pgstow.assurance.drill.globals import create_globals, create_missing_roles
from pgstow.assurance.drill.memory import Memory
from pgstow.assurance.drill.next_steps import next_steps
from pgstow.assurance.drill.report import markdown_report
from pgstow.audit.anchoring import heads_listed
from pgstow.catalog.assertions import Assertion
from pgstow.catalog.backups import BackupFiles, list_backups
from pgstow.catalog.drills import AuditHead, read_drills, save_drill
from pgstow.catalog.manifest import Selection
from pgstow.core.errors import (
    BackupNotFound,
    ConnectionFailed,
    Interrupted,
    StoreDenied,
    StoreUnavailable,
    UsageError,
)
from pgstow.core.progress import SilentProgress
from pgstow.core.secrets import Secret
from pgstow.postgres import drill_databases, workspace
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.raw import RawSession, open_raw
from pgstow.postgres.server import Cluster, embedded_server
from pgstow.postgres.tools import ClientTools
from pgstow.repository import BlobKind, Repository, pack_name
from pgstow.restore.request import RestoreOptions
from pgstow.store.api import ObjectInfo
from pgstow.store.memory import MemoryStore
from support.backups import Notes, capture_into
from support.drilling import drill_record
from support.repositories import init_repository
from support.restic import PASSWORD
from support.restoring import execute, fetch
from support.trails import Host, kinds, names_of

DATABASE = """
CREATE TABLE account (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO account SELECT i, 'account ' || i FROM generate_series(1, 200) i;
CREATE TABLE ledger (id bigserial PRIMARY KEY, account int NOT NULL REFERENCES account, amount numeric(12,2) NOT NULL);
INSERT INTO ledger (account, amount) SELECT 1 + i % 200, i FROM generate_series(1, 5000) i;
CREATE INDEX ledger_account ON ledger (account);
ALTER TABLE ledger OWNER TO bookkeeper;
GRANT SELECT ON account TO reader;
SELECT lo_from_bytea(4711, 'a contract');
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no changes here'; END$$;
CREATE EVENT TRIGGER frozen ON ddl_command_start EXECUTE FUNCTION refuse(); ALTER EVENT TRIGGER frozen ENABLE ALWAYS;
"""
EXTENSION = """
CREATE EXTENSION hstore;
CREATE TABLE labelled (id int PRIMARY KEY, labels hstore);
INSERT INTO labelled VALUES (1, 'a=>1');
CREATE VIEW labels AS SELECT labels FROM labelled;
"""


class ChangeableStore(MemoryStore):
    """A store whose objects a test can damage, and which can be made to refuse writes."""

    is_shut = False
    is_away = False

    def _find(self, name: str) -> tuple[bytes, datetime]:
        self._check()
        return super()._find(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._check()
        return super().list(prefix)

    def delete(self, name: str) -> None:
        self._check()
        super().delete(name)

    def _check(self) -> None:
        if self.is_away:
            raise StoreUnavailable("the store is away")

    def put(self, name: str, data: Any, *, if_absent: bool = False) -> None:
        self._check()
        if self.is_shut:
            raise StoreDenied(f"{name}: only reading is allowed")
        super().put(name, data, if_absent=if_absent)


@pytest.fixture(scope="module")
def server(make_module_cluster: Callable[..., Cluster]) -> Cluster:
    """The server that is backed up, with roles of its own, and on which drills make databases."""
    cluster = make_module_cluster(15)
    admin = ConnInfo.parse(cluster.conninfo())
    execute(
        admin,
        "CREATE ROLE bookkeeper LOGIN PASSWORD 'secret'; CREATE ROLE reader; GRANT reader TO bookkeeper",
    )
    execute(admin, "ALTER ROLE bookkeeper SET work_mem = '8MB'")
    return cluster


def backed_up(server: Cluster, name: str, *statements: str) -> Repository:
    admin = ConnInfo.parse(server.conninfo())
    execute(admin, f"CREATE DATABASE {name}")
    source = admin.with_database(name)
    for each in statements:
        execute(source, each)
    repository = init_repository(ChangeableStore())
    capture_into(repository, source, name=name)
    execute(admin, f"DROP DATABASE {name} WITH (FORCE)")
    return repository


@pytest.fixture(scope="module")
def template(server: Cluster) -> Repository:
    return backed_up(server, "bank", DATABASE)


@pytest.fixture(scope="module")
def small_template(server: Cluster) -> Repository:
    return backed_up(
        server, "small", "CREATE TABLE ledger AS SELECT i AS amount FROM generate_series(1, 9) i"
    )


@pytest.fixture
def small(small_template: Repository) -> Repository:
    """One with a backup of a single table, for drills of which only the way matters."""
    return copied(small_template)


@pytest.fixture(scope="module")
def extended(server: Cluster) -> Repository:
    return backed_up(server, "labels", EXTENSION, DATABASE)


@pytest.fixture
def repository(template: Repository) -> Repository:
    """A repository of the test's own, with the same backup."""
    return copied(template)


def copied(template: Repository) -> Repository:
    store = ChangeableStore()
    for info in template.store.list(""):
        store.put(info.name, template.store.get(info.name))
    return Repository.open(store, Secret(PASSWORD))


@pytest.fixture
def here(server: Cluster) -> ConnInfo:
    return ConnInfo.parse(server.conninfo())


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The system's temporary folder, for this test alone; the account that servers run as gets through it."""
    folder = Path(tempfile.mkdtemp(prefix="drills-"))
    folder.chmod(0o711)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    shutil.rmtree(folder)


def request(**more: Any) -> DrillRequest:
    return DrillRequest(**{"host": "host", "username": "anna", **more})


def databases(server: ConnInfo) -> set[str]:
    return {row[0] for row in fetch(server, "SELECT datname FROM pg_database")}


def assert_nothing_left(server: ConnInfo) -> None:
    assert not [name for name in databases(server) if name.startswith("pgstow_drill")]


class Hook(SilentProgress):
    """Calls a function when a phase begins."""

    def __init__(self, at: Callable[[str], object]) -> None:
        self._at = at

    def phase(self, name: str) -> None:
        self._at(name)


def interrupting(at: str) -> Callable[[str], None]:
    """Return what raises an interruption at the first phase of that name."""
    done: list[str] = []

    def raise_once(phase: str) -> None:
        if phase == at and not done:
            done.append(phase)
            raise Interrupted("interrupted by SIGINT", signal="SIGINT")

    return raise_once


# -- throwaway servers


def test_a_drill_on_a_server_of_its_own(
    tmp_path: Path, repository: Repository, client_tools: list[ClientTools], temporary: Path
) -> None:
    seen: dict[str, Any] = {}
    host = Host(tmp_path / "host")
    host.writes(repository, "init", "backup")

    def look(phase: str) -> None:
        if phase == "checking what was restored":
            (sockets,) = temporary.glob("pgstow-drill-*/pgstow-*/.s.PGSQL.5432")
            inside = ConnInfo.parse(f"host={sockets.parent} port=5432 user=postgres dbname=drill")
            seen["listen"] = fetch(inside, "SHOW listen_addresses")
            seen["roles"] = fetch(
                inside,
                "SELECT rolname, rolcanlogin, rolpassword IS NULL,"
                " (SELECT setconfig FROM pg_db_role_setting WHERE setrole = pg_authid.oid) FROM pg_authid"
                " WHERE rolname IN ('bookkeeper', 'reader') ORDER BY 1",
            )
            seen["member"] = fetch(inside, "SELECT pg_has_role('bookkeeper', 'reader', 'MEMBER')")
            seen["owner"] = fetch(inside, "SELECT tableowner FROM pg_tables WHERE tablename = 'ledger'")
            seen["modes"] = [sockets.parent.stat().st_mode & 0o777]

    told = drill_and_tell(
        request(notes="first", rto_target_s=3600.0, plan="monthly"), repository, client_tools, Hook(look)
    )
    record = told.record
    assert record.outcome == "passed", (record.error, record.issues)
    assert told.unsaved is None
    assert seen == {
        "listen": [("",)],
        "roles": [("bookkeeper", False, True, ["work_mem=8MB"]), ("reader", False, True, None)],
        "member": [(True,)],
        "owner": [("bookkeeper",)],
        "modes": [0o700],
    }
    assert list(temporary.iterdir()) == []
    assert (record.place, record.is_isolated, record.is_removed) == ("throwaway", True, True)
    assert (record.selected, record.plan, record.notes) == ("latest", "monthly", "first")
    assert record.warnings == ()
    assert {(one.schema_, one.name, one.rows, one.is_equal) for one in record.tables} == {
        ("public", "account", 200, True),
        ("public", "ledger", 5000, True),
    }
    assert record.restored_s is not None and record.proven_s is not None
    assert 0 < record.restored_s < record.proven_s
    names = [phase.name for phase in record.phases]
    assert names[0] == "look-up" and names[-1] == "clean-up"
    assert {"server", "pre-data", "data", "post-data", "checks"} <= set(names)
    begins = [phase.begun_s for phase in record.phases]
    assert begins == sorted(begins)
    assert read_drills(repository) == [record]
    proofs, _ = repository.marks().proofs([record.backup_id])
    assert [proof.when for proof in proofs] == [record.finished]
    assert list(repository.store.list("locks/")) == []
    assert [(head.repository, head.chain, head.number) for head in record.heads] == [
        (repository.id, host.key.chain, 2)
    ]


def test_the_report_of_a_drill_shows_that_the_audit_trail_was_cut(tmp_path: Path) -> None:
    """It leaves the house: who writes to the repository does not reach it."""
    repository = init_repository(MemoryStore())
    Host(tmp_path / "host").writes(repository, "init", "restore")
    heads = tuple(
        AuditHead(repository=repository.id, chain=head.chain, number=head.number, digest=head.digest)
        for head in heads_listed(repository)
    )
    report = tmp_path / "drill.json"
    report.write_bytes(drill_record(heads=heads).to_json())
    auditor = Host(tmp_path / "auditor").journal
    assert verify_trail(repository, auditor, {}, anchors=read_heads(report)).verdict.is_intact
    repository.store.delete(names_of(repository)[1])
    assert verify_trail(repository, auditor, {}).verdict.is_intact
    assert kinds(verify_trail(repository, auditor, {}, anchors=read_heads(report)).verdict.problems) == [
        "truncated"
    ]
    assert heads[0].digest in markdown_report(drill_record(heads=heads))


def test_a_drill_on_18(
    pg18: Cluster, database: Callable[..., ConnInfo], client_tools: list[ClientTools], temporary: Path
) -> None:
    source = database(pg18)
    execute(source, "CREATE TABLE t AS SELECT i, md5(i::text) AS word FROM generate_series(1, 300) i")
    repository = init_repository(ChangeableStore())
    capture_into(repository, source)
    record = drill(request(), repository, client_tools, SilentProgress())
    assert record.outcome == "passed", (record.error, record.issues)
    assert record.server.startswith("PostgreSQL 18")
    assert list(temporary.iterdir()) == []


def test_a_missing_extension_with_the_next_newer_release(
    extended: Repository,
    client_tools: list[ClientTools],
    temporary: Path,
    pg16: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is no server of release 15 here, and those of 16 have no hstore."""
    repository = copied(extended)
    monkeypatch.setattr(drill_run, "find_servers", lambda _: [embedded_server(16)])
    there = ConnInfo.parse(pg16.conninfo())
    refused = drill(request(server=there), repository, client_tools, SilentProgress())
    assert (refused.outcome, refused.error_code) == ("failed", "target_refused")
    assert refused.error is not None and "hstore" in refused.error
    assert refused.hint is not None
    for word in ("postgresql-16", "--on URL", "--optional-extension"):
        assert word in refused.hint
    assert refused.restored_s is None and refused.tables == ()

    allowed = request(optional_extensions=frozenset({"hstore", "nobody uses this"}))
    record = drill(allowed, repository, client_tools, SilentProgress())
    assert record.outcome == "passed", (record.error, record.issues)
    assert {one.name for one in record.tables} == {"account", "ledger"}
    said = "\n".join(record.warnings)
    assert "ran on PostgreSQL 16, as there is no 15" in said
    for what in ("extension hstore", "table public.labelled", "view public.labels"):
        assert what in said
    assert list(temporary.iterdir()) == []


def test_a_disk_that_is_too_small(
    small: Repository,
    client_tools: list[ClientTools],
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(throwaway, "restored_bytes", lambda *_: 1 << 60)
    record = drill(request(), small, client_tools, SilentProgress())
    assert (record.outcome, record.error_code) == ("failed", "target_refused")
    assert record.error is not None and str(temporary) in record.error
    assert record.is_removed
    assert list(temporary.iterdir()) == []
    assert read_drills(small) == [record]


def test_too_little_memory(
    small: Repository,
    client_tools: list[ClientTools],
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scarce = Memory(total_bytes=8 << 30, available_bytes=64 << 20)
    monkeypatch.setattr(throwaway, "memory_of", lambda: scarce)
    record = drill(request(jobs=3), small, client_tools, SilentProgress())
    assert (record.outcome, record.error_code, record.is_removed) == ("failed", "target_refused", True)
    assert record.error is not None and record.error.startswith("64 MiB of memory are available")
    assert list(temporary.iterdir()) == []


def test_the_time_is_told_before_anything_begins(
    small: Repository, client_tools: list[ClientTools], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throwaway, "restored_bytes", lambda *_: 1 << 60)  # it need not go on
    (backup,) = list_backups(small)
    small.load_index()
    (table,) = BackupFiles(small, backup).manifest.tables
    for days in (1, 2, 3):
        earlier = drill_record(ago=timedelta(days=days), backup_name="small", size_bytes=table.size_bytes)
        save_drill(small, earlier)
    notes = Notes()
    record = drill(request(rto_target_s=600.0), small, client_tools, notes)
    assert any(note.startswith("this will take about 50 min") for note in notes.notes)
    assert any("the RTO of 10 min 00 s will probably be missed" in one for one in record.warnings)
    others = Notes()
    assert not drill(request(), small, client_tools, others).warnings
    assert any(note.startswith("this will take about 50 min") for note in others.notes)


def test_a_server_that_does_not_start_and_a_folder_that_cannot_be_removed(
    small: Repository,
    client_tools: list[ClientTools],
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stuck(folder: Path) -> None:
        raise OSError(16, f"{folder} is busy")

    with monkeypatch.context() as broken:
        broken.setattr(workspace, "_remove", stuck)
        broken.setattr(throwaway, "throwaway_settings", lambda **_: {"shared_buffers": "a lot"})
        record = drill(request(), small, client_tools, SilentProgress())
    assert (record.outcome, record.error_code, record.is_removed) == ("failed", "process_failed", False)
    assert any("could not be removed" in warning for warning in record.warnings)
    (left,) = temporary.iterdir()
    notes = Notes()
    workspace.remove_leftovers(temporary, notes.note)
    assert not left.exists()
    assert len(notes.notes) == 1


# -- a database on a given server


def test_a_database_on_a_server(
    repository: Repository, client_tools: list[ClientTools], here: ConnInfo
) -> None:
    before = databases(here)
    seen: list[Any] = []

    def look(phase: str) -> None:
        if phase == "checking what was restored":
            (name,) = databases(here) - before
            seen.append(name)
            seen.append(fetch(here, f"SELECT has_database_privilege('reader', '{name}', 'CONNECT')"))
            owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'ledger'"
            seen.append(fetch(here.with_database(name), owner))

    record = drill(request(server=here), repository, client_tools, Hook(look))
    assert record.outcome == "passed", (record.error, record.issues)
    assert re.fullmatch("pgstow_drill_[0-9a-f]{16}", seen[0])
    assert seen[1:] == [[(False,)], [("bookkeeper",)]]
    assert (record.place, record.is_isolated, record.is_removed) == ("database", True, True)
    assert any("server that the backup is of" in warning for warning in record.warnings)
    assert databases(here) == before


def test_a_database_that_is_there_is_never_touched(
    small: Repository,
    client_tools: list[ClientTools],
    here: ConnInfo,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first name that comes up is taken already."""
    tokens = iter(["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"])
    with monkeypatch.context() as chosen:
        chosen.setattr(given_server, "_random_part", lambda: next(tokens))
        execute(here, "CREATE DATABASE pgstow_drill_aaaaaaaaaaaaaaaa")
        theirs = here.with_database("pgstow_drill_aaaaaaaaaaaaaaaa")
        execute(theirs, "CREATE TABLE precious AS SELECT 7 AS n")
        try:
            record = drill(request(server=here), small, client_tools, SilentProgress())
            assert record.outcome == "passed", record.error
            assert fetch(theirs, "SELECT n FROM precious") == [(7,)]
            assert "pgstow_drill_bbbbbbbbbbbbbbbb" not in databases(here)
        finally:
            execute(here, "DROP DATABASE pgstow_drill_aaaaaaaaaaaaaaaa")
    assert next(tokens, None) is None


@pytest.mark.parametrize("text", ["service=theirs", "user=postgres"])
def test_the_database_of_a_service_is_never_touched(
    repository: Repository,
    client_tools: list[ClientTools],
    here: ConnInfo,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To libpq a service file counts more than variables: pg_restore must not follow it into the database it names."""
    services = tmp_path / "services"
    services.write_text(
        "[theirs]\n"
        + "".join(f"{key}={value}\n" for key, value in (*here.params.items(), ("dbname", "theirs")))
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    if "service" not in text:
        monkeypatch.setenv("PGSERVICE", "theirs")
    execute(here, "CREATE DATABASE theirs")
    theirs = ConnInfo.parse(text)
    try:
        execute(theirs.with_database("theirs"), "CREATE TABLE precious AS SELECT 7 AS n")
        record = drill(request(server=theirs), repository, client_tools, SilentProgress())
        assert record.outcome == "passed", (record.error, record.issues)
        tables = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        assert fetch(here.with_database("theirs"), tables) == [("precious",)]
        saved = capture_into(repository, theirs.with_database("theirs")).manifest
        assert (saved.totals.rows, saved.server.via) == (1, "socket")
        assert capture_into(repository, theirs.with_database("postgres")).manifest.totals.rows == 0
    finally:
        execute(here, "DROP DATABASE theirs WITH (FORCE)")


@contextlib.contextmanager
def session_on(server: ConnInfo) -> Iterator[RawSession]:
    with contextlib.closing(open_raw(server, encoding="UTF8", settings={})) as session:
        yield session


def test_what_killed_drills_left_on_a_server(
    small: Repository, client_tools: list[ClientTools], here: ConnInfo
) -> None:
    """Of five databases two are abandoned, one of them unmarked; one is held, one is in use, and one only looks like it."""
    kinds = ("dead", "held", "used", "other", "unmarked")
    names = {what: f"pgstow_drill_{number:016x}" for number, what in enumerate(kinds)}
    for name in names.values():
        execute(here, f"CREATE DATABASE {name}")
    used = here.with_database(names["used"])
    execute(here, f"ALTER DATABASE {names['unmarked']} CONNECTION LIMIT {drill_databases.UNMARKED_LIMIT}")
    with session_on(here) as marking, session_on(here) as holding, session_on(used):
        for what in ("dead", "held", "used"):
            drill_databases.mark(marking, names[what].encode(), "1234")
        drill_databases.hold(holding, names["held"].encode())
        notes = Notes()
        record = drill(request(server=here), small, client_tools, notes)
        assert record.outcome == "passed", record.error
        for what in ("dead", "unmarked"):
            assert [note for note in notes.notes if "dropped database" in note and names[what] in note]
        assert databases(here) & set(names.values()) == {names["held"], names["used"], names["other"]}
    for what in ("held", "used", "other"):
        execute(here, f"DROP DATABASE {names[what]} WITH (FORCE)")


def test_a_server_without_the_roles(
    repository: Repository, client_tools: list[ClientTools], pg16: Cluster
) -> None:
    elsewhere = ConnInfo.parse(pg16.conninfo())
    record = drill(request(server=elsewhere), repository, client_tools, SilentProgress())
    assert record.outcome == "passed", (record.error, record.issues)
    (said,) = [one for one in record.warnings if "owners and privileges were not restored" in one]
    assert "bookkeeper, reader" in said
    assert_nothing_left(elsewhere)
    roles = fetch(elsewhere, "SELECT count(*) FROM pg_roles WHERE rolname IN ('bookkeeper', 'reader')")
    assert roles == [(0,)]


def test_a_database_that_cannot_be_dropped(
    small: Repository,
    client_tools: list[ClientTools],
    here: ConnInfo,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It passed, and something is left on somebody's server: it is named."""

    def gone(*_: object) -> None:
        raise ConnectionFailed("the server went away")

    before = databases(here)
    with monkeypatch.context() as broken:
        broken.setattr(drill_databases, "drop_if_there", gone)
        record = drill(request(server=here), small, client_tools, SilentProgress())
    (left,) = databases(here) - before
    execute(here, f"DROP DATABASE {left}")
    assert (record.outcome, record.is_removed) == ("passed", False)
    assert any("could not be removed" in warning and left in warning for warning in record.warnings)
    assert any("still there" in step for step in next_steps(record))


def test_a_role_that_may_make_no_databases(
    small: Repository, client_tools: list[ClientTools], server: Cluster, here: ConnInfo
) -> None:
    execute(here, "CREATE ROLE weak LOGIN")
    weak = ConnInfo.parse(server.conninfo(user="weak"))
    record = drill(request(server=weak), small, client_tools, SilentProgress())
    assert (record.outcome, record.error_code, record.is_removed) == ("failed", "target_refused", True)
    assert "CREATEDB" in (record.hint or "")
    assert any("Nothing was found wrong" in step for step in next_steps(record))


def test_a_server_that_is_not_there(small: Repository, client_tools: list[ClientTools]) -> None:
    nowhere = ConnInfo.parse("host=/nonexistent dbname=x")
    record = drill(request(server=nowhere), small, client_tools, SilentProgress())
    assert (record.outcome, record.error_code, record.is_removed) == ("failed", "connection_failed", True)


# -- chosen tables

CRITICAL = """
CREATE SCHEMA app; CREATE SCHEMA types; CREATE EXTENSION hstore SCHEMA types;
CREATE TYPE types.state AS ENUM ('open', 'closed'); CREATE DOMAIN types.amount AS numeric CHECK (VALUE >= 0);
CREATE FUNCTION app.next_number() RETURNS int LANGUAGE sql AS 'SELECT 7';
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE FUNCTION app.not_needed() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TABLE app.customer (id int PRIMARY KEY);
CREATE TABLE app.orders (id int PRIMARY KEY DEFAULT app.next_number(), state types.state, amount types.amount,
    labels types.hstore, customer int REFERENCES app.customer);
CREATE TRIGGER touch BEFORE UPDATE ON app.orders FOR EACH ROW EXECUTE FUNCTION app.touch();
ALTER SCHEMA types OWNER TO bookkeeper;
CREATE TABLE app.plain AS SELECT i FROM generate_series(1, 9) i;
INSERT INTO app.customer VALUES (1); INSERT INTO app.orders VALUES (1, 'open', 5, 'a=>1', 1);
"""


@pytest.fixture(scope="module")
def critical(server: Cluster) -> dict[str, Repository]:
    """Two repositories: one that has a whole backup and one of a chosen table, and one that has the latter alone."""
    admin = ConnInfo.parse(server.conninfo())
    execute(admin, "CREATE DATABASE orders")
    source = admin.with_database("orders")
    execute(source, CRITICAL)
    made = {"both": init_repository(ChangeableStore()), "alone": init_repository(ChangeableStore())}
    capture_into(made["both"], source, name="orders")
    for repository in made.values():
        chosen = Selection(tables=("app.orders",))
        capture_into(repository, source, name="orders", kind="critical", selection=chosen)
    plain = Selection(tables=("app.plain",))
    capture_into(made["alone"], source, name="orders", kind="plain", selection=plain)
    execute(admin, "DROP DATABASE orders WITH (FORCE)")
    return made


def test_what_chosen_tables_need_comes_from_a_whole_backup(
    critical: dict[str, Repository], client_tools: list[ClientTools], here: ConnInfo
) -> None:
    repository = copied(critical["both"])
    record = drill(request(server=here, kind="critical"), repository, client_tools, SilentProgress())
    assert record.outcome == "passed", (record.error, record.issues)
    assert [(one.schema_, one.name, one.rows, one.is_equal) for one in record.tables] == [
        ("app", "orders", 1, True)
    ]
    (said,) = [one for one in record.warnings if "chosen tables alone" in one]
    for what in (
        "schema app",
        "extension hstore",
        "type types.state",
        "domain types.amount",
        "function app.touch()",
        "function app.next_number()",
    ):
        assert what in said
    assert "not_needed" not in said and "customer" not in said
    assert any("foreign key" in one for one in record.warnings)


def test_a_restore_of_chosen_tables_into_a_new_database(
    critical: dict[str, Repository], client_tools: list[ClientTools], here: ConnInfo
) -> None:
    repository = critical["both"]
    (chosen,) = [one for one in list_backups(repository) if one.is_partial]
    target = here.with_database("orders_again")
    try:
        restore(chosen.id, target, RestoreOptions(create=True), repository, client_tools, SilentProgress())
        assert fetch(target, "SELECT id, state::text, amount FROM app.orders") == [(1, "open", 5)]
        owner = fetch(target, "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'types'")
        assert owner == [("bookkeeper",)]
    finally:
        execute(here, "DROP DATABASE IF EXISTS orders_again")


def test_chosen_tables_without_a_whole_backup(
    critical: dict[str, Repository], client_tools: list[ClientTools], here: ConnInfo
) -> None:
    """Their schemas are made, and nothing else is known."""
    repository = copied(critical["alone"])
    passed = drill(request(server=here, kind="plain"), repository, client_tools, SilentProgress())
    assert passed.outcome == "passed", (passed.error, passed.issues)
    failed = drill(request(server=here, kind="critical"), repository, client_tools, SilentProgress())
    assert (failed.outcome, failed.error_code) == ("failed", "restore")
    assert failed.error is not None and "types." in failed.error
    assert any("whole backup" in step for step in next_steps(failed))
    assert_nothing_left(here)


# -- what fails


def test_a_corrupted_byte(small: Repository, client_tools: list[ClientTools], here: ConnInfo) -> None:
    (backup,) = list_backups(small)
    small.load_index()
    files = BackupFiles(small, backup)
    (member,) = [one.member for one in files.manifest.tables if one.name == "ledger"]
    node = files.member(member)
    assert node is not None
    place = small.locate(BlobKind.DATA, node.content[0])
    assert place is not None
    name = pack_name(place.pack_id.hex())
    broken = bytearray(small.store.get(name))
    broken[place.offset + place.length // 2] ^= 1
    small.store.put(name, bytes(broken))
    record = drill(request(server=here), small, client_tools, SilentProgress())
    assert (record.outcome, record.error_code) == ("failed", "repository_damaged")
    assert record.is_removed
    assert_nothing_left(here)
    assert read_drills(small) == [record]
    assert small.marks().proofs([record.backup_id]) == ([], set())


def test_a_manifest_that_cannot_be_read(
    small: Repository, client_tools: list[ClientTools], here: ConnInfo
) -> None:
    for info in list(small.store.list("data/")):
        small.store.delete(info.name)
    record = drill(request(server=here), small, client_tools, SilentProgress())
    assert (record.outcome, record.error_code) == ("failed", "repository_damaged")
    assert record.backup_name == "small" and record.source_version == "unknown"


def test_a_restore_that_postgresql_refuses(
    server: Cluster, client_tools: list[ClientTools], here: ConnInfo
) -> None:
    """An index over a function that finds its table by the search path: every pg_restore stops there."""
    repository = backed_up(
        server,
        "sloppy",
        "CREATE TABLE rates (k int, v int); INSERT INTO rates SELECT i, i FROM generate_series(1, 9) i;"
        "CREATE FUNCTION rate(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT v FROM rates WHERE k = $1';"
        "CREATE TABLE t AS SELECT i FROM generate_series(1, 9) i; CREATE INDEX by_rate ON t (rate(i))",
    )
    record = drill(request(server=here), repository, client_tools, SilentProgress())
    assert (record.outcome, record.error_code) == ("failed", "restore")
    assert record.error is not None and "rates" in record.error
    assert "restore again" not in (record.hint or "")
    assert record.is_removed
    assert_nothing_left(here)


def test_a_rule_of_the_settings_that_does_not_hold(
    small: Repository, client_tools: list[ClientTools], here: ConnInfo
) -> None:
    balanced = Assertion(name="balanced", sql="SELECT sum(amount) FROM public.ledger", equals="0")
    terms = {
        "small": DrillTerms(assertions=(balanced,), rto_target_s=7.0),
        "other": DrillTerms(rpo_target_s=1.0),
    }
    record = drill(request(server=here, terms=terms), small, client_tools, SilentProgress())
    assert record.outcome == "failed"
    assert record.error is None
    assert [(one.code, one.subject) for one in record.issues] == [("assertion", "balanced")]
    assert (record.rto_target_s, record.rpo_target_s) == (7.0, None)
    assert small.marks().proofs([record.backup_id]) == ([], set())
    lenient = {"small": DrillTerms(assertions=(replace(balanced, severity="warning"),))}
    passed = drill(request(server=here, terms=lenient), small, client_tools, SilentProgress())
    assert passed.outcome == "passed"
    assert [one.severity for one in passed.issues] == ["warning"]


# -- interrupted


# When each of these begins; what else a restore does is between them, and goes the same way.
PHASES = (
    "choosing the backup",
    "reading what the backup holds",
    "making a place to restore into",
    "creating tables, types and functions",
    "loading rows",
    "checking what was restored",
    "removing everything that was made",
    "saving the record",
)


def test_interrupted_in_every_phase(
    small_template: Repository, client_tools: list[ClientTools], here: ConnInfo
) -> None:
    outcomes = {}
    for phase in PHASES:
        repository = copied(small_template)
        with pytest.raises(Interrupted) as caught:
            drill(request(server=here), repository, client_tools, Hook(interrupting(phase)))
        assert_nothing_left(here)
        records = read_drills(repository)
        assert all(record.is_removed for record in records)
        assert [caught.value.facts.get("drill")] == ([one.id for one in records] or [None])
        outcomes[phase] = [record.outcome for record in records]
        for record in records:
            told = f"the drill is recorded as {record.outcome}, and nothing of it was left"
            assert caught.value.left_behind == told
        assert list(repository.store.list("locks/")) == []
    assert outcomes.pop("choosing the backup") == []  # none had begun
    assert outcomes.pop("saving the record") == ["passed"]
    assert set(map(tuple, outcomes.values())) == {("interrupted",)}


# -- the record


def test_credentials_that_may_only_read(
    small: Repository, client_tools: list[ClientTools], here: ConnInfo, tmp_path: Path
) -> None:
    """The drill is done and told; its record waits in the state folder, and the next one saves it."""
    store = small.store
    assert isinstance(store, ChangeableStore)
    asked = request(server=here, state_folder=tmp_path)
    store.is_shut = True
    told = drill_and_tell(asked, small, client_tools, SilentProgress())
    assert told.record.outcome == "passed", told.record.error
    assert any("no lock could be taken" in warning for warning in told.record.warnings)
    assert isinstance(told.unsaved, StoreDenied)
    assert told.kept_in is not None and told.kept_in.exists()
    assert read_drills(small) == []
    store.is_shut = False
    again = drill_and_tell(asked, small, client_tools, SilentProgress())
    assert again.unsaved is None
    assert read_drills(small) == [told.record, again.record]
    assert not told.kept_in.exists()
    assert len(small.marks().proofs([told.record.backup_id])[0]) == 2


@pytest.mark.parametrize("has_folder", [True, False], ids=["kept", "told only"])
def test_a_store_that_goes_away_while_it_is_checked(
    small: Repository, client_tools: list[ClientTools], here: ConnInfo, tmp_path: Path, *, has_folder: bool
) -> None:
    """Also where its record cannot be kept either: a file stands where its folder would."""
    store = small.store
    assert isinstance(store, ChangeableStore)
    (tmp_path / "file").touch()
    folder = tmp_path if has_folder else tmp_path / "file"

    def leave(phase: str) -> None:
        store.is_away = store.is_away or phase == "checking what was restored"

    told = drill_and_tell(request(server=here, state_folder=folder), small, client_tools, Hook(leave))
    assert told.record.outcome == "passed", (told.record.error, told.record.issues)
    assert isinstance(told.unsaved, StoreUnavailable)
    assert (told.kept_in is not None) is has_folder
    assert_nothing_left(here)


def test_a_restore_needs_no_right_to_write_either(
    repository: Repository,
    client_tools: list[ClientTools],
    server: Cluster,
    database: Callable[..., ConnInfo],
) -> None:
    target, notes = database(server), Notes()
    assert isinstance(repository.store, ChangeableStore)
    repository.store.is_shut = True
    report = restore("latest", target, RestoreOptions(), repository, client_tools, notes)
    assert report.rows == 5200
    assert any("no lock could be taken" in note for note in notes.notes)


def test_nothing_is_recorded_of_a_drill_that_could_not_begin(
    small: Repository, client_tools: list[ClientTools]
) -> None:
    for wrong, error in (
        (request(backup="ffffffff"), BackupNotFound),
        (request(database="club"), BackupNotFound),
        (request(backup="latest", kind="daily"), UsageError),
        (request(jobs=0), UsageError),
    ):
        with pytest.raises(error):
            drill(wrong, small, client_tools, SilentProgress())
    assert read_drills(small) == []


def test_rotation_goes_by_the_records(
    server: Cluster, client_tools: list[ClientTools], here: ConnInfo
) -> None:
    repository = init_repository(ChangeableStore())
    execute(here, "CREATE DATABASE turns")
    for kind in ("daily", "monthly"):
        capture_into(repository, here.with_database("turns"), kind=kind, reuse=False)
    execute(here, "DROP DATABASE turns")
    save_drill(repository, drill_record(backup_name="test", backup_kind="monthly"))
    record = drill(request(server=here, strategy="rotate"), repository, client_tools, SilentProgress())
    assert (record.outcome, record.selected, record.backup_kind) == ("passed", "rotate", "daily")


# -- roles

GLOBALS = rb"""
CREATE ROLE drill_a; ALTER ROLE drill_a WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$4096:x' VALID UNTIL '2030-01-01';
CREATE ROLE "drill;b"; ALTER ROLE "drill;b" WITH SUPERUSER NOLOGIN;
CREATE ROLE postgres; ALTER ROLE postgres WITH NOSUPERUSER NOLOGIN; ALTER ROLE postgres SET statement_timeout TO '1ms';
ALTER ROLE drill_a IN DATABASE nowhere SET work_mem TO '1MB';
GRANT drill_a TO "drill;b" GRANTED BY nobody_here;
CREATE TABLESPACE fast LOCATION '/nonexistent'; ALTER TABLESPACE fast SET (seq_page_cost='1');
COMMENT ON ROLE drill_a IS 'it''s; LOGIN PASSWORD ''x''';
ALTER ROLE no_such_role SET app.key TO 'hidden'; ALTER ROLE no_such_role WITH LOGIN PASSWORD 'hidden' VALID UNTIL 'infinity';
"""


def test_globals_are_made_harmless(here: ConnInfo) -> None:
    with session_on(here) as session:
        try:
            remarks = create_globals(session, GLOBALS)
            rows = fetch(
                here,
                "SELECT rolname, rolcanlogin, rolpassword, rolsuper, shobj_description(oid, 'pg_authid')"
                " FROM pg_authid WHERE rolname LIKE 'drill%' ORDER BY rolsuper",
            )
            assert rows == [
                ("drill_a", False, None, False, "it's; LOGIN PASSWORD 'x'"),
                ("drill;b", False, None, True, None),
            ]
            assert fetch(here, "SELECT pg_has_role('drill;b', 'drill_a', 'MEMBER')") == [(True,)]
            me = fetch(here, "SELECT rolconfig, rolcanlogin FROM pg_roles WHERE rolname = 'postgres'")
            assert me == [(None, True)]
            assert len(remarks) == 2 and all("no_such_role" in one and "hidden" not in one for one in remarks)
        finally:
            for name in ('"drill;b"', "drill_a"):
                execute(here, f"DROP ROLE IF EXISTS {name}")


def test_roles_that_no_globals_name_are_made_up(
    repository: Repository, pg16: Cluster, database: Callable[..., ConnInfo]
) -> None:
    (backup,) = list_backups(repository)
    repository.load_index()
    toc = BackupFiles(repository, backup).toc
    with session_on(database(pg16)) as session:
        session.execute(b"BEGIN", doing="beginning")
        assert create_missing_roles(session, toc) == ["bookkeeper", "reader"]
        assert create_missing_roles(session, toc) == []
