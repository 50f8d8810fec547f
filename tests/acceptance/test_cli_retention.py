"""``pgstow retention``, ``hold``, ``release`` and ``retire`` as a user runs them, on a terminal and killed too."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pgstow.repository import LockTimes
from pgstow.state.database import open_state
from pgstow.state.runs import RunRecord, Runs
from pgstow.store.local import LocalStore
from support.command import Pgstow
from support.dated_backups import backup_id, save_dated
from support.pruning import assert_sound, objects
from support.repositories import init_repository, open_repository
from support.restic import PASSWORD
from support.waiting import PATIENCE_S

PLAIN = ("--no-promote",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def pgstow(folder: Path) -> Pgstow:
    return Pgstow({"PGSTOW_REPOSITORY": str(folder), "PGSTOW_PASSWORD": PASSWORD})


@pytest.fixture
def store(folder: Path) -> LocalStore:
    """Backups of ``shop`` that are 90, 60, 40, 20 and 0 days old; the numbers begin their ids."""
    store = LocalStore(folder)
    repository = init_repository(store)
    now = datetime.now(UTC)
    for age in (90, 60, 40, 20, 0):
        save_dated(repository, age, now - timedelta(days=age))
    return store


def ids(pgstow: Pgstow) -> list[int]:
    return [int(each["id"][:8]) for each in pgstow("list", "--json").json()["backups"]]


def test_plan_hold_apply(pgstow: Pgstow, store: LocalStore, tmp_path: Path) -> None:
    held = pgstow("hold", "00000090", "--reason", "case 7", "--until", "2099-12-31")
    assert (held.code, held.stderr) == (0, "")
    assert held.stdout.startswith(f"held: backup {backup_id(90)[:8]} of shop from")
    listed = pgstow("list").stdout.splitlines()
    assert [line.split()[-1] for line in listed[1:3]] == ["held", "B"]
    planned = pgstow("retention", "plan", *PLAIN)
    assert planned.code == 0
    assert re.search(
        r"^drop +00000060 .* daily: was kept for 30 days, until \d{4}-\d\d-\d\d$",
        planned.stdout,
        re.MULTILINE,
    )
    assert re.search(
        r"^keep +00000090 .* held since .*, until 2099-12-31 by .*: case 7$", planned.stdout, re.MULTILINE
    )
    assert (
        "2 backups would be removed, 3 kept, by the default rules with --no-promote; plan" in planned.stdout
    )
    document = pgstow("retention", "plan", *PLAIN, "--json").json()
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(document))
    again = pgstow("retention", "apply", *PLAIN, "--dry-run", "--json").json()
    assert again["plan"]["hash"] == document["plan"]["hash"]
    assert pgstow("release", "00000090", "--reason", "closed").code == 0
    refused = pgstow("retention", "apply", *PLAIN, "--plan", file)
    assert refused.code == 1
    assert "was not planned: 1 backup: 00000090 of shop" in refused.stderr
    assert "HINT: look at pgstow retention plan again" in refused.stderr
    assert len(objects(store, "snapshots")) == 5
    assert pgstow("hold", "00000090", "--reason", "case 8").code == 0
    applied = pgstow("retention", "apply", *PLAIN, "--plan", file)
    assert applied.code == 0, applied.stderr
    assert applied.stdout.startswith("2 backups removed, 3 kept, by the default rules with --no-promote\n")
    assert "remove 00000060 of shop, daily, from" in applied.stderr
    assert ids(pgstow) == [90, 20, 0]
    assert_sound(store)
    nothing = pgstow("retention", "apply", *PLAIN, "--no-prune")
    assert nothing.stdout == "0 backups removed, 3 kept, by the default rules with --no-promote\n"
    assert nothing.stderr == ""


SETTINGS = """\
databases: {{shop: {{url: postgresql://backup@db.example/shop}}}}
repositories: {{local: {{location: {folder}, password: "file:{folder}-password"}}}}
plans: {{daily: {{}}}}
retention: {{promotes: false, time_zone: Europe/Berlin, rules: {{daily: 70d}}}}
"""


@pytest.fixture
def settings(folder: Path, tmp_path: Path) -> Path:
    """Settings by which ``shop`` keeps its daily backups for 70 days, and the state folder of the machine."""
    folder.with_name(f"{folder.name}-password").write_text(PASSWORD)
    path = tmp_path / "pgstow.yaml"
    path.write_text(SETTINGS.format(folder=folder))
    return path


def dropped(document: Any) -> list[int]:
    return [int(each["id"][:8]) for each in document["plan"]["decisions"] if each["action"] == "drop"]


def test_the_settings_that_name_a_repository_give_its_rules(
    pgstow: Pgstow, store: LocalStore, settings: Path, folder: Path, tmp_path: Path
) -> None:
    """By its name, by its place, or because the file was given; also where nobody said which rules to use."""
    home = tmp_path / "home" / ".config" / "pgstow"
    home.mkdir(parents=True)
    shutil.copy(settings, home)
    for arguments, environ in (
        (("--config", settings, "--repo", "local"), {}),
        (("--config", settings), {}),
        ((), {"PGSTOW_CONFIG": str(settings)}),
        (("--repo", f"file://{folder}/"), {"HOME": str(tmp_path / "home")}),
    ):
        document = pgstow("retention", "plan", *arguments, "--json", **environ).json()
        assert dropped(document) == [90], (arguments, environ)
        rules = document["plan"]["rules"]
        assert rules["from"].endswith("pgstow.yaml")
        assert (rules["time_zone"], rules["promotes"], rules["changed"]) == ("Europe/Berlin", False, [])
    changed = pgstow("retention", "plan", "--config", settings, "--keep", "daily=50")
    assert (
        f"2 backups would be removed, 3 kept, by the rules of {settings} with --keep daily=50"
        in changed.stdout
    )
    assert "this machine has no history of runs" in changed.stdout


def test_settings_of_another_repository_that_lie_there_say_nothing(
    pgstow: Pgstow, store: LocalStore, settings: Path, tmp_path: Path
) -> None:
    home = tmp_path / ".config" / "pgstow"
    home.mkdir(parents=True)
    text = settings.read_text().replace(store.location, str(tmp_path / "elsewhere"))
    (home / "pgstow.yaml").write_text(text)
    document = pgstow("retention", "plan", *PLAIN, "--json", HOME=str(tmp_path)).json()
    assert document["plan"]["rules"]["from"] == "default"
    assert dropped(document) == [90, 60, 40]


def test_a_mistake_in_the_settings_removes_nothing(pgstow: Pgstow, store: LocalStore, settings: Path) -> None:
    settings.write_text(settings.read_text().replace("daily: 70d", "dayly: 70d"))
    refused = pgstow("retention", "apply", "--config", settings, "--yes")
    assert refused.code == 2, refused.stderr
    assert len(objects(store, "snapshots")) == 5


def test_nothing_expires_after_a_failed_run_of_the_history(
    pgstow: Pgstow, store: LocalStore, settings: Path, tmp_path: Path
) -> None:
    with contextlib.closing(open_state(None, {"PGSTOW_STATE_DIR": str(tmp_path)})) as state:
        now = datetime.now(UTC)
        run = RunRecord(
            id="1", plan="daily", job="backup", kind="daily", database="shop", due=None, started=now,
            finished=now, host="h", outcome="failed", error="disk full",
        )  # fmt: skip
        Runs(state).save(run)
    arguments = ("retention", "apply", "--config", settings, "--json")
    frozen = pgstow(*arguments, PGSTOW_STATE_DIR=str(tmp_path)).json()
    assert dropped(frozen) == []
    (reason,) = [each for each in frozen["plan"]["decisions"][0]["reasons"] if each["code"] == "failed"]
    assert "its newest run of kind daily failed" in reason["text"]
    assert reason["text"].endswith(": disk full)")
    assert dropped(pgstow(*arguments, PGSTOW_STATE_DIR=str(tmp_path / "another")).json()) == [90]


def test_reasons_can_be_read_on_a_narrow_terminal(pgstow: Pgstow, store: LocalStore) -> None:
    shown = on_terminal(pgstow, 80, "retention", "plan")
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert re.search(r"^keep  00000040  shop  daily  \S+ \S+  \S+ \S+$", shown, re.MULTILINE)
    assert re.search(
        r"^      first of the month ....-..: kept for 365 days, as monthly, until ", shown, re.MULTILINE
    )
    assert "WHY" in on_terminal(pgstow, 200, "retention", "plan")


def on_terminal(pgstow: Pgstow, columns: int, *arguments: str) -> str:
    """Return what a command shows on a terminal of that width, without colours."""
    parent, child = pty.openpty()
    environ = pgstow.environment({"COLUMNS": str(columns), "TERM": "xterm"})
    with subprocess.Popen(
        pgstow.command(*arguments, "--quiet"), env=environ, stdin=child, stdout=child, stderr=child
    ) as process:
        os.close(child)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed: the command has ended
            while data := os.read(parent, 4096):
                shown += data
        assert process.wait() == 0
    os.close(parent)
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r", "")


def test_show_says_that_a_backup_is_held(pgstow: Pgstow, store: LocalStore) -> None:
    assert "held" not in pgstow("show", "00000060").stdout
    assert pgstow("hold", "00000060", "--reason", "for \x1b[31mred").code == 0
    shown = pgstow("show", "00000060")
    assert re.search(r"^held since .*Z by .*: for \\x1b\[31mred$", shown.stdout, re.MULTILINE)
    os.truncate(Path(store.location) / "pgstow" / "holds" / backup_id(60) / "000001", 20)
    assert "held: mark 1 of its holds cannot be read" in pgstow("show", "00000060").stdout
    assert "cannot be read" in pgstow("retention", "plan", *PLAIN).stdout


def test_retire(pgstow: Pgstow, store: LocalStore) -> None:
    rules = ("--keep", "daily=0", "--no-promote")
    retired = pgstow("retire", "shop", "--reason", "shut down")
    assert (retired.code, retired.stdout) == (
        0,
        "shop is retired: its backups age out by the rules, holds go on\n",
    )
    assert "4 backups would be removed, 1 kept" in pgstow("retention", "plan", *rules).stdout
    undone = pgstow("retire", "shop", "--undo", "--reason", "a mistake")
    assert undone.stdout == "shop is not retired any more\n"


def test_arguments_that_make_no_sense(pgstow: Pgstow, store: LocalStore) -> None:
    """One of each origin: typer's, the rules', the repository's."""
    for arguments, code, message in (
        (("hold", "shop@latest"), 2, "--reason"),
        (("retention", "plan", "--keep", "daily=1:0"), 2, "at_least cannot be 0"),
        (("retention", "apply", "--database", "nobody"), 1, "there is no backup of nobody"),
    ):
        ended = pgstow(*arguments)
        assert ended.code == code, ended.stdout
        assert message in ended.stderr
    assert len(objects(store, "snapshots")) == 5


def test_while_somebody_works(pgstow: Pgstow, store: LocalStore) -> None:
    with open_repository(store).lock(times=LockTimes(settle_s=0)):
        assert pgstow("hold", "00000060", "--reason", "x").code == 0
        assert pgstow("retention", "apply", "--wait", "0s").code == 11
    with open_repository(store).lock(exclusive=True, times=LockTimes(settle_s=0)):
        assert pgstow("hold", "00000040", "--reason", "x").code == 11
    assert len(objects(store, "snapshots")) == 5


@pytest.mark.parametrize(("answer", "left"), [("yes", [20, 0]), ("", [90, 60, 40, 20, 0])])
def test_on_a_terminal_the_plan_is_shown_and_confirmed(
    pgstow: Pgstow, store: LocalStore, answer: str, left: list[int]
) -> None:
    parent, child = pty.openpty()
    with subprocess.Popen(
        pgstow.command("retention", "apply", *PLAIN, "--quiet"),
        env=pgstow.environment({}),
        stdin=child,
        stdout=child,
        stderr=child,
        start_new_session=True,
    ) as process:
        os.close(child)
        shown = b""
        while b"Type yes to go on: " not in shown:
            shown += os.read(parent, 4096)
        assert b"remove 00000060 of shop" in shown
        os.write(parent, answer.encode() + b"\n")
        code = process.wait(PATIENCE_S)
    os.close(parent)
    assert code == (0 if answer == "yes" else 2)
    assert len(objects(store, "snapshots")) == len(left)


def test_interrupted(pgstow: Pgstow, store: LocalStore) -> None:
    with open_repository(store).lock(times=LockTimes(settle_s=0)):
        with pgstow.start("retention", "apply", *PLAIN, "--wait", "60s") as process:
            assert process.stderr is not None
            assert b"waiting" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate()
        assert process.returncode == 130
        assert b"the next run goes on from here" in stderr
    assert len(objects(store, "snapshots")) == 5
    assert_sound(store)
