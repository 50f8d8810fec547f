"""Controls of restore drills: often enough, of everything, fast enough, isolated."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from pgstow.catalog.backups import CRITICAL, IMPORT
from pgstow.evidence.controls.backups import longest_loss
from pgstow.evidence.controls.findings import (
    Control,
    Finding,
    Result,
    day,
    listed,
    share,
    since_when,
    unknown,
)
from pgstow.evidence.controls.gaps import gaps
from pgstow.evidence.controls.happened import first_known
from pgstow.evidence.facts import DatabaseFacts, DrillFacts, EvidenceFacts
from pgstow.monitor.words import duration_words, moment_words

__all__ = ["CONTROLS"]

_YEAR = timedelta(days=366)


def _unread(facts: EvidenceFacts) -> str | None:
    """Return why drills may be missing from the list; None where all are known."""
    for repository in facts.repositories:
        if repository.error or repository.drills_error:
            return f"drills in repository {repository.name} could not be read: {repository.error or repository.drills_error}"
        if repository.drills_unreadable:
            return f"{repository.drills_unreadable} records of drills in repository {repository.name} cannot be read"
    return None


def _is_proof(drill: DrillFacts) -> bool:
    return drill.outcome == "passed" and drill.has_data_checks


def _is_whole(drill: DrillFacts, database: DatabaseFacts) -> bool:
    """Whether it was about all that the settings want of the database, and about a backup of ours."""
    return drill.kind not in (CRITICAL, IMPORT) and (database.is_partial or not drill.is_partial)


def _ids(drills: list[DrillFacts] | tuple[DrillFacts, ...]) -> tuple[str, ...]:
    return tuple(drill.id for drill in drills)


def _tested(facts: EvidenceFacts) -> list[Finding]:
    """C4."""
    return [_tested_of(facts, database) for database in facts.databases]


def _tested_of(facts: EvidenceFacts, database: DatabaseFacts) -> Finding:
    limit_s = facts.policy.drill_within_s
    mine = [
        each
        for each in facts.drills_of(since=facts.begin - timedelta(seconds=limit_s))
        if each.database == database.name and _is_whole(each, database)
    ]
    proofs = [each for each in mine if _is_proof(each)]
    first = first_known(facts, database.name)
    begin = facts.begin if first is None else max(facts.begin, first)
    # Records of drills stay: where there is none before the period, there was no drill.
    known_from = max(first or facts.begin, facts.begin - timedelta(seconds=limit_s))
    found = gaps([each.finished for each in proofs], begin, facts.until, known_from=known_from)
    long = [gap for gap in found if gap.seconds > limit_s]
    failed = [each for each in mine if each.outcome != "passed"]
    told = f"drills that passed with every row compared: {len(proofs)}" + (
        f"; that did not pass: {len(failed)}" if failed else ""
    )
    if long:
        text = (
            f"{told}; none from {moment_words(long[0].begin)} to {moment_words(long[0].end)},"
            f" {duration_words(limit_s)} are allowed"
        )
        if why := _unread(facts):
            return unknown(database.name, f"{text}; {why}", "every record of drills", _ids(mine))
        return Finding(subject=database.name, result=Result.FAIL, text=text, drills=_ids(mine))
    if not proofs:
        return unknown(
            database.name,
            f"{told}; it is known since {moment_words(begin)} and one is not overdue yet",
            "a drill that passes",
            _ids(mine),
        )
    newest = mine[-1]
    if newest.outcome == "failed":
        text = f"{told}; the newest, of {moment_words(newest.started)}, failed: {newest.error or 'see its report'}"
        return Finding(subject=database.name, result=Result.FAIL, text=text, drills=_ids(mine))
    return Finding(
        subject=database.name,
        result=Result.PASS,
        text=f"{told}; never more than {duration_words(limit_s)} apart" + since_when(begin, facts.begin),
        drills=_ids(mine),
    )


def _sampled(facts: EvidenceFacts) -> list[Finding]:
    """C5."""
    tiers = sorted({(tier.database, tier.kind) for tier in facts.tiers})
    found = [_sampled_tier(facts, database, kind) for database, kind in tiers]
    if not tiers:
        found.append(unknown("tiers", "no repository shows a backup", "backups, and drills of them"))
    return found + [_sampled_place(facts, repository.name) for repository in facts.repositories]


def _sampled_tier(facts: EvidenceFacts, database: str, kind: str) -> Finding:
    drills = [
        each
        for each in facts.drills_of(since=facts.year_before)
        if each.database == database and each.kind == kind
    ]
    oldest = min(tier.oldest for tier in facts.tiers if tier.database == database and tier.kind == kind)
    first = min(oldest, first_known(facts, database, kind) or oldest)
    return _sampled_finding(facts, f"{database}/{kind}", drills, first=first)


def _sampled_place(facts: EvidenceFacts, repository: str) -> Finding:
    drills = [each for each in facts.drills_of(since=facts.year_before) if each.repository == repository]
    tiers = [tier for tier in facts.tiers if tier.repository == repository]
    first = min((tier.oldest for tier in tiers), default=facts.until)
    return _sampled_finding(facts, f"repository {repository}", drills, first=first)


def _sampled_finding(
    facts: EvidenceFacts, subject: str, drills: list[DrillFacts], *, first: datetime
) -> Finding:
    """Return whether any of these drills passed; ``first``: since when there was something to be drilled."""
    proofs = [each for each in drills if _is_proof(each)]
    if proofs:
        newest = proofs[-1]
        text = f"backup {newest.backup_id[:8]} passed on {day(newest.finished)}; {share(len(proofs), len(drills), 'drill')} passed"
        return Finding(subject=subject, result=Result.PASS, text=text, drills=_ids(drills))
    told = "none of its drills passed" if drills else "no drill in the last twelve months"
    if why := _unread(facts):
        return unknown(subject, f"{told}; {why}", "every record of drills", _ids(drills))
    if facts.until - first <= _YEAR and not drills:
        text = f"{told}; there is something to drill since {day(first)} only, so that it is not overdue"
        return unknown(subject, text, "a drill that passes", _ids(drills))
    return Finding(subject=subject, result=Result.FAIL, text=told, drills=_ids(drills))


def _on_target(facts: EvidenceFacts) -> list[Finding]:
    """C6."""
    found = []
    for database in facts.databases:
        found += [_fast_enough(facts, database), _recent_enough(facts, database)]
    return found


def _fast_enough(facts: EvidenceFacts, database: DatabaseFacts) -> Finding:
    subject = f"{database.name}/RTO"
    target_s = database.rto_s
    drills = [
        each
        for each in facts.drills_of(since=facts.begin)
        if each.database == database.name and each.outcome == "passed" and _is_whole(each, database)
    ]
    times = [(each.proven_s if each.proven_s is not None else each.restored_s, each) for each in drills]
    known = [(seconds, each) for seconds, each in times if seconds is not None]
    if target_s is None:
        return unknown(subject, "no RTO is set", "an rto in the settings of the database", _ids(drills))
    if not known:
        return unknown(subject, "no drill in the period measured it", "a drill that passes", _ids(drills))
    worst_s, worst = max(known, key=lambda each: each[0])
    text = (
        f"{share(len(known), len(known), 'drill')} took {duration_words(worst_s)} at most ({day(worst.started)}),"
        f" until everything was checked; {duration_words(target_s)} are allowed"
    )
    result = Result.PASS if worst_s <= target_s else Result.FAIL
    return Finding(subject=subject, result=result, text=text, drills=_ids(drills))


def _recent_enough(facts: EvidenceFacts, database: DatabaseFacts) -> Finding:
    return replace(longest_loss(facts, database), subject=f"{database.name}/RPO")


def _isolated(facts: EvidenceFacts) -> list[Finding]:
    """C21."""
    drills = facts.drills_of(since=facts.begin)
    why = _unread(facts)
    found = [] if why is None else [unknown("records", why, "every record of drills")]
    if not drills:
        return [*found, unknown("drills", "there was none in the period", "a drill")]
    bad = [each for each in drills if not (each.is_isolated and each.is_removed)]
    reachable = [each.id[:8] for each in bad if not each.is_isolated]
    left = [each.id[:8] for each in bad if not each.is_removed]
    told = f"{share(len(drills) - len(bad), len(drills), 'drill')} where nobody else could reach it, and all taken away"
    if reachable:
        told += f"; others could reach that of {listed(reachable)}"
    if left:
        told += f"; something was left behind by {listed(left)}"
    result = Result.FAIL if bad else Result.PASS
    return [*found, Finding(subject="drills", result=result, text=told, drills=_ids(drills))]


CONTROLS = (
    Control(
        code="C4",
        title="Restores are tested",
        demand="A backup of every database was restored and its content compared, at least every 30 days (or as the settings say).",
        looked_at="the records of drills in the repositories",
        judge=_tested,
        actions=frozenset({"drill"}),
    ),
    Control(
        code="C5",
        title="Every tier is sampled",
        demand="Of every kind of backup and from every repository one was restored within twelve months.",
        looked_at="the records of drills, and which kinds of backups there are",
        judge=_sampled,
        actions=frozenset({"drill"}),
    ),
    Control(
        code="C6",
        title="RTO and RPO are achieved",
        demand="The measured time to restore and the measured loss stay within their targets.",
        looked_at="the times of drills that passed, the times between backups, the targets of the settings",
        judge=_on_target,
        actions=frozenset({"drill", "backup"}),
    ),
    Control(
        code="C21",
        title="Restores for tests are isolated and removed",
        demand="What is restored for a test is out of the reach of others, and is destroyed afterwards.",
        looked_at="the records of drills of the period; a drill that was killed leaves none",
        judge=_isolated,
        actions=frozenset({"drill"}),
    ),
)
