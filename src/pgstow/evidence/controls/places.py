"""Controls of where backups are and how they are protected there: apart, immutable, encrypted, over TLS."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import combinations

from pgstow.evidence.controls.backups import backups_in_period
from pgstow.evidence.controls.findings import Control, Finding, Result, day, listed, share
from pgstow.evidence.facts import EvidenceFacts, ManifestFacts, RepositoryFacts

__all__ = ["CONTROLS"]

_KEY_AGE = timedelta(days=365)
_OLD_TLS = frozenset({"SSLv2", "SSLv3", "TLSv1", "TLSv1.0", "TLSv1.1"})


def _unknown(subject: str, text: str, missing: str) -> Finding:
    return Finding(subject=subject, result=Result.UNKNOWN, text=text, missing=missing)


def _apart(facts: EvidenceFacts) -> list[Finding]:
    """C7."""
    return [_apart_of(facts, database.name) for database in facts.databases]


def _apart_of(facts: EvidenceFacts, database: str) -> Finding:
    whole = [each for each in backups_in_period(facts, database) if each.is_whole and not each.is_damaged]
    names = {name for each in whole for name in each.repositories}
    places = [each for each in facts.repositories if each.name in names]
    if len(places) < 2:
        where = f"only in {places[0].name}" if places else "in no repository"
        text = f"its whole backups of the period are {where}"
        if facts.are_backups_known:
            return Finding(subject=database, result=Result.FAIL, text=text)
        return _unknown(database, text, "the repositories that could not be read")
    apart = [_are_apart(one, other) for one, other in combinations(places, 2)]
    told = "; ".join(_where(each) for each in places)
    if True in apart:
        return Finding(
            subject=database, result=Result.PASS, text=f"copies differ in region and account: {told}"
        )
    if None in apart:
        return _unknown(
            database,
            f"copies are in {len(places)} repositories: {told}",
            "region and account of each: their locations do not tell all of it",
        )
    return Finding(
        subject=database, result=Result.FAIL, text=f"all copies share their region or account: {told}"
    )


def _are_apart(one: RepositoryFacts, other: RepositoryFacts) -> bool | None:
    """Return whether both region and account differ; None where that is not known, and nothing speaks against it."""
    differ = [_differ(one.region, other.region), _accounts_differ(one, other)]
    if False in differ:
        return False
    return None if None in differ else True


def _differ(one: str | None, other: str | None) -> bool | None:
    return None if one is None or other is None else one != other


def _accounts_differ(one: RepositoryFacts, other: RepositoryFacts) -> bool | None:
    if one.provider and other.provider and "folder" not in (one.provider, other.provider):
        if one.provider != other.provider:
            return True  # nobody has one account with two providers
        return _differ(one.account, other.account)
    return None


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
    if not times:
        return _unknown(
            subject,
            "when the passwords of that time were set is unknown",
            "keys that say when they were made",
        )
    oldest = min(times)
    is_fresh = facts.until - oldest <= _KEY_AGE
    text = (
        f"the oldest of {len(times)} passwords was set on {day(oldest)}; they are to be changed within a year"
    )
    return Finding(subject=subject, result=Result.PASS if is_fresh else Result.FAIL, text=text)


def _in_transit(facts: EvidenceFacts) -> list[Finding]:
    """C11."""
    found = [_connection(facts, database.name) for database in facts.databases]
    return found + [_transport(repository) for repository in facts.repositories]


def _connection(facts: EvidenceFacts, database: str) -> Finding:
    backups = backups_in_period(facts, database)
    read = [each.manifest for each in backups if each.manifest is not None]
    if not backups:
        return _unknown(database, "no backup of the period is left", "a backup of the period")
    clear = [each for each in read if each.tls is None and not each.is_local and each.imported_from is None]
    old = [each for each in read if each.tls in _OLD_TLS]
    if clear or old:
        text = f"{share(len(clear), len(read), 'backup')} came over a network without TLS, {len(old)} over an outdated version"
        return Finding(subject=database, result=Result.FAIL, text=text)
    imported = [each for each in read if each.imported_from is not None]
    if len(read) < len(backups) or imported:
        text = f"{share(len(read) - len(imported), len(backups), 'backup')} say how the server was reached"
        return _unknown(
            database, text, "the manifests of the others, which are unreadable or of imported dumps"
        )
    return Finding(subject=database, result=Result.PASS, text=_connection_words(read))


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
        demand="A whole backup is also kept in a second region and a second account.",
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
