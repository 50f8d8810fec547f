"""``pgstow drills list``"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from pgstow.app.drill_records import publish_kept_drills
from pgstow.catalog.drills import DrillRecord, read_drills
from pgstow.cli.command import Invocation
from pgstow.cli.drill_view import drill_document, outcome_text
from pgstow.cli.formats import count_text, duration_text, plural, safe, time_text
from pgstow.cli.output import Outcome
from pgstow.cli.retention_options import parse_day
from pgstow.cli.tables import FittingTable
from pgstow.core.errors import RepositoryDamaged
from pgstow.state.folder import state_folder

__all__ = ["drills_list_command"]


def drills_list_command(
    invocation: Invocation,
    database: Annotated[
        str | None, typer.Option("--database", "-d", metavar="NAME", help="Only of backups of this source.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="DATE", help="Only from this day on (UTC).")
    ] = None,
) -> Outcome:
    """List the restore drills of a repository, oldest first.

    Records that could not be saved before are saved now. Exits with 3 when a record cannot be read.
    """
    day = parse_day(since, option="--since")
    first = datetime.combine(day, time(), UTC) if day is not None else None
    damaged: list[RepositoryDamaged] = []
    with invocation.output.progress() as progress:
        repository = invocation.repository(progress, is_cached=True, without_config=True)
        waiting = publish_kept_drills(repository, state_folder(invocation.environ), progress.note)
        saved = read_drills(repository, since=first, damaged=damaged)
    ids = {one.id for one in saved}
    waiting = [one for one in waiting if one.id not in ids and (first is None or one.started >= first)]
    drills = sorted([*saved, *waiting], key=lambda one: (one.started, one.id))
    drills = [one for one in drills if database in (None, one.backup_name)]
    unsaved = {one.id for one in waiting}
    return Outcome(
        status="partial" if damaged else "done",
        document={
            "drills": [drill_document(one) | {"saved": one.id not in unsaved} for one in drills],
            "unreadable": [{"message": exc.message, "file": exc.facts.get("file")} for exc in damaged],
        },
        view=[*_view(drills, unsaved), *_unreadable(damaged)],
    )


def _view(drills: Sequence[DrillRecord], unsaved: set[str]) -> Iterator[RenderableType]:
    if not drills:
        yield Text("no drills")
        return
    right = ("RESTORED", "CHECKED", "ROWS", "ISSUES")
    table = FittingTable(
        *("ID", "TIME (UTC)", "BACKUP OF", "KIND", "RESULT", *right, ""),
        below=("ROWS", "ISSUES", ""),
        right=right,
    )
    for one in drills:
        table.add_row(
            one.id[:8],
            time_text(one.started),
            safe(one.backup_name),
            safe(one.backup_kind),
            Text(*outcome_text(one)),
            duration_text(one.restored_s) if one.restored_s is not None else "-",
            duration_text(one.proven_s) if one.proven_s is not None else "-",
            count_text(one.rows),
            str(len(one.issues)),
            "not saved yet" if one.id in unsaved else "",
        )
    yield table
    passed = sum(one.is_passed for one in drills)
    yield Text(f"{plural(len(drills), 'drill')}, {passed} passed", style="dim")


def _unreadable(damaged: list[RepositoryDamaged]) -> Iterator[RenderableType]:
    for exc in damaged:
        yield Text.assemble(("unreadable: ", "bold red"), safe(exc.message))
        if exc.hint:
            yield Text(f"  {safe(exc.hint)}", style="dim")
