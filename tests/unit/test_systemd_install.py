"""Putting units in place: nothing of somebody else's is lost, nothing is left half done."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgstow.app.systemd_install import apply_changes, plan_install, plan_uninstall, systemctl_steps
from pgstow.app.systemd_units import Unit
from pgstow.core.errors import PgstowError, UsageError

SERVICE = Unit(name="pgstow.service", text="[Service]\nExecStart=/bin/true\n")
RUN = Unit(name="pgstow-run@.service", text="[Service]\nExecStart=/bin/true\n", is_enabled=False)
NIGHTLY = Unit(name="pgstow-run@nightly.timer", text="[Timer]\nOnCalendar=daily\n")
WEEKLY = Unit(name="pgstow-run@weekly.timer", text="[Timer]\nOnCalendar=weekly\n")


def install(folder: Path, *units: Unit, is_forced: bool = False) -> dict[str, str]:
    changes = plan_install(folder, units)
    apply_changes(changes, is_forced=is_forced)
    return {change.name: change.action for change in changes}


def test_installing_again_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    assert install(folder, SERVICE) == {"pgstow.service": "create"}
    written = (folder / "pgstow.service").stat()
    assert written.st_mode & 0o777 == 0o644
    assert install(folder, SERVICE) == {"pgstow.service": "keep"}
    assert (folder / "pgstow.service").stat().st_ino == written.st_ino
    newer = Unit(name="pgstow.service", text="[Service]\nExecStart=/bin/false\n")
    assert install(folder, newer) == {"pgstow.service": "replace"}
    assert (folder / "pgstow.service").read_text().endswith(newer.text)
    assert [path.name for path in folder.iterdir()] == ["pgstow.service"]


def test_units_that_are_not_wanted_any_more_go_with_their_links(tmp_path: Path) -> None:
    install(tmp_path, RUN, NIGHTLY, WEEKLY)
    links = tmp_path / "timers.target.wants"
    links.mkdir()
    for timer in (NIGHTLY, WEEKLY):
        (links / timer.name).symlink_to(tmp_path / timer.name)
    assert install(tmp_path, RUN, NIGHTLY)["pgstow-run@weekly.timer"] == "remove"
    assert [path.name for path in links.iterdir()] == [NIGHTLY.name]
    changes = plan_install(tmp_path, [SERVICE])
    assert systemctl_steps(changes, is_user=True) == [
        ["systemctl", "--user", "daemon-reload"],
        ["systemctl", "--user", "stop", "pgstow-run@nightly.timer"],
        ["systemctl", "--user", "enable", "--now", "pgstow.service"],
    ]
    apply_changes(changes)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"pgstow.service"}


@pytest.mark.parametrize("how", ["written by hand", "changed by hand", "masked"])
def test_somebody_elses_work_is_not_lost(tmp_path: Path, how: str) -> None:
    path = tmp_path / "pgstow.service"
    if how == "written by hand":
        path.write_text("[Service]\nExecStart=/mine\n")
    elif how == "masked":
        path.symlink_to("/dev/null")
    else:
        install(tmp_path, SERVICE)
        path.write_text(path.read_text() + "Nice=10\n")
    before = path.read_text()
    with pytest.raises(UsageError, match="was not written by pgstow"):
        install(tmp_path, RUN, SERVICE, NIGHTLY)
    assert path.read_text() == before
    assert not (tmp_path / RUN.name).exists()  # nothing else was touched either
    assert install(tmp_path, RUN, SERVICE, NIGHTLY, is_forced=True)["pgstow.service"] == "replace"
    assert path.read_text().endswith(SERVICE.text)
    assert Path("/dev/null").is_char_device()


def test_uninstall_takes_what_pgstow_wrote_and_nothing_else(tmp_path: Path) -> None:
    install(tmp_path, SERVICE, RUN, NIGHTLY)
    (tmp_path / WEEKLY.name).write_text("[Timer]\n")  # somebody's own
    nightly = tmp_path / NIGHTLY.name
    nightly.write_text(nightly.read_text() + "# mine\n")
    with pytest.raises(UsageError, match=r"nightly\.timer"):
        apply_changes(plan_uninstall(tmp_path))
    assert (tmp_path / SERVICE.name).exists()
    apply_changes(plan_uninstall(tmp_path), is_forced=True)
    assert [path.name for path in tmp_path.iterdir()] == [WEEKLY.name]
    assert plan_uninstall(tmp_path) == []


def test_running_service_is_restarted_only_when_its_unit_changed(tmp_path: Path) -> None:
    install(tmp_path, SERVICE)
    again = systemctl_steps(plan_install(tmp_path, [SERVICE]), is_user=False)
    assert again == [["systemctl", "daemon-reload"], ["systemctl", "enable", "--now", "pgstow.service"]]
    changed = Unit(name="pgstow.service", text="[Service]\n")
    steps = systemctl_steps(plan_install(tmp_path, [changed]), is_user=False)
    assert steps[-1] == ["systemctl", "try-restart", "pgstow.service"]


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "units").write_text("a file")
    with pytest.raises(PgstowError, match=r"cannot be (read|written)"):
        install(tmp_path / "units", SERVICE)
