"""``pgstow service`` as a person uses it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.command import COMMAND, Pgstow

SETTINGS = """\
databases:
  shop: {url: "postgresql://pgstow@db/shop", password: "${SHOP_PASSWORD}"}
repositories:
  here: {location: ./repository, password: file:password}
plans:
  nightly: {kind: daily, schedule: "0 2 * * *"}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "pgstow.yaml").write_text(SETTINGS)
    (tmp_path / "bin").mkdir()
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.write_text(
        '#!/bin/sh\necho "$*" >>"$CALLS"\ncase "$*" in *"$REFUSED"*) echo no >&2; exit 5 ;; esac\n'
    )
    systemctl.chmod(0o755)
    return tmp_path


@pytest.fixture
def pgstow(home: Path) -> Pgstow:
    """With a systemctl that writes down what it is asked to do, and fails at what holds the word in REFUSED."""
    return Pgstow(
        {
            "HOME": str(home),
            "PGSTOW_CONFIG": str(home / "pgstow.yaml"),
            "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
            "CALLS": str(home / "calls"),
            "REFUSED": "nothing",
        }
    )


def units(home: Path) -> dict[str, str]:
    folder = home / ".config" / "systemd" / "user"
    return {path.name: path.read_text() for path in folder.iterdir()} if folder.exists() else {}


def test_from_service_to_timers_and_away(pgstow: Pgstow, home: Path) -> None:
    dry = pgstow("service", "install", "--user", "--dry-run")
    assert dry.code == 0
    assert "would be written" in dry.stdout
    assert units(home) == {}
    ended = pgstow("service", "install", "--user")
    assert ended.code == 0
    assert "systemctl --user enable --now pgstow.service" in ended.stdout
    assert "SHOP_PASSWORD" in ended.stdout  # what has to be set before it can work
    assert not (home / "calls").exists()
    program = COMMAND.absolute()
    assert f"ExecStart={program} serve --config {home}/pgstow.yaml" in units(home)["pgstow.service"]
    shown = pgstow("service", "show", "--user")
    assert shown.stdout.rstrip().endswith(units(home)["pgstow.service"].rstrip())
    assert "unchanged" in shown.stdout
    assert pgstow("service", "install", "--user", "--timer", "--enable").code == 0
    assert set(units(home)) == {"pgstow-run@.service", "pgstow-run@nightly.timer"}
    assert (home / "calls").read_text().splitlines() == [
        "--user daemon-reload",
        "--user stop pgstow.service",
        "--user enable --now pgstow-run@nightly.timer",
    ]
    assert pgstow("service", "uninstall", "--user", "--dry-run").code == 0
    assert len(units(home)) == 2
    assert pgstow("service", "uninstall", "--user", "--stop").code == 0
    assert units(home) == {}
    assert (home / "calls").read_text().splitlines()[-1] == "--user stop pgstow-run@nightly.timer"
    assert "no unit" in pgstow("service", "uninstall", "--user").stdout


def test_the_program_in_a_unit_is_the_one_that_runs(pgstow: Pgstow, home: Path) -> None:
    assert pgstow("service", "install", "--user", "--timer").code == 0
    (line,) = [
        line for line in units(home)["pgstow-run@.service"].splitlines() if line.startswith("ExecStart=")
    ]
    program = line.partition("=")[2].split()[0]
    assert subprocess.run([program, "--version"], capture_output=True).stdout.startswith(b"pgstow ")


def test_what_systemd_refuses_is_told(pgstow: Pgstow, home: Path) -> None:
    ended = pgstow("service", "install", "--user", "--enable", "--json", REFUSED="enable")
    assert ended.code == 1
    assert ended.json()["error"]["code"] == "process_failed"
    assert ended.json()["error"]["facts"]["exit_status"] == 5
    assert "pgstow.service" in units(home)
    assert pgstow("service", "install", "--user", "--enable").code == 0


def test_changed_by_hand(pgstow: Pgstow, home: Path) -> None:
    assert pgstow("service", "install", "--user").code == 0
    path = home / ".config" / "systemd" / "user" / "pgstow.service"
    path.write_text(path.read_text() + "# mine\n")
    for arguments in (("install", "--memory-max", "1G"), ("uninstall",)):
        ended = pgstow("service", *arguments, "--user")
        assert ended.code == 2
        assert "--force" in ended.stderr
        assert path.read_text().endswith("# mine\n")
    assert "only with --force" in pgstow("service", "install", "--user", "--dry-run").stdout
    assert pgstow("service", "install", "--user", "--memory-max", "1G", "--force").code == 0
    assert "MemoryMax=1073741824\n" in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("install", "--user", "--account", "x"), "--account is for the machine's systemd"),
        (("install", "--system"), "out of a system service's reach"),
        (("install", "--user", "--memory-max", "much"), "--memory-max: 'much' is not a size"),
        (("install", "--user", "--config", "/nonexistent.yaml"), "/nonexistent.yaml"),
    ],
)
def test_refusals(pgstow: Pgstow, home: Path, arguments: tuple[str, ...], message: str) -> None:
    ended = pgstow("service", *arguments)
    assert ended.code == 2
    assert message in ended.stderr
    assert units(home) == {}


def test_what_has_to_be_seen_to_first(pgstow: Pgstow, home: Path) -> None:
    shown = pgstow("service", "show", "--user", "--json").json()
    assert shown["variables"] == ["SHOP_PASSWORD"]
    assert shown["files"] == [str(home / "password")]
    assert any(f"make {home}/repository" in line for line in shown["todo"])
    (home / "repository").mkdir()
    assert not any("make " in line for line in pgstow("service", "show", "--user", "--json").json()["todo"])
    with (home / "pgstow.yaml").open("a") as file:
        file.write("channels: {hook: '${HOOK}'}\n")
    with_timers = pgstow("service", "show", "--user", "--timer", "--json").json()
    assert "pgstow alerts check" in with_timers["todo"][-1], "of timers nobody would tell what is wrong"
