"""``pgstow status``, ``metrics`` and ``checklist`` as a user, a monitor and cron call them."""

from __future__ import annotations

import json
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgstow.repository import Repository, Snapshot
from support.command import Finished, Pgstow
from support.policies import add_backups, backup_snapshot, make_repository
from support.restic import PASSWORD

H, DAY = timedelta(hours=1), timedelta(days=1)
SETTINGS = """\
databases:
  shop:
    url: postgresql://backup@db.example/shop
    rpo: 30h
repositories:
  local:
    location: {folder}/local
    password: file:{folder}/password
  far:
    location: {folder}/far
    password: file:{folder}/password
plans:
  nightly:
    kind: daily
    schedule: "0 */12 * * *"
"""


@pytest.fixture
def pgstow(tmp_path: Path) -> Pgstow:
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    (tmp_path / "pgstow.yaml").write_text(SETTINGS.format(folder=tmp_path))
    return Pgstow(
        {"PGSTOW_CONFIG": str(tmp_path / "pgstow.yaml"), "PGSTOW_STATE_DIR": str(tmp_path / "state")}
    )


@pytest.fixture
def repositories(tmp_path: Path) -> tuple[Repository, Repository]:
    return make_repository(tmp_path / "local"), make_repository(tmp_path / "far")


def fresh() -> list[Snapshot]:
    """Return backups of the last days that leave nothing to be wished for, by the real clock."""
    now = datetime.now(UTC)
    return [backup_snapshot(now - 12 * H * number - timedelta(seconds=30)) for number in reversed(range(8))]


def line(ended: Finished) -> str:
    assert ended.stdout.count("\n") == 1, ended.stdout + ended.stderr
    return ended.stdout


def test_check_follows_the_plugins_exit_codes(
    pgstow: Pgstow, repositories: tuple[Repository, Repository], tmp_path: Path
) -> None:
    nothing = pgstow("status", "--check")
    assert nothing.code == 2, nothing.stderr
    assert line(nothing).startswith("PGSTOW CRITICAL - shop: there is no whole backup of shop | ")
    backups = fresh()
    add_backups(backups, *repositories)
    good = pgstow("status", "--check")
    assert good.code == 0
    assert line(good).startswith("PGSTOW OK - shop: newest backup ")
    extra = backup_snapshot(datetime.now(UTC) - 3 * H)
    add_backups([extra], repositories[0])
    assert pgstow("status", "--check").code == 1
    (tmp_path / "far").rename(tmp_path / "away")
    unknown = pgstow("status", "--check")
    assert unknown.code == 3
    assert "PGSTOW UNKNOWN - repository far cannot be looked at: there is no repository at" in line(unknown)
    document = pgstow("status", "--check", "--json")
    assert (document.code, document.json()["level"], document.json()["status"]) == (3, "unknown", "partial")


def test_check_of_one_repository_without_settings(
    pgstow: Pgstow, repositories: tuple[Repository, Repository], tmp_path: Path
) -> None:
    add_backups([backup_snapshot(datetime.now(UTC) - 25 * H)], repositories[0])
    alone = Pgstow({"PGSTOW_REPOSITORY": str(tmp_path / "local"), "PGSTOW_PASSWORD": PASSWORD})
    assert alone("status", "--check").code == 0
    assert alone("status", "--check", "--max-age", "24h").code == 2
    assert alone("status", "--check", "--database", "books").code == 2
    assert alone("status", "--check", "--repo", tmp_path / "far").code == 2
    for arguments, environ in (
        ((), {"PGSTOW_PASSWORD": "wrong"}),
        (("--max-age", "soon"), {}),
        (("--repo", "", "--config", tmp_path / "none.yaml"), {"PGSTOW_REPOSITORY": ""}),
    ):
        ended = alone("status", "--check", *arguments, **environ)
        assert ended.code == 3, (arguments, ended.stdout, ended.stderr)
        assert line(ended).startswith("PGSTOW UNKNOWN - ")
    assert alone("status", "--repo", tmp_path / "none").code == 10
    named = pgstow("status", "--check", "--repo", "local")  # of the settings
    assert named.code == 0, named.stdout


