"""Whole drills: what passes, what fails, and that nothing is left of either."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pgstow.app import drill_run
from pgstow.app.audit import read_heads, verify_trail
from pgstow.app.drill import drill, drill_and_tell
from pgstow.app.drill_request import DrillRequest, DrillTerms
from pgstow.app.restore import restore
from pgstow.assurance.drill import given_server, throwaway, workspace
from pgstow.assurance.drill.globals import create_globals, create_missing_roles
from pgstow.assurance.drill.report import markdown_report
from pgstow.audit.anchoring import heads_listed
from pgstow.catalog.assertions import Assertion
from pgstow.catalog.backups import BackupFiles, list_backups
from pgstow.catalog.drills import AuditHead, read_drills, save_drill
from pgstow.core.errors import BackupNotFound, Interrupted, StoreDenied, UsageError
from pgstow.core.progress import SilentProgress
from pgstow.core.secrets import Secret
from pgstow.postgres import drill_databases
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.raw import RawSession, open_raw
from pgstow.postgres.server import Cluster, embedded_server
from pgstow.postgres.tools import ClientTools
from pgstow.repository import BlobKind, Repository, pack_name
from pgstow.restore.request import RestoreOptions
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

    def put(self, name: str, data: Any, *, if_absent: bool = False) -> None:
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
def extended(server: Cluster) -> Repository:
    return backed_up(server, "labels", DATABASE, EXTENSION)


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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is no server of release 15 here, and the one of 16 has no hstore."""
    repository = copied(extended)
    monkeypatch.setattr(drill_run, "find_servers", lambda _: [embedded_server(16)])
    refused = drill(request(), repository, client_tools, SilentProgress())
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
    repository: Repository,
    client_tools: list[ClientTools],
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(throwaway, "restored_bytes", lambda *_: 1 << 60)
    record = drill(request(), repository, client_tools, SilentProgress())
    assert (record.outcome, record.error_code) == ("failed", "target_refused")
    assert record.error is not None and str(temporary) in record.error
    assert record.is_removed
    assert list(temporary.iterdir()) == []
    assert read_drills(repository) == [record]


def test_interrupted_on_a_server_of_its_own(
    repository: Repository, client_tools: list[ClientTools], temporary: Path
) -> None:
    with pytest.raises(Interrupted) as caught:
        drill(request(), repository, client_tools, Hook(interrupting("loading rows")))
    assert caught.value.left_behind is not None and "nothing of it was left" in caught.value.left_behind
    (record,) = read_drills(repository)
    assert (record.outcome, record.is_removed) == ("interrupted", True)
    assert list(temporary.iterdir()) == []


def test_a_server_that_does_not_start_and_a_folder_that_cannot_be_removed(
    repository: Repository,
    client_tools: list[ClientTools],
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stuck(folder: Path) -> None:
        raise OSError(16, f"{folder} is busy")

    with monkeypatch.context() as broken:
        broken.setattr(workspace, "_remove", stuck)
        broken.setattr(throwaway, "throwaway_settings", lambda **_: {"shared_buffers": "a lot"})
        record = drill(request(), repository, client_tools, SilentProgress())
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
    repository: Repository,
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
            record = drill(request(server=here), repository, client_tools, SilentProgress())
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
    repository: Repository, client_tools: list[ClientTools], here: ConnInfo
) -> None:
    """Of four databases one is abandoned; one is held, one is in use, and one only looks like it."""
    kinds = ("dead", "held", "used", "other")
    names = {what: f"pgstow_drill_{number:016x}" for number, what in enumerate(kinds)}
    for name in names.values():
        execute(here, f"CREATE DATABASE {name}")
    used = here.with_database(names["used"])
    with session_on(here) as marking, session_on(here) as holding, session_on(used):
        for what in ("dead", "held", "used"):
            drill_databases.mark(marking, names[what].encode(), "1234")
        drill_databases.hold(holding, names["held"].encode())
        notes = Notes()
        record = drill(request(server=here), repository, client_tools, notes)
        assert record.outcome == "passed", record.error
        assert [note for note in notes.notes if "dropped database" in note and names["dead"] in note]
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


def test_a_server_that_is_not_there(repository: Repository, client_tools: list[ClientTools]) -> None:
    nowhere = ConnInfo.parse("host=/nonexistent dbname=x")
    record = drill(request(server=nowhere), repository, client_tools, SilentProgress())
    assert (record.outcome, record.error_code, record.is_removed) == ("failed", "connection_failed", True)


# -- what fails


