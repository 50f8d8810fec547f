"""``pgstow audit export``"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from pgstow.app.audit import export_trail
from pgstow.app.auditing import journal_of
from pgstow.cli.audit_view import problem_documents
from pgstow.cli.command import Invocation
from pgstow.cli.formats import plural, safe
from pgstow.cli.output import Outcome

__all__ = ["audit_export_command"]


def audit_export_command(
    invocation: Invocation,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="File that does not exist yet.")
    ],
) -> Outcome:
    """Write the audit trail to a file of JSON lines that audit verify --file checks without the repository.

    Every entry with its signature and public key. Exits with 3 when something in the trail cannot be read: it is then
    missing from the file, which audit verify --file tells.
    """
    with invocation.output.progress() as progress:
        trail, count = export_trail(
            invocation.repository(progress), journal_of(invocation.environ), output, now=datetime.now(UTC)
        )
    return Outcome(
        status="partial" if trail.problems else "done",
        document={
            "output": str(output),
            "entries": len(trail.entries),
            "documents": count,
            "problems": problem_documents(trail.problems),
        },
        view=[
            Text.assemble(
                ("wrote ", "green"), f"{safe(str(output))}: {plural(len(trail.entries), 'entry', 'entries')}"
            ),
            *(Text(safe(f"{each.kind}: {each.message}"), style="bold red") for each in trail.problems),
        ],
    )
