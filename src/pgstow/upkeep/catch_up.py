"""Which backups a repository is to be brought that missed them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime

from pgstow.catalog.backups import BackupRecord
from pgstow.repository import Repository
from pgstow.retention import ReasonCode, RetentionPolicies, plan_retention
from pgstow.upkeep.expire import take_state

__all__ = ["find_wanted", "plan_catch_up"]

# What speaks for one backup. The other reasons that keep are for all of a database: by these, what had expired in a
# target would come back whenever nothing may expire there.
_SPEAK_FOR_ONE = frozenset(
    {
        ReasonCode.RULE,
        ReasonCode.PROMOTED,
        ReasonCode.NO_RULE,
        ReasonCode.NOT_AGED,
        ReasonCode.HELD,
        ReasonCode.FLOOR,
        ReasonCode.LAST_WHOLE,
        ReasonCode.PROVEN,
    }
)

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


def find_wanted(
    target: Repository,
    present: Collection[BackupRecord],
    candidates: Collection[BackupRecord],
    policies: RetentionPolicies,
    *,
    now: datetime,
) -> frozenset[str]:
    """Return the ids of those ``candidates`` that retention would keep in ``target`` if they were there.

    What expired there is not wanted: a plan made later, of the same backups, would drop it again. Holds and proofs count
    that ``target`` has; one that the source alone holds stays in the source.
    """
    ids = {record.id for record in candidates}
    state = take_state(target, [*present, *candidates], now=now, attempts={})
    return frozenset(
        decision.backup.id
        for decision in plan_retention(state, policies).decisions
        if decision.backup.id in ids and any(reason.code in _SPEAK_FOR_ONE for reason in decision.reasons)
    )


def _series(record: BackupRecord) -> _Series:
    return record.name, record.kind, record.is_partial
