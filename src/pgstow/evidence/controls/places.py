"""The control of where backups are: apart from each other."""

from __future__ import annotations

from datetime import timedelta
from itertools import combinations

from pgstow.evidence.controls.findings import Control, Finding, Result, unknown
from pgstow.evidence.controls.gaps import gaps
from pgstow.evidence.controls.happened import first_known, repository_known, whole_backups_in
from pgstow.evidence.facts import DatabaseFacts, EvidenceFacts, RepositoryFacts

__all__ = ["CONTROLS"]

# A copy that is made once a month is one, a single copy at the beginning of a quarter is not.
_COPY_EVERY = timedelta(days=35)
_OPERATORS = {"s3": "amazonaws.com", "gs": "googleapis.com", "az": "windows.net"}


def _apart(facts: EvidenceFacts) -> list[Finding]:
    """C7."""
    return [_apart_of(facts, database) for database in facts.databases]


def _apart_of(facts: EvidenceFacts, database: DatabaseFacts) -> Finding:
    steady, doubtful, rare = _places_of(facts, database)
    places = [*steady, *doubtful]
    if not places and not rare:
        return unknown(database.name, "no whole backup of the period is left", "a backup of the period")
    told = "; ".join(_where(each) for each in places)
    told += "".join(f"; {each.name} does not get one every {_COPY_EVERY.days} days" for each in rare)
    if any(_are_apart(one, other) for one, other in combinations(steady, 2)):
        return Finding(
            subject=database.name, result=Result.PASS, text=f"copies differ in region and account: {told}"
        )
    if not facts.are_backups_known:
        return unknown(database.name, f"copies: {told}", "the repositories that could not be read")
    if any(_are_apart(one, other) is not False for one, other in combinations(places, 2)):
        return unknown(
            database.name,
            f"copies are in {len(places)} repositories: {told}",
            "region and account of each, which their locations do not tell, or the history of runs of that time",
        )
    text = f"all copies share their region or account: {told}"
    if len(places) < 2:
        where = f"only in {_where(places[0])}" if places else "in no repository all the time"
        text = f"its whole backups of the period are {where}" + (f"; {told}" if rare else "")
    return Finding(subject=database.name, result=Result.FAIL, text=text)


def _places_of(
    facts: EvidenceFacts, database: DatabaseFacts
) -> tuple[list[RepositoryFacts], list[RepositoryFacts], list[RepositoryFacts]]:
    """Return where whole backups always were, where they may have been, and where they were now and then only."""
    first = first_known(facts, database.name)
    there = [
        one for one in facts.backups if one.database == database.name and one.is_whole and not one.is_damaged
    ]
    steady: list[RepositoryFacts] = []
    doubtful: list[RepositoryFacts] = []
    rare: list[RepositoryFacts] = []
    for place in facts.repositories:
        moments = whole_backups_in(facts, database, place.name)
        if not any(place.name in one.repositories and one.time < facts.until for one in there):
            continue  # copies that have all expired bring nothing back
        begin = max(each for each in (facts.begin, first, repository_known(facts, place)) if each is not None)
        found = gaps(moments, min(begin, max(facts.begin, moments[0])), facts.until)
        long = [gap for gap in found if gap.end - gap.begin > _COPY_EVERY]
        is_tail_sure = facts.are_backups_known and facts.until == facts.made
        sure = [
            gap for gap in long if facts.runs_cover(gap.begin) or (is_tail_sure and gap.end == facts.until)
        ]
        (rare if sure else doubtful if long or not found else steady).append(place)
    return steady, doubtful, rare


def _are_apart(one: RepositoryFacts, other: RepositoryFacts) -> bool | None:
    """Return whether both region and account differ; None where that is not known, and nothing speaks against it."""
    differ = [_differ(one.region, other.region), _accounts_differ(one, other)]
    if False in differ:
        return False
    return None if None in differ else True


def _differ(one: str | None, other: str | None) -> bool | None:
    return None if one is None or other is None else one != other


def _accounts_differ(one: RepositoryFacts, other: RepositoryFacts) -> bool | None:
    operators = [_operator(each.provider) for each in (one, other)]
    if None in operators:
        return None
    if operators[0] != operators[1]:
        return True  # nobody has one account with two providers
    return _differ(one.account, other.account)


def _operator(provider: str | None) -> str | None:
    """Return by whose domain a service is run; None where its name does not tell: a folder, an address, a bare host.

    Two names of one domain are one operator: s3.eu-west-1.amazonaws.com is where "s3" is.
    """
    if provider is None:
        return None
    scheme, _, host = provider.partition(" at ")
    if not host:
        return _OPERATORS.get(scheme)
    labels = host.lower().rstrip(".").split(".")
    is_name = len(labels) > 1 and not labels[-1].isdigit() and ":" not in host
    return ".".join(labels[-2:]) if is_name else None


def _where(place: RepositoryFacts) -> str:
    region, account = place.region or "region unknown", place.account or "account unknown"
    return f"{place.name} ({place.provider or 'unknown'}, {region}, {account})"


CONTROLS = (
    Control(
        code="C7",
        title="A copy is far away",
        demand="A whole backup is also kept in a second region and a second account, one of at least every 35 days.",
        looked_at="in which repositories the whole backups of the period are, and what their locations and settings tell",
        judge=_apart,
        actions=frozenset({"backup", "repo copy", "copy"}),
    ),
)
