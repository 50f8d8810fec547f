"""Controls of what can be destroyed where backups are kept: until when it is held, and what its writers may do."""

from __future__ import annotations

from datetime import datetime, timedelta

from pgstow.evidence.controls.findings import Control, Finding, Result, day, unknown
from pgstow.evidence.facts import DeletionFacts, EvidenceFacts, LockFacts, RepositoryFacts

__all__ = ["CONTROLS"]

_COPY_LATE = timedelta(days=1)  # so much later than elsewhere the newest backup may come to where it is held


def _immutable(facts: EvidenceFacts) -> list[Finding]:
    """C8."""
    tiers = sorted({(each.database, each.kind) for each in facts.tiers})
    if not tiers:
        return [unknown("backups", "no repository shows a backup", "a backup")]
    return [_immutable_of(facts, database, kind) for database, kind in tiers]


def _immutable_of(facts: EvidenceFacts, database: str, kind: str) -> Finding:
    """Return whether one copy of the newest backup is held: what one place keeps nobody can take away by emptying the others."""
    subject = f"{database}/{kind}"
    mine = [each for each in facts.locks if (each.database, each.kind) == (database, kind)]
    told = "; ".join(f"{each.repository}: {_lock_words(each, facts.made)}" for each in mine)
    newest = max((each.made for each in mine), default=facts.made)
    if any(newest - each.made > _COPY_LATE for each in mine):
        told += f"; the newest of all was made on {day(newest)}"
    states = [_is_held(each, newest=newest, now=facts.made) for each in mine]
    if True in states:
        return Finding(subject=subject, result=Result.PASS, text=told)
    if not mine or None in states or not facts.are_backups_known:
        return unknown(
            subject,
            told or "nothing was read back",
            "the newest backup in a bucket whose Object Lock, in compliance mode, can be read back for every object, and a rule"
            " of retention for this kind",
        )
    return Finding(subject=subject, result=Result.FAIL, text=told)


def _is_held(lock: LockFacts, *, newest: datetime, now: datetime) -> bool | None:
    """Return whether every object of a backup is held as long as it should be; None where that is not known.

    That an old one is held says nothing of the newest; nor does one that may be let go by now.
    """
    if lock.is_lockable is False:
        return False
    if lock.error is not None or lock.is_lockable is None or lock.needed is None or not lock.objects:
        return None
    if lock.held + lock.liftable < lock.objects:
        return False
    is_current = lock.needed > now and newest - lock.made <= _COPY_LATE
    return True if is_current and not lock.liftable else None


def _lock_words(lock: LockFacts, now: datetime) -> str:
    if lock.is_lockable is False:
        return lock.error or "nothing is held there: the bucket has no Object Lock"
    if lock.error is not None:
        return f"unknown ({lock.error})"
    if lock.is_lockable is None:
        return "unknown"
    if lock.needed is None:
        return "by the rules it is kept always, and no lock lasts always"
    told = (
        f"of {lock.objects} objects of the newest, made on {day(lock.made)}, {lock.held} are held in compliance mode"
        f" until {day(lock.needed)} or longer"
    )
    if lock.needed <= now:
        told += ", which is over"
    if lock.liftable:
        told += f", {lock.liftable} in governance mode, which some may lift: who is not known"
    if lock.held + lock.liftable < lock.objects and lock.earliest is not None:
        told += f"; the first is let go on {day(lock.earliest)}"
    return told


def _cannot_delete(facts: EvidenceFacts) -> list[Finding]:
    """C9."""
    return [_cannot_delete_in(repository) for repository in facts.repositories]


def _cannot_delete_in(repository: RepositoryFacts) -> Finding:
    subject, rights = f"repository {repository.name}", repository.deletion
    if rights is None:
        return unknown(
            subject,
            "nobody asked what the credentials may do",
            "make the report with --probe-delete, where backups are made; it deletes names that no object has",
        )
    if rights.error is not None:
        return unknown(subject, rights.error, "a store that answers what its credentials may do")
    if not rights.may_write:
        return unknown(
            subject,
            "the credentials of this host cannot write there, so that they are not those of who makes backups",
            "a report made where backups are made",
        )
    result, text = _rights(rights)
    return Finding(subject=subject, result=result, text=text)


def _rights(rights: DeletionFacts) -> tuple[Result, str]:
    if rights.is_folder:
        return Result.FAIL, "a folder: who may write there may remove everything in it"
    if rights.may_delete_versions:
        return Result.FAIL, "the credentials may delete objects, and their older versions too"
    if not rights.keeps_versions:
        how = "delete objects" if rights.may_delete else "not delete objects, but overwrite them"
        return Result.FAIL, f"the credentials may {how}, and the bucket keeps no older versions"
    how = "hide objects" if rights.may_delete else "neither delete nor hide objects"
    return Result.PASS, (
        f"the credentials may {how}; older versions are kept, and they may not delete these"
        " (whether a rule of the bucket's life cycle does was not asked)"
    )


CONTROLS = (
    Control(
        code="C8",
        title="Backups are immutable",
        demand="Of the newest backup of every kind one copy at least is held until its retention ends, and nobody can lift that.",
        looked_at="the Object Lock of every object of these backups, read back from the stores, when the report was made",
        judge=_immutable,
    ),
    Control(
        code="C9",
        title="Who writes cannot delete",
        demand="The credentials that backups are written with cannot destroy them.",
        looked_at="what the stores let the credentials of this host do, when the report was made",
        judge=_cannot_delete,
    ),
)
