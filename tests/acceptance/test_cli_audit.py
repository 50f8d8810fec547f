"""The audit trail as a user meets it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pgstow.app.audit import verify_file
from support.command import Pgstow

PASSWORD = "correct horse battery"


@pytest.fixture
def pgstow(tmp_path: Path) -> Pgstow:
    return Pgstow(
        {
            "PGSTOW_REPOSITORY": str(tmp_path / "repository"),
            "PGSTOW_PASSWORD": PASSWORD,
            "PGSTOW_STATE_DIR": str(tmp_path / "state"),
            "PGSTOW_ADMIN_PASSPHRASE": "another horse",
        }
    )


def test_a_trail_from_beginning_to_end(pgstow: Pgstow, tmp_path: Path) -> None:
    """Accesses, a wrong password, an enrolment, an export; then the end is cut off."""
    repository = tmp_path / "repository"
    assert pgstow("init").code == 0
    assert pgstow("list", SSH_CONNECTION="192.0.2.7 50000 192.0.2.1 22").code == 0
    assert pgstow("list", PGSTOW_PASSWORD="wrong horse").code == 12
    assert pgstow("show", "latest").code == 1

    listed = pgstow("audit", "list", "--json").json()["entries"]
    assert [(each["action"], each["result"]) for each in listed] == [
        ("init", "done"),
        ("list", "done"),
        ("list", "failed"),
        ("show", "failed"),
    ]
    assert "ssh from 192.0.2.7" in listed[1]["origin"]
    assert listed[2]["error_code"] == "wrong_password"
    assert listed[3]["facts"] == {"backup": "latest"}
    assert "wrong horse" not in json.dumps(listed)
    table = pgstow("audit", "list", "--action", "show").stdout
    assert "backup_not_found" in table
    assert "init" not in table

    made = pgstow("audit", "admin-key", tmp_path / "admin.key", "--json")
    admin = made.json()["fingerprint"]
    assert (tmp_path / "admin.key").stat().st_mode & 0o777 == 0o600
    assert pgstow("audit", "verify", "--admin", admin).code == 3
    assert pgstow("audit", "enroll", "--key", tmp_path / "admin.key").code == 0
    verified = pgstow("audit", "verify", "--admin", admin, "--json")
    assert verified.code == 0
    assert verified.json()["unenrolled"] == []

    assert pgstow("audit", "export", "--output", tmp_path / "trail.jsonl").code == 0
    file = ("audit", "verify", "--file", tmp_path / "trail.jsonl")
    alone = Pgstow()
    assert alone(*file, "--admin", admin).code == 0
    assert not verify_file(tmp_path / "trail.jsonl", administrators=["0" * 64]).verdict.is_intact
    lines = (tmp_path / "trail.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "trail.jsonl").write_text("".join(lines[:-1]))
    cut = alone(*file)
    assert cut.code == 1
    assert "truncated" in cut.stdout

    newest = max((repository / "pgstow" / "audit").glob("2*/*/*"))
    newest.unlink()
    found = pgstow("audit", "verify", "--json")  # this host remembers
    assert found.code == 1
    assert {each["kind"] for each in found.json()["problems"]} == {"truncated"}


def test_anchors_outside_and_in_another_repository(pgstow: Pgstow, tmp_path: Path) -> None:
    """A whole old state is put back: what was written down elsewhere shows it."""
    first, second = tmp_path / "repository", tmp_path / "second"
    elsewhere = {"PGSTOW_STATE_DIR": str(tmp_path / "elsewhere")}
    assert pgstow("init").code == 0
    shutil.copytree(first, tmp_path / "old")
    assert pgstow("list").code == 0
    (tmp_path / "heads.json").write_text(pgstow("audit", "anchor", "--json").stdout)
    assert pgstow("init", "--repo", second).code == 0
    shutil.rmtree(first)
    (tmp_path / "old").rename(first)
    for arguments, code in (
        (("--anchors", tmp_path / "heads.json"), 1),
        (("--against", second), 1),
    ):
        assert pgstow("audit", "verify", *arguments, **elsewhere).code == code, arguments


def test_a_read_only_repository(pgstow: Pgstow, tmp_path: Path) -> None:
    """Reading goes on; the entry waits and is told of."""
    assert pgstow("init").code == 0
    trail = tmp_path / "repository" / "pgstow" / "audit"
    trail.rename(tmp_path / "aside")
    trail.touch()
    listed = pgstow("list", "--json")
    assert listed.code == 0
    assert "waits on this machine" in listed.stderr
    trail.unlink()
    (tmp_path / "aside").rename(trail)
    assert pgstow("list").code == 0
    verified = pgstow("audit", "verify", "--json").json()
    assert verified["intact"]
    assert [each["action"] for each in pgstow("audit", "list", "--json").json()["entries"]] == [
        "init",
        "list",
        "list",
        "audit verify",
    ]
