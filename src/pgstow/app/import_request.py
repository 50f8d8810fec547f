"""What an import is asked to do, and what it reports."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO

from pgstow.catalog.backups import IMPORT, check_backup_name
from pgstow.catalog.manifest import Manifest
from pgstow.core.errors import Interrupted, UsageError

__all__ = ["ImportRequest", "Imported"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """``dump`` is a file or folder, s3://BUCKET/KEY (gs, az), or ``-`` for ``stdin``.

    ``name`` None: that of the database in the dump. ``taken``, aware, replaces the time that the dump tells.
    ``environ`` has the credentials of buckets.
    """

    dump: str
    name: str | None = None
    kind: str = IMPORT
    label: str | None = None
    taken: datetime | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    stdin: IO[bytes] | None = None
    jobs: int = 2
    username: str = "pgstow"

    def check(self) -> None:
        """Raise UsageError for a request that cannot be carried out as it stands."""
        check_backup_name(self.kind, what="kind")
        if self.name is not None:
            check_backup_name(self.name)
        if self.label is not None and (not self.label or re.search(r"[,\x00-\x1f\x7f]", self.label)):
            raise UsageError("a label cannot be empty or hold commas or control characters")
        if self.jobs < 1:
            raise UsageError("--jobs must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A dump that is a backup now. ``interrupted``: somebody asked for an end when it was there already."""

    manifest: Manifest
    snapshot_id: str
    interrupted: Interrupted | None = None
