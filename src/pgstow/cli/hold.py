"""``pgstow hold``"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from pgstow.app.marking import hold_backup
from pgstow.cli.command import Invocation
from pgstow.cli.output import Outcome
from pgstow.cli.records import backup_of, hold_documents, record_document
from pgstow.cli.retention_options import ReasonOption, WaitOption, actor, parse_day
from pgstow.cli.show import BackupArgument
from pgstow.core.quantities import parse_duration

__all__ = ["hold_command"]


def hold_command(
    invocation: Invocation,
    backup: BackupArgument,
    reason: ReasonOption,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="DATE", help="The last day it is held; else until released."),
    ] = None,
    wait: WaitOption = "0",
) -> Outcome:
    """Keep a backup, whatever the rules say, until it is released.

    pgstow keeps it; restic does not know of holds: never run restic forget over a repository with holds.
    """
    day, wait_s = parse_day(until, option="--until"), parse_duration(wait)
    with invocation.output.progress() as progress:
        record, hold = hold_backup(
            invocation.repository(progress),
            backup,
            progress,
            by=actor(invocation),
            reason=reason,
            until=day,
            wait_s=wait_s,
        )
    how_long = f"until {day} has passed" if day is not None else "until it is released"
    return Outcome(
        document={"backup": record_document(record) | {"holds": hold_documents([hold])}},
        view=[Text.assemble(("held: ", "bold green"), f"backup {backup_of(record)}, {how_long}")],
    )
