"""``pgstow backup``"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from pgstow.app.backup import BackupRequest, FailedBackup, backup, backup_all
from pgstow.capture.options import CapturedBackup
from pgstow.catalog.backups import DAILY
from pgstow.catalog.manifest import Manifest, Selection
from pgstow.cli.command import Invocation
from pgstow.cli.durations import parse_duration
from pgstow.cli.formats import count_text, duration_text, parse_size, plural, safe, size_text
from pgstow.cli.output import Outcome, Output, Status
from pgstow.cli.records import facts_table, large_objects_text, reuse_text, reused_bytes

__all__ = ["backup_command"]

_CHOICE_PANEL = "What to take"
_MANNER_PANEL = "How to read"


def backup_command(
    invocation: Invocation,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="URL", help="postgresql://..., key=value pairs, or service=NAME. Or PGSTOW_SOURCE."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name of the source; by default the database's own."),
    ] = None,
    kind: Annotated[
        str, typer.Option("--kind", metavar="KIND", help="Kind, such as daily, weekly, dr.")
    ] = DAILY,
    label: Annotated[
        str | None, typer.Option("--label", metavar="TEXT", help="A note to find it by.")
    ] = None,
    all_databases: Annotated[
        bool,
        typer.Option(
            "--all-databases", help="Every database of the server, as one set.", rich_help_panel=_CHOICE_PANEL
        ),
    ] = False,
    schema: Annotated[
        list[str] | None,
        typer.Option(
            "--schema", "-n", metavar="PATTERN", help="Only these schemas.", rich_help_panel=_CHOICE_PANEL
        ),
    ] = None,
    exclude_schema: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude-schema", metavar="PATTERN", help="Not these schemas.", rich_help_panel=_CHOICE_PANEL
        ),
    ] = None,
    exclude_table: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude-table", metavar="PATTERN", help="Not these tables.", rich_help_panel=_CHOICE_PANEL
        ),
    ] = None,
    exclude_table_data: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude-table-data",
            metavar="PATTERN",
            help="These tables without their rows.",
            rich_help_panel=_CHOICE_PANEL,
        ),
    ] = None,
    role_passwords: Annotated[
        bool,
        typer.Option(
            "--role-passwords",
            help="Save the password hashes of roles too, if allowed.",
            rich_help_panel=_CHOICE_PANEL,
        ),
    ] = False,
    new_source: Annotated[
        bool,
        typer.Option(
            "--new-source",
            help="NAME is another server from now on: the old one was replaced.",
            rich_help_panel=_CHOICE_PANEL,
        ),
    ] = False,
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs",
            "-j",
            metavar="N",
            min=1,
            help="Connections that read rows.",
            rich_help_panel=_MANNER_PANEL,
        ),
    ] = 2,
    limit_rate: Annotated[
        str | None,
        typer.Option(
            "--limit-rate",
            metavar="RATE",
            help="At most this many bytes a second, such as 20M.",
            rich_help_panel=_MANNER_PANEL,
        ),
    ] = None,
    split_big_tables: Annotated[
        bool,
        typer.Option(
            "--split-big-tables",
            help="Read large tables in parallel: faster, but it may push hot pages out of the server's cache.",
            rich_help_panel=_MANNER_PANEL,
        ),
    ] = False,
    full_read: Annotated[
        bool,
        typer.Option(
            "--full-read",
            help="Read everything, and compare it with what would have been reused.",
            rich_help_panel=_MANNER_PANEL,
        ),
    ] = False,
    full_read_every: Annotated[
        int,
        typer.Option(
            "--full-read-every",
            metavar="N",
            min=1,
            help="Do so in every Nth backup.",
            rich_help_panel=_MANNER_PANEL,
        ),
    ] = 7,
    max_blocking: Annotated[
        float,
        typer.Option(
            "--max-blocking",
            metavar="SECONDS",
            min=0,
            help="Step aside and start over when others wait this long for a lock of ours; 0: never.",
            rich_help_panel=_MANNER_PANEL,
        ),
    ] = 30.0,
    wait: Annotated[
        str | None,
        typer.Option(
            "--wait",
            metavar="DURATION",
            help="Wait so long, such as 10m, for another backup of the same database or an exclusive lock; "
            "with --all-databases for each. Without it pgstow gives way at once.",
            rich_help_panel=_MANNER_PANEL,
        ),
    ] = None,
) -> Outcome:
    """Back up a PostgreSQL database into a repository.

    One consistent snapshot, encrypted before it leaves this machine; blocks the repository has already are
    not stored again.
    """
    request = BackupRequest(
        source=invocation.connection(source, variable="PGSTOW_SOURCE", what="database"),
        name=name,
        kind=kind,
        label=label,
        selection=Selection(
            schemas=tuple(schema or ()),
            exclude_schemas=tuple(exclude_schema or ()),
            exclude_tables=tuple(exclude_table or ()),
            exclude_table_data=tuple(exclude_table_data or ()),
        ),
        jobs=jobs,
        limit_rate=parse_size(limit_rate, option="--limit-rate") if limit_rate else None,
        split_big_tables=split_big_tables,
        role_passwords=role_passwords,
        max_blocking_s=max_blocking,
        new_source=new_source,
        full_read=full_read,
        full_read_every=full_read_every,
        wait_s=parse_duration(wait) if wait else 0.0,
        username=invocation.username,
    )
    request.check()
    with invocation.output.progress() as progress:
        repository = invocation.repository(progress)
        tools = invocation.tools()
        results: Sequence[CapturedBackup | FailedBackup]
        if all_databases:
            results = backup_all(request, repository, tools, progress)
        else:
            results = [backup(request, repository, tools, progress)]
    return _outcome(invocation.output, results)


def _outcome(output: Output, results: Sequence[CapturedBackup | FailedBackup]) -> Outcome:
    taken = [result for result in results if isinstance(result, CapturedBackup)]
    failed = [result for result in results if isinstance(result, FailedBackup)]
    alarms = any(result.manifest.reuse.alarms for result in taken)
    status: Status = "failed" if alarms or not taken else "partial" if failed else "done"
    document: dict[str, Any] = {
        "backups": [_document(result) for result in taken],
        "failures": [
            {"database": result.database, "error": output.error_document(result.error)} for result in failed
        ],
    }
    view: list[RenderableType] = []
    for result in taken:
        view += _view(result.manifest)
    for failure in failed:
        view.append(
            Text.assemble(
                ("failed: ", "bold red"),
                f"database {safe(failure.database)}: {safe(output.scrub(failure.error.message))}",
            )
        )
    return Outcome(status=status, document=document, view=view)


def _document(result: CapturedBackup) -> dict[str, Any]:
    manifest, totals = result.manifest, result.manifest.totals
    return {
        "id": manifest.backup_id,
        "snapshot": result.snapshot_id,
        "set_id": manifest.set_id,
        "name": manifest.name,
        "kind": manifest.kind,
        "label": manifest.label,
        "partial": manifest.is_partial,
        "database": manifest.server.database,
        "server_version": manifest.server.version,
        "snapshot_taken": manifest.snapshot_taken.isoformat(),
        "seconds": (manifest.finished - manifest.started).total_seconds(),
        "attempts": manifest.attempts,
        "tables": totals.tables,
        "rows": totals.rows,
        "size_bytes": totals.size_bytes,
        "new_bytes": totals.new_bytes,
        "stored_bytes": totals.stored_bytes,
        "known_bytes": totals.known_bytes,
        "read_bytes": totals.size_bytes - reused_bytes(manifest),
        "reused_bytes": reused_bytes(manifest),
        "reuse": {
            "base": manifest.reuse.base,
            "refused": manifest.reuse.refused,
            "full_read": manifest.reuse.is_full_read,
            "checked_ranges": manifest.reuse.checked_ranges,
            "alarms": list(manifest.reuse.alarms),
        },
        "large_objects": manifest.large_objects.count,
        "large_objects_reused": manifest.large_objects.reused,
        "large_objects_refused": manifest.large_objects.reuse_refused,
        "globals": {
            "captured": manifest.globals.is_captured,
            "role_passwords": manifest.globals.has_passwords,
            "missing": list(manifest.globals.missing),
        },
        "warnings": [{"code": warning.code, "message": warning.message} for warning in manifest.warnings],
    }


def _view(manifest: Manifest) -> Iterator[RenderableType]:
    yield Text.assemble(
        ("saved ", "green"),
        (manifest.backup_id[:8], "bold"),
        f" of {safe(manifest.name)} ({safe(manifest.kind)})",
    )
    yield _facts(manifest)
    for alarm in manifest.reuse.alarms:
        yield Text.assemble(
            ("  ALARM: ", "bold red"),
            f"{safe(alarm)}. Everything was read, so this backup is right;"
            f" {manifest.reuse.base or 'an earlier one'} may not be.",
        )
    for warning in manifest.warnings:
        yield Text.assemble(("  warning: ", "yellow"), safe(warning.message))


def _facts(manifest: Manifest) -> Table:
    totals = manifest.totals
    seconds = (manifest.finished - manifest.started).total_seconds()
    table = facts_table()
    rate = f", {size_text(round(totals.size_bytes / seconds))}/s" if seconds > 0 else ""
    table.add_row(
        "  holds",
        f"{plural(totals.tables, 'table')}, {count_text(totals.rows)} rows, {size_text(totals.size_bytes)}",
    )
    table.add_row("  reused", reuse_text(manifest))
    if manifest.large_objects.count:
        table.add_row("  large objects", large_objects_text(manifest))
    there = max(0.0, 1 - totals.new_bytes / totals.size_bytes) if totals.size_bytes else 1.0
    table.add_row(
        "  stored",
        f"{size_text(totals.stored_bytes)} for {size_text(totals.new_bytes)} of new data; {there:.0%} was there already",
    )
    table.add_row("  took", f"{duration_text(seconds)}{rate}")
    if not manifest.globals.is_captured:
        table.add_row("  globals", "not captured: roles and their settings are not in this backup")
    return table
