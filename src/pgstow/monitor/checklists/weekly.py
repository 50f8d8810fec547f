"""Every week: the weekly backup, verification, retention, whether alerts arrive, copies, clocks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from pgstow.monitor.checklists.items import ChecklistFacts, Item, judged
from pgstow.monitor.checklists.periodic import backup_of_period
from pgstow.monitor.checklists.recovery import drills_item
from pgstow.monitor.facts import RepositoryFacts
from pgstow.monitor.standing import DatabaseStanding
from pgstow.monitor.words import duration_words, moment_words
from pgstow.state.runs import RunRecord

__all__ = ["weekly_items"]

_WEEK = timedelta(days=8)  # a day later than it should be is not too late yet
_MOST_SKEW_S = 60.0


def weekly_items(facts: ChecklistFacts) -> Iterator[Item]:
    """Yield the items of the weekly checklist."""
    for standing in facts.standings:
        yield backup_of_period(standing, facts, kind="weekly", within=_WEEK, promoted_from="daily")
    for standing in facts.standings:
        yield drills_item(standing)
    yield _job(facts, "verify", "A sample was verified", "pgstow verify --read-data")
    yield _job(facts, "retention", "Retention ran", "pgstow retention plan")
    yield _canary(facts)
    for standing in facts.standings:
        yield _copies(standing)
    for repository in facts.facts.repositories.values():
        yield _clock(repository)


def _job(facts: ChecklistFacts, job: str, title: str, look: str) -> Item:
    runs = facts.facts.runs
    mine = [run for run in runs or () if run.job == job]
    done = next((run for run in mine if run.outcome == "done"), None)
    is_good: bool | None = None
    if runs is None:
        evidence = "the history of runs cannot be read"
    elif done is not None and facts.now - done.started <= _WEEK:
        is_good, evidence = _unless_newer_failed(mine, done)
    else:
        is_good = False
        last = (
            f"the last that succeeded was begun {moment_words(done.started)}"
            if done
            else "none ever succeeded"
        )
        evidence = f"{last}, as far as the history goes"
    return Item(
        code=f"{job}_ran",
        title=title,
        subject=None,
        result=judged(is_good=is_good),
        evidence=evidence,
        look=look,
    )


def _unless_newer_failed(runs: list[RunRecord], done: RunRecord) -> tuple[bool, str]:
    """Return whether the last run that ended, newest first, is the one that succeeded."""
    last = next(run for run in runs if run.outcome != "running")
    if last is done:
        return True, f"{moment_words(done.started)} on {done.host}"
    why = f": {last.error}" if last.error else ""
    return False, f"the last one, {moment_words(last.started)}, ended {last.outcome}{why}"


def _canary(facts: ChecklistFacts) -> Item:
    is_good: bool | None = None
    if facts.canary is None:
        evidence = "whether a test alert was acknowledged cannot be told"
    elif facts.canary.acknowledged is None:
        is_good, evidence = False, "not of every channel was a test alert ever acknowledged"
    else:
        within = timedelta(seconds=facts.facts.policy.canary_within_s)
        is_good = facts.now - facts.canary.acknowledged <= within
        evidence = f"the last test alert was acknowledged {moment_words(facts.canary.acknowledged)}"
    return Item(
        code="canary",
        title="A test alert arrived and was acknowledged",
        subject=None,
        result=judged(is_good=is_good),
        evidence=evidence,
        look="pgstow alerts test",
    )


def _copies(standing: DatabaseStanding) -> Item:
    places = [(kind.kind, place) for kind in standing.kinds if kind.plans for place in kind.destinations]
    lacking = [
        f"{place.repository} lacks {len(place.lacks)} {kind} ones" for kind, place in places if place.lacks
    ]
    unknown = sorted({place.repository for _, place in places if place.lacks is None})
    told = [*lacking, *(f"what {name} lacks cannot be told" for name in unknown)]
    if not places:
        told = ["no plan makes backups of it"]
    return Item(
        code="copies_complete",
        title="Every repository has caught up",
        subject=standing.database.name,
        result=judged(is_good=False if lacking else None if unknown or not places else True),
        evidence="; ".join(told) or "no repository lacks any of the newest backups",
        look=f"pgstow status --database {standing.database.name}",
    )


def _clock(repository: RepositoryFacts) -> Item:
    skew_s = repository.clock_skew_s
    if skew_s is None:
        evidence = "the store's clock could not be asked"
    else:
        where = "ahead of" if skew_s > 0 else "behind"
        evidence = f"this machine's clock is {duration_words(abs(skew_s))} {where} the store's"
    return Item(
        code="clock",
        title="The clocks agree",
        subject=repository.name,
        result=judged(is_good=None if skew_s is None else abs(skew_s) <= _MOST_SKEW_S),
        evidence=evidence,
        look="timedatectl",
    )
