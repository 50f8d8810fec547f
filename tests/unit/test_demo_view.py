"""What the demonstration says in the end."""

from __future__ import annotations

import io

from rich.console import Console

from pgstow.app.demo_report import DemoBackup, DemoReport, TableProof
from pgstow.cli.demo_view import demo_view


def proof(table: str, rows: int) -> TableProof:
    return TableProof(
        table=table,
        source_rows=rows,
        restored_rows=rows,
        is_equal=True,
        source_digest="aa",
        restored_digest="aa",
    )


def test_the_verdict_counts_tables_and_rows_as_the_backups_do() -> None:
    """Large objects are compared too, and are no table."""
    backup = DemoBackup(
        title="first backup",
        id="0123",
        tables=2,
        rows=30,
        size_bytes=1,
        new_bytes=1,
        stored_bytes=1,
        seconds=1.0,
    )
    report = DemoReport(
        server="PostgreSQL 18.4",
        database_bytes=1,
        repository="/r",
        repository_bytes=1,
        password_file=None,
        is_kept=True,
        backups=(backup, backup),
        changes=(),
        steps=(),
        restore_seconds=1.0,
        proofs=(proof("large objects", 5), proof("public.a", 10), proof("public.b", 20)),
        seconds=2.0,
    )
    stream = io.StringIO()
    Console(file=stream, width=80).print(*demo_view(report))
    assert "The restore is proven: 2 tables, 30 rows, all equal." in stream.getvalue()
