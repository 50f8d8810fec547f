"""``pgstow export``"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from pgstow.app.export import export
from pgstow.cli.command import Invocation
from pgstow.cli.formats import duration_text, plural, safe, size_text
from pgstow.cli.output import Outcome
from pgstow.cli.show import BackupArgument
from pgstow.core.errors import UsageError
from pgstow.restore.export import ExportFormat, ExportRequest

__all__ = ["export_command"]

_STDOUT = "-"


def export_command(
    invocation: Invocation,
    backup: BackupArgument,
    output_format: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            "-F",
            help="directory and custom are pg_dump's archives for pg_restore; plain is SQL for psql.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="File or folder that does not exist yet; - is standard output.",
        ),
    ],
    data_only: Annotated[bool, typer.Option("--data-only", help="Only rows (plain).")] = False,
    gzip: Annotated[bool, typer.Option("--gzip", help="Compress (plain).")] = False,
) -> Outcome:
    """Write a backup out as what pg_dump makes, for tools that know nothing of pgstow."""
    to_stdout = output == _STDOUT
    if to_stdout and invocation.output.as_json:
        raise UsageError("--json and --output - both want standard output", hint="write the export to a file")
    if to_stdout and sys.stdout.isatty() and output_format is ExportFormat.CUSTOM:
        raise UsageError(
            "a custom archive is not for a terminal",
            hint="redirect standard output, or name a file with --output",
        )
    request = ExportRequest(
        format=output_format, output=None if to_stdout else Path(output), data_only=data_only, gzip=gzip
    )
    with invocation.output.progress() as progress:
        repository = invocation.repository(progress, is_cached=True, without_config=True)
        report = export(backup, request, repository, invocation.tools(), progress, stdout=sys.stdout.buffer)
    return Outcome(
        is_silent=to_stdout,
        document={
            "backup": {"id": report.backup_id, "name": report.backup_name},
            "format": report.format.value,
            "output": os.fspath(report.output) if report.output else None,
            "members": report.members,
            "size_bytes": report.size_bytes,
            "seconds": report.seconds,
        },
        view=[
            Text.assemble(
                ("wrote ", "green"),
                f"{safe(output)}: backup {report.backup_id[:8]} of {safe(report.backup_name)}, ",
                f"{plural(report.members, 'member')}, {size_text(report.size_bytes)} in {duration_text(report.seconds)}",
            )
        ],
    )
