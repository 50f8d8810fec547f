"""Controls of how all this is looked after: trail, alerts, versions."""

from __future__ import annotations

from datetime import timedelta

from pgstow.evidence.controls.backups import backups_in_period
from pgstow.evidence.controls.findings import Control, Finding, Result, listed, since_when, unknown
from pgstow.evidence.controls.gaps import gaps
from pgstow.evidence.facts import AuditFacts, AuditProblemFacts, ChannelFacts, EvidenceFacts
from pgstow.monitor.words import duration_words, moment_words

__all__ = ["CONTROLS"]

_NEWER = "a version of pgstow that knows it"


def _trail(facts: EvidenceFacts) -> list[Finding]:
    """C13."""
    found = [_trail_of(facts, audit) for audit in facts.audit]
    looked_at = {audit.repository for audit in facts.audit}
    found += [
        unknown(f"repository {each.name}", "its audit trail was not read", "a repository that can be read")
        for each in facts.repositories
        if each.name not in looked_at
    ]
    return found


def _is_broken(problem: AuditProblemFacts) -> bool:
    """Whether it shows tampering: a gap may be entries on their way, and a key that nobody enrolled may be a new host's.

    An entry that is told as unenrolled was written with a key that an administrator has revoked.
    """
    return problem.kind not in ("gap", "unenrolled") or (
        problem.kind == "unenrolled" and problem.number is not None
    )


def _trail_of(facts: EvidenceFacts, audit: AuditFacts) -> Finding:
    subject = f"repository {audit.repository}"
    if audit.error is not None:
        return unknown(
            subject, f"its audit trail could not be checked: {audit.error}", "a trail that can be read"
        )
    broken = [each for each in audit.problems if _is_broken(each)]
    told = f"{audit.entries} entries in {len(audit.heads)} chains, held against {audit.anchors} anchors"
    if broken:
        words = [f"{each.kind}: {each.message}" for each in broken]
        return Finding(subject=subject, result=Result.FAIL, text=f"{told}; {listed(words)}")
    if not audit.entries:
        return unknown(subject, "it has no audit trail", "an audit trail")
    unenrolled = sorted(
        {*audit.unenrolled, *(each.chain for each in audit.problems if each.kind == "unenrolled")}
    )
    if unenrolled:
        text = f"{told}; no administrator vouches for the key of {listed([each[:16] for each in unenrolled])}"
        return unknown(subject, text, "keys of hosts that an administrator has enrolled")
    if audit.pending or audit.problems:
        words = [each.message for each in audit.problems]
        text = f"{told}; {audit.pending} entries of this host are not there yet" + (
            f"; {listed(words)}" if words else ""
        )
        return unknown(subject, text, "the entries that are missing, which are uploaded by the next use")
    if not audit.anchors:
        text = f"{told}; nothing would show that the newest entries were removed"
        return unknown(subject, text, "an anchor: pgstow audit anchor, or the report before this one")
    if not any(each.repository == audit.repository for each in facts.audit_entries):
        return unknown(
            subject, f"{told}; none of the entries is of the period", "an audit trail of that time"
        )
    return Finding(subject=subject, result=Result.PASS, text=f"{told}; nothing was edited, removed or forked")


def _canary(facts: EvidenceFacts) -> list[Finding]:
    """C18."""
    if facts.channels is None:
        return [unknown("channels", "what was told to whom could not be read", "the state database")]
    if not facts.channels:
        return [
            Finding(subject="channels", result=Result.FAIL, text="there is no channel: nobody would be told")
        ]
    return [_canary_of(facts, channel) for channel in facts.channels]


def _canary_of(facts: EvidenceFacts, channel: ChannelFacts) -> Finding:
    subject, limit_s = f"channel {channel.name}", facts.policy.canary_within_s
    known = min([channel.known_since, *channel.acknowledged])
    begin = max(facts.begin, known)
    found = gaps(channel.acknowledged, begin, facts.until, known_from=known)
    long = [gap for gap in found if gap.seconds > limit_s]
    inside = [each for each in channel.acknowledged if facts.begin <= each < facts.until]
    told = f"test messages acknowledged in the period: {len(inside)}"
    if long:
        text = f"{told}; none from {moment_words(long[0].begin)} to {moment_words(long[0].end)}, {duration_words(limit_s)} are allowed"
        return Finding(subject=subject, result=Result.FAIL, text=text)
    reaching = [
        each for each in channel.acknowledged if begin - timedelta(seconds=limit_s) <= each < facts.until
    ]
    if not reaching:
        text = f"{told}; it is known since {moment_words(known)} and none is overdue yet"
        return unknown(subject, text, "a test message that somebody acknowledges: pgstow alerts test")
    text = f"{told}; never more than {duration_words(limit_s)} apart" + since_when(begin, facts.begin)
    return Finding(subject=subject, result=Result.PASS, text=text)


def _versions(facts: EvidenceFacts) -> list[Finding]:
    """C22."""
    found = [_server_version(facts, database.name) for database in facts.databases]
    for tool in facts.tools:
        if tool.outdated is None and not tool.is_release_known:
            found.append(unknown(tool.name, f"{tool.version} is newer than what this version knows", _NEWER))
            continue
        result = Result.PASS if tool.outdated is None else Result.FAIL
        text = tool.outdated or f"{tool.version}; nothing is known against it"
        found.append(Finding(subject=tool.name, result=result, text=text))
    if not facts.tools:
        found.append(
            unknown("client programs", "none was found on this machine", "PostgreSQL's client programs")
        )
    return found


def _server_version(facts: EvidenceFacts, database: str) -> Finding:
    subject = f"server of {database}"
    read = [each.manifest for each in backups_in_period(facts, database) if each.manifest is not None]
    if not read:
        return unknown(subject, "no backup of the period says which release it has", "a backup of the period")
    newest = read[-1]
    if newest.outdated is not None:
        return Finding(subject=subject, result=Result.FAIL, text=newest.outdated)
    if not newest.is_release_known:
        text = f"PostgreSQL {newest.server_version} is newer than what this version knows"
        return unknown(subject, text, _NEWER)
    text = (
        f"PostgreSQL {newest.server_version} at its newest backup of the period; nothing is known against it"
    )
    return Finding(subject=subject, result=Result.PASS, text=text)


CONTROLS = (
    Control(
        code="C13",
        title="The audit trail is intact",
        demand="Every access is on record, and the record was not changed.",
        looked_at="every chain of the audit trail in every repository, held against what others have seen of it",
        judge=_trail,
        actions=frozenset({"audit export", "audit verify", "audit enroll", "audit revoke"}),
    ),
    Control(
        code="C18",
        title="Alerts arrive",
        demand="A test message of every channel was acknowledged at least every seven days (or as the settings say).",
        looked_at="test messages and their acknowledgements in the state database",
        judge=_canary,
    ),
    Control(
        code="C22",
        title="Versions are supported",
        demand="Servers and programs are releases that still get security fixes, and have them.",
        looked_at="the release that each server had at its newest backup of the period, and the programs of this machine",
        judge=_versions,
    ),
)
