"""The demonstration's report, for a person to enjoy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pgstow.app.demo_report import DemoReport
from pgstow.cli.formats import count_text, duration_text, plural, rows_text, safe, size_text
from pgstow.cli.tables import plain_table

__all__ = ["demo_document", "demo_view"]

_BAR_CELLS = 32
_DIGEST_SHOWN = 12


def demo_document(report: DemoReport) -> dict[str, Any]:
    """Return the report as it appears in JSON."""
    return {
        "is_proven": report.is_proven,
        "server": report.server,
        "database_bytes": report.database_bytes,
        "repository": {
            "location": report.repository,
            "size_bytes": report.repository_bytes,
            "kept": report.is_kept,
            "password_file": report.password_file,
        },
        "backups": [
            {
                "title": backup.title,
                "id": backup.id,
                "tables": backup.tables,
                "rows": backup.rows,
                "size_bytes": backup.size_bytes,
                "new_bytes": backup.new_bytes,
                "stored_bytes": backup.stored_bytes,
                "seconds": backup.seconds,
            }
            for backup in report.backups
        ],
        "changes": list(report.changes),
        "steps": [{"title": step.title, "seconds": step.seconds} for step in report.steps],
        "checks": [{"title": check.title, "seconds": check.seconds} for check in report.checks],
        "restore_seconds": report.restore_seconds,
        "proofs": [
            {
                "table": proof.table,
                "source_rows": proof.source_rows,
                "restored_rows": proof.restored_rows,
                "is_equal": proof.is_equal,
                "source_digest": proof.source_digest,
                "restored_digest": proof.restored_digest,
            }
            for proof in report.proofs
        ],
        "next_commands": list(report.next_commands),
        "seconds": report.seconds,
    }


def demo_view(report: DemoReport) -> Iterator[RenderableType]:
    """Yield the report's parts in the order in which they are read."""
    yield Text()
    yield _heading(
        "Saved", f"{safe(report.server)}, a database of {size_text(report.database_bytes)} on disk"
    )
    yield _backups(report)
    yield Text()
    yield _sizes(report)
    if report.changes:
        yield Text()
        yield _heading("Changed between the backups")
        for change in report.changes:
            yield Text(f"  {safe(change)}")
    yield Text()
    yield _heading("Timed")
    yield _timings(report)
    yield Text()
    yield _heading("Proven", "every row of the restored database compared with its source, by content")
    yield _proofs(report)
    for check in report.checks:
        yield Text.assemble(f"  {safe(check.title)}  ", ("ok", "green"))
    yield Text()
    yield _verdict(report)
    if report.next_commands:
        yield _heading("Try next")
        for command in report.next_commands:
            yield Text(f"  {safe(command)}", style="cyan", overflow="fold", no_wrap=True)


def _heading(title: str, remark: str = "") -> Text:
    return Text.assemble((title, "bold"), (f"  {remark}" if remark else "", "dim"))


def _backups(report: DemoReport) -> Table:
    table = plain_table(
        "",
        "TABLES",
        "ROWS",
        "DATA",
        "NEW",
        "STORED",
        "TIME",
        right=("TABLES", "ROWS", "DATA", "NEW", "STORED", "TIME"),
    )
    for backup in report.backups:
        table.add_row(
            f"  {safe(backup.title)} {backup.id[:8]}",
            count_text(backup.tables),
            count_text(backup.rows),
            size_text(backup.size_bytes),
            size_text(backup.new_bytes),
            Text(size_text(backup.stored_bytes), style="green"),
            duration_text(backup.seconds),
        )
    return table


def _sizes(report: DemoReport) -> Table:
    """Bars: what was there, and what each backup really took."""
    rows = [("database on disk", report.database_bytes, "blue")]
    rows += [(f"{backup.title} added", backup.stored_bytes, "green") for backup in report.backups]
    rows.append(
        (f"repository, {plural(len(report.backups), 'backup')}", report.repository_bytes, "bold green")
    )
    largest = max((size for _, size, _ in rows), default=1) or 1
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for title, size_bytes, style in rows:
        cells = size_bytes * _BAR_CELLS / largest
        bar = "█" * int(cells) + ("▌" if cells % 1 >= 0.5 or cells < 1 else "")
        table.add_row(f"  {safe(title)}", Text(bar, style=style), size_text(size_bytes))
    return table


def _timings(report: DemoReport) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for step in report.steps:
        table.add_row(f"  {safe(step.title)}", duration_text(step.seconds))
    table.add_row(
        Text("  everything together", style="bold"), Text(duration_text(report.seconds), style="bold")
    )
    return table


def _proofs(report: DemoReport) -> Table:
    table = plain_table(
        "  TABLE", "SOURCE ROWS", "RESTORED ROWS", "DIGEST", "", right=("SOURCE ROWS", "RESTORED ROWS")
    )
    for proof in report.proofs:
        table.add_row(
            f"  {safe(proof.table)}",
            count_text(proof.source_rows),
            count_text(proof.restored_rows),
            Text(proof.restored_digest[:_DIGEST_SHOWN], style="dim"),
            Text("equal", style="green") if proof.is_equal else Text("DIFFERENT", style="bold red"),
        )
    return table


def _verdict(report: DemoReport) -> Panel:
    equal = sum(proof.is_equal for proof in report.proofs)
    if report.is_proven:
        tables = [proof for proof in report.proofs if "." in proof.table]  # large objects are in no schema
        rows = sum(proof.restored_rows for proof in tables)
        first = Text(
            f"The restore is proven: {plural(len(tables), 'table')}, {rows_text(rows)}, all equal.",
            style="bold green",
        )
    else:
        first = Text(
            f"The restore is NOT proven: {equal} of {len(report.proofs)} tables are equal.", style="bold red"
        )
    where = "The repository is at" if report.is_kept else "The repository was at"
    lines = [
        first,
        Text(f"Restored in {duration_text(report.restore_seconds)}. {where}"),
        Text(safe(report.repository), overflow="fold"),
    ]
    return Panel(
        Group(*lines),
        box=box.ROUNDED,
        expand=False,
        border_style="green" if report.is_proven else "red",
        padding=(0, 2),
    )
