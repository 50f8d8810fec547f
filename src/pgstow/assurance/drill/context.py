"""What the checks of a drill are given."""

from __future__ import annotations

from dataclasses import dataclass

from pgstow.catalog.assertions import Assertion
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.tools import ClientTools
from pgstow.restore.report import RestoreReport
from pgstow.restore.request import ArchiveFiles

__all__ = ["CheckContext"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckContext:
    """A restored database, and the backup that it came from.

    ``optional_extensions`` may be absent; what depends on them is skipped. ``is_throwaway``: the server is ours alone, and we
    are its superuser. ``tools``: pg_dump is asked what came back; without them that stays unknown.
    """

    target: ConnInfo
    files: ArchiveFiles
    restored: RestoreReport
    assertions: tuple[Assertion, ...] = ()
    optional_extensions: frozenset[str] = frozenset()
    is_throwaway: bool = True
    jobs: int = 2
    tools: ClientTools | None = None
