"""``pgstow list``"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from pgstow.catalog.backups import BackupRecord, list_backups
from pgstow.cli.command import Invocation
from pgstow.cli.formats import safe, size_text, time_text
from pgstow.cli.output import Outcome
from pgstow.cli.records import plain_table, record_document

__all__ = ["list_command"]


def list_command(
    invocation: Invocation,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Only backups of this source.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="Only backups of this kind.")
    ] = None,
) -> Outcome:
    """List the backups in a repository, oldest first."""
    with invocation.output.progress() as progress:
        records = [
            record
            for record in list_backups(invocation.repository(progress))
            if name in (None, record.name) and kind in (None, record.kind)
        ]
    return Outcome(
        document={"backups": [record_document(record) for record in records]}, view=[_view(records)]
    )


def _view(records: list[BackupRecord]) -> RenderableType:
    if not records:
        return Text("no backups")
    table = plain_table(
        "ID", "NAME", "KIND", "TIME (UTC)", "SIZE", "ADDED", "", "LABEL", right=("SIZE", "ADDED")
    )
    for record in records:
        table.add_row(
            record.short_id,
            safe(record.name),
            safe(record.kind),
            time_text(record.time),
            size_text(record.size_bytes),
            size_text(record.stored_bytes),
            "partial" if record.is_partial else "",
            safe(record.label or ""),
        )
    return table
