"""The text of systemd's units for a settings file: one service that schedules itself, or a timer for each plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pgstow.app.opening import local_folder
from pgstow.config.references import credential_name
from pgstow.config.settings import PlanSettings, Settings
from pgstow.core.errors import UsageError
from pgstow.jobs.systemd_calendar import calendar_events

__all__ = ["ACCOUNT", "ENVIRONMENT_FILE", "SERVICE", "Needs", "Unit", "UnitOptions", "needs_of", "units_for"]

SERVICE = "pgstow.service"
ACCOUNT = "pgstow"
ENVIRONMENT_FILE = Path("/etc/pgstow/environment")

_RUN = "pgstow-run@"
_STATE = Path("/var/lib/pgstow")
_WORK = Path("/var/tmp")  # noqa: S108  with PrivateTmp= it is the service's own
_POLLED = "*:0/5"
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./@+=-]*")  # nothing that a unit file reads as anything but itself
_INSTANCE = re.compile(r"[A-Za-z0-9_.:][A-Za-z0-9_.:-]*")
_HIDDEN = tuple(Path(name) for name in ("/home", "/root", "/run/user", "/tmp", "/var/tmp"))  # noqa: S108  nothing is made there

# A service stops by itself within its grace, which lets running backups end; systemd's patience is longer than that.
_GRACE_S = 120
_STOP_S = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A file for systemd. ``is_enabled``: to be enabled, as opposed to one that another unit starts."""

    name: str
    text: str
    is_enabled: bool = True
    remark: str | None = None  # what a person should know about it


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitOptions:
    """How the units are wanted.

    ``account`` None: one that exists only while the service runs. ``is_user``: for the service manager of the person who
    calls, whose account it is then.
    """

    program: Path
    is_user: bool = False
    has_timers: bool = False
    account: str | None = None
    memory_max_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the settings refer to outside themselves: files with secrets, variables, folders to write to."""

    files: tuple[Path, ...]
    variables: tuple[str, ...]
    folders: tuple[Path, ...]


def needs_of(settings: Settings, environ: Mapping[str, str]) -> Needs:
    """Return what a process that works by these settings must be able to read and write; ``environ`` says where ~ is."""
    references = list(settings.references())
    here = settings.path.absolute().parent
    folders = [
        local_folder(repository.location, environ)
        for repository in settings.repositories.values()
        if _is_on_this_machine(repository.location)
    ]
    if settings.monitoring.textfile is not None:
        folders.append(settings.monitoring.textfile.absolute().parent)
    return Needs(
        files=tuple(sorted({here / each.file for each in references if each.file is not None})),
        variables=tuple(sorted({name for each in references for name in each.variables})),
        folders=tuple(sorted({folder.absolute() for folder in folders if folder is not None})),
    )


def units_for(
    settings: Settings,
    needs: Needs,
    options: UnitOptions,
    *,
    now: datetime,
    has_zone: Callable[[str], bool],
) -> Sequence[Unit]:
    """Return the units, in the order in which they are written. ``has_zone``: does systemd know this time zone?

    Raises UsageError where they could not work: the program, the settings or a repository is out of the service's
    reach, a plan's name cannot be part of a unit's.
    """
    _check_reach(settings, options, needs)
    if not options.has_timers:
        return [Unit(name=SERVICE, text=_serve_unit(settings, options, needs))]
    run = Unit(name=f"{_RUN}.service", text=_run_unit(settings, options, needs), is_enabled=False)
    scheduled = [plan for plan in settings.plans.values() if plan.schedule is not None]
    if not scheduled:
        raise UsageError(f"no plan in {settings.path} has a schedule", hint="give one of them a schedule")
    return [run, *(_timer(plan, now=now, has_zone=has_zone) for plan in scheduled)]


# -- units


def _serve_unit(settings: Settings, options: UnitOptions, needs: Needs) -> str:
    lines = [
        *_unit_section("PostgreSQL backups by plan", options, needs),
        "[Service]",
        "Type=exec",
        f"ExecStart={options.program} serve --config {_path(settings)} --grace {_GRACE_S}s",
        "# Reads the settings anew; what they refer to outside themselves is known to systemd from here only.",
        "ExecReload=kill -HUP $MAINPID",
        "Restart=on-failure",
        "RestartSec=30",
        "# Wrong settings stay wrong until somebody corrects them; stopping on request is no failure.",
        "RestartPreventExitStatus=2",
        "SuccessExitStatus=130",
        *_stopping(),
        *_surroundings(options, needs),
        "",
        "[Install]",
        f"WantedBy={'default.target' if options.is_user else 'multi-user.target'}",
    ]
    return "\n".join(lines) + "\n"


def _run_unit(settings: Settings, options: UnitOptions, needs: Needs) -> str:
    lines = [
        *_unit_section("PostgreSQL backup plan %i", options, needs),
        "[Service]",
        "Type=oneshot",
        f"ExecStart={options.program} run %i --if-due --config {_path(settings)}",
        *_stopping(),
        *_surroundings(options, needs),
    ]
    return "\n".join(lines) + "\n"


def _timer(plan: PlanSettings, *, now: datetime, has_zone: Callable[[str], bool]) -> Unit:
    assert plan.schedule is not None
    if not _INSTANCE.fullmatch(plan.name):
        raise UsageError(
            f"the plan {plan.name!r} cannot give a unit its name",
            hint="use letters, digits, '-', '_' and '.' only, or let pgstow serve run it",
        )
    events = calendar_events(plan.schedule, now=now, has_zone=has_zone)
    remark = None if events.lines else f"asked every 5 minutes: {events.why_not}"
    lines = [
        "[Unit]",
        f"Description=When the PostgreSQL backup plan {plan.name} runs",
        "",
        "[Timer]",
        f"# {plan.schedule.cron} in {plan.schedule.time_zone}" + (f"; {remark}" if remark else ""),
        *(f"OnCalendar={line}" for line in events.lines or (_POLLED,)),
        "# A look at every start too: what was missed while the machine was off is caught up, a new plan becomes known.",
        "OnActiveSec=1min",
        "AccuracySec=1s",
        "Persistent=true",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    return Unit(name=f"{_RUN}{plan.name}.timer", text="\n".join(lines) + "\n", remark=remark)


def _unit_section(description: str, options: UnitOptions, needs: Needs) -> Iterator[str]:
    yield from ("[Unit]", f"Description={description}")
    if not options.is_user:  # a person's service manager knows nothing of networks and disks
        yield from ("Wants=network-online.target", "After=network-online.target")
        if needs.folders:
            yield "# A disk that is not mounted must not leave backups in the folder below it."
            yield f"RequiresMountsFor={' '.join(map(_checked, needs.folders))}"
    yield ""


def _stopping() -> Iterator[str]:
    yield "# Only pgstow is asked to stop: it ends pg_dump itself, or lets a backup finish within its grace."
    yield from ("KillMode=mixed", "KillSignal=SIGTERM", f"TimeoutStopSec={_STOP_S}")
    yield "# A drill's server that ran out of memory is a drill that fails: nothing else is stopped for it."
    yield "OOMPolicy=continue"


def _surroundings(options: UnitOptions, needs: Needs) -> Iterator[str]:
    """Who it runs as, where it keeps things, and what it cannot do."""
    yield ""
    if not options.is_user:
        yield from _account(options, needs)
    yield "UMask=0077"
    yield "# Drills restore whole databases below it: /tmp is in memory on many machines. A folder of a larger disk can stand here."
    yield f"Environment=TMPDIR={_WORK}"
    if options.memory_max_bytes is not None:
        yield f"MemoryMax={options.memory_max_bytes}"
    yield from ("", "NoNewPrivileges=yes")
    if not options.is_user:
        yield from _ISOLATION
    yield from _FILTERS


def _account(options: UnitOptions, needs: Needs) -> Iterator[str]:
    yield f"User={options.account or ACCOUNT}"
    if options.account is None:
        yield "DynamicUser=yes"
    yield from (
        "StateDirectory=pgstow",
        "StateDirectoryMode=0700",
        "CacheDirectory=pgstow",
        "CacheDirectoryMode=0700",
    )
    yield "Environment=HOME=%S/pgstow PGSTOW_STATE_DIR=%S/pgstow PGSTOW_CACHE_DIR=%C/pgstow"
    yield "# Variables that the settings refer to. Readable by root only; systemd reads it."
    yield f"EnvironmentFile=-{ENVIRONMENT_FILE}"
    if needs.files:
        yield "# Files that the settings refer to: only root needs to be able to read them."
    for path in needs.files:
        yield f"LoadCredential={credential_name(path)}:{_checked(path)}"
    for folder in needs.folders:
        if not folder.is_relative_to(_STATE):
            yield f"ReadWritePaths={_checked(folder)}"


# ProcSubset=pid is left out on purpose: without the machine's boot id a dead process's lock looks alive for half an hour.
# MemoryDenyWriteExecute= too: some builds of Python, and programs that give passwords, do not start under it.
_ISOLATION = (
    "CapabilityBoundingSet=",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "RemoveIPC=yes",
    "KeyringMode=private",
)
_FILTERS = (
    "LockPersonality=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallErrorNumber=EPERM",
)


# -- what the settings need


def _is_on_this_machine(location: str) -> bool:
    return "://" not in location or location.startswith("file:")


def _check_reach(settings: Settings, options: UnitOptions, needs: Needs) -> None:
    """Raise UsageError for what the service could not read or write once it is shut in."""
    for path in (options.program, settings.path.absolute(), *needs.folders):
        _checked(path)
    if options.is_user:
        return
    for what, path, remedy in (
        (
            "pgstow is installed",
            options.program,
            "install it below /opt or /usr/local, or name another with --program",
        ),
        ("the settings are", settings.path.absolute(), "move them to /etc/pgstow/pgstow.yaml"),
        *(("a repository is", folder, "keep it below /srv or /var/lib") for folder in needs.folders),
    ):
        if any(path.is_relative_to(hidden) for hidden in _HIDDEN):
            raise UsageError(
                f"{what} at {path}, out of a system service's reach", hint=f"{remedy}, or use --user"
            )
    outside = [folder for folder in needs.folders if not folder.is_relative_to(_STATE)]
    if options.account is None and outside:
        raise UsageError(
            f"{outside[0]} must belong to an account that lasts",
            hint=f"give --account {ACCOUNT} and make it the owner, or keep the repository below {_STATE}",
        )


def _path(settings: Settings) -> str:
    return _checked(settings.path.absolute())


def _checked(path: Path) -> str:
    if not _PLAIN_PATH.fullmatch(str(path)):
        raise UsageError(
            f"{path} cannot stand in a unit file",
            hint="use a path of letters, digits and _ . / @ + = - only",
        )
    return str(path)
