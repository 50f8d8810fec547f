"""The backup that a week, a month or a year should have left."""

from __future__ import annotations

from datetime import timedelta

from pgstow.monitor.checklists.items import ChecklistFacts, Item, judged
from pgstow.monitor.standing import DatabaseStanding, KindStanding, age_s
from pgstow.monitor.words import moment_words

__all__ = ["backup_of_period"]


def backup_of_period(
    standing: DatabaseStanding,
    facts: ChecklistFacts,
    *,
    kind: str,
    within: timedelta,
    promoted_from: str | None = None,
) -> Item:
    """Return whether there is a backup of a kind from so long ago at most; one that is promoted stands for it."""
    kinds = {each.kind: each for each in standing.kinds}
    mine = kinds.get(kind)
    other = kinds.get(promoted_from) if facts.promotes and promoted_from else None
    is_known = standing.is_known and (mine is None or mine.is_known)
    is_good: bool | None = False if is_known else None
    if _is_recent(mine, facts, within) and mine is not None and mine.newest is not None:
        is_good, evidence = True, f"backup {mine.newest.short_id} of {moment_words(mine.newest.time)}"
    elif _is_recent(other, facts, within) and other is not None and other.newest is not None:
        is_good = True
        evidence = f"the {other.kind} backup of {moment_words(other.newest.time)} stands for it"
    elif mine is not None and mine.newest is not None:
        evidence = f"the newest is of {moment_words(mine.newest.time)}"
    else:
        evidence = f"there is no {kind} backup" + ("" if is_known else ", as far as can be seen")
    return Item(
        code=f"{kind}_backup",
        title=f"The {kind} backup is there",
        subject=standing.database.name,
        result=judged(is_good=is_good),
        evidence=evidence,
        look=f"pgstow list --name {standing.database.name} --kind {kind}",
    )


def _is_recent(kind: KindStanding | None, facts: ChecklistFacts, within: timedelta) -> bool:
    newest = None if kind is None else kind.newest
    return newest is not None and age_s(newest, facts.now) <= within.total_seconds()
