"""What the commands of ``pgstow service`` have in common: their options, and the plan that follows from them."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pgstow.app.systemd_install import Change, plan_install
from pgstow.app.systemd_units import ENVIRONMENT_FILE, Needs, UnitOptions, needs_of, units_for
from pgstow.cli.command import Invocation
from pgstow.cli.formats import parse_size
from pgstow.config.settings import Settings
from pgstow.core.errors import UsageError

__all__ = [
    "AccountOption",
    "DirectoryOption",
    "InstallPlan",
    "MemoryMaxOption",
    "ProgramOption",
    "TimerOption",
    "UserOption",
    "planned",
    "unit_folder",
]

TimerOption = Annotated[
    bool, typer.Option("--timer", help="A timer for each plan that has a schedule, instead of a service.")
]
UserOption = Annotated[
    bool,
    typer.Option("--user/--system", help="For your own account's systemd, instead of the machine's."),
]
AccountOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The account to run as. Without it systemd makes one up while pgstow runs, to which no other files belong.",
    ),
]
MemoryMaxOption = Annotated[
    str | None, typer.Option(metavar="SIZE", help="End it when it takes more memory than this, e.g. 2G.")
]
ProgramOption = Annotated[
    Path | None, typer.Option(metavar="PATH", help="The command pgstow; otherwise the one that is running.")
]
DirectoryOption = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Where units are kept; otherwise where systemd looks for yours."),
]

_ZONES = Path("/usr/share/zoneinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallPlan:
    """What would be written, and what a person has to see to before it can work."""

    changes: Sequence[Change]
    needs: Needs
    todo: Sequence[str]
    is_user: bool


def planned(
    invocation: Invocation,
    *,
    has_timers: bool,
    is_user: bool,
    account: str | None,
    memory_max: str | None,
    program: Path | None,
    directory: Path | None,
) -> InstallPlan:
    """Return what installing units for the settings would do."""
    if is_user and account is not None:
        raise UsageError("--account is for the machine's systemd: with --user it is your own account")
    settings = invocation.settings()
    options = UnitOptions(
        program=(program or _this_program()).absolute(),
        is_user=is_user,
        has_timers=has_timers,
        account=account,
        memory_max_bytes=parse_size(memory_max, option="--memory-max") if memory_max else None,
    )
    needs = needs_of(settings, invocation.environ)
    units = units_for(settings, needs, options, now=datetime.now(UTC), has_zone=_has_zone)
    folder = unit_folder(invocation, is_user=is_user, directory=directory)
    return InstallPlan(
        changes=plan_install(folder, units),
        needs=needs,
        todo=_todo(settings, needs, options),
        is_user=is_user,
    )


def unit_folder(invocation: Invocation, *, is_user: bool, directory: Path | None) -> Path:
    """Return where the units are kept."""
    if directory is not None:
        return directory
    if not is_user:
        return Path("/etc/systemd/system")
    base, home = invocation.environ.get("XDG_CONFIG_HOME"), invocation.environ.get("HOME")
    if not base and not home:
        raise UsageError(
            "neither HOME nor XDG_CONFIG_HOME says where your units are", hint="give --directory"
        )
    return (Path(base) if base else Path(home or "") / ".config") / "systemd" / "user"


def _this_program() -> Path:
    beside = Path(sys.executable).with_name("pgstow")
    found = beside if beside.exists() else shutil.which("pgstow")
    if not found:
        raise UsageError("the command pgstow is not installed", hint="name it with --program PATH")
    return Path(found)


def _has_zone(name: str) -> bool:
    return name == "UTC" or (_ZONES / name).is_file()


def _todo(settings: Settings, needs: Needs, options: UnitOptions) -> list[str]:
    """Return what has to be seen to before the units can work, as sentences."""
    todo = []
    if options.account is not None and not _is_account(options.account):
        todo.append(
            f"make the account: useradd --system --no-create-home --home-dir /var/lib/pgstow --shell /usr/sbin/nologin {options.account}"
        )
    if options.account is not None and needs.folders:
        todo += [
            f"let it own its repository: chown -R {options.account} {folder}" for folder in needs.folders
        ]
    todo += [
        f"make {folder}, which is not there: pgstow init makes a repository"
        for folder in needs.folders
        if not folder.exists()
    ]
    if needs.variables and options.is_user:
        todo.append(f"set {', '.join(needs.variables)} in ~/.config/environment.d/pgstow.conf")
    elif needs.variables:
        todo.append(
            f"write {', '.join(needs.variables)} to {ENVIRONMENT_FILE}, as NAME=value, readable by root only"
        )
    if not options.is_user and not _is_public(settings.path):
        todo.append(f"let everybody read the settings, which hold no secrets: chmod 644 {settings.path}")
    if options.is_user:
        todo.append("let your services run while you are not logged in: loginctl enable-linger")
    if options.has_timers and settings.channels:
        todo.append(
            "let cron look for what is to be told, which no timer does: */5 * * * * pgstow alerts check --quiet"
        )
    return todo


def _is_account(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _is_public(path: Path) -> bool:
    try:
        return bool(os.stat(path).st_mode & 0o004)  # noqa: PTH116  one call, like its neighbours
    except OSError:
        return True  # reading the settings told already
