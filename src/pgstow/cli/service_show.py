"""``pgstow service show``"""

from __future__ import annotations

from pgstow.app.systemd_install import systemctl_steps
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
from pgstow.cli.service_view import show_document, show_view

__all__ = ["service_show_command"]


def service_show_command(
    invocation: Invocation,
    timer: TimerOption = False,
    user: UserOption = False,
    account: AccountOption = None,
    memory_max: MemoryMaxOption = None,
    program: ProgramOption = None,
    directory: DirectoryOption = None,
) -> Outcome:
    """Print the systemd units that pgstow service install would write, and how that differs from what is there."""
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
    return Outcome(document=show_document(plan, steps), view=list(show_view(plan)))
