"""What a backup is asked to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pgstow.catalog.assertions import Assertion
from pgstow.catalog.backups import DAILY, check_backup_name
from pgstow.catalog.manifest import Selection
from pgstow.core.errors import UsageError
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.names import parse_qualified

__all__ = ["BackupRequest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRequest:
    """What to back up and how. ``name`` None: the database's own name."""

    source: ConnInfo
    name: str | None = None
    kind: str = DAILY
    label: str | None = None
    selection: Selection = field(default_factory=Selection)
    must_contain: tuple[str, ...] = ()  # SCHEMA.TABLE or SCHEMA.*: a backup without one of them fails
    time_columns: Mapping[str, str] = field(
        default_factory=dict
    )  # SCHEMA.TABLE: its column; newest rows are recorded
    assertions: tuple[Assertion, ...] = ()  # asked under the snapshot, and recorded
    jobs: int = 2
    limit_rate: int | None = None
    split_big_tables: bool = False
    role_passwords: bool = False
    max_blocking_s: float = 30.0
    new_source: bool = False
    full_read: bool = False
    full_read_every: int = 7
    wait_s: float = 0.0  # for the database's lease and the repository's lock
    backup_id: str | None = None  # None: a new one
    supersedes: tuple[str, ...] = ()  # runs that were given up: whoever carried them out is not waited for
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
        if self.full_read_every < 1:
            raise UsageError("--full-read-every must be at least 1")
        if self.wait_s < 0:
            raise UsageError("--wait cannot be negative")
        for name in self.selection.tables:
            parse_qualified(name)
        if self.selection.tables and self.selection.model_copy(update={"tables": ()}).is_partial:
            raise UsageError("chosen tables cannot be combined with --schema or an exclude")
        for name in self.must_contain:
            parse_qualified(name, may_be_schema=True)
        for name in self.time_columns:
            parse_qualified(name)
        names = [assertion.name for assertion in self.assertions]
        if len(set(names)) < len(names):
            raise UsageError(
                "two assertions have the same name", hint="what is recorded is found again by its name"
            )

    def check_for_all(self) -> None:
        """Raise UsageError for what makes sense for one database only."""
        given = {
            "--table": self.selection.tables,
            "--must-contain": self.must_contain,
            "--checks": self.assertions,
        }
        for option, value in given.items():
            if value:
                raise UsageError(
                    f"{option} cannot be combined with --all-databases", hint="name the database"
                )
