"""Bringing a backup back into a PostgreSQL database, and saying what came back.

The *target* is the database that is restored into. *Sections* are pg_restore's: pre-data (what tables
need), data, post-data (what needs the rows). The *selection* is what of the archive is restored; entries
that it cannot do without and the target lacks are *brought along*. An entry that is not restored is
*skipped*, with a reason in the report.
"""

from __future__ import annotations

from pgstow.restore.engine import restore
from pgstow.restore.report import (
    RestoredTable,
    RestoreReport,
    Skipped,
    TargetIdentity,
    UnsetForeignKey,
)
from pgstow.restore.request import ArchiveFiles, RestoreOptions

__all__ = [
    "ArchiveFiles",
    "RestoreOptions",
    "RestoreReport",
    "RestoredTable",
    "Skipped",
    "TargetIdentity",
    "UnsetForeignKey",
    "restore",
]
