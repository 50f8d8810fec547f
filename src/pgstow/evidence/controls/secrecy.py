"""Controls of secrets: encrypted, keys rotated and known to work; TLS on the way; no secret in plain text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from pgstow.evidence.attestations import ESCROW, ESCROW_DAYS, TESTED, is_vouched_for
from pgstow.evidence.controls.backups import backups_in_period
from pgstow.evidence.controls.findings import Control, Finding, Result, day, listed, share, unknown
from pgstow.evidence.facts import EvidenceFacts, ManifestFacts, RepositoryFacts, SearchFacts

__all__ = ["CONTROLS"]

_KEY_AGE = timedelta(days=365)
_GOOD_TLS = frozenset({"TLSv1.2", "TLSv1.3"})
_OLD_TLS = frozenset({"SSLv2", "SSLv3", "TLSv1", "TLSv1.0", "TLSv1.1"})

_PLACES = {
    "settings": "the settings file",
    "processes": "arguments of running programs",
    "records": "what pgstow has written down",
    "logs": "logs",
}


def _encrypted(facts: EvidenceFacts) -> list[Finding]:
    """C10."""
    found = []
    for repository in facts.repositories:
        subject = f"repository {repository.name}"
        if repository.encryption is None:
            found.append(unknown(subject, repository.error or "it was not opened", "a repository that opens"))
        else:
            text = f"encrypted before it leaves the machine: {repository.encryption}"
            found.append(Finding(subject=subject, result=Result.PASS, text=text))
        found.append(_key_age(facts, repository))
        found.append(_escrow(facts, repository))
    return found


def _key_age(facts: EvidenceFacts, repository: RepositoryFacts) -> Finding:
    subject = f"repository {repository.name}/keys"
    # A key that was made later says nothing about the period.
    times = [each for each in repository.key_times or () if each < facts.until]
    if not times or repository.keys_undated:
        return unknown(
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
        if repository.keys_removed is None or repository.keys_removed:
            return unknown(
                subject,
                f"{text}; of those that were removed since nothing is known",
                "a report made in the period",
            )
        text += "; by the audit trail none was removed since"
    return Finding(subject=subject, result=Result.PASS, text=text)


def _escrow(facts: EvidenceFacts, repository: RepositoryFacts) -> Finding:
    """Return whether a password that somebody fetched from where it is kept has opened the repository within a year."""
    subject = f"repository {repository.name}/escrow"
    missing = "a test: fetch the password from where it is kept, and run pgstow keys test with it"
    tests = [
        each
        for each in facts.attestations
        if (each.control, each.repository) == (ESCROW, repository.name) and each.at < facts.until
    ]
    vouched = [each for each in tests if is_vouched_for(each, facts.audit)]
    if not vouched:
        text = "no test of a password that is kept elsewhere is on record"
        if tests:
            text = "a password was tested, and no administrator vouches for the key of the host that says so"
            missing = "keys of hosts that an administrator has enrolled"
        return unknown(subject, text, missing)
    # A test of a key that is still there counts, whatever was tested after it.
    standing = [each for each in vouched if each.key in (repository.key_ids or ())]
    newest = max(standing or vouched, key=lambda each: each.at)
    key = (newest.key or "")[:8]
    text = f"key {key} was opened on {day(newest.at)} by {newest.by}, with a password fetched from where it is kept"
    if newest.note:
        text += f" ({newest.note})"
    if facts.until - newest.at > timedelta(days=ESCROW_DAYS):
        return Finding(subject=subject, result=Result.FAIL, text=f"{text}; that is more than a year ago")
    if repository.key_ids is None:
        return unknown(subject, f"{text}; whether it is still there is unknown", "the keys of the repository")
    if newest.key not in repository.key_ids:
        return Finding(subject=subject, result=Result.FAIL, text=f"{text}; the key is not there any more")
    return Finding(subject=subject, result=Result.PASS, text=text)


def _in_transit(facts: EvidenceFacts) -> list[Finding]:
    """C11."""
    found = [_connection(facts, database.name) for database in facts.databases]
    return found + [_transport(facts, repository) for repository in facts.repositories]


def _connection(facts: EvidenceFacts, database: str) -> Finding:
    backups = backups_in_period(facts, database)
    read = [each.manifest for each in backups if each.manifest is not None]
    if not backups:
        return unknown(database, "no backup of the period is left", "a backup of the period")
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
        return unknown(
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


def _transport(facts: EvidenceFacts, repository: RepositoryFacts) -> Finding:
    subject = f"repository {repository.name}"
    match repository.transport:
        case "none":
            return Finding(
                subject=subject, result=Result.PASS, text="a folder: nothing goes over a network by pgstow"
            )
        case "http":
            return Finding(subject=subject, result=Result.FAIL, text="reached by http, without TLS")
        case "https":
            return _negotiated(facts, repository)
        case None:
            return unknown(subject, "how it is reached is unknown", "settings of the store that can be read")


def _negotiated(facts: EvidenceFacts, repository: RepositoryFacts) -> Finding:
    subject = f"repository {repository.name}"
    backups = [
        each for each in facts.audit_entries if (each.repository, each.action) == (repository.name, "backup")
    ]
    recorded = [each.tls for each in backups if each.tls is not None]
    told = f"recorded by {share(len(recorded), len(backups), 'backup')} in the audit trail"
    if recorded:
        told += f": {listed(sorted(set(recorded)))}"
    now = f"by https; {repository.tls or 'unknown'} was negotiated when the report was made"
    if (repository.tls is None) and repository.tls_error:
        now = f"by https; {repository.tls_error}"
    versions = {*recorded, *([repository.tls] if repository.tls else [])}
    if versions & _OLD_TLS:
        return Finding(subject=subject, result=Result.FAIL, text=f"{now}; {told}")
    if repository.tls is None or not versions <= _GOOD_TLS:
        return unknown(subject, f"{now}; {told}", "a connection to the store that tells its version")
    return Finding(subject=subject, result=Result.PASS, text=f"{now}; {told}")


def _no_plain_secrets(facts: EvidenceFacts) -> list[Finding]:
    """C12."""
    found = [_settings(facts), _arguments(facts)]
    for place, words in _PLACES.items():
        searches = [each for each in facts.searches if each.place == place]
        if place == "logs" and not searches:
            continue  # those of other programs: looked at where somebody names them
        found.append(_searched(facts, words, searches))
    return found


def _settings(facts: EvidenceFacts) -> Finding:
    if facts.secrets is None:
        return unknown("settings", "the settings were not looked at", "a settings file")
    exposed = facts.secrets.readable_by_others
    text = f"{facts.secrets.references} references and no secret in plain text, which would have been refused"
    if exposed:
        text += f"; {exposed} files with secrets can be read by every user of the machine"
    return Finding(subject="settings", result=Result.FAIL if exposed else Result.PASS, text=text)


def _arguments(facts: EvidenceFacts) -> Finding:
    """Return whether a command was ever given a password among its arguments, for others to see until it hid it."""
    entries = facts.audit_entries
    had = [each.reference for each in entries if each.had_secrets]
    if had:
        text = f"a password stood among the arguments of {share(len(had), len(entries), 'command')}: {listed(had)}"
        return Finding(subject="commands", result=Result.FAIL, text=text)
    if not entries:
        return unknown(
            "commands", "the audit trail has no entry of the period", "an audit trail of that time"
        )
    text = f"none of {len(entries)} commands in the audit trail was given a password among its arguments"
    return Finding(subject="commands", result=Result.PASS, text=text)


def _searched(facts: EvidenceFacts, words: str, searches: Sequence[SearchFacts]) -> Finding:
    found_in = [name for each in searches for name in each.found_in]
    looked_at = sum(each.looked_at for each in searches)
    if found_in:
        text = f"a secret stands in {share(len(found_in), looked_at, 'place')}: {listed(found_in)}"
        return Finding(subject=words, result=Result.FAIL, text=text)
    secrets = facts.secrets
    problems = [each.error for each in searches if each.error is not None]
    if secrets is None or not searches or problems:
        text = f"not searched, or not all of it: {listed(problems)}" if problems else "it was not searched"
        return unknown(words, text, "a report by somebody who can read all of it")
    told = f"{looked_at} looked through for {share(secrets.known, secrets.known + secrets.unknown, 'secret')}; none was found"
    if secrets.unknown or not secrets.known:
        return unknown(words, told, "the values of the other secrets, of eight characters at least")
    return Finding(subject=words, result=Result.PASS, text=told)


CONTROLS = (
    Control(
        code="C10",
        title="Encrypted, keys rotated, escrow tested",
        demand="Backups are encrypted, passwords are changed within a year, and the one in escrow is known to work.",
        looked_at="the format of each repository and its keys, when the report was made; tests of passwords in the audit trail",
        judge=_encrypted,
        actions=frozenset({"init", "keys add", "keys remove", "keys passwd", "repo rekey", "rekey", TESTED}),
    ),
    Control(
        code="C11",
        title="TLS on the way",
        demand="The TLS version negotiated with PostgreSQL and with the store is recorded, and none is outdated.",
        looked_at="the manifests of the backups of the period, its audit entries, and a connection to each store",
        judge=_in_transit,
        actions=frozenset({"backup"}),
    ),
    Control(
        code="C12",
        title="No secret in plain text",
        demand="The settings, arguments of programs, and what pgstow writes hold no secret.",
        looked_at="arguments of the period's commands by the audit trail; when the report was made, the settings, running programs,"
        " and what pgstow has written on this host, for every secret of the settings",
        judge=_no_plain_secrets,
        actions=frozenset({"config"}),
    ),
)
