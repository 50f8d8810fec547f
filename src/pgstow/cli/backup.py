"""``pgstow backup``"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from pgstow.app.backup import BackupRequest, Destination, FailedBackup, backup_all_to, backup_to
from pgstow.app.opening import open_repository
from pgstow.capture.options import CapturedBackup, DestinationResult
from pgstow.catalog.backups import CRITICAL, DAILY
from pgstow.catalog.manifest import Manifest, Selection
from pgstow.cli.backup_options import (
    AllDatabasesOption,
    AlsoOption,
    ChecksOption,
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
    MustContainOption,
    NameOption,
    NewSourceOption,
    RolePasswordsOption,
    SchemaOption,
    SourceArgument,
    SplitBigTablesOption,
    TableOption,
    WaitOption,
)
from pgstow.cli.command import Invocation
from pgstow.cli.formats import content_text, duration_text, parse_size, safe, size_text
from pgstow.cli.output import Outcome, Output, Status
from pgstow.cli.password_options import AlsoPasswordCommandOption, AlsoPasswordFileOption
from pgstow.cli.passwords import ALSO_PASSWORD
from pgstow.cli.records import large_objects_text, read_whole, read_whole_lines, reuse_text, reused_bytes
from pgstow.cli.tables import facts_table
from pgstow.config.assertions import read_assertions_file
from pgstow.core.progress import Progress
from pgstow.core.quantities import parse_duration
from pgstow.core.secrets import Secret
from pgstow.postgres.names import parse_qualified

__all__ = ["backup_command"]


def backup_command(
    invocation: Invocation,
    source: SourceArgument = None,
    name: NameOption = None,
    kind: KindOption = None,
    label: LabelOption = None,
    all_databases: AllDatabasesOption = False,
    table: TableOption = None,
    schema: SchemaOption = None,
    exclude_schema: ExcludeSchemaOption = None,
    exclude_table: ExcludeTableOption = None,
    exclude_table_data: ExcludeTableDataOption = None,
    must_contain: MustContainOption = None,
    checks: ChecksOption = None,
    role_passwords: RolePasswordsOption = False,
    new_source: NewSourceOption = False,
    jobs: JobsOption = 2,
    limit_rate: LimitRateOption = None,
    split_big_tables: SplitBigTablesOption = False,
    full_read: FullReadOption = False,
    full_read_every: FullReadEveryOption = 7,
    max_blocking: MaxBlockingOption = 30.0,
    wait: WaitOption = None,
    also: AlsoOption = None,
    also_password_file: AlsoPasswordFileOption = None,
    also_password_command: AlsoPasswordCommandOption = None,
) -> Outcome:
    """Back up a PostgreSQL database into a repository.

    One consistent snapshot, encrypted before it leaves this machine; blocks the repository has already are
    not stored again. With `--also` it goes to several repositories: where one fails the others go on, and the exit code
    is 3. `pgstow repo copy` brings over later what that one missed.
    """
    request = BackupRequest(
        source=invocation.connection(source, variable="PGSTOW_SOURCE", what="database"),
        name=name,
        kind=kind or (CRITICAL if table else DAILY),
        label=label,
        selection=Selection(
            tables=tuple(sorted({str(parse_qualified(name)) for name in table or ()})),
            schemas=tuple(schema or ()),
            exclude_schemas=tuple(exclude_schema or ()),
            exclude_tables=tuple(exclude_table or ()),
            exclude_table_data=tuple(exclude_table_data or ()),
        ),
        must_contain=tuple(
            sorted({str(parse_qualified(name, may_be_schema=True)) for name in must_contain or ()})
        ),
        assertions=read_assertions_file(checks) if checks else (),
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
    if all_databases:
        request.check_for_all()
    with invocation.output.progress() as progress:
        destinations = _destinations(
            invocation, progress, also or [], also_password_file, also_password_command
        )
        tools = invocation.tools()
        results: Sequence[CapturedBackup | FailedBackup]
        if all_databases:
            results = backup_all_to(request, destinations, tools, progress)
        else:
            results = [backup_to(request, destinations, tools, progress)]
    return _outcome(invocation.output, results)


def _destinations(
    invocation: Invocation, progress: Progress, also: Sequence[str], file: Path | None, command: str | None
) -> list[Destination]:
    """Return where the backup goes. A single one is opened at once; with several each fails by itself."""
    if not also:
        return [Destination.of(invocation.repository(progress, is_cached=True))]
    location, password = invocation.require_location(), invocation.password()
    other = invocation.other_password(ALSO_PASSWORD, file, command, default=password)

    def opened(location: str, password: Secret) -> Destination:
        return Destination(
            name=location,
            open=lambda: open_repository(
                location, password, invocation.environ, on_retry=progress.note, is_cached=True
            ),
        )

    return [opened(location, password), *(opened(one, other) for one in also)]


def _outcome(output: Output, results: Sequence[CapturedBackup | FailedBackup]) -> Outcome:
    taken = [result for result in results if isinstance(result, CapturedBackup)]
    failed = [result for result in results if isinstance(result, FailedBackup)]
    alarms = any(result.manifest.reuse.alarms for result in taken)
    is_partial = failed or not all(result.is_everywhere for result in taken)
    status: Status = "failed" if alarms or not taken else "partial" if is_partial else "done"
    document: dict[str, Any] = {
        "backups": [_document(output, result) for result in taken],
        "failures": [
            {"database": result.database, "error": output.error_document(result.error)} for result in failed
        ],
    }
    view: list[RenderableType] = []
    for result in taken:
        view += _view(result.manifest)
        if len(result.destinations) > 1:
            view += [_destination_line(output, each) for each in result.destinations]
    for failure in failed:
        view.append(
            Text.assemble(
                ("failed: ", "bold red"),
                f"database {safe(failure.database)}: {safe(output.scrub(failure.error.message))}",
            )
        )
    return Outcome(status=status, document=document, view=view)


def _destination_line(output: Output, result: DestinationResult) -> Text:
    name = f"  {safe(result.name)}: "
    if result.error is not None:
        return Text.assemble(
            ("  failed: ", "bold red"), name.lstrip(), safe(output.scrub(result.error.message))
        )
    stored = size_text(result.stats.stored_bytes)
    return Text.assemble(name, ("saved", "green"), f" as {(result.snapshot_id or '')[:8]}, {stored} stored")


def _destination_document(output: Output, result: DestinationResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "location": result.location,
        "snapshot": result.snapshot_id,
        "new_bytes": result.stats.new_bytes,
        "stored_bytes": result.stats.stored_bytes,
        "known_bytes": result.stats.known_bytes,
        "error": output.error_document(result.error) if result.error is not None else None,
    }


def _document(output: Output, result: CapturedBackup) -> dict[str, Any]:
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
            "read_whole": [
                {
                    "schema": record.schema_,
                    "name": record.name,
                    "size_bytes": record.size_bytes,
                    "why": why,
                }
                for record, why in read_whole(manifest)
            ],
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
        "must_contain": list(manifest.must_contain),
        "recorded": [{"name": one.name, "value": one.value, "error": one.error} for one in manifest.recorded],
        "newest_rows": [
            {"schema": schema, "name": name, "column": newest.column, "value": newest.value}
            for (schema, name), newest in manifest.newest_rows().items()
        ],
        "destinations": [_destination_document(output, each) for each in result.destinations],
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
        content_text(tables=totals.tables, rows=totals.rows, size_bytes=totals.size_bytes),
    )
    table.add_row("  reused", reuse_text(manifest))
    for number, line in enumerate(read_whole_lines(manifest)):
        table.add_row("" if number else "  read whole", line)
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
