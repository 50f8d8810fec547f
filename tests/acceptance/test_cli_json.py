"""The JSON contract: what each command prints with --json, compared with documents kept beside this file.

``UPDATE_GOLDEN=1 pytest tests/acceptance/test_cli_json.py`` writes them anew; a change there is a change of
the contract that docs/cli-json.md describes.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import psycopg
import pytest

from pgstow.catalog.backups import BackupFiles, list_backups
from pgstow.catalog.drills import save_drill
from pgstow.cli.application import EXIT_CODES
from pgstow.core.errors import PgstowError
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.repository import BlobKind, LeasedDatabase, Repository, pack_name
from pgstow.repository.holder import Holder
from pgstow.store.local import LocalStore
from support.backups import tools_for
from support.command import Pgstow
from support.dated_backups import save_dated
from support.drilling import drill_record
from support.foreign_dumps import dump_to
from support.telling import web_server

DatabaseFactory = Callable[..., ConnInfo]

GOLDEN = Path(__file__).parent / "golden"
PAGE = Path(__file__).parent.parent.parent / "docs" / "cli-json.md"
PASSWORD = "correct horse battery"

_IDS = {
    "id", "backup_id", "snapshot", "system_identifier", "set_id", "new_snapshot", "added", "removed",
}  # fmt: skip
_TIMES = {
    "time", "snapshot_taken", "started", "finished", "postmaster_start", "created", "opened", "since", "until", "evaluated",
    "acknowledged",
}  # fmt: skip
_OF_THIS_MACHINE = {
    "version", "server_version", "version_num", "lsn", "oid", "database_oid", "dump_id", "member", "filenode", "shape",
    "record", "saved", "pack", "packs", "trees", "files", "blobs", "host", "user", "pid", "port", "pages", "pages_per_range", "roles", "owners", "tools", "settings", "hostname", "username", "who", "timings_s", "objects", "new_blobs", "timeline", "next_xid", "oldest_xid", "deduplication", "last_sizes_bytes", "evidence", "value", "sha256", "dumped_by",
    "by", "acknowledged_by", "chain", "digest", "origin", "hosts", "unenrolled", "administrator", "heads",
}  # fmt: skip
_COUNTS = {"saved", "packs", "trees", "files", "blobs"}  # where 0 and none are told apart from some


def normalized(value: Any, key: str = "", folder: str = "") -> Any:
    """Return a document with everything blanked that differs from run to run."""
    if value is None or isinstance(value, bool):
        return value
    if key in _OF_THIS_MACHINE and not (key in _COUNTS and value in (0, [])):
        return f"<{key}>"
    if isinstance(value, dict):
        return {name: normalized(each, name, folder) for name, each in value.items()}
    if isinstance(value, list):
        return [normalized(each, "", folder) for each in value]
    if key in _IDS:
        return "<id>"
    if key in _TIMES and not re.fullmatch(r"\d{4}-\d\d-\d\d", str(value)):  # a day is not the machine's
        return "<time>"
    if key == "seconds" or key.endswith("_seconds"):
        return "<seconds>"
    if key.endswith("_bytes"):
        return "<bytes>"
    if isinstance(value, str):
        value = re.sub(r"/tmp/pgstow-\w+", "<socket>", value.replace(folder, "<folder>"))
        value = re.sub(r"\b[0-9]+\.dat\b", "<member>", re.sub(r"\bdata/[0-9a-f]{2}/", "data/xx/", value))
        value = re.sub(r"\b[0-9]{8}T[0-9.]+Z", "<time>", value)
        value = re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<id>", value)
        return re.sub(r"\b[0-9a-f]{8,64}\b|\b\d{4}-\d\d-\d\d[T ][\d:.]+", "<id or time>", value)
    return value


def expect(name: str, document: Any, folder: Path) -> None:
    """Compare a document with the one kept under ``name``."""
    text = json.dumps(normalized(document, folder=str(folder)), indent=2, sort_keys=True) + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.fixture
def pgstow(tmp_path: Path) -> Pgstow:
    return Pgstow({"PGSTOW_REPOSITORY": str(tmp_path / "repository"), "PGSTOW_PASSWORD": PASSWORD})


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.init(LocalStore(tmp_path / "repository"), Secret(PASSWORD), hostname="h", username="u")


@pytest.fixture
def shop(pg15: Cluster, database: DatabaseFactory) -> ConnInfo:
    source = database(pg15, "shop")
    with psycopg.connect(source.connect_string(), autocommit=True) as connection:
        connection.execute("CREATE TABLE clients (id int PRIMARY KEY, name text)")
        connection.execute("INSERT INTO clients SELECT i, 'client ' || i FROM generate_series(1, 50) i")
        connection.execute('CREATE TABLE "odd\n\x1b[31mname" (client int REFERENCES clients)')
        connection.execute("SELECT lo_from_bytea(0, 'large')")
        connection.execute("CREATE EXTENSION pgcrypto")
    return source


def test_every_command(
    pgstow: Pgstow, shop: ConnInfo, pg15: Cluster, database: DatabaseFactory, tmp_path: Path
) -> None:
    """One story, so that each document is about something."""
    target = database(pg15, "shop_restored")
    backup = ("backup", shop.connect_string(), "--kind", "pre-deployment", "--label", "release 7")
    story: list[tuple[str, tuple[str | Path, ...], int]] = [
        ("init", ("init",), 0),
        ("list-empty", ("list",), 0),
        ("backup", backup, 0),
        ("list", ("list", "--name", "shop"), 0),
        ("show", ("show", "latest"), 0),
        ("restore", ("restore", "latest", "--to", target.connect_string()), 0),
        ("verify", ("verify", "--read-data"), 0),
        ("export", ("export", "latest", "--format", "directory", "--output", tmp_path / "archive"), 0),
        ("repo-prune", ("repo", "prune"), 0),
        ("repo-stats", ("repo", "stats"), 0),
        ("repo-check", ("repo", "check", "--read-data-subset", "1/1"), 0),
        ("repo-repair-nothing", ("repo", "repair"), 0),
    ]
    for name, arguments, code in story:
        ended = pgstow(*arguments, "--json")
        assert ended.code == code, ended.stdout + ended.stderr
        assert ended.stderr == ""
        assert ended.stdout.isascii()
        expect(name, ended.json(), tmp_path)


def test_keys_and_copies(pgstow: Pgstow, shop: ConnInfo, tmp_path: Path) -> None:
    copy, rekeyed = str(tmp_path / "copy"), str(tmp_path / "rekeyed")
    second = {"PGSTOW_NEW_PASSWORD": "a second one"}
    story: list[tuple[str, tuple[str | Path, ...], dict[str, str], int]] = [
        ("init", ("init",), {}, 0),
        ("", ("backup", shop.connect_string()), {}, 0),
        ("error-no-target", ("repo", "copy", "--to", copy), {}, 10),
        ("init-from", ("init", "--repo", copy, "--from", tmp_path / "repository"), {}, 0),
        ("repo-copy-dry-run", ("repo", "copy", "--to", copy, "--dry-run"), {}, 0),
        ("repo-copy", ("repo", "copy", "--to", copy), {}, 0),
        ("repo-copy-again", ("repo", "copy", "--to", copy), {}, 0),
        ("repo-rekey", ("repo", "rekey", "--to", rekeyed, "--read-data"), second, 0),
        ("keys-add", ("keys", "add"), second, 0),
        ("keys-list", ("keys", "list"), {}, 0),
        ("keys-test", ("keys", "test", "--note", "from the safe"), {}, 0),
        ("keys-passwd", ("keys", "passwd"), {"PGSTOW_NEW_PASSWORD": "a third one"}, 0),
    ]
    for name, arguments, environ, code in story:
        ended = pgstow(*arguments, "--json", **environ)
        assert ended.code == code, ended.stdout + ended.stderr
        assert ended.stderr == ""
        if name:
            expect(name, ended.json(), tmp_path)
    third = {"PGSTOW_PASSWORD": "a third one"}
    listed = pgstow("keys", "list", "--json", **third).json()["keys"]
    (other,) = [key["id"] for key in listed if not key["in_use"]]
    expect("keys-remove", pgstow("keys", "remove", other, "--json", **third).json(), tmp_path)


def test_evidence(pgstow: Pgstow, repository: Repository, tmp_path: Path) -> None:
    """What the controls find differs from machine to machine; that it has this form does not."""
    save_dated(repository_with_index(repository), 1, datetime.now(UTC) - timedelta(hours=1))
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    (tmp_path / "pgstow.yaml").write_text(
        "databases: {shop: {url: postgresql://db.example/shop}}\n"
        f"repositories: {{repository: {{location: {tmp_path}/repository, password: file:{password}}}}}\n"
        "waivers: [{control: C17, until: 2100-01-01, reason: on order, by: ciso}]\n"
    )
    ours = Pgstow({"PGSTOW_CONFIG": f"{tmp_path}/pgstow.yaml", "PGSTOW_STATE_DIR": f"{tmp_path}/state"})
    assert ours("list", "--repo", "repository").code == 0
    reported = ours("evidence", "report", "--output", tmp_path / "bundle", "--json")
    assert (reported.code, reported.stderr) == (0, "")
    document = reported.json()
    for control in document["report"]["controls"]:
        control["findings"] = [dict.fromkeys(each) for each in control["findings"][:1]]
        control["result"] = control["result"] if control["code"] in ("C8", "C17") else "<result>"
    document["report"] |= {"made": "<time>", "summary": dict.fromkeys(document["report"]["summary"])}
    document["report"]["period"] = dict.fromkeys(document["report"]["period"])
    expect("evidence-report", document, tmp_path)
    verified = ours("evidence", "verify", tmp_path / "bundle", "--key", "ab" * 32, "--json").json()
    assert verified["status"] == "failed"
    verified |= {"made": "<time>", "period": "<period>", "summary": dict.fromkeys(verified["summary"])}
    expect("evidence-verify", verified, tmp_path)
    (tmp_path / "minutes").write_text("all were there")
    today = datetime.now(UTC).date()
    attested = ours(
        "evidence", "attest", "C17", "--by", "Ada", "--note", "numbers called", "--file", f"{tmp_path}/minutes",
        "--on", str(today), "--until", str(today + timedelta(days=30)), "--json",
    )  # fmt: skip
    assert (attested.code, attested.stderr) == (0, "")
    expect("evidence-attest", attested.json() | {"on": "<today>", "until": "<time>"}, tmp_path)


def repository_with_index(repository: Repository) -> Repository:
    repository.load_index()
    return repository


def test_status_metrics_and_checklist(
    pgstow: Pgstow, repository: Repository, shop: ConnInfo, tmp_path: Path
) -> None:
    """One repository that is there and one that is not; a critical table that is in the backup and one that is not."""
    assert pgstow("backup", shop.connect_string(), "--name", "shop").code == 0
    add_drills(repository)
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    places = {name: f"{tmp_path}/{name}" for name in ("repository", "none")}
    (tmp_path / "pgstow.yaml").write_text(
        "databases: {shop: {url: postgresql://db.example/shop, critical: [public.clients, public.gone], rpo: 1d, rto: 1h}}\n"
        "repositories:\n"
        + "".join(
            f"  {name}: {{location: {place}, password: file:{password}}}\n" for name, place in places.items()
        )
        + "plans: {daily: {}}\n"
    )
    ours = Pgstow({"PGSTOW_CONFIG": f"{tmp_path}/pgstow.yaml", "PGSTOW_STATE_DIR": f"{tmp_path}/state"})
    for name, arguments, code in (
        ("status", ("status",), 3),
        ("metrics", ("metrics", "--textfile", f"{tmp_path}/pgstow.prom"), 3),
        ("checklist", ("checklist", "daily"), 1),
    ):
        ended = ours(*arguments, "--json")
        assert ended.code == code, ended.stdout + ended.stderr
        assert ended.stderr == ""
        expect(name, ended.json(), tmp_path)


def test_copy_that_lost_something_is_partial(
    pgstow: Pgstow, repository: Repository, shop: ConnInfo, tmp_path: Path
) -> None:
    assert pgstow("backup", shop.connect_string()).code == 0
    packs = [path for path in (tmp_path / "repository" / "data").rglob("*") if path.is_file()]
    for path in packs:
        path.chmod(0o600)
        path.write_bytes(b"\0" * path.stat().st_size)
    assert pgstow("init", "--repo", tmp_path / "copy").code == 0
    ended = pgstow("repo", "copy", "--to", tmp_path / "copy", "--json")
    assert ended.code == 3, ended.stdout
    expect("repo-copy-partial", ended.json(), tmp_path)


def test_several_destinations(pgstow: Pgstow, repository: Repository, shop: ConnInfo, tmp_path: Path) -> None:
    source, second, missing = shop.connect_string(), str(tmp_path / "second"), str(tmp_path / "missing")
    assert pgstow("init", "--repo", second, PGSTOW_PASSWORD="of the second").code == 0
    also, secret = ("--also", second), {"PGSTOW_ALSO_PASSWORD": "of the second"}
    checks = tmp_path / "checks.yaml"
    checks.write_text(
        "assertions:\n"
        "  - {name: some clients, sql: SELECT count(*) FROM public.clients, at_least: 1}\n"
        "  - {name: no clients, sql: SELECT count(*) FROM public.clients, equals: 0}\n"
        "  - {name: nothing, sql: SELECT 1 FROM public.nothing, equals: 0}\n"
    )
    story: list[tuple[str, tuple[str | Path, ...], dict[str, str], int]] = [
        ("backup-also", ("backup", source, *also, "--must-contain", "clients"), secret, 0),
        ("backup-also-partial", ("backup", source, *also, "--also", missing), secret, 3),
        ("error-all-destinations", ("backup", source, "--repo", missing, *also), {}, 1),
        ("error-missing-table", ("backup", source, "--must-contain", "auth.users"), {}, 1),
        ("backup-table", ("backup", source, "--table", "public.clients"), {}, 0),
        ("backup-checks", ("backup", source, "--checks", checks), {}, 0),
        (
            "repo-copy-catch-up",
            ("repo", "copy", "--to", second, "--catch-up", "--kind", "critical", "--since", "1h"),
            {"PGSTOW_TO_PASSWORD": "of the second"},
            0,
        ),
    ]
    for name, arguments, environ, code in story:
        ended = pgstow(*arguments, "--json", "--quiet", **environ)
        assert ended.code == code, ended.stdout + ended.stderr
        assert ended.stderr == ""
        expect(name, ended.json(), tmp_path)


def add_drills(repository: Repository) -> None:
    """Record three drills of the only backup that passed, and one that failed."""
    (backup,) = list_backups(repository)
    outcomes: tuple[Literal["passed", "failed"], ...] = ("passed", "passed", "passed", "failed")
    for number, outcome in enumerate(outcomes):
        started = datetime.now(UTC) - timedelta(days=9 - number)
        given = {"id": f"{number}" * 8, "backup_id": backup.id, "size_bytes": 900, "started": started}
        save_drill(repository, drill_record(outcome, finished=started, **given))


def test_plans(pgstow: Pgstow, repository: Repository, shop: ConnInfo, tmp_path: Path) -> None:
    (tmp_path / "pgstow.yaml").write_text(
        f"databases:\n  shop:\n    url: {shop.connect_string()}\n"
        f"repositories:\n  main:\n    location: {tmp_path}/repository\n    password: ${{PGSTOW_PASSWORD}}\n"
        f"  offsite:\n    location: {tmp_path}/offsite\n    password: ${{PGSTOW_PASSWORD}}\n"
        "plans:\n  daily:\n    schedule: '0 0 29 2 *'\n    repositories: [main]\n  weekly: {}\n"
        "  verify:\n    repositories: [main]\n  drill:\n    repositories: [main]\n"
    )
    environ = {"PGSTOW_CONFIG": str(tmp_path / "pgstow.yaml"), "PGSTOW_STATE_DIR": str(tmp_path / "state")}
    story: list[tuple[str, tuple[str, ...], int]] = [
        ("run", ("daily", "--label", "release 7"), 0),
        ("run-not-due", ("daily", "--if-due"), 0),
        ("run-partial", ("weekly",), 3),
        ("run-verify", ("verify",), 0),
        ("run-drill", ("drill",), 0),
        ("error-no-plan", ("dayly",), 2),
    ]
    for name, arguments, code in story:
        ended = pgstow("run", *arguments, "--json", "--quiet", **environ)
        assert ended.code == code, ended.stdout + ended.stderr
        expect(name, ended.json(), tmp_path)
    with pgstow.start("serve", "--json", **environ) as serving:
        assert serving.stderr is not None
        assert b"serving" in serving.stderr.readline()
        serving.send_signal(signal.SIGTERM)
        stdout, _ = serving.communicate()
    assert serving.returncode == 0
    expect("serve", json.loads(stdout), tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ("backup", "dbname=x", "--table", "public.*"),
        ("backup", "dbname=x", "--table", "clients", "--schema", "public"),
        ("backup", "dbname=x", "--all-databases", "--must-contain", "clients"),
        ("backup", "dbname=x", "--must-contain", "a.b.c"),
        ("repo", "copy", "--to", "elsewhere", "--since", "1h"),
        ("repo", "copy", "--to", "elsewhere", "--catch-up", "latest"),
    ],
)
def test_destinations_and_choices_that_make_no_sense(
    pgstow: Pgstow, repository: Repository, arguments: tuple[str, ...]
) -> None:
    ended = pgstow(*arguments, "--json")
    assert (ended.code, ended.json()["error"]["code"]) == (2, "usage")


def test_restore_that_lost_something_is_partial(
    pgstow: Pgstow,
    repository: Repository,
    shop: ConnInfo,
    pg15: Cluster,
    database: DatabaseFactory,
    tmp_path: Path,
) -> None:
    target = database(pg15, "shop_in_part")
    assert pgstow("backup", shop.connect_string()).code == 0
    restore = ("restore", "latest", "--to", target.connect_string(), "--table", 'public."odd\n\x1b[31mname"')
    ended = pgstow(*restore, "--json")
    assert ended.code == 3
    expect("restore-partial", ended.json(), tmp_path)


def test_damage_is_reported_with_what_it_reaches(
    pgstow: Pgstow, repository: Repository, shop: ConnInfo, tmp_path: Path
) -> None:
    assert pgstow("backup", shop.connect_string()).code == 0
    packs = [path for path in (tmp_path / "repository" / "data").rglob("*") if path.is_file()]
    largest = max(packs, key=lambda path: path.stat().st_size)
    largest.chmod(0o600)
    largest.write_bytes(largest.read_bytes()[:-1])
    ended = pgstow("verify", "--json")
    assert ended.code == 1
    document = ended.json()
    assert document["status"] == "failed"
    assert "error" not in document
    assert document["sound"] is False
    assert document["problems"]
    assert set(document["problems"][0]) == {"message", "file", "backups", "contents", "paths"}


def damage_rows(folder: Path, table: str) -> None:
    """Flip a bit in the rows of a table in the one backup there is."""
    repository = Repository.open(LocalStore(folder), Secret(PASSWORD))
    repository.load_index()
    (record,) = list_backups(repository)
    files = BackupFiles(repository, record)
    (member,) = [each.member for each in files.manifest.tables if each.name == table]
    node = files.member(member)
    assert node is not None
    (place, *_) = repository.places_of(BlobKind.DATA, node.content[0])
    path = folder / pack_name(place.pack_id.hex())
    data = bytearray(path.read_bytes())
    data[place.offset + 20] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def test_damage_and_its_repair(
    pgstow: Pgstow,
    repository: Repository,
    shop: ConnInfo,
    pg15: Cluster,
    database: DatabaseFactory,
    tmp_path: Path,
) -> None:
    """One story: damage in a table and in a snapshot file, seen by every command that may meet it."""
    folder = tmp_path / "repository"
    assert pgstow("backup", shop.connect_string()).code == 0
    damage_rows(folder, "clients")
    bad = folder / "snapshots" / ("ab" * 32)
    bad.write_bytes(b"nonsense")
    target = database(pg15, "shop_damaged").connect_string()
    backup_id = pgstow("list", "--json").json()["backups"][0]["id"]
    story: list[tuple[str, tuple[str, ...], int]] = [
        ("list-unreadable", ("list",), 3),
        ("error-latest-unknown", ("show", "latest"), 1),
        ("verify-damaged", ("verify", "--read-data"), 1),
        ("repo-check-damaged", ("repo", "check", "--read-data"), 1),
        ("repo-repair-plan", ("repo", "repair", "--dry-run"), 0),
        ("error-not-confirmed", ("repo", "repair"), 2),
        ("repo-repair", ("repo", "repair", "--confirm", str(folder)), 0),
        ("show-damaged", ("show", "latest"), 0),
        ("error-lost", ("restore", "latest", "--to", target), 1),
        ("repo-check-repaired", ("repo", "check", "--read-data"), 0),
    ]
    for name, arguments, code in story:
        ended = pgstow(*arguments, "--json")
        assert ended.code == code, ended.stdout + ended.stderr
        expect(name, ended.json(), tmp_path)
    listed = pgstow("list").stdout
    assert "damaged" in listed
    assert pgstow("show", backup_id).stdout.rstrip().endswith("public.clients")
    odd = ("restore", "latest", "--to", target, "--schema-only")
    assert pgstow(*odd).code == 0
    assert pgstow("backup", shop.connect_string()).code == 0
    assert pgstow("verify", "latest", "--read-data").code == 0
    again = pgstow("repo", "repair")
    assert (again.code, again.stdout.partition(":")[0]) == (0, "nothing to do")


def test_all_databases_of_which_one_fails(
    pgstow: Pgstow, repository: Repository, make_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    cluster = make_cluster(15)
    with psycopg.connect(cluster.conninfo(), autocommit=True) as admin:
        admin.execute("CREATE ROLE limited LOGIN")
        admin.execute("CREATE DATABASE closed")
        admin.execute("CREATE DATABASE open")
    with psycopg.connect(cluster.conninfo("closed"), autocommit=True) as admin:
        admin.execute("CREATE TABLE t (id int)")
    ended = pgstow("backup", "--all-databases", cluster.conninfo(user="limited"), "--json")
    assert ended.code == 3
    expect("backup-all-databases", ended.json(), tmp_path)
    assert len({backup["set_id"] for backup in ended.json()["backups"]}) == 1


def test_doctor(pgstow: Pgstow, repository: Repository, shop: ConnInfo) -> None:
    ended = pgstow("doctor", shop.connect_string(), "--json")
    assert ended.code == 0
    document = ended.json()
    assert document["would_work"] is True
    assert (document["schema"], document["command"], document["status"]) == ("pgstow/1", "doctor", "done")
    assert set(document) == {"schema", "command", "status", "source", "would_work", "counts", "findings"}
    assert set(document["counts"]) == {"ok", "warning", "problem", "unknown"}
    assert sum(document["counts"].values()) == len(document["findings"])
    for finding in document["findings"]:
        assert set(finding) == {"code", "level", "text", "remedy", "names"}
    ended = pgstow("doctor", "host=127.0.0.1 port=1 dbname=shop", "--json")
    assert ended.code == 1
    assert ended.json()["status"] == "failed"
    assert [each["code"] for each in ended.json()["findings"] if each["level"] == "problem"] == ["connection"]


SETTINGS = """\
databases:
  shop:
    url: dbname=shop
