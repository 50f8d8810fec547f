"""``pgstow show``"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from pgstow.catalog.affected import lost_contents
from pgstow.catalog.backups import BackupFiles, find_backup, load_readable_index
from pgstow.catalog.manifest import Manifest, TableRecord
from pgstow.cli.command import Invocation
from pgstow.cli.formats import content_text, count_text, duration_text, plural, safe, size_text, time_text
from pgstow.cli.output import Outcome
from pgstow.cli.records import (
    hold_documents,
    hold_text,
    imported_text,
    large_objects_text,
    read_bytes,
    record_document,
    reuse_text,
)
from pgstow.cli.tables import FittingTable, facts_table
from pgstow.repository import Hold

__all__ = ["BackupArgument", "show_command"]

_TABLES_SHOWN = 10
_UNENCRYPTED = {
    "socket": "a local socket, which never leaves the machine",
    "loopback": "not encrypted, within the machine",
}

BackupArgument = Annotated[
    str,
    typer.Argument(
        metavar="BACKUP",
        help="Id or the beginning of one, latest, NAME@latest, or NAME@2026-11-20T02:00 (the newest at that time, UTC).",
    ),
]


def show_command(
    invocation: Invocation,
    backup: BackupArgument,
    all_tables: Annotated[bool, typer.Option("--all", help="Every table, not only the largest.")] = False,
) -> Outcome:
    """Show what a backup holds: server, tables with their rows, globals, warnings, timings."""
    with invocation.output.progress() as progress:
        repository = invocation.repository(progress, is_cached=True, without_config=True)
        record = find_backup(repository, backup, progress.note)
        load_readable_index(repository, progress.note)
        files = BackupFiles(repository, record)
        manifest, lost = files.manifest, lost_contents(files)
        holds = repository.marks().holds().get(record.id, [])
    return Outcome(
        document={
            "backup": record_document(record) | {"holds": hold_documents(holds)},
            "manifest": json.loads(manifest.to_json()),
            "lost": list(lost),
        },
        view=[
            *_view(manifest, all_tables=all_tables),
            *_holds(holds),
            *_lost(lost, is_repaired=record.is_damaged),
        ],
    )


def _holds(holds: Sequence[Hold]) -> Iterator[RenderableType]:
    if holds:
        yield Text()
        yield from (Text(hold_text(hold), style="bold") for hold in holds)


def _lost(lost: Sequence[str], *, is_repaired: bool) -> Iterator[RenderableType]:
    if lost:
        yield Text()
        yield Text.assemble(("damaged: ", "bold red"), "what follows is lost; restore the rest with --table")
        for each in lost:
            yield Text(f"  {safe(each)}")
    elif is_repaired:
        yield Text()
        yield Text("lost its page-range indexes to damage; everything else is there", style="yellow")


def _view(manifest: Manifest, *, all_tables: bool) -> Iterator[RenderableType]:
    yield Text(f"backup {manifest.backup_id}", style="bold")
    yield _facts(manifest)
    if manifest.tables:
        yield Text()
        yield from _tables(manifest.tables, all_tables=all_tables)
    if manifest.warnings:
        yield Text()
        yield Text("warnings", style="bold yellow")
        for warning in manifest.warnings:
            yield Text(f"  {safe(warning.message)}")


def _facts(manifest: Manifest) -> Table:
    server, totals = manifest.server, manifest.totals
    table = facts_table()
    partial = ", partial" if manifest.is_partial else ""
    label = f", {safe(manifest.label)}" if manifest.label else ""
    table.add_row("source", f"{safe(manifest.name)} ({safe(manifest.kind)}{partial}{label})")
    if manifest.selection.tables:
        table.add_row("only", safe(", ".join(manifest.selection.tables)))
    if manifest.must_contain:
        table.add_row("must contain", safe(", ".join(manifest.must_contain)))
    table.add_row("data from", f"{time_text(manifest.snapshot_taken)} UTC{_of_file(manifest)}")
    if manifest.imported is not None:
        table.add_row("imported", imported_text(manifest.imported))
    role = ", a standby" if server.is_standby else ""
    table.add_row("server", f"{safe(server.version.partition(' on ')[0])} ({safe(server.host)}){role}")
    table.add_row("database", f"{safe(server.database)}, {safe(server.encoding)}, {safe(server.collate)}")
    if manifest.imported is None:  # a dump says nothing of these
        table.add_row("system", server.system_identifier or "identifier not visible to this role")
        table.add_row("position", f"{server.lsn or 'unknown'}, timeline {server.timeline or 'unknown'}")
        table.add_row("transport", server.tls or _UNENCRYPTED.get(server.via or "", "not encrypted"))
    table.add_row(
        "holds",
        content_text(tables=totals.tables, rows=totals.rows, size_bytes=totals.size_bytes),
    )
    table.add_row(
        "stored",
        f"{size_text(totals.stored_bytes)} for {size_text(totals.new_bytes)} new, {size_text(totals.known_bytes)} known",
    )
    if manifest.imported is None:
        table.add_row("reused", reuse_text(manifest))
    for alarm in manifest.reuse.alarms:
        table.add_row("", Text(f"ALARM: {safe(alarm)}", style="bold red"))
    if manifest.large_objects.count:
        table.add_row("large objects", large_objects_text(manifest))
    for (schema, name), newest in manifest.newest_rows().items():
        value = newest.value or "none: the table is empty"
        table.add_row("newest row", f"{safe(schema)}.{safe(name)} {safe(newest.column)}: {safe(value)}")
    for one in manifest.recorded:
        value = safe(one.error or ("NULL" if one.value is None else one.value))
        table.add_row("assertion", f"{safe(one.name)}: {'no value: ' if one.error else ''}{value}")
    extensions = ", ".join(f"{extension.name} {extension.version}" for extension in manifest.extensions)
    table.add_row("extensions", safe(extensions) or ("not stated" if manifest.imported else "none"))
    if manifest.imported is None:
        table.add_row("settings", _configuration(manifest))
    table.add_row("globals", _globals(manifest))
    for missing in manifest.globals.missing:
        table.add_row("", f"missing: {safe(missing)}")
    table.add_row("took", _timings(manifest))
    return table


def _of_file(manifest: Manifest) -> str:
    return ", the time of the file" if manifest.imported and not manifest.imported.is_dated else ""


def _configuration(manifest: Manifest) -> str:
    recorded = manifest.configuration
    if recorded is None or not recorded.is_captured:
        return "not captured" + (
            f": {listed}" if recorded and (listed := safe(", ".join(recorded.missing))) else ""
        )
    withheld = sum(one.value is None for one in recorded.settings)
    return (
        f"{len(recorded.settings)} not at their defaults"
        + (f", {withheld} of them without the value, which may be secret" if withheld else "")
        + ("" if recorded.is_complete else "; the role may not see all")
    )


def _globals(manifest: Manifest) -> str:
    if not manifest.globals.is_captured:
        return "not captured"
    return plural(len(manifest.globals.roles), "role") + (
        ", with password hashes" if manifest.globals.has_passwords else ", without password hashes"
    )


def _timings(manifest: Manifest) -> str:
    whole = duration_text((manifest.finished - manifest.started).total_seconds())
    parts = ", ".join(
        f"{safe(name)} {duration_text(seconds)}" for name, seconds in manifest.timings_s.items()
    )
    return f"{whole} ({parts})" if parts else whole


def _tables(records: Sequence[TableRecord], *, all_tables: bool) -> Iterator[RenderableType]:
    largest = sorted(records, key=lambda record: (-record.size_bytes, record.schema_, record.name))
    shown = largest if all_tables else largest[:_TABLES_SHOWN]
    columns = ("ROWS", "SIZE", "READ", "REUSED", "NEW")
    table = FittingTable("TABLE", *columns, "", below=("",), right=columns)
    for record in shown:
        via = record.load_via_root
        remark = f"rows of {safe(via.schema_)}.{safe(via.name)}" if via else ""
        remark = "extension configuration" if record.condition else remark
        remark = remark or (f"read: {safe(record.reuse_refused)}" if record.reuse_refused else "")
        name = f"{safe(record.schema_)}.{safe(record.name)}"
        sizes = (
            record.size_bytes,
            read_bytes(record),
            record.reused_bytes,
            record.new_bytes,
        )
        texts = ["unknown" if size is None else size_text(size) if size else "-" for size in sizes]
        table.add_row(name, count_text(record.rows), *texts, remark)
    yield table
    if len(shown) < len(largest):
        yield Text(f"and {len(largest) - len(shown)} more (--all shows them)")
