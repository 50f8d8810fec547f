"""Every day: last night's backups, their sizes, critical tables, alerts, storage, RPO."""

from __future__ import annotations

from collections.abc import Iterator

from pgstow.monitor.checklists.items import ChecklistFacts, Item, Result, judged
from pgstow.monitor.facts import RepositoryFacts, holds
from pgstow.monitor.levels import Level
from pgstow.monitor.policy import AlertPolicy
from pgstow.monitor.standing import DatabaseStanding, KindStanding
from pgstow.monitor.usual import is_unusual, usual_size
from pgstow.monitor.verdict import judge_storage
from pgstow.monitor.words import duration_words, moment_words, size_words

__all__ = ["daily_items"]


def daily_items(facts: ChecklistFacts) -> Iterator[Item]:
    """Yield the items of the daily checklist."""
    for standing in facts.standings:
        yield _backups_present(standing)
    for standing in facts.standings:
        yield from (_size(standing, kind, facts.facts.policy) for kind in standing.kinds if kind.plans)
    for standing in facts.standings:
        if standing.database.critical or standing.database.must_contain:
            yield _tables_present(standing, facts)
    for standing in facts.standings:
        yield _rpo(standing)
    yield _alerts(facts)
    for repository in facts.facts.repositories.values():
        yield _storage(repository, facts)


def _backups_present(standing: DatabaseStanding) -> Item:
    """Every planned kind has its newest backup, in every repository that takes it."""
    problems, unknowns, good = [], [], []
    for kind in standing.kinds:
        for place in kind.destinations:
            since, newest = place.expected_since, place.newest
            if since is None:
                continue
            if newest is not None and newest.time >= since:
                good.append(f"{kind.kind} of {moment_words(newest.time)} in {place.repository}")
            elif place.lacks is None:
                unknowns.append(f"whether {place.repository} has the {kind.kind} one cannot be told")
            else:
                problems.append(f"{place.repository} has no {kind.kind} one since {moment_words(since)}")
    if not (problems or unknowns or good):
        unknowns.append("no plan with a schedule has come due for it")
    return Item(
        code="backups_present",
        title="The newest planned backups are in every repository",
        subject=standing.database.name,
        result=judged(is_good=False if problems else None if unknowns else True),
        evidence="; ".join([*problems, *unknowns] or good),
        look=f"pgstow status --database {standing.database.name}",
    )


def _size(standing: DatabaseStanding, kind: KindStanding, policy: AlertPolicy) -> Item:
    *before, newest = kind.sizes or (0,)
    usual = usual_size(before)
    is_good: bool | None
    if (
        kind.newest is not None and kind.newest.size_bytes is None
    ):  # else the one before would be taken for it
        is_good, evidence = None, f"the size of the newest, {kind.newest.short_id}, cannot be told"
    elif usual is None:
        is_good, evidence = None, f"there are {len(before)} earlier {kind.kind} backups to compare with"
    else:
        is_good = not is_unusual(newest, usual, policy)
        share = f" ({(newest - usual) / usual:+.1%})" if usual else ""
        evidence = f"{size_words(newest)}; the median of those before is {size_words(usual)}{share}"
        if is_good and not kind.is_known:
            is_good, evidence = None, f"{evidence}; the newest may be one that cannot be seen"
    return Item(
        code="size_normal",
        title=f"The size of the {kind.kind} backup is as usual",
        subject=standing.database.name,
        result=judged(is_good=is_good),
        evidence=evidence,
        look=f"pgstow list --name {standing.database.name} --kind {kind.kind}",
    )


def _tables_present(standing: DatabaseStanding, facts: ChecklistFacts) -> Item:
    wanted = (*standing.database.critical, *standing.database.must_contain)
    newest = standing.newest
    tables = None if newest is None else facts.facts.contents.get(newest.id)
    if newest is None:
        result, evidence = judged(is_good=False if standing.is_known else None), "there is no whole backup"
    elif tables is None:
        result, evidence = Result.UNKNOWN, f"what backup {newest.short_id} holds could not be read"
    else:
        missing = [name for name in dict.fromkeys(wanted) if not holds(tables, name)]
        found = f"all {len(set(wanted))} are in backup {newest.short_id} of {moment_words(newest.time)}"
        result = judged(is_good=not missing)
        evidence = f"backup {newest.short_id} lacks {', '.join(missing)}" if missing else found
    return Item(
        code="critical_tables",
        title="The newest backup holds every critical table",
        subject=standing.database.name,
        result=result,
        evidence=evidence,
        look=f"pgstow show {standing.database.name}@latest",
    )


def _rpo(standing: DatabaseStanding) -> Item:
    target_s, achieved_s = standing.database.rpo_s, standing.achieved_rpo_s
    if achieved_s is None:
        is_good = False if standing.is_known else None
        evidence = "there is no whole backup"
    elif target_s is None:
        is_good, evidence = None, f"{duration_words(achieved_s)} would be lost now; the settings name no rpo"
    else:
        is_good = achieved_s <= target_s
        evidence = f"{duration_words(achieved_s)} would be lost now, of {duration_words(target_s)} allowed"
    return Item(
        code="rpo",
        title="The RPO is kept",
        subject=standing.database.name,
        result=judged(is_good=is_good),
        evidence=evidence,
        look=f"pgstow status --database {standing.database.name}",
    )


def _alerts(facts: ChecklistFacts) -> Item:
    alerts = facts.facts.alerts
    if alerts is None:
        evidence = "nobody has evaluated them within a day, or the state database is away"
    else:
        evidence = "; ".join(alert.message for alert in alerts) or "none is open"
    return Item(
        code="no_open_alerts",
        title="No alert is open",
        subject=None,
        result=judged(is_good=None if alerts is None else not alerts),
        evidence=evidence,
        look="pgstow alerts check" if alerts is None else "pgstow alerts list",
    )


def _storage(repository: RepositoryFacts, facts: ChecklistFacts) -> Item:
    reasons = [
        reason for each in repository.storage for reason in judge_storage(each, repository, facts.facts)
    ]
    measured = [each for each in repository.storage if each.free_share is not None]
    error = repository.error or repository.storage_error
    is_good: bool | None = None
    if any(reason.level is not Level.OK for reason in reasons):
        is_good, evidence = False, "; ".join(reason.text for reason in reasons)
    elif error is not None:
        evidence = error.message
    elif not measured:
        evidence = "a bucket has no end by itself, and the settings give this repository no quota"
    else:
        is_good = True
        evidence = "; ".join(
            f"{each.where}: {size_words(each.free_bytes or 0)} free ({each.free_share or 0:.0%})"
            for each in measured
        )
    return Item(
        code="storage",
        title="There is room for the next backups",
        subject=repository.name,
        result=judged(is_good=is_good),
        evidence=evidence,
        look=f"pgstow repo stats --repo {repository.name}",
    )
