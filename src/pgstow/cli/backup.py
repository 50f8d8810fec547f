"""``pgstow backup``"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from pgstow.app.backup import BackupRequest, FailedBackup, backup, backup_all
from pgstow.capture.options import CapturedBackup
from pgstow.catalog.backups import DAILY
from pgstow.catalog.manifest import Manifest, Selection
from pgstow.cli.backup_options import (
    AllDatabasesOption,
    ExcludeSchemaOption,
    ExcludeTableDataOption,
    ExcludeTableOption,
    FullReadEveryOption,
    FullReadOption,
    JobsOption,
    KindOption,
    LabelOption,
    LimitRateOption,
    MaxBlockingOption,
    NameOption,
    NewSourceOption,
    RolePasswordsOption,
    SchemaOption,
    SourceArgument,
    SplitBigTablesOption,
    WaitOption,
)
from pgstow.cli.command import Invocation
from pgstow.cli.durations import parse_duration
from pgstow.cli.formats import count_text, duration_text, parse_size, plural, safe, size_text
from pgstow.cli.output import Outcome, Output, Status
from pgstow.cli.records import facts_table, large_objects_text, reuse_text, reused_bytes

__all__ = ["backup_command"]


def backup_command(
    invocation: Invocation,
    source: SourceArgument = None,
    name: NameOption = None,
    kind: KindOption = DAILY,
    label: LabelOption = None,
    all_databases: AllDatabasesOption = False,
    schema: SchemaOption = None,
    exclude_schema: ExcludeSchemaOption = None,
    exclude_table: ExcludeTableOption = None,
    exclude_table_data: ExcludeTableDataOption = None,
    role_passwords: RolePasswordsOption = False,
    new_source: NewSourceOption = False,
    jobs: JobsOption = 2,
    limit_rate: LimitRateOption = None,
    split_big_tables: SplitBigTablesOption = False,
    full_read: FullReadOption = False,
    full_read_every: FullReadEveryOption = 7,
    max_blocking: MaxBlockingOption = 30.0,
    wait: WaitOption = None,
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
        repository = invocation.repository(progress, is_cached=True)
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
