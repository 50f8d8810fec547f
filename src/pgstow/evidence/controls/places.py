"""Controls of where backups are and how they are protected there: apart, immutable, encrypted, over TLS."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import combinations

from pgstow.evidence.controls.backups import backups_in_period
from pgstow.evidence.controls.findings import Control, Finding, Result, day, listed, share
from pgstow.evidence.controls.gaps import gaps
from pgstow.evidence.controls.happened import first_known, repository_known, whole_backups_in
from pgstow.evidence.facts import DatabaseFacts, EvidenceFacts, ManifestFacts, RepositoryFacts

__all__ = ["CONTROLS"]

_KEY_AGE = timedelta(days=365)
_GOOD_TLS = frozenset({"TLSv1.2", "TLSv1.3"})
_OLD_TLS = frozenset({"SSLv2", "SSLv3", "TLSv1", "TLSv1.0", "TLSv1.1"})
# A copy that is made once a month is one, a single copy at the beginning of a quarter is not.
_COPY_EVERY = timedelta(days=35)
_OPERATORS = {"s3": "amazonaws.com", "gs": "googleapis.com", "az": "windows.net"}


def _unknown(subject: str, text: str, missing: str) -> Finding:
    return Finding(subject=subject, result=Result.UNKNOWN, text=text, missing=missing)


def _apart(facts: EvidenceFacts) -> list[Finding]:
    """C7."""
    return [_apart_of(facts, database) for database in facts.databases]


def _apart_of(facts: EvidenceFacts, database: DatabaseFacts) -> Finding:
    steady, doubtful, rare = _places_of(facts, database)
    places = [*steady, *doubtful]
    if not places and not rare:
        return _unknown(database.name, "no whole backup of the period is left", "a backup of the period")
    told = "; ".join(_where(each) for each in places)
    told += "".join(f"; {each.name} does not get one every {_COPY_EVERY.days} days" for each in rare)
    if any(_are_apart(one, other) for one, other in combinations(steady, 2)):
        return Finding(
            subject=database.name, result=Result.PASS, text=f"copies differ in region and account: {told}"
        )
    if not facts.are_backups_known:
        return _unknown(database.name, f"copies: {told}", "the repositories that could not be read")
    if any(_are_apart(one, other) is not False for one, other in combinations(places, 2)):
        return _unknown(
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


def _immutable(facts: EvidenceFacts) -> list[Finding]:
    """C8."""
    return [
        _unknown(
            f"repository {each.name}",
            "whether its objects can be changed before they expire is not read from the store yet",
            "the store's Object Lock or immutability settings, read back for the objects themselves",
        )
        for each in facts.repositories
    ]


def _cannot_delete(facts: EvidenceFacts) -> list[Finding]:
    """C9."""
    return [
        _unknown(
            f"repository {each.name}",
            "what the credentials of backups may do in the store is not examined yet",
            "the policy of the bucket and of who writes to it",
        )
        for each in facts.repositories
    ]


def _encrypted(facts: EvidenceFacts) -> list[Finding]:
    """C10."""
    found = []
    for repository in facts.repositories:
        subject = f"repository {repository.name}"
        if repository.encryption is None:
            found.append(
                _unknown(subject, repository.error or "it was not opened", "a repository that opens")
            )
        else:
            text = f"encrypted before it leaves the machine: {repository.encryption}"
            found.append(Finding(subject=subject, result=Result.PASS, text=text))
        found.append(_key_age(facts, repository))
        found.append(
            _unknown(
                f"{subject}/escrow",
                "whether the password that is kept elsewhere opens it, only a person can tell",
                "a written test: fetch it from where it is kept, and open the repository with it",
            )
        )
    return found


def _key_age(facts: EvidenceFacts, repository: RepositoryFacts) -> Finding:
    subject = f"repository {repository.name}/keys"
    # A key that was made later says nothing about the period.
    times = [each for each in repository.key_times or () if each < facts.until]
    if not times or repository.keys_undated:
        return _unknown(
            subject,
            "when the passwords of that time were set is unknown",
            "keys that say when they were made",
        )
    oldest = min(times)
    text = (
        f"the oldest of {len(times)} passwords was set on {day(oldest)}; they are to be changed within a year"
    )
    if facts.until - oldest > _KEY_AGE:
        return Finding(subject=subject, result=Result.FAIL, text=text)
    if facts.until < facts.made:
        return _unknown(
            subject,
            f"{text}; of those that were removed since nothing is known",
            "a report made in the period",
        )
    return Finding(subject=subject, result=Result.PASS, text=text)


def _in_transit(facts: EvidenceFacts) -> list[Finding]:
    """C11."""
    found = [_connection(facts, database.name) for database in facts.databases]
    return found + [_transport(repository) for repository in facts.repositories]


def _connection(facts: EvidenceFacts, database: str) -> Finding:
    backups = backups_in_period(facts, database)
    read = [each.manifest for each in backups if each.manifest is not None]
    if not backups:
        return _unknown(database, "no backup of the period is left", "a backup of the period")
    own = [each for each in read if each.imported_from is None]
    clear = [each for each in own if each.tls is None and each.via == "network"]
    old = [each for each in own if each.tls in _OLD_TLS]
    if clear or old:
        text = f"{share(len(clear), len(read), 'backup')} came over a network without TLS, {len(old)} over an outdated version"
        return Finding(subject=database, result=Result.FAIL, text=text)
    shown = [each for each in own if each.tls in _GOOD_TLS or (each.tls is None and each.via == "socket")]
    if len(shown) < len(backups):
        text = f"{share(len(shown), len(backups), 'backup')} show TLS, or a socket of the server's machine"
        loopback = sum(each.tls is None and each.via == "loopback" for each in own)
        if loopback:
            text += (
                f"; {loopback} went to a loopback address without TLS, behind which a tunnel or proxy may be"
            )
        return _unknown(
            database,
            text,
            "how the server was reached for the others: some manifests do not tell or cannot be read",
        )
    return Finding(subject=database, result=Result.PASS, text=_connection_words(shown))


def _connection_words(read: Sequence[ManifestFacts]) -> str:
    versions = sorted({each.tls for each in read if each.tls is not None})
    local = sum(each.tls is None for each in read)
    told = [f"{share(len(read) - local, len(read), 'backup')} over {listed(versions)}"] if versions else []
    if local:
        told.append(f"{share(local, len(read), 'backup')} without leaving the server's machine")
    return ", ".join(told)


def _transport(repository: RepositoryFacts) -> Finding:
    subject = f"repository {repository.name}"
    match repository.transport:
        case "none":
            return Finding(
                subject=subject, result=Result.PASS, text="a folder: nothing goes over a network by pgstow"
            )
        case "http":
            return Finding(subject=subject, result=Result.FAIL, text="reached by http, without TLS")
        case "https":
            return _unknown(
                subject,
                "reached by https, with the certificate checked; which version of TLS was negotiated is not recorded",
                "a record of the negotiated version, or a policy of the store that demands one",
            )
        case None:
            return _unknown(subject, "how it is reached is unknown", "settings of the store that can be read")


CONTROLS = (
    Control(
        code="C7",
        title="A copy is far away",
        demand="A whole backup is also kept in a second region and a second account, one of at least every 35 days.",
        looked_at="in which repositories the whole backups of the period are, and what their locations and settings tell",
        judge=_apart,
        actions=frozenset({"backup", "repo copy", "copy"}),
    ),
    Control(
        code="C8",
        title="Backups are immutable",
        demand="Nobody can change or remove a backup before its retention ends.",
        looked_at="nothing: it cannot be measured yet",
        judge=_immutable,
    ),
    Control(
        code="C9",
        title="Who writes cannot delete",
        demand="The credentials that backups are written with cannot delete them.",
        looked_at="nothing: it cannot be measured yet",
        judge=_cannot_delete,
    ),
    Control(
        code="C10",
        title="Encrypted, keys rotated, escrow tested",
        demand="Backups are encrypted, passwords are changed within a year, and the one in escrow is known to work.",
        looked_at="the format of each repository and its keys, when the report was made",
        judge=_encrypted,
        actions=frozenset({"init", "keys add", "keys remove", "keys passwd", "repo rekey", "rekey"}),
    ),
    Control(
        code="C11",
        title="TLS on the way",
        demand="The TLS version negotiated with PostgreSQL and with the store is recorded, and none is outdated.",
        looked_at="the manifests of the backups of the period, and how each store is reached",
        judge=_in_transit,
        actions=frozenset({"backup"}),
    ),
)
