"""Restoring in tests, and asking what came back."""

from __future__ import annotations

from typing import Any

import psycopg

from pgstow.assurance.compare import compare_databases
from pgstow.core.progress import Progress, SilentProgress
from pgstow.postgres.conninfo import ConnInfo
from pgstow.restore import ArchiveFiles, RestoreOptions, RestoreReport, restore
from support.backups import tools_for

__all__ = ["assert_equal_rows", "bring_back", "execute", "fetch"]


def execute(conninfo: ConnInfo, statements: str) -> None:
    """Run statements, each in a transaction of its own unless they say otherwise."""
    with psycopg.connect(conninfo.connect_string(), autocommit=True, client_encoding="utf-8") as connection:
        connection.execute(statements)


def fetch(conninfo: ConnInfo, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    with psycopg.connect(conninfo.connect_string(), autocommit=True, client_encoding="utf-8") as connection:
        return connection.execute(query).fetchall()


def bring_back(
    files: ArchiveFiles,
    target: ConnInfo,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> RestoreReport:
    """Restore with the tools of the target's own release; ``options`` are those of RestoreOptions."""
    tools = [tools_for(target.with_database("postgres"))]
    return restore(
        files, target, RestoreOptions(**options), tools=tools, progress=progress or SilentProgress()
    )


def assert_equal_rows(source: ConnInfo, target: ConnInfo) -> None:
    """Every table, sequence and large object is the same on both sides."""
    compared = compare_databases(source, target)
    assert compared
    assert [each for each in compared if not each.is_equal] == []
