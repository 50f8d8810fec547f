"""Evidence of a world that is there: two repositories with a month of backups, drills, an audit trail, an administrator."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pgstow.app.audit import enroll
from pgstow.app.auditing import journal_of
from pgstow.app.evidence_history import server_facts
from pgstow.audit.keys import AdministratorKey
from pgstow.catalog.drills import save_drill
from pgstow.config.references import Reference
from pgstow.config.settings import DatabaseSettings
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.repository import Repository
from pgstow.state.alerts import AlertBook, Canary
from pgstow.state.database import open_state
from pgstow.state.runs import DestinationResult, RunRecord, Runs
from pgstow.store.local import LocalStore
from support.command import Finished, Pgstow
from support.dated_backups import backup_id, save_dated
from support.evidence import drill_record

PASSWORD = "the horse of this evidence alone"
NOW = datetime.now(UTC)
# When the newest backup was due: some hours ago, whatever the time of the day, so that nothing is in the future.
DUE = (NOW - timedelta(hours=3)).replace(minute=0, second=0, microsecond=0)
DAYS = 10
# To the end of tomorrow: what is done here belongs to it also where midnight passes meanwhile.
PERIOD = f"{DUE - timedelta(days=DAYS):%Y-%m-%d}..{NOW + timedelta(days=1):%Y-%m-%d}"


@dataclass(frozen=True, kw_only=True)
class World:
    """``ours`` is the machine that makes reports, ``theirs`` one that has nothing but a bundle."""

    folder: Path
    administrator: AdministratorKey
    ours: Pgstow
    theirs: Pgstow

    def report(self, *arguments: str | Path) -> Finished:
        return self.ours(
            "evidence", "report", "--period", PERIOD, "--admin", self.administrator.fingerprint, *arguments
        )

    def verify(self, bundle: Path) -> Finished:
        return self.theirs("evidence", "verify", bundle, "--key", self.administrator.fingerprint, "--json")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("evidence")
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o600)
    (folder / "pgstow.yaml").write_text(
        "databases: {shop: {url: postgresql://db.example/shop, rpo: 25h, rto: 4h}}\n"
        "repositories:\n"
        f"  near: {{location: {folder}/near, password: file:{folder}/password}}\n"
        f"  far: {{location: {folder}/far, password: file:{folder}/password}}\n"
        "plans:\n"
        f"  daily: {{schedule: 0 {DUE.hour} * * *}}\n"
        f"waivers:\n  - {{control: C17, until: {date.today() + timedelta(days=30)}, reason: on order, by: ciso}}\n"
    )
    state = {"PGSTOW_STATE_DIR": f"{folder}/state"}
    repositories = {name: _repository(folder / name) for name in ("near", "far")}
    _history(state)
    administrator = AdministratorKey.generate()
    world = World(
        folder=folder,
        administrator=administrator,
        ours=Pgstow({"PGSTOW_CONFIG": f"{folder}/pgstow.yaml", **state}),
        theirs=Pgstow({"HOME": str(tmp_path_factory.mktemp("nothing"))}),
    )
    assert world.ours("list", "--repo", "near").code == 0  # a first entry in the trail
    assert world.ours("list", "--repo", "far").code == 0
    for repository in repositories.values():
        enroll(repository, journal_of(state), administrator, None)
    return world


def _repository(folder: Path) -> Repository:
    repository = Repository.init(LocalStore(folder), Secret(PASSWORD), hostname="h", username="u")
    repository.load_index()
    for number in range(DAYS + 2):
        save_dated(repository, number, DUE + timedelta(days=number - DAYS - 1, seconds=5))
    if folder.name == "near":
        for number in range(2):
            at = DUE - timedelta(days=9 * number + 1)
            save_drill(repository, drill_record(at, number=number, backup_id=backup_id(3)))
    return repository


def _history(state: dict[str, str]) -> None:
    database = open_state(None, state)
    runs = Runs(database)
    for number in range(2):
        started = DUE - timedelta(days=20 * number + 5)
        runs.save(
            RunRecord(
                id=Runs.new_id(), plan="verify", job="verify", kind="verify", database=None, due=None, started=started,
                finished=started, host="h", outcome="done",
                destinations=(DestinationResult(repository="near"), DestinationResult(repository="far")),
            )
        )  # fmt: skip
    AlertBook(database).add_canary(Canary(code="c", channel="slack", sent=DUE, acknowledged=DUE, by="ops"))
    database.close()


@pytest.fixture(scope="module")
def bundle(world: World) -> Path:
    path = world.folder / "bundle.zip"
    ended = world.report("--output", path, "--json")
    assert ended.code == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    (world.folder / "printed.json").write_text(ended.stdout)
    return path


def results(document: Any) -> dict[str, str]:
    return {each["code"]: each["result"] for each in document["controls"]}


def unpacked(bundle: Path, folder: Path) -> Path:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder)
    return folder


def test_a_report_says_what_is_there(world: World, bundle: Path) -> None:
    document = json.loads((world.folder / "printed.json").read_text())
    with zipfile.ZipFile(bundle) as archive:
        assert json.loads(archive.read("report.json")) == document["report"]
        facts = json.loads(archive.read("facts.json"))
        page = archive.read("report.html").decode()
    found = results(document["report"])
    passed = {code for code, each in found.items() if each == "pass"}
    assert passed == {"C2", "C3", "C4", "C6", "C12", "C13", "C15", "C21"}
    assert found["C17"] == "waived"
    assert {code for code, each in found.items() if each == "fail"} >= {"C8", "C9"}  # folders
    assert {found[code] for code in ("C1", "C10", "C14", "C16", "C19")} == {"unknown"}
    assert len(facts["backups"]) == DAYS + 2
    assert all(each["repositories"] == ["near", "far"] for each in facts["backups"])
    assert len(facts["drills"]) == 2
    assert {each["action"] for each in facts["audit_entries"]} >= {"list"}
    assert PASSWORD not in page + json.dumps(facts) and "db.example" not in page + json.dumps(facts)


def test_a_machine_with_nothing_but_the_fingerprint_finds_it_sound(world: World, bundle: Path) -> None:
    ended = world.verify(bundle)
    assert ended.code == 0, ended.stdout + ended.stderr
    document = ended.json()
    assert (document["sound"], document["judged_again"], document["problems"]) == (True, True, [])
    assert [each["name"] for each in document["repositories"]] == ["near", "far"]
    assert document["databases"] == ["shop"] and document["not_checked"]
    assert document["signer"] == json.loads((world.folder / "printed.json").read_text())["signer"]
    assert list(Path(world.theirs.environ["HOME"]).iterdir()) == []  # it leaves nothing behind


def test_a_removed_drill_is_found_there(world: World, bundle: Path, tmp_path: Path) -> None:
    folder = unpacked(bundle, tmp_path / "b")
    next((folder / "drills").iterdir()).unlink()
    ended = world.verify(folder)
    assert ended.code == 1
    assert {each["kind"] for each in ended.json()["problems"]} == {"missing"}


def test_a_backup_that_somebody_removed_fails_retention(world: World, bundle: Path) -> None:
    """Its run is in the history, its days are not over, and no entry of the audit trail says that retention removed it."""
    database = open_state(None, {"PGSTOW_STATE_DIR": f"{world.folder}/state"})
    at = DUE - timedelta(days=2)
    Runs(database).save(
        RunRecord(
            id=Runs.new_id(), plan="daily", job="backup", kind="daily", database="shop", due=None, started=at,
            finished=at, host="h", outcome="done", backup_id="99999999-0000-4000-8000-000000000000",
            destinations=(DestinationResult(repository="far"),),
        )
    )  # fmt: skip
    database.close()
    ended = world.report("--json")
    assert results(ended.json()["report"])["C15"] == "fail"
    assert "99999999 of shop" in ended.stdout


def test_another_administrator_vouches_for_nothing(world: World, bundle: Path) -> None:
    stranger = AdministratorKey.generate().fingerprint
    ended = world.theirs("evidence", "verify", bundle, "--key", stranger)
    assert ended.code == 1
    assert "unenrolled" in ended.stdout and "as they were signed" not in ended.stdout


def test_making_a_report_is_an_entry_of_the_audit_trail(world: World, bundle: Path) -> None:
    for repository in ("near", "far"):
        entries = world.ours(
            "audit", "list", "--repo", repository, "--action", "evidence report", "--json"
        ).json()
        assert entries["entries"], repository


def test_an_edited_audit_trail_fails(world: World, bundle: Path) -> None:
    """An entry of the repository is taken away: C13 fails, and the bundle that says so is sound."""
    copy = world.folder / "whole"
    shutil.copytree(world.folder / "far" / "pgstow" / "audit", copy)
    entry = min((world.folder / "far" / "pgstow" / "audit").glob("20*/*/*"))
    entry.unlink()
    try:
        target = world.folder / "edited.zip"
        ended = world.report("--output", target, "--check", "--json")
        assert ended.code == 1
        assert results(ended.json()["report"])["C13"] == "fail"
        assert world.verify(target).code == 0
    finally:
        shutil.copytree(copy, world.folder / "far" / "pgstow" / "audit", dirs_exist_ok=True)


def test_a_repository_that_is_away_leaves_its_part_unknown(world: World, bundle: Path) -> None:
    away = world.folder / "away"
    (world.folder / "far").rename(away)
    try:
        ended = world.report("--json")
    finally:
        away.rename(world.folder / "far")
    assert ended.code == 0
    found = results(ended.json()["report"])
    codes = ("C5", "C7", "C10", "C13", "C15")
    assert {code: found[code] for code in codes} == dict.fromkeys(codes, "unknown")


def test_prometheus_is_told_what_the_controls_came_to(world: World, bundle: Path) -> None:
    assert world.report().code == 0
    ended = world.ours("metrics")
    assert 'pgstow_control_status{control="C4"} 1.0' in ended.stdout
    assert 'pgstow_control_status{control="C8"} 0.0' in ended.stdout
    assert 'pgstow_control_status{control="C1"} -1.0' in ended.stdout
    assert 'pgstow_control_status{control="C17"} 0.5' in ended.stdout
    assert "pgstow_control_report_timestamp_seconds 1" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("report", "--period", "soon"), "'soon' is not a period"),
        (("report", "--period", "2999"), "2999 has not begun yet"),
        (("verify", "nothing.zip", "--key", "ab"), "neither a folder nor a file"),
    ],
    ids=["no period", "the future", "no bundle"],
)
def test_what_makes_no_sense_is_told(world: World, arguments: tuple[str, ...], told: str) -> None:
    ended = world.ours("evidence", *arguments)
    assert (ended.code, told in ended.stderr) == (2, True), ended.stderr


def test_a_bundle_is_not_written_over(world: World, bundle: Path) -> None:
    before = bundle.read_bytes()
    assert world.report("--output", bundle).code == 2
    assert bundle.read_bytes() == before


@pytest.fixture
def shop(pg15: Cluster, database: Any) -> ConnInfo:
    return database(pg15, "evidence_shop")


def test_servers_are_asked_for_their_databases(shop: ConnInfo) -> None:
    def settings(name: str, url: str) -> DatabaseSettings:
        return DatabaseSettings(name=name, url=Reference(where="databases", text=url))

    asked = [settings("shop", shop.connect_string()), settings("away", "host=/nonexistent dbname=x")]
    there, away = server_facts(asked, {})
    assert there.found is not None and {"postgres", there.source} <= set(there.found)
    assert there.identity
    assert away.found is None and away.error is not None and "cannot connect" in away.error


# -- what people state, and passwords that are kept elsewhere; last, since the world is another one afterwards


def control(document: Any, code: str) -> dict[str, Any]:
    (found,) = [each for each in document["controls"] if each["code"] == code]
    return dict(found)


def test_what_people_state_is_signed_and_shown_as_theirs(world: World, bundle: Path) -> None:
    minutes = world.folder / "minutes.pdf"
    minutes.write_bytes(b"everybody was there")
    stated = world.ours(
        "evidence", "attest", "c14", "--by", "Ada", "--note", f"two accounts closed, none had {PASSWORD}",
        "--file", minutes, "--json",
    )  # fmt: skip
    assert (stated.code, stated.stderr) == (0, "")
    assert [each["error"] for each in stated.json()["repositories"]] == [None, None]
    target = world.folder / "attested.zip"
    ended = world.report("--output", target, "--json")
    assert ended.code == 0, ended.stderr
    found = control(ended.json()["report"], "C14")
    assert (found["result"], found["attested"]) == ("pass", True)
    digest = hashlib.sha256(b"everybody was there").hexdigest()
    for words in ("Ada states for", "two accounts closed", f"minutes.pdf, SHA-256 {digest}"):
        assert words in found["findings"][0]["text"]
    assert found["audit"]
    assert control(ended.json()["report"], "C13")["result"] != "fail"  # it is an entry like every other
    verified = world.verify(target)
    assert (verified.code, verified.json()["problems"]) == (0, [])
    folder = unpacked(target, world.folder / "attested")
    assert b"none had ***" in (folder / "facts.json").read_bytes()
    for each in folder.rglob("*.json*"):
        assert PASSWORD.encode() not in each.read_bytes(), each
    (folder / "attestations.jsonl").write_bytes(b"")
    assert world.verify(folder).code == 1


def test_an_attestation_that_no_repository_takes_is_an_error(world: World, bundle: Path) -> None:
    away = world.folder / "away"
    (world.folder / "far").rename(away)
    try:
        partly = world.ours("evidence", "attest", "C16", "--by", "Ada", "--note", "all of it", "--json")
        near = world.folder / "near-away"
        (world.folder / "near").rename(near)
        try:
            nowhere = world.ours("evidence", "attest", "C16", "--by", "Ada", "--note", "all of it")
        finally:
            near.rename(world.folder / "near")
    finally:
        away.rename(world.folder / "far")
    assert partly.code == 3
    assert [each["name"] for each in partly.json()["repositories"] if each["error"] is None] == ["near"]
    assert (nowhere.code, "no repository has taken" in nowhere.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("C2", "--by", "Ada", "--note", "n"), "C2 is nothing that people attest"),
        (("C14", "--by", " ", "--note", "n"), "--by is empty"),
        (("C14", "--by", "Ada", "--note", "n" * 401), "--note is longer than 400"),
        (("C14", "--by", "Ada", "--note", "n", "--on", "2999-01-01"), "yet to come"),
        (("C14", "--by", "Ada", "--note", "n", "--on", "2020-01-01"), "more than 90 days ago"),
        (("C14", "--by", "Ada", "--note", "n", "--until", "2020-01-01"), "is over already"),
        (("C14", "--by", "Ada", "--note", "n", "--until", "9999-12-31"), "not until 9999-12-31"),
        (("C14", "--by", "Ada", "--note", "\udcff"), "--note is not valid UTF-8"),
        (("C14", "--by", "Ada", "--note", "n", "--file", "/nowhere"), "/nowhere cannot be read"),
    ],
)
def test_what_cannot_be_attested(world: World, arguments: tuple[str, ...], told: str) -> None:
    ended = world.ours("evidence", "attest", *arguments)
    assert (ended.code, told in ended.stderr) == (2, True), ended.stderr


def test_a_password_that_is_kept_elsewhere_is_tested(world: World, bundle: Path) -> None:
    for repository in ("near", "far"):
        wrong = world.ours("keys", "test", "--repo", repository, PGSTOW_PASSWORD="another one")
        assert wrong.code == 12
        ended = world.ours(
            "keys", "test", "--repo", repository, "--note", "from the safe", "--json", PGSTOW_PASSWORD=PASSWORD
        )  # fmt: skip
        assert (ended.code, ended.stderr) == (0, "")
        assert ended.json()["backup"]
    found = control(world.report("--json").json()["report"], "C10")
    assert [each["result"] for each in found["findings"]] == ["pass"] * 6
    assert "from the safe" in found["findings"][2]["text"]


def test_the_settings_password_is_not_taken_for_one_that_is_kept_elsewhere(world: World) -> None:
    ended = world.ours("keys", "test", "--repo", "near")
    assert (ended.code, "password" in ended.stderr) == (2, True), ended.stderr
    own = world.folder / "password"
    for given, variables in (
        (("--password-file", own), {}),
        ((), {"PGSTOW_PASSWORD_FILE": str(own)}),
    ):
        ended = world.ours("keys", "test", "--repo", "near", *given, **variables)
        assert (ended.code, "every day" in ended.stderr) == (2, True), ended.stderr
    copy = world.folder / "from-the-safe"
    copy.write_text(PASSWORD)
    assert world.ours("keys", "test", "--repo", "near", "--password-file", copy).code == 0
