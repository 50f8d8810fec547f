"""Which backups a repository is to be brought that missed them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime

from pgstow.catalog.backups import BackupRecord

__all__ = ["plan_catch_up"]

_Series = tuple[str, str, bool]


def plan_catch_up(
    source: Iterable[BackupRecord],
    target: Iterable[BackupRecord],
    *,
    names: Collection[str] = (),
    kinds: Collection[str] = (),
    since: datetime | None = None,
    is_wanted: Callable[[BackupRecord], bool] = lambda _: True,
) -> list[BackupRecord]:
    """Return the backups of ``source`` that ``target`` lacks and is to have, oldest first.

    Those of a name and kind that are newer than the newest one it has, all where it has none, and those from ``since``
    on. What is older has expired there, for all that can be told, and must not come back. ``names`` and ``kinds`` limit
    it where any are given, ``is_wanted`` in any case. A damaged backup is left where it is.
    """
    there = list(target)
    ids = {record.id for record in there}
    newest: dict[_Series, datetime] = {}
    for record in there:
        newest[_series(record)] = max(record.time, newest.get(_series(record), record.time))

    def is_due(record: BackupRecord) -> bool:
        last = newest.get(_series(record))
        return last is None or record.time > last or (since is not None and record.time >= since)

    return sorted(
        (
            record
            for record in source
            if record.id not in ids
            and not record.is_damaged
            and (not names or record.name in names)
            and (not kinds or record.kind in kinds)
            and is_due(record)
            and is_wanted(record)
        ),
        key=lambda record: (record.time, record.id),
    )


def _series(record: BackupRecord) -> _Series:
    return record.name, record.kind, record.is_partial
