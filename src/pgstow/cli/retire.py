"""``pgstow retire``"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from pgstow.app.marking import retire_database
from pgstow.cli.command import Invocation
from pgstow.cli.formats import safe
from pgstow.cli.output import Outcome
from pgstow.cli.retention_options import ReasonOption, WaitOption, actor
from pgstow.core.quantities import parse_duration

__all__ = ["retire_command"]


def retire_command(
    invocation: Invocation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The source's name, as pgstow list shows it.")],
    reason: ReasonOption,
    undo: Annotated[
        bool, typer.Option("--undo", help="It is not gone after all: floors count again.")
    ] = False,
    wait: WaitOption = "0",
) -> Outcome:
    """Say that a database is gone, so that its backups age out by the rules to the last one.

    Removes nothing by itself. Holds go on. The next backup of it ends this by itself.
    """
    wait_s = parse_duration(wait)
    with invocation.output.progress() as progress:
        retired = retire_database(
            invocation.repository(progress),
            name,
            progress,
            by=actor(invocation),
            reason=reason,
            is_undone=undo,
            wait_s=wait_s,
        )
    text = "is not retired any more" if undo else "is retired: its backups age out by the rules, holds go on"
    return Outcome(
        document={
            "name": name,
            "retired": not undo,
            "time": retired.when.isoformat(),
            "by": retired.by,
            "reason": retired.reason,
        },
        view=[Text(f"{safe(name)} {text}")],
    )
