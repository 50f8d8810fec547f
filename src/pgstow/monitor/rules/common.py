"""What the rules have in common: the form of their judgement, and the words for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from pgstow.catalog.backups import IMPORT, BackupRecord
from pgstow.monitor.facts import RepositoryFacts
from pgstow.monitor.findings import Finding

__all__ = ["Judgement", "everything_of", "lasting", "moment", "names", "newest_in", "size", "some"]

# A finding, or the fingerprint of what cannot be told. What is neither was looked at and is in order.
Judgement: TypeAlias = Iterator[Finding | str]

_SHOWN = 8
_KIB = 1024


def everything_of(rule: str, beginning: str = "") -> str:
    """Return what stands for all findings of a rule, or those whose subject begins so: none of them can be told."""
    return f"{rule}/{beginning}*"


def newest_in(repository: RepositoryFacts, database: str, kind: str | None = None) -> BackupRecord | None:
    """Return the newest sound backup of a database, whole or not; None: there is none, as far as known.

    Without a ``kind``, dumps that were imported do not count.
    """
    return max(
        (
            record
            for record in repository.backups_of(database, kind)
            if not record.is_damaged and (kind is not None or record.kind != IMPORT)
        ),
        key=lambda record: record.time,
        default=None,
    )


def moment(at: datetime) -> str:
    """Return a time for a message."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def lasting(seconds: float) -> str:
    """Return a duration for a message, in the unit in which people think of it."""
    for unit_s, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * unit_s or seconds == unit_s:
            return some(round(seconds / unit_s), unit)
    return some(round(seconds), "second")


def some(count: int, noun: str) -> str:
    """Return ``1 table`` or ``1,200 tables``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def names(of: Sequence[str]) -> str:
    """Return the first few names."""
    rest = len(of) - _SHOWN
    return ", ".join(of[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def size(size_bytes: float) -> str:
    """Return a size for a message."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < _KIB:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= _KIB
    return f"{size_bytes:.1f} TiB"