repositories:
  local:
    location: repository
    password: ${PGSTOW_PASSWORD}
plans:
  daily:
    schedule: "0 2 * * *"
contacts:
  - name: on call
    channels: [hook]
    phone: "+30 1"
channels:
  hook: ${HOOK}
"""


def test_alerts(pgstow: Pgstow, repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "pgstow.yaml").write_text(SETTINGS)
    with web_server() as web:
        environ = {
            "PGSTOW_CONFIG": str(tmp_path / "pgstow.yaml"),
            "PGSTOW_STATE_DIR": str(tmp_path / "state"),
            "HOOK": f"json://127.0.0.1:{web.port}/token-token",
        }
        checked = pgstow("alerts", "check", "--json", **environ)
        assert checked.code == 0, checked.stdout
        expect("alerts-check", checked.json(), tmp_path)
        (alert,) = checked.json()["alerts"]
        assert len(web.posts) == 1
        story: list[tuple[str, tuple[str, ...], int]] = [
            ("alerts-ack", ("ack", alert["id"]), 0),
            ("alerts-silence", ("silence", "unprotected", "--until", "2h", "--reason", "it is new"), 0),
            ("alerts-list", ("list",), 0),
            ("alerts-test", ("test",), 0),
            ("error-alerts-ack", ("ack", "ffffffff"), 2),
            ("error-alerts-silence", ("silence", "*", "--until", "2001-01-01"), 2),
        ]
        for name, arguments, code in story:
            ended = pgstow("alerts", *arguments, "--json", **environ)
            assert ended.code == code, ended.stdout + ended.stderr
            expect(name, ended.json(), tmp_path)
        code_of_test = json.loads(web.posts[1].body)["title"].rpartition(" ")[2]
        assert code_of_test not in ended.stdout
        assert pgstow("alerts", "ack", code_of_test, "--json", **environ).json()["channel"] == "hook"
        web.status = 500
        failed = pgstow("alerts", "test", "--json", **environ)
        assert failed.code == 1
        expect("alerts-test-failed", failed.json(), tmp_path)
        shown = pgstow("alerts", "list", **environ)
        assert "acknowledged by" in shown.stdout
        assert "unprotected/shop" in shown.stdout
        assert "token-token" not in failed.stdout + shown.stdout


@pytest.mark.parametrize(
    ("name", "arguments", "environ", "code"),
    [
        ("error-usage", ("list", "--nope"), {}, 2),
        ("error-usage-value", ("backup", "dbname=x", "--limit-rate", "fast"), {}, 2),
        ("error-no-command", ("lits",), {}, 2),
        ("error-no-repository", ("list",), {"PGSTOW_REPOSITORY": "/nonexistent/repository"}, 10),
        ("error-wrong-password", ("list",), {"PGSTOW_PASSWORD": "incorrect donkey"}, 12),
        ("error-repository-exists", ("init",), {}, 1),
        ("error-backup-not-found", ("show", "shop@latest"), {}, 1),
        ("error-connection-failed", ("backup", "host=127.0.0.1 port=1 dbname=shop"), {}, 1),
        ("error-password-command", ("list",), {"PGSTOW_PASSWORD": "", "PGSTOW_PASSWORD_COMMAND": "false"}, 1),
    ],
)
def test_errors(
    pgstow: Pgstow,
    repository: Repository,
    tmp_path: Path,
    name: str,
    arguments: tuple[str, ...],
    environ: dict[str, str],
    code: int,
) -> None:
    ended = pgstow(*arguments, "--json", **environ)
    assert ended.code == code
    assert ended.stderr == ""
    expect(name, ended.json(), tmp_path)


def test_settings_file(pgstow: Pgstow, shop: ConnInfo, tmp_path: Path) -> None:
    file = tmp_path / "pgstow.yaml"
    ended = pgstow("init", "--wizard", shop.connect_string(), "--output", file, "--json")
    assert ended.code == 0
    expect("init-wizard", ended.json(), tmp_path)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("databases:\n  shop:\n    url: service=shop\n    rpo: 1\nrepositries: {}\nplans: {}\n")
    story: list[tuple[str, tuple[str | Path, ...], int]] = [
        ("config-check", ("config", "check", file, "--resolve"), 1),
        ("config-check-wrong", ("config", "check", wrong), 1),
        ("config-show", ("config", "show", "--config", file), 0),
        ("error-config", ("config", "show", "--config", wrong), 2),
        ("error-wizard", ("init", "--wizard", shop.connect_string(), "--output", file), 2),
    ]
    for name, arguments, code in story:
        ended = pgstow(*arguments, "--json")
        assert ended.code == code, ended.stdout + ended.stderr
        expect(name, ended.json(), tmp_path)
    ended = pgstow("config", "schema", "--json")
    assert ended.code == 0
    assert set(ended.json()) == {"schema", "command", "status", "json_schema"}


def test_locked_repository(pgstow: Pgstow, repository: Repository, tmp_path: Path) -> None:
    with repository.lock(exclusive=True):
        ended = pgstow("verify", "--json")
    assert ended.code == 11
    assert ended.json()["error"]["code"] == "repository_locked"


def test_repo_unlock(pgstow: Pgstow, repository: Repository, tmp_path: Path) -> None:
    shop = LeasedDatabase(identity="shop", name="shop")
    gone = replace(Holder.current(), process_start="1")
    ended = pgstow("repo", "unlock", "--json")
    assert ended.code == 0
    expect("repo-unlock-nothing", ended.json(), tmp_path)
    with repository.lease(shop, run_id="run-1"), repository.lock():
        with patch.object(Holder, "current", classmethod(lambda _: gone)):
            left = repository.lock()
            left.__enter__()
        ended = pgstow("repo", "unlock", "--json")
        assert ended.code == 0
        expect("repo-unlock", ended.json(), tmp_path)
        ended = pgstow("repo", "unlock", "--all", "--json")
        assert ended.code == 2
        expect("error-repo-unlock", ended.json(), tmp_path)
        ended = pgstow("repo", "unlock", "--all", "--confirm", repository.id[:8], "--json")
        assert ended.code == 0
        assert [each["kind"] for each in ended.json()["removed"]] == ["lease", "lock"]
        assert ended.json()["kept"] == []
    left.__exit__(None, None, None)
    assert pgstow("repo", "unlock", "--confirm", "x").code == 2


def test_a_database_that_is_being_backed_up(
    pgstow: Pgstow, repository: Repository, shop: ConnInfo, tmp_path: Path
) -> None:
    """Giving way, waiting in vain, and an interruption while waiting."""
    with psycopg.connect(shop.connect_string()) as connection:
        row = connection.execute(
            "SELECT 'database ' || (SELECT system_identifier FROM pg_control_system()) || ' ' || oid"
            " FROM pg_database WHERE datname = 'shop'"
        ).fetchone()
    assert row is not None
    with repository.lease(LeasedDatabase(identity=row[0], name="shop"), run_id="run-1"):
        ended = pgstow("backup", shop.connect_string(), "--json")
        assert ended.code == 11
        assert ended.json()["error"]["code"] == "repository_locked"
        assert ended.json()["error"]["facts"] == {"run": "run-1", "lease": 1}
        ended = pgstow("backup", shop.connect_string(), "--wait", "1s")
        assert ended.code == 11
        assert "waiting for it" in ended.stderr
        with pgstow.start("backup", shop.connect_string(), "--wait", "1m") as waiting:
            assert waiting.stderr is not None
            assert b"waiting for it" in waiting.stderr.readline()
            waiting.send_signal(signal.SIGINT)
            _, stderr = waiting.communicate()
        assert waiting.returncode == 130
        assert b"nothing was published" in stderr
        assert b"Traceback" not in stderr
    assert pgstow("backup", shop.connect_string(), "--wait", "1m").code == 0


def test_refused_target(pgstow: Pgstow, repository: Repository, shop: ConnInfo, tmp_path: Path) -> None:
    assert pgstow("backup", shop.connect_string()).code == 0
    ended = pgstow("restore", "latest", "--to", shop.connect_string(), "--json")
    assert ended.code == 1
    assert ended.json()["error"]["code"] == "target_refused"


def test_hostile_names_cannot_act_on_a_terminal(
    pgstow: Pgstow, repository: Repository, shop: ConnInfo
) -> None:
    shown = [pgstow("backup", shop.connect_string()), pgstow("show", "latest", "--all")]
    for ended in shown:
        assert ended.code == 0
        assert "\x1b" not in ended.stdout + ended.stderr
    assert r"public.odd\n\x1b[31mname" in shown[1].stdout


def test_service(pgstow: Pgstow, tmp_path: Path) -> None:
    settings = tmp_path / "pgstow.yaml"
    settings.write_text(
        "databases: {shop: {url: 'postgresql://pgstow@db/shop', password: 'file:shop-password'}}\n"
        "repositories: {offsite: {location: 's3://bucket/backups', password: '${REPOSITORY_PASSWORD}'}}\n"
        "plans:\n"
        "  nightly: {kind: daily, schedule: '0 2 * * *'}\n"
        "  weekly: {schedule: '30 2 * * SUN', time_zone: Europe/Berlin}\n"
    )
    where = ("--user", "--directory", tmp_path / "units")
    how = (*where, "--timer", "--config", settings, "--program", tmp_path / "pgstow")
    story: list[tuple[str, tuple[str | Path, ...]]] = [
        ("service-show", ("service", "show", *how)),
        ("service-install-dry-run", ("service", "install", *how, "--dry-run")),
        ("service-install", ("service", "install", *how)),
        ("service-uninstall", ("service", "uninstall", *where)),
    ]
    for name, arguments in story:
        ended = pgstow(*arguments, "--json")
        assert ended.code == 0, ended.stdout + ended.stderr
        expect(name, ended.json(), tmp_path)


def test_audit(pgstow: Pgstow, repository: Repository, tmp_path: Path) -> None:
    here = Pgstow({**pgstow.environ, "PGSTOW_STATE_DIR": str(tmp_path / "state"), "PGSTOW_ORIGIN": "a test"})
    assert here("show", "latest").code == 1
    admin = ("--key", tmp_path / "admin.key")
    phrase = {"PGSTOW_ADMIN_PASSPHRASE": "another horse"}
    for name, code, arguments in (
        ("audit-list", 0, ("list",)),
        ("audit-admin-key", 0, ("admin-key", tmp_path / "admin.key")),
        ("audit-enroll", 0, ("enroll", *admin)),
        ("audit-anchor", 0, ("anchor",)),
        ("audit-export", 0, ("export", "--output", tmp_path / "trail.jsonl")),
        ("audit-revoke", 0, ("revoke", "--host", socket.gethostname(), "--reason", "lost", *admin)),
    ):
        ended = here("audit", *arguments, "--json", **phrase)
        assert ended.code == code, ended.stderr
        expect(name, ended.json(), tmp_path)
    wrong = here("audit", "verify", "--admin", "0" * 64, "--json")
    assert wrong.code == 1
    expect("audit-verify", wrong.json(), tmp_path)


def test_retention(pgstow: Pgstow, repository: Repository, tmp_path: Path) -> None:
    """Backups of 2010: every rule is over, so that a document says the same whenever it is made."""
    repository.load_index()
    for number, (month, day) in enumerate([(2, 3), (2, 4), (5, 20), (5, 21), (6, 30)], 1):
        save_dated(repository, number, datetime(2010, month, day, 2, tzinfo=UTC))
    save_dated(repository, 6, datetime(2010, 6, 29, tzinfo=UTC), kind="critical", is_partial=True)
    save_dated(repository, 7, datetime(2010, 6, 20, tzinfo=UTC), kind="critical", is_partial=True)
    why = ("--reason", "case 7")
    story: list[tuple[str, tuple[str, ...], int]] = [
        ("hold", ("hold", "00000004", *why, "--until", "2999-12-31"), 0),
        ("list-held", ("list", "--kind", "daily"), 0),
        ("retention-plan", ("retention", "plan"), 0),
        ("error-other-plan", ("retention", "apply", "--plan", "0123456789abcdef"), 1),
        ("retention-dry-run", ("retention", "apply", "--dry-run"), 0),
        ("retention-apply", ("retention", "apply"), 0),
        ("release", ("release", "00000004", *why), 0),
        ("retire", ("retire", "shop", *why), 0),
        ("retention-plan-retired", ("retention", "plan"), 0),
    ]
    me = f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"
    began = datetime.now(UTC)
    for name, arguments, code in story:
        ended = pgstow(*arguments, "--json")
        assert ended.code == code, ended.stdout + ended.stderr
        today = f"({began:%Y-%m-%d}|{datetime.now(UTC):%Y-%m-%d})"  # which may end meanwhile
        text = re.sub(f"{today}(?!T)", "<today>", ended.stdout.replace(me, "<who>"))
        expect(name, json.loads(text), tmp_path)


def test_import(pgstow: Pgstow, repository: Repository, shop: ConnInfo, tmp_path: Path) -> None:
    dump = tmp_path / "shop.sql"
    dump.write_text(
        "CREATE TABLE t (id int);\nCOPY t FROM stdin;\n1\n\\.\nALTER TABLE t OWNER TO somebody;\n"
    )
    archive = dump_to(tmp_path / "shop.dump", shop, tools_for(shop), "-Fc")
    imported = pgstow("import", archive, "--label", "old", "--json").json()
    expect("import", imported, tmp_path)
    (entry,) = pgstow("audit", "list", "--action", "import", "--json").json()["entries"]
    assert (entry["subjects"], entry["facts"]["dump"]) == ([imported["id"], imported["name"]], archive.name)
    ended = pgstow("import", dump, "--taken", "2020-02-03", "--kind", "legacy", "--json")
    assert ended.code == 0, ended.stdout
    expect("import-sql", ended.json(), tmp_path)
    dump.write_text("SELECT 1;\n\\! id\n")
    ended = pgstow("import", dump, "--json")
    assert ended.code == 1
    expect("error-import", ended.json(), tmp_path)
    assert pgstow("import", tmp_path / "none", "--json").code == 2
    assert "shop.dump (custom, gzip, by pg_dump" in pgstow("show", imported["id"]).stdout
    assert "shop.sql (plain)" in pgstow("show", "shop@latest").stdout, "an import comes after all other kinds"


def test_page_describes_every_key() -> None:
    """docs/cli-json.md and the documents cannot drift apart unnoticed."""
    page = PAGE.read_text()
    for path in GOLDEN.glob("*.json"):
        document = json.loads(path.read_text())
        document.pop("manifest", None)  # described with the repository
        document.pop("settings", None)  # described with the settings file
        missing = {key for key in keys(document) if f"`{key}`" not in page}
        assert not missing, f"{path.name}: {missing}"


def keys(value: Any) -> set[str]:
    """Return every key in a document; those below ``facts`` and timings are free."""
    if isinstance(value, list):
        return {key for each in value for key in keys(each)}
    if not isinstance(value, dict):
        return set()
    return set(value) | {
        key
        for name, each in value.items()
        if name not in {"facts", "timings_s", "labels"}
        for key in keys(each)
    }


def test_page_lists_every_error_with_its_exit_code() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `") and line.endswith(" |")]
    for kind in all_errors(PgstowError):
        found = [row for row in rows if f"`{kind.code}`" in row.split("|")[1]]
        assert found, kind.code
        assert found[0].split("|")[3].strip() == str(kind.exit_code)
        assert re.search(rf"\b{kind.exit_code} \w", EXIT_CODES)


def all_errors(kind: type[PgstowError]) -> Iterator[type[PgstowError]]:
    """Return an error class of pgstow's and everything below it."""
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == kind.__module__:
            yield from all_errors(below)


