"""``pgstow restore``"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from pgstow.app.auditing import note_access
from pgstow.app.restore import restore
from pgstow.cli.command import Invocation
from pgstow.cli.formats import content_text, count_text, duration_text, safe, size_text, time_text
from pgstow.cli.output import Outcome
from pgstow.cli.restore_options import (
    CleanOption,
    CompareOption,
    ConfirmOption,
    CreateOption,
    DataOnlyOption,
    DisconnectOthersOption,
    JobsOption,
    NoOwnerOption,
    NoPrivilegesOption,
    SchemaOnlyOption,
    SchemaOption,
    TableOption,
    ToOption,
)
from pgstow.cli.show import BackupArgument
from pgstow.cli.tables import facts_table
from pgstow.postgres.conninfo import ConnInfo
from pgstow.restore.report import RestoreReport
from pgstow.restore.request import RestoreOptions

__all__ = ["restore_command"]


def restore_command(
    invocation: Invocation,
    backup: BackupArgument,
    to: ToOption = None,
    create: CreateOption = False,
    clean: CleanOption = False,
    confirm: ConfirmOption = None,
    disconnect_others: DisconnectOthersOption = False,
    table: TableOption = None,
    schema: SchemaOption = None,
    schema_only: SchemaOnlyOption = False,
    data_only: DataOnlyOption = False,
    no_owner: NoOwnerOption = False,
    no_privileges: NoPrivilegesOption = False,
    compare: CompareOption = False,
    jobs: JobsOption = 2,
) -> Outcome:
    """Restore a backup into a PostgreSQL database, and count what came back.

    A target that holds something already is refused unless it is to be overwritten on purpose. Exits with 3
    when something that was asked for could not be restored; the report says what.
    """
    target = invocation.connection(to, variable="PGSTOW_TARGET", what="target (--to)")
    options = RestoreOptions(
        tables=tuple(table or ()),
        schemas=tuple(schema or ()),
        schema_only=schema_only,
        data_only=data_only,
        no_owner=no_owner,
        no_privileges=no_privileges,
        clean=clean,
        create=create,
        confirm=confirm or (_ask(invocation, target) if clean else None),
        compare=compare,
        jobs=jobs,
        disconnect_others=disconnect_others,
    )
    options.check()
    note_access(target=str(target), database_user=target.params.get("user"))  # also where it is refused early
    with invocation.output.progress() as progress:
        repository = invocation.repository(progress, is_cached=True, without_config=True)
        report = restore(backup, target, options, repository, invocation.tools(), progress)
    return Outcome(
        status="partial" if report.is_partial else "done",
        document=_document(report),
        view=list(_view(report)),
    )


def _ask(invocation: Invocation, target: ConnInfo) -> str | None:
    """Return what a person typed to confirm; None when there is no one, and the restore will refuse."""
    return invocation.output.question(
        f"{target} will be overwritten and what it holds is lost.\nType the name of the database to go on: "
    )


def _document(report: RestoreReport) -> dict[str, Any]:
    target = report.target
    return {
        "backup": {
            "id": report.backup_id,
            "name": report.backup_name,
            "snapshot_taken": report.snapshot_taken.isoformat(),
        },
        "target": {
            "host": target.host,
            "port": target.port,
            "database": target.database,
            "database_oid": target.database_oid,
            "system_identifier": target.system_identifier,
            "server_version": target.server_version,
            "user": target.user,
        },
        "created_database": report.created_database,
        "rows": report.rows,
        "size_bytes": report.size_bytes,
        "compared": report.is_compared,
        "large_objects": report.large_objects,
        "objects": report.objects,
        "tables": [
            {
                "schema": table.schema,
                "name": table.name,
                "rows": table.rows,
                "size_bytes": table.size_bytes,
                "seconds": table.seconds,
                "frozen": table.is_frozen,
                "loaded_via": table.loaded_via,
            }
            for table in report.tables
        ],
        "skipped": [{"what": each.what, "why": each.why, "is_loss": each.is_loss} for each in report.skipped],
        "unset_foreign_keys": [
            {"table": each.table, "name": each.name, "reason": each.reason}
            for each in report.unset_foreign_keys
        ],
        "missing_roles": list(report.missing_roles),
        "warnings": list(report.warnings),
        "timings_s": report.timings_s,
    }


def _view(report: RestoreReport) -> Iterator[RenderableType]:
    yield Text.assemble(
        ("restored ", "green") if not report.is_partial else ("restored in part ", "bold yellow"),
        (report.backup_id[:8], "bold"),
        f" of {safe(report.backup_name)} into {safe(report.target.database)}",
        ", which was created" if report.created_database else "",
    )
    yield _facts(report)
    for lost in (each for each in report.skipped if each.is_loss):
        yield Text.assemble(("  not restored: ", "bold red"), f"{safe(lost.what)}: {safe(lost.why)}")
    for key in report.unset_foreign_keys:
        yield Text.assemble(
            ("  foreign key not set: ", "bold red"),
            f"{safe(key.name)} of {safe(key.table)}: {safe(key.reason)}",
        )
    for warning in report.warnings:
        yield Text.assemble(("  warning: ", "yellow"), safe(warning))


def _facts(report: RestoreReport) -> Table:
    table = facts_table()
    total_s = report.timings_s.get("total", 0.0)
    rate = f", {size_text(round(report.size_bytes / total_s))}/s" if total_s > 0 else ""
    table.add_row("  data from", f"{time_text(report.snapshot_taken)} UTC")
    table.add_row(
        "  loaded",
        content_text(tables=len(report.tables), rows=report.rows, size_bytes=report.size_bytes)
        + "; "
        + ("every row equals the backup's" if report.is_compared else "counts equal the backup's"),
    )
    if report.large_objects:
        table.add_row("  large objects", count_text(report.large_objects))
    phases = ", ".join(
        f"{safe(name)} {duration_text(s)}" for name, s in report.timings_s.items() if name != "total"
    )
    table.add_row("  took", f"{duration_text(total_s)}{rate}" + (f" ({phases})" if phases else ""))
    if report.missing_roles:
        table.add_row("  missing roles", safe(", ".join(report.missing_roles)))
    left_out = [each for each in report.skipped if not each.is_loss]
    if left_out:
        table.add_row("  left out", safe("; ".join(f"{each.what} ({each.why})" for each in left_out[:5])))
        if len(left_out) > 5:
            table.add_row("", f"and {len(left_out) - 5} more")
    return table
