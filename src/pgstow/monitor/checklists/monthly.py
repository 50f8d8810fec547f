"""Every month: monthly and off-site backups, restore tests, keys, contacts, capacity, retention, versions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from pgstow.monitor.checklists.items import ChecklistFacts, Item, Result, judged
from pgstow.monitor.checklists.periodic import backup_of_period
from pgstow.monitor.checklists.recovery import rto_item
from pgstow.monitor.facts import RepositoryFacts
from pgstow.monitor.standing import DatabaseStanding
from pgstow.monitor.words import moment_words, size_words
from pgstow.postgres.tools import known_outdated

__all__ = ["monthly_items"]

_MONTH = timedelta(days=32)
_KEY_AGE = timedelta(days=365)
_ROOM = timedelta(days=60)
_TESTED = timedelta(days=30)


def monthly_items(facts: ChecklistFacts) -> Iterator[Item]:
    """Yield the items of the monthly checklist."""
    for standing in facts.standings:
        yield backup_of_period(standing, facts, kind="monthly", within=_MONTH, promoted_from="daily")
        yield backup_of_period(standing, facts, kind="dr", within=_MONTH)
        yield _restore_test(standing, facts)
        yield rto_item(standing)
        yield _version(standing, facts)
    for repository in facts.facts.repositories.values():
        yield _keys(repository, facts)
        yield _escrow(repository)
        yield _capacity(repository, facts)
        yield _retention(repository, facts)
    yield _contacts(facts)


def _restore_test(standing: DatabaseStanding, facts: ChecklistFacts) -> Item:
    name, recovery = standing.database.name, standing.recovery
    passed = recovery.last_passed
    is_good: bool | None = False if recovery.is_known else None
    if passed is not None and facts.now - passed.finished <= _TESTED:
        is_good = True
        evidence = (
            f"drill {passed.id[:8]} of the {passed.backup_kind} backup {passed.backup_id[:8]} passed "
            f"{moment_words(passed.finished)}: {passed.rows:,} rows, {len(passed.checks)} checks"
        )
    elif passed is not None:
        evidence = f"the last drill that passed, {passed.id[:8]}, was {moment_words(passed.finished)}"
    else:
        evidence = "no drill ever passed" + ("" if recovery.is_known else ", as far as can be read")
    return Item(
        code="restore_test",
        title="A restore was tested within 30 days",
        subject=name,
        result=judged(is_good=is_good),
        evidence=evidence,
        look=f"pgstow drill --rotate --database {name}",
    )


def _version(standing: DatabaseStanding, facts: ChecklistFacts) -> Item:
    newest = standing.newest
    number = None if newest is None else facts.facts.server_versions.get(newest.id)
    outdated = None
    if number is None:
        evidence = "which version the server has could not be read from a backup"
    else:
        major, minor = divmod(number, 10000)
        outdated = known_outdated((major, minor))
        evidence = (
            outdated
            or f"the server was PostgreSQL {major}.{minor} at the newest backup; nothing is known against it"
        )
    return Item(
        code="server_version",
        title="The server's release is maintained",
        subject=standing.database.name,
        result=judged(is_good=None if number is None else outdated is None),
        evidence=evidence,
        look="pgstow doctor URL",
    )


def _keys(repository: RepositoryFacts, facts: ChecklistFacts) -> Item:
    times = repository.key_times
    oldest = min(times) if times else None
    return Item(
        code="key_rotated",
        title="Every password was changed within a year",
        subject=repository.name,
        result=judged(is_good=None if oldest is None else facts.now - oldest <= _KEY_AGE),
        evidence="when passwords were set could not be read"
        if oldest is None
        else f"the oldest password is of {moment_words(oldest)}",
        look=f"pgstow keys list --repo {repository.name}",
    )


def _escrow(repository: RepositoryFacts) -> Item:
    return Item(
        code="key_escrow",
        title="The password that is kept elsewhere opens the repository",
        subject=repository.name,
        result=Result.UNKNOWN,
        evidence="only a person can fetch it from where it is kept; without it no backup can be read",
        look=f"pgstow list --repo {repository.location} --password-file FILE",
    )


def _capacity(repository: RepositoryFacts, facts: ChecklistFacts) -> Item:
    finite = [each for each in repository.storage if each.free_bytes is not None]
    known = [each for each in finite if each.growth is not None]
    full = [each for each in known if each.forecast_full is not None]
    soon = [each for each in full if each.forecast_full and each.forecast_full.at - facts.now < _ROOM]
    told = [
        f"{each.where}: full on {each.forecast_full.at:%Y-%m-%d}"
        for each in full
        if each.forecast_full is not None
    ]
    told += [
        f"{each.where}: {size_words(each.growth.per_day)} a day, not full in sight"
        for each in known
        if each.growth is not None and each.forecast_full is None
    ]
    is_known = bool(finite) and len(known) == len(finite)
    return Item(
        code="capacity",
        title="Storage lasts for two months and more",
        subject=repository.name,
        result=judged(is_good=False if soon else True if is_known else None),
        evidence="; ".join(told)
        or "too little is known: it takes three measurements over a day or more, and a quota for a bucket",
        look="pgstow status",
    )


def _retention(repository: RepositoryFacts, facts: ChecklistFacts) -> Item:
    overdue = None if facts.overdue is None else facts.overdue.get(repository.name)
    if overdue is None:
        evidence = "what retention would let go was not worked out"
    else:
        evidence = f"{overdue} backups should have expired" if overdue else "nothing is kept beyond its time"
    return Item(
        code="retention_counts",
        title="Retention is as the policy says",
        subject=repository.name,
        result=judged(is_good=None if overdue is None else not overdue),
        evidence=evidence,
        look="pgstow retention plan",
    )


def _contacts(facts: ChecklistFacts) -> Item:
    names = ", ".join(facts.contacts)
    return Item(
        code="contacts",
        title="The contacts were reviewed",
        subject=None,
        result=Result.UNKNOWN if facts.contacts else Result.FAIL,
        evidence=f"only a person can tell whether these are still right: {names}"
        if names
        else "the settings name nobody",
        look="pgstow config show",
    )
