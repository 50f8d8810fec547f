"""``pgstow import``"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from pgstow.app.dump_source import STDIN
from pgstow.app.import_dump import Imported, import_dump
from pgstow.app.import_request import ImportRequest
from pgstow.catalog.backups import IMPORT
from pgstow.catalog.manifest import Manifest
from pgstow.cli.command import Invocation
from pgstow.cli.formats import content_text, count_text, duration_text, safe, size_text, time_text
from pgstow.cli.output import Outcome
from pgstow.cli.piped_dump import piped_dump
from pgstow.cli.records import imported_text
from pgstow.cli.tables import facts_table
from pgstow.core.errors import UsageError

__all__ = ["import_command"]


def import_command(
    invocation: Invocation,
    dump: Annotated[
        str,
        typer.Argument(
            metavar="DUMP",
            help="A file or folder, s3://BUCKET/KEY (gs://, az://), or - for standard input.",
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="Name of the source; by default that of the database in the dump."
        ),
    ] = None,
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="Kind, as for a backup.")] = IMPORT,
    label: Annotated[
        str | None, typer.Option("--label", metavar="TEXT", help="A note to find it by.")
    ] = None,
    taken: Annotated[
        str | None,
        typer.Option(
            "--taken",
            metavar="TIME",
            help="When the dump was made, like 2026-01-31T02:00Z; by default what it says itself, else its file's time.",
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, metavar="N", help="Sessions that read at once (plain SQL).")
    ] = 2,
) -> Outcome:
    """Make a backup of a dump that pg_dump or pg_dumpall made.

    Custom, directory and tar archives and plain SQL, compressed or not. The backup can be listed, restored, exported, verified and drilled like any other. Plain SQL is run on a throwaway server, without
    a superuser's rights.
    """
    request = ImportRequest(
        dump=dump,
        name=name,
        kind=kind,
        label=label,
        taken=_moment(taken) if taken is not None else None,
        environ=invocation.environ,
        stdin=piped_dump() if dump == STDIN else None,
        jobs=jobs,
        username=invocation.username,
    )
    request.check()
    with invocation.output.progress() as progress:
        repository = invocation.repository(progress, is_cached=True)
        imported = import_dump(request, repository, invocation.tools(), progress)
    return _outcome(imported)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as exc:
        raise UsageError(f"{text!r} is not a time", hint="write it like 2026-01-31T02:00Z") from exc
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment > datetime.now(UTC):
        raise UsageError(f"{text} is in the future: no dump can be from then")
    return moment


def _outcome(imported: Imported) -> Outcome:
    manifest = imported.manifest
    record, totals = manifest.imported, manifest.totals
    assert record is not None, "an import says what it is from"
    return Outcome(
        document={
            "id": manifest.backup_id,
            "snapshot": imported.snapshot_id,
            "name": manifest.name,
            "kind": manifest.kind,
            "label": manifest.label,
            "partial": manifest.is_partial,
            "database": manifest.server.database,
            "server_version": manifest.server.version,
            "snapshot_taken": manifest.snapshot_taken.isoformat(),
            "seconds": (manifest.finished - manifest.started).total_seconds(),
            "dump": record.model_dump(),
            "tables": totals.tables,
            "rows": totals.rows,
            "size_bytes": totals.size_bytes,
            "new_bytes": totals.new_bytes,
            "stored_bytes": totals.stored_bytes,
            "known_bytes": totals.known_bytes,
            "large_objects": manifest.large_objects.count,
            "warnings": [{"code": each.code, "message": each.message} for each in manifest.warnings],
        },
        view=list(_view(manifest)),
    )


def _view(manifest: Manifest) -> Iterator[RenderableType]:
    yield Text.assemble(
        ("imported ", "green"),
        (manifest.backup_id[:8], "bold"),
        f" of {safe(manifest.name)} ({safe(manifest.kind)})",
    )
    record, totals = manifest.imported, manifest.totals
    assert record is not None
    table = facts_table()
    table.add_row("  from", imported_text(record))
    table.add_row(
        "  data from",
        f"{time_text(manifest.snapshot_taken)} UTC" + ("" if record.is_dated else ", the time of the file"),
    )
    table.add_row(
        "  holds",
        content_text(tables=totals.tables, rows=totals.rows, size_bytes=totals.size_bytes),
    )
    if manifest.large_objects.count:
        table.add_row("  large objects", count_text(manifest.large_objects.count))
    table.add_row(
        "  stored", f"{size_text(totals.stored_bytes)} for {size_text(totals.new_bytes)} of new data"
    )
    table.add_row("  took", duration_text((manifest.finished - manifest.started).total_seconds()))
    yield table
    for warning in manifest.warnings:
        yield Text.assemble(("  warning: ", "yellow"), safe(warning.message))