# -- drills


def blanked_drill(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of a drill with one phase and one check, and without what differs from run to run."""
    seconds = {key: "<seconds>" for key, value in record.items() if key.endswith("_s") and value is not None}
    words = {key: f"<{key}>" for key in ("server", "source_version", "manifest_sha256", "warnings")}
    phase = dict.fromkeys(record["phases"][0], "<of the phase>")
    check = record["checks"][0] | {"message": "<message>", "seconds": "<seconds>"}
    tables = [table | {"load_s": "<seconds>"} for table in record["tables"]]
    return record | seconds | words | {"phases": [phase], "checks": [check], "tables": tables}


def test_drills(pgstow: Pgstow, repository: Repository, shop: ConnInfo, tmp_path: Path) -> None:
    assert pgstow("backup", shop.connect_string()).code == 0
    report = tmp_path / "report.md"
    ended = pgstow("drill", "--on", shop.connect_string(), "--rto", "4h", "--report", report, "--json")
    assert ended.code == 0, ended.stdout
    document = ended.json()
    expect("drill", document | {"drill": blanked_drill(document["drill"])}, tmp_path)
    listed, shown = (
        pgstow("drills", "list", "--json").json(),
        pgstow("drills", "show", "latest", "--json").json(),
    )
    assert listed["drills"] == [document["drill"] | {"saved": True}]
    expect("drills-list", listed | {"drills": ["<of the drill>"]}, tmp_path)
    assert shown["drill"] == document["drill"]
    expect("drills-show", shown | {"drill": "<of the drill>"}, tmp_path)