def test_a_corrupted_byte(repository: Repository, client_tools: list[ClientTools], here: ConnInfo) -> None:
    (backup,) = list_backups(repository)
    repository.load_index()
    files = BackupFiles(repository, backup)
    (member,) = [one.member for one in files.manifest.tables if one.name == "ledger"]
    node = files.member(member)
    assert node is not None
    place = repository.locate(BlobKind.DATA, node.content[0])
    assert place is not None
    name = pack_name(place.pack_id.hex())
    broken = bytearray(repository.store.get(name))
    broken[place.offset + place.length // 2] ^= 1
    repository.store.put(name, bytes(broken))
    record = drill(request(server=here), repository, client_tools, SilentProgress())
    assert (record.outcome, record.error_code) == ("failed", "repository_damaged")
    assert record.is_removed
    assert_nothing_left(here)
    assert read_drills(repository) == [record]
    assert repository.marks().proofs([record.backup_id]) == ([], set())


def test_a_manifest_that_cannot_be_read(
    repository: Repository, client_tools: list[ClientTools], here: ConnInfo
) -> None:
    for info in list(repository.store.list("data/")):
        repository.store.delete(info.name)
    record = drill(request(server=here), repository, client_tools, SilentProgress())
    assert (record.outcome, record.error_code) == ("failed", "repository_damaged")
    assert record.backup_name == "bank" and record.source_version == "unknown"


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
    repository: Repository, client_tools: list[ClientTools], here: ConnInfo
) -> None:
    balanced = Assertion(name="balanced", sql="SELECT sum(amount) FROM public.ledger", equals="0")
    terms = {
        "bank": DrillTerms(assertions=(balanced,), rto_target_s=7.0),
        "other": DrillTerms(rpo_target_s=1.0),
    }
    record = drill(request(server=here, terms=terms), repository, client_tools, SilentProgress())
    assert record.outcome == "failed"
    assert record.error is None
    assert [(one.code, one.subject) for one in record.issues] == [("assertion", "balanced")]
    assert (record.rto_target_s, record.rpo_target_s) == (7.0, None)
    assert repository.marks().proofs([record.backup_id]) == ([], set())
    lenient = {"bank": DrillTerms(assertions=(replace(balanced, severity="warning"),))}
    passed = drill(request(server=here, terms=lenient), repository, client_tools, SilentProgress())
    assert passed.outcome == "passed"
    assert [one.severity for one in passed.issues] == ["warning"]


# -- interrupted


def test_interrupted_in_every_phase(
    template: Repository, client_tools: list[ClientTools], here: ConnInfo
) -> None:
    phases: list[str] = []
    drill(request(server=here), copied(template), client_tools, Hook(phases.append))
    assert {"loading rows", "removing everything that was made", "saving the record"} <= set(phases)
    outcomes = {}
    for phase in dict.fromkeys(phases):
        repository = copied(template)
        with pytest.raises(Interrupted):
            drill(request(server=here), repository, client_tools, Hook(interrupting(phase)))
        assert_nothing_left(here)
        records = read_drills(repository)
        assert all(record.is_removed for record in records)
        outcomes[phase] = [record.outcome for record in records]
        assert list(repository.store.list("locks/")) == []
    assert outcomes.pop("choosing the backup") == []  # none had begun
    assert outcomes.pop("saving the record") == ["passed"]
    assert set(map(tuple, outcomes.values())) == {("interrupted",)}


# -- the record


def test_credentials_that_may_only_read(
    repository: Repository, client_tools: list[ClientTools], here: ConnInfo, tmp_path: Path
) -> None:
    """The drill is done and told; its record waits in the state folder, and the next one saves it."""
    store = repository.store
    assert isinstance(store, ChangeableStore)
    asked = request(server=here, state_folder=tmp_path)
    store.is_shut = True
    told = drill_and_tell(asked, repository, client_tools, SilentProgress())
    assert told.record.outcome == "passed", told.record.error
    assert any("no lock could be taken" in warning for warning in told.record.warnings)
    assert isinstance(told.unsaved, StoreDenied)
    assert told.kept_in is not None and told.kept_in.exists()
    assert read_drills(repository) == []
    store.is_shut = False
    again = drill_and_tell(asked, repository, client_tools, SilentProgress())
    assert again.unsaved is None
    assert read_drills(repository) == [told.record, again.record]
    assert not told.kept_in.exists()
    assert len(repository.marks().proofs([told.record.backup_id])[0]) == 2


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
    repository: Repository, client_tools: list[ClientTools]
) -> None:
    for wrong, error in (
        (request(backup="ffffffff"), BackupNotFound),
        (request(database="club"), BackupNotFound),
        (request(backup="latest", kind="daily"), UsageError),
        (request(jobs=0), UsageError),
    ):
        with pytest.raises(error):
            drill(wrong, repository, client_tools, SilentProgress())
    assert read_drills(repository) == []


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
