"""``pgstow list``"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from pgstow.catalog.backups import BackupRecord, list_backups
from pgstow.cli.command import Invocation
from pgstow.cli.formats import safe, size_text, time_text
from pgstow.cli.output import Outcome
from pgstow.cli.records import hold_documents, record_document
from pgstow.cli.tables import FittingTable
from pgstow.core.errors import RepositoryDamaged
from pgstow.repository import Hold

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
    """List the backups in a repository, oldest first.

    Exits with 3 when a snapshot cannot be read: then a backup is missing from the list.
    """
    damaged: list[RepositoryDamaged] = []
    with invocation.output.progress() as progress:
        repository = invocation.repository(progress, is_cached=True, without_config=True)
        records = [
            record
            for record in list_backups(repository, damaged=damaged)
            if name in (None, record.name) and kind in (None, record.kind)
        ]
        holds = repository.marks().holds()
    return Outcome(
        status="partial" if damaged else "done",
        document={
            "backups": [
                record_document(record) | {"holds": hold_documents(holds.get(record.id, ()))}
                for record in records
            ],
            "unreadable": [{"message": exc.message, "file": exc.facts.get("file")} for exc in damaged],
        },
        view=[_view(records, holds), *_unreadable(damaged)],
    )


def _unreadable(damaged: list[RepositoryDamaged]) -> Iterator[RenderableType]:
    for exc in damaged:
        yield Text.assemble(("unreadable: ", "bold red"), safe(exc.message))
    if damaged:
        yield Text("which backups these were is unknown; pgstow repo repair removes them", style="dim")


def _remarks(record: BackupRecord, holds: Sequence[Hold]) -> Text:
    today = datetime.now(UTC).date()
    is_held = any(hold.until is None or hold.until >= today for hold in holds)
    marks = {"damaged": record.is_damaged, "partial": record.is_partial, "held": is_held}
    text = " ".join(mark for mark, applies in marks.items() if applies)
    return Text(text, style="bold red" if record.is_damaged else "")


def _view(records: list[BackupRecord], holds: Mapping[str, Sequence[Hold]]) -> RenderableType:
    if not records:
        return Text("no backups")
    table = FittingTable(
        *("ID", "NAME", "KIND", "TIME (UTC)", "SIZE", "ADDED", "", "LABEL"),
        below=("", "LABEL"),
        right=("SIZE", "ADDED"),
    )
    for record in records:
        table.add_row(
            record.short_id,
            safe(record.name),
            safe(record.kind),
            time_text(record.time),
            size_text(record.size_bytes),
            size_text(record.stored_bytes),
            _remarks(record, holds.get(record.id, ())),
            safe(record.label or ""),
        )
    return table
