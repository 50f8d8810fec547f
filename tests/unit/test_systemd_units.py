"""systemd units: what is in them, judged by systemd itself."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pgstow.app.systemd_units import Unit, UnitOptions, needs_of, units_for
from pgstow.config.references import Reference, credential_name
from pgstow.config.settings import DrillSettings, MonitoringSettings, Settings
from pgstow.core.errors import UsageError
from pgstow.core.process import run
from support.systemd import systemd_analyze
from support.team import team_settings

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PROGRAM = Path("/usr/bin/env")  # any program that is there
LOCAL = Path("/srv/backups")


def made(settings: Settings, **options: Any) -> dict[str, Unit]:
    chosen = UnitOptions(**{"program": PROGRAM, **options})
    units = units_for(settings, needs_of(settings, {}), chosen, now=NOW, has_zone=lambda _: True)
    return {unit.name: unit for unit in units}


def with_local_repository(settings: Settings, folder: Path = LOCAL) -> Settings:
    there = replace(settings.repositories["offsite"], name="here", location=str(folder))
    return replace(settings, repositories={**settings.repositories, "here": there})


def judged(units: dict[str, Unit], folder: Path, *command: str) -> bytes:
    for name, unit in units.items():
        (folder / name).write_text(unit.text)
    program, env = systemd_analyze()
    return run(
        [program, *command, *(folder / name for name in units)], env={**env, "XDG_RUNTIME_DIR": str(folder)}
    )


@pytest.mark.parametrize("is_user", [False, True], ids=["system", "user"])
@pytest.mark.parametrize("has_timers", [False, True], ids=["service", "timers"])
def test_systemd_accepts_the_units(tmp_path: Path, has_timers: bool, is_user: bool) -> None:
    settings = with_local_repository(team_settings())
    account = None if is_user else "pgstow"
    units = made(
        settings, has_timers=has_timers, is_user=is_user, account=account, memory_max_bytes=2 * 1024**3
    )
    manager = "--user" if is_user else "--system"
    judged(units, tmp_path, "verify", manager, "--man=no", "--recursive-errors=one")
    assert b"MemoryMax=2147483648" in b"".join(unit.text.encode() for unit in units.values())


def test_a_wrong_unit_would_be_noticed(tmp_path: Path) -> None:
    units = made(team_settings(), has_timers=True)
    text = units["pgstow-run@nightly.timer"].text.replace("02:00:00", "02:00:77")
    units["pgstow-run@nightly.timer"] = Unit(name="pgstow-run@nightly.timer", text=text)
    with pytest.raises(Exception, match="02:00:77"):
        judged(units, tmp_path, "verify", "--man=no", "--recursive-errors=one")


@pytest.mark.parametrize("has_timers", [False, True], ids=["service", "timers"])
def test_the_machine_is_shut_off_from_the_service(tmp_path: Path, has_timers: bool) -> None:
    units = {
        name: unit
        for name, unit in made(team_settings(), has_timers=has_timers).items()
        if name.endswith("service")
    }
    found = json.loads(
        judged(units, tmp_path, "security", "--offline=true", "--threshold=25", "--json=short")
    )
    exposed = {line["json_field"] for line in found if line["set"] is False}
    assert {"NoNewPrivileges", "ProtectSystem", "ProtectHome", "UserOrDynamicUser"}.isdisjoint(exposed)


def test_service() -> None:
    (unit,) = made(team_settings()).values()
    lines = unit.text.splitlines()
    assert unit.name == "pgstow.service"
    assert f"ExecStart={PROGRAM} serve --config /etc/pgstow/pgstow.yaml --grace 120s" in lines
    assert "DynamicUser=yes" in lines
    assert "EnvironmentFile=-/etc/pgstow/environment" in lines
    copy = credential_name(Path("/etc/pgstow/secrets/repository-password"))
    assert f"LoadCredential={copy}:/etc/pgstow/secrets/repository-password" in lines
    assert not [line for line in lines if line.startswith("ReadWritePaths")]
    patience = int(next(line for line in lines if line.startswith("TimeoutStopSec=")).partition("=")[2])
    assert patience > 120  # systemd kills only what has ignored its own grace


@pytest.mark.parametrize("has_timers", [False, True], ids=["service", "timers"])
def test_drills_have_a_disk_their_secrets_and_a_memory_of_their_own(has_timers: bool) -> None:
    settings = team_settings()
    drill = DrillSettings(
        server=Reference(where="plans.drill.server", file=Path("/etc/pgstow/secrets/drill-server")),
        password=Reference(where="plans.drill.password", file=Path("/etc/pgstow/secrets/drill-password")),
    )
    plan = replace(settings.plans["nightly"], name="drill", kind="drill", drill=drill)
    units = made(replace(settings, plans={**settings.plans, "drill": plan}), has_timers=has_timers)
    (text,) = [unit.text for name, unit in units.items() if name.endswith("service")]
    lines = text.splitlines()
    for name in ("drill-server", "drill-password"):
        path = Path(f"/etc/pgstow/secrets/{name}")
        assert f"LoadCredential={credential_name(path)}:{path}" in lines
    assert "Environment=TMPDIR=/var/tmp" in lines, "/tmp may be in memory"
    assert "OOMPolicy=continue" in lines, (
        "a drill that takes too much memory must not end the backups beside it"
    )


def test_timers() -> None:
    units = made(team_settings(), has_timers=True)
    assert set(units) == {"pgstow-run@.service", "pgstow-run@nightly.timer", "pgstow-run@weekly.timer"}
    assert "OnCalendar=*-*-* 02:00:00 UTC\n" in units["pgstow-run@nightly.timer"].text
    assert "Persistent=true" in units["pgstow-run@nightly.timer"].text
    weekly = units["pgstow-run@weekly.timer"]  # half past two is skipped in Berlin once a year
    assert "OnCalendar=*:0/5\n" in weekly.text
    assert "clocks change" in (weekly.remark or "")
    run_unit = units["pgstow-run@.service"]
    assert f"ExecStart={PROGRAM} run %i --if-due --config /etc/pgstow/pgstow.yaml\n" in run_unit.text
    assert not run_unit.is_enabled


def test_what_runs_for_a_person_needs_no_root() -> None:
    (unit,) = made(with_local_repository(team_settings()), is_user=True).values()
    assert "WantedBy=default.target" in unit.text
    for word in ("User=", "DynamicUser", "LoadCredential", "ProtectSystem", "network-online"):
        assert word not in unit.text


def test_an_account_that_lasts_owns_what_is_on_this_machine() -> None:
    settings = replace(
        with_local_repository(team_settings()),
        monitoring=MonitoringSettings(textfile=Path("/var/lib/node/pgstow.prom")),
    )
    (unit,) = made(settings, account="backup").values()
    lines = unit.text.splitlines()
    assert "User=backup" in lines
    assert "DynamicUser=yes" not in lines
    assert [line for line in lines if line.startswith("ReadWritePaths=")] == [
        "ReadWritePaths=/srv/backups",
        "ReadWritePaths=/var/lib/node",
    ]
    assert "RequiresMountsFor=/srv/backups /var/lib/node" in lines
    inside = with_local_repository(team_settings(), Path("/var/lib/pgstow/repository"))
    assert "ReadWritePaths" not in made(inside)["pgstow.service"].text


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        (with_local_repository(team_settings()), {}, "an account that lasts"),
        (
            with_local_repository(team_settings(), Path("/home/me/backups")),
            {"account": "x"},
            "out of a system",
        ),
        (team_settings(path=Path("/root/pgstow.yaml")), {}, "out of a system service's reach"),
        (team_settings(), {"program": Path("/home/me/.venv/bin/pgstow")}, "out of a system service's reach"),
        (team_settings(path=Path("/etc/my 100%/pgstow.yaml")), {}, "cannot stand in a unit file"),
        (team_settings(plans={}), {"has_timers": True}, "no plan"),
    ],
)
def test_what_could_not_work_is_refused(settings: Settings, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(settings, **options)


def test_plan_whose_name_no_unit_can_have() -> None:
    plans = team_settings().plans
    settings = team_settings(plans={"at night": replace(plans["nightly"], name="at night")})
    with pytest.raises(UsageError, match="'at night' cannot give a unit its name"):
        made(settings, has_timers=True)


def test_a_service_reads_the_copy_that_systemd_gives_it(tmp_path: Path) -> None:
    original = tmp_path / "pass-word_1"
    reference = Reference(where="password", file=original)
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / credential_name(original)).write_text("of the copy\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    assert reference.resolve(environ).reveal() == "of the copy"
    original.write_text("of the original\n")
    assert reference.resolve({}).reveal() == "of the original"
    other = Reference(where="password", file=tmp_path / "other")
    (tmp_path / "other").write_text("not handed over")
    assert other.resolve(environ).reveal() == "not handed over"


def test_names_of_copies_never_meet() -> None:
    paths = ["/a/b", "/a-b", "/a_2d_b", "/a/b ", "/A/b", "/ä"]
    assert len({credential_name(Path(path)) for path in paths}) == len(paths)
