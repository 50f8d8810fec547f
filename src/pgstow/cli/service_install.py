"""``pgstow service install``"""

from __future__ import annotations

from typing import Annotated

import typer

from pgstow.app.systemd_install import apply_changes, run_systemctl, systemctl_steps
from pgstow.cli.command import Invocation
from pgstow.cli.output import Outcome
from pgstow.cli.service_options import (
    AccountOption,
    DirectoryOption,
    MemoryMaxOption,
    ProgramOption,
    TimerOption,
    UserOption,
    planned,
)
from pgstow.cli.service_view import install_document, install_view

__all__ = ["service_install_command"]


def service_install_command(
    invocation: Invocation,
    timer: TimerOption = False,
    user: UserOption = False,
    account: AccountOption = None,
    memory_max: MemoryMaxOption = None,
    program: ProgramOption = None,
    directory: DirectoryOption = None,
    enable: Annotated[
        bool,
        typer.Option("--enable", help="Also call systemctl, so that everything runs and starts at boot."),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace units that pgstow did not write or that were changed by hand."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> Outcome:
    """Write systemd units for the settings: pgstow serve as a service or, with --timer, a timer for each plan.

    Says what to do next; systemd is not called unless --enable is given. Calling it again after a change of the
    settings replaces what changed and removes what is not needed any more.
    """
    plan = planned(
        invocation,
        has_timers=timer,
        is_user=user,
        account=account,
        memory_max=memory_max,
        program=program,
        directory=directory,
    )
    steps = systemctl_steps(plan.changes, is_user=user)
    if not dry_run:
        apply_changes(plan.changes, is_forced=force)
        if enable:
            run_systemctl(steps)
    is_enabled = enable and not dry_run
    return Outcome(
        document=install_document(plan, steps, is_dry_run=dry_run, is_enabled=is_enabled),
        view=list(install_view(plan, steps, is_dry_run=dry_run, is_enabled=is_enabled)),
    )
