"""``pgstow service uninstall``"""

from __future__ import annotations

from typing import Annotated

import typer

from pgstow.app.systemd_install import apply_changes, plan_uninstall, run_systemctl, systemctl_steps
from pgstow.cli.command import Invocation
from pgstow.cli.output import Outcome
from pgstow.cli.service_options import DirectoryOption, UserOption, unit_folder
from pgstow.cli.service_view import uninstall_document, uninstall_view

__all__ = ["service_uninstall_command"]


def service_uninstall_command(
    invocation: Invocation,
    user: UserOption = False,
    directory: DirectoryOption = None,
    stop: Annotated[
        bool, typer.Option("--stop", help="Also call systemctl, so that what runs is stopped.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Remove units of pgstow's that were changed by hand, too.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> Outcome:
    """Remove the systemd units that pgstow service install wrote. Settings, state and backups stay."""
    changes = plan_uninstall(unit_folder(invocation, is_user=user, directory=directory))
    steps = systemctl_steps(changes, is_user=user) if changes else []
    if not dry_run:
        apply_changes(changes, is_forced=force)
        if stop:
            run_systemctl(steps)
    is_stopped = stop and not dry_run
    return Outcome(
        document=uninstall_document(changes, steps, is_dry_run=dry_run, is_stopped=is_stopped),
        view=list(uninstall_view(changes, steps, is_dry_run=dry_run, is_stopped=is_stopped)),
    )
