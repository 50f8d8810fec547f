"""``pgstow audit list``"""

from __future__ import annotations

from typing import Annotated

import typer

from pgstow.app.audit import TrailFilter, list_trail
from pgstow.cli.audit_options import parse_moment
from pgstow.cli.audit_view import entry_documents, entry_view, problem_documents
from pgstow.cli.command import Invocation
from pgstow.cli.output import Outcome

__all__ = ["audit_list_command"]


def audit_list_command(
    invocation: Invocation,
    since: Annotated[
        str | None, typer.Option("--since", metavar="WHEN", help="A day, a moment, or how long ago: 7d.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help="The same.")] = None,
    action: Annotated[
        str | None, typer.Option("--action", metavar="ACTION", help="Such as restore, export, 'keys add'.")
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="NAME", help="What was done on this host.")
    ] = None,
    backup: Annotated[
        str | None,
        typer.Option("--backup", metavar="ID|NAME", help="Of this backup, or of the database of this name."),
    ] = None,
) -> Outcome:
    """List who did what with a repository, oldest first.

    The signature of each entry is checked; whether entries are missing only audit verify tells. Exits with 3 when something
    in the trail cannot be read.
    """
    wanted = TrailFilter(
        since=parse_moment(since, option="--since"),
        until=parse_moment(until, option="--until", is_end=True),
        action=action,
        host=host,
        backup=backup,
    )
    with invocation.output.progress() as progress:
        listed = list_trail(invocation.repository(progress, is_cached=True), wanted, progress)
    return Outcome(
        status="partial" if listed.problems else "done",
        document={
            "entries": entry_documents(listed.entries),
            "problems": problem_documents(listed.problems),
        },
        view=list(entry_view(listed.entries, listed.problems)),
    )