def test_status_for_people(pgstow: Pgstow, repositories: tuple[Repository, Repository]) -> None:
    add_backups(fresh(), *repositories)
    shown = pgstow("status")
    assert shown.code == 0, shown.stderr
    assert shown.stderr == ""
    assert "all is as it should be" in shown.stdout
    assert "achieved RPO" in shown.stdout
    misspelt = pgstow("status", "--database", "shpo")
    assert misspelt.code == 2
    assert "there are: shop" in misspelt.stderr


def test_metrics(pgstow: Pgstow, repositories: tuple[Repository, Repository], tmp_path: Path) -> None:
    add_backups(fresh(), *repositories)
    printed = pgstow("metrics")
    assert printed.code == 0, printed.stderr
    assert 'pgstow_repository_up{repository="far"} 1.0' in printed.stdout.splitlines()
    path = tmp_path / "pgstow.prom"
    written = pgstow("metrics", "--textfile", path)
    assert written.code == 0
    assert str(path) in written.stdout
    assert 'pgstow_repository_up{repository="far"} 1.0' in path.read_text().splitlines()
    wrong = pgstow("metrics", "--textfile", tmp_path / "pgstow.txt")
    assert wrong.code == 2
    assert "does not end in .prom" in wrong.stderr
    (tmp_path / "far").rename(tmp_path / "away")
    assert pgstow("metrics", "--textfile", path).code == 3
    assert 'pgstow_repository_up{repository="far"} 0.0' in path.read_text().splitlines()


def test_checklist(pgstow: Pgstow, repositories: tuple[Repository, Repository], tmp_path: Path) -> None:
    add_backups(fresh(), *repositories)
    daily = pgstow("checklist", "daily")
    assert daily.code == 3, daily.stdout  # which alerts are open is unknown
    assert "pass" in daily.stdout
    assert "pgstow alerts check" in daily.stdout
    filed = pgstow("checklist", "weekly", "--markdown")
    assert filed.code == 1
    assert filed.stdout.startswith("# Weekly checklist, ")
    assert "- [ ] **FAIL** A sample was verified" in filed.stdout
    assert pgstow("checklist", "daily", "--markdown", "--json").code == 2
    assert pgstow("checklist", "yearly").code == 2
    assert list((tmp_path / "local" / "pgstow").iterdir()) == []  # what the clock was asked with is gone


def test_checklist_markdown_cannot_be_written_by_others(
    pgstow: Pgstow, repositories: tuple[Repository, Repository], tmp_path: Path
) -> None:
    odd = tmp_path / "![x](http:evil) <b>"
    (tmp_path / "local").rename(odd)
    text = SETTINGS.format(folder=tmp_path).replace(f"{tmp_path}/local", f'"{odd}"')
    (tmp_path / "pgstow.yaml").write_text(text)
    filed = pgstow("checklist", "daily", "--markdown")
    assert filed.code == 1, filed.stdout + filed.stderr
    assert r"\!\[x\](http:evil) \<b\>" in filed.stdout


def test_interrupted_while_a_password_is_fetched(pgstow: Pgstow, tmp_path: Path) -> None:
    marker = tmp_path / "asked"
    program = tmp_path / "slow"
    program.write_text(f"#!/bin/sh\ntouch {marker}\nexec sleep 60\n")
    program.chmod(0o700)
    text = SETTINGS.format(folder=tmp_path).replace(
        f"password: file:{tmp_path}/password", f"password: {{command: [{program}]}}"
    )
    (tmp_path / "pgstow.yaml").write_text(text)
    with pgstow.start("status", "--check") as process:
        for _ in range(3000):
            if marker.exists() or process.poll() is not None:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert stdout == b""


def test_the_document_is_one_and_safe(
    pgstow: Pgstow, repositories: tuple[Repository, Repository], tmp_path: Path
) -> None:
    add_backups(fresh(), *repositories)
    for arguments in (("metrics",), ("checklist", "monthly")):
        ended = pgstow(*arguments, "--json")
        assert ended.stdout.isascii()
        assert json.loads(ended.stdout)["command"] == arguments[0]
        assert PASSWORD not in ended.stdout
