"""What drills say in checklists: that none found anything wrong, and that the RTO is kept."""

from __future__ import annotations

from pgstow.monitor.checklists.items import Item, judged
from pgstow.monitor.standing import DatabaseStanding
from pgstow.monitor.words import duration_words, moment_words, size_words

__all__ = ["drills_item", "rto_item"]


def drills_item(standing: DatabaseStanding) -> Item:
    """Return whether the newest drill of each kind of backups, in each repository, passed."""
    recovery, name = standing.recovery, standing.database.name
    is_good: bool | None = None
    failed = [
        f"drill {each.drill.id[:8]} of the {each.drill.backup_kind} backup in {each.repository} failed "
        f"{moment_words(each.drill.finished)}: {each.reason}"
        for each in recovery.failed
    ]
    failed += [f"the record of one that failed could not be saved: {run.error}" for run in recovery.unsaved]
    if failed:
        is_good = False
        evidence = "; ".join(failed)
    elif not recovery.is_known:
        evidence = "the records of drills could not be read"
    elif recovery.newest is None:
        evidence = "there was none"
    else:
        is_good, newest = True, recovery.newest
        evidence = f"the newest, {newest.id[:8]}, was {moment_words(newest.finished)}"
    return Item(
        code="drills_passed",
        title="No drill found anything wrong",
        subject=name,
        result=judged(is_good=is_good),
        evidence=evidence,
        look=f"pgstow drills list --database {name}",
    )


def rto_item(standing: DatabaseStanding) -> Item:
    """Return whether the newest drill of a whole backup was within the RTO; of a smaller one that says nothing of the newest."""
    target_s, recovery = standing.database.rto_s, standing.recovery
    achieved_s, drill, forecast = recovery.achieved_rto_s, recovery.achieved, recovery.forecast
    is_good: bool | None = None
    if achieved_s is None or drill is None:
        evidence = "no drill of a whole backup has measured it" + (
            "" if recovery.is_known else ", as far as can be read"
        )
    elif target_s is None:
        evidence = f"drill {drill.id[:8]} took {duration_words(achieved_s)}; the settings name no rto"
    else:
        is_good = achieved_s <= target_s
        evidence = (
            f"drill {drill.id[:8]} took {duration_words(achieved_s)} on {moment_words(drill.finished)}, of "
            f"{duration_words(target_s)} allowed"
        )
        if is_good and recovery.is_representative is False:
            is_good = True if forecast is not None and forecast.high_s <= target_s else None
            evidence += f"; the newest backup is larger: {size_words(recovery.newest_bytes or 0)}, not {size_words(drill.size_bytes)}"
    if forecast is not None:
        evidence += (
            f"; the next restore is forecast to take {duration_words(forecast.seconds)} "
            f"({duration_words(forecast.low_s)} to {duration_words(forecast.high_s)})"
        )
    return Item(
        code="rto",
        title="The RTO is kept",
        subject=standing.database.name,
        result=judged(is_good=is_good),
        evidence=evidence,
        look=f"pgstow status --database {standing.database.name}",
    )
