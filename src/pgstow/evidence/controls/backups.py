"""Controls of backups: all databases, in time, without gaps, kept as long as they should be, and whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

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
from pgstow.evidence.controls.gaps import gaps, losses
from pgstow.evidence.controls.happened import (
    backups_for_rpo,
    backups_of_plan,
    first_known,
    repository_known,
    verifications,
)
from pgstow.evidence.facts import BackupFacts, DatabaseFacts, EvidenceFacts, PlanFacts, RepositoryFacts
from pgstow.monitor.words import duration_words, moment_words

__all__ = ["CONTROLS", "backups_in_period", "longest_loss"]

_EARLY = timedelta(minutes=1)  # by how much a clock may be behind


def _covered(facts: EvidenceFacts) -> list[Finding]:
    """C1."""
    if not facts.servers:
        return [
            Finding(
                subject="servers",
                result=Result.UNKNOWN,
                text="no server was asked which databases it has",
                missing="make the report with --connect, where the servers can be reached",
            )
        ]
    return list(_servers(facts))


def _servers(facts: EvidenceFacts) -> Iterator[Finding]:
    reached: dict[str, tuple[set[str], set[str]]] = {}
    for server in facts.servers:
        if server.found is None:
            yield Finding(
                subject=server.database,
                result=Result.UNKNOWN,
                text=f"its server could not be asked: {server.error}",
                missing="a connection to the server",
            )
            continue
        # One whose server cannot tell which it is stands for itself.
        found, names = reached.setdefault(server.identity or f"that of {server.database}", (set(), set()))
        found.update(server.found)
        names.add(server.source or server.database)
    for identity, (found, names) in sorted(reached.items()):
        left = sorted(found - names - set(facts.excluded_databases))
        excluded = sorted(found & set(facts.excluded_databases))
        spared = f"; excluded by name: {listed(excluded)}" if excluded else ""
        yield Finding(
            subject=f"server {identity}",
            result=Result.FAIL if left else Result.PASS,
            text=f"the settings do not name {listed(left)}{spared}"
            if left
            else f"each of its {len(found)} databases is covered{spared}",
        )


def _in_time(facts: EvidenceFacts) -> list[Finding]:
    """C2."""
    found: list[Finding] = []
    for database in facts.databases:
        plans = [plan for plan in facts.plans if plan.job == "backup" and database.name in plan.databases]
        judged = [each for plan in plans if (each := _dues(facts, plan, database.name)) is not None]
        found += judged or [
            Finding(
                subject=database.name,
                result=Result.UNKNOWN,
                text="no backup of it was due in the period",
                missing="a plan with a schedule that falls into the period",
            )
        ]
    return [*found, *(_verified(facts, repository) for repository in facts.repositories)]


def _dues(facts: EvidenceFacts, plan: PlanFacts, database: str) -> Finding | None:
    """Return how the due times of a plan were kept for one database; None where none of them can be judged."""
    first = first_known(facts, database, plan.kind)
    late = timedelta(seconds=plan.late_s)
    # What was due at the end of a period may come after it: the report is made later, or does not judge it.
    dues = [
        due for due in plan.dues or () if due + late <= facts.made and (first is None or due + late >= first)
    ]
    if not dues:
        return None
    moments = backups_of_plan(facts, plan, database)
    lacking = [due for due in dues if not any(due - _EARLY <= each <= due + late for each in moments)]
    failed = [
        due for due in lacking if facts.runs_cover(due) and not _is_on_record(facts, database, due, late)
    ]
    doubtful = len(lacking) - len(failed)
    absent = _not_everywhere(facts, plan, database, dues)
    told = f"{share(len(dues) - len(lacking), len(dues), 'backup')} of plan {plan.name} came in time"
    told += since_when(first or facts.begin, facts.begin)
    if failed:
        told += f"; none for {listed([moment_words(due) for due in failed])}"
    if absent:
        told += f"; not stored in {listed(absent)}"
    if doubtful:
        told += f"; of {doubtful} nothing is left that would show it"
    result = Result.FAIL if failed or absent else Result.UNKNOWN if doubtful else Result.PASS
    return Finding(
        subject=f"{database}/{plan.kind}",
        result=result,
        text=told,
        missing="the history of runs of that time" if result is Result.UNKNOWN else None,
    )


def _is_on_record(facts: EvidenceFacts, database: str, due: datetime, late: timedelta) -> bool:
    """Whether the audit trail has a backup of that time, which this history did not see: another host may have made it."""
    return any(
        entry.action == "backup"
        and entry.result in ("done", "partial")
        and database in entry.subjects
        and due - _EARLY <= entry.at <= due + late
        for entry in facts.audit_entries
    )


def _not_everywhere(
    facts: EvidenceFacts, plan: PlanFacts, database: str, dues: Sequence[datetime]
) -> list[str]:
    """Return which due backups could not be stored in a repository, and are in no other way there."""
    late = timedelta(seconds=plan.late_s)
    runs = [
        run
        for run in facts.runs or ()
        if run.job == "backup" and run.database == database and run.kind == plan.kind
    ]
    found = []
    for due in dues:
        mine = [run for run in runs if run.stored_in and due - _EARLY <= run.started <= due + late]
        there = {name for run in mine for name in run.stored_in} | {
            name
            for one in facts.backups
            if one.id in {run.backup_id for run in mine}
            for name in one.repositories
        }
        failed = {name for run in mine for name in run.failed_in if name in plan.repositories} - there
        found += [f"{name} on {day(due)}" for name in sorted(failed)]
    return found


def _verified(facts: EvidenceFacts, repository: RepositoryFacts) -> Finding:
    subject = f"repository {repository.name}"
    limit_s = facts.policy.verify_within_s
    if facts.runs is None or facts.runs_since is None:
        why = facts.runs_error or "a history of runs: pgstow serve or pgstow run of a plan of kind verify"
        return unknown(subject, "when it was verified is unknown", why)
    first = repository_known(facts, repository)
    begin = max(facts.begin, first or facts.begin)
    known_from = max(facts.runs_since, first or facts.runs_since)
    moments = [each for each in verifications(facts, repository.name) if each < facts.until]
    long = [gap for gap in gaps(moments, begin, facts.until, known_from=known_from) if gap.seconds > limit_s]
    # Of what was before the history began nothing is known: such a gap may have been shorter.
    sure = [gap for gap in long if (gap.end - max(gap.begin, facts.runs_since)).total_seconds() > limit_s]
    if sure:
        text = (
            f"not verified from {moment_words(sure[0].begin)} to {moment_words(sure[0].end)},"
            f" {duration_words(sure[0].seconds)}; {duration_words(limit_s)} are allowed"
        )
        return Finding(subject=subject, result=Result.FAIL, text=text)
    if long or facts.runs_since > begin:
        told = f"verifications since the history of runs began on {day(facts.runs_since)}: {len(moments)}"
        return unknown(subject, told, "the history of runs before that")
    if not moments:
        told = f"it was not verified yet, and is known since {day(known_from)} only"
        return unknown(subject, told, "a run of a plan of kind verify")
    times = sum(each >= facts.begin for each in moments)
    return Finding(
        subject=subject,
        result=Result.PASS,
        text=f"verifications in the period: {times}; never more than {duration_words(limit_s)} apart"
        + since_when(begin, facts.begin),
    )


def _without_gaps(facts: EvidenceFacts) -> list[Finding]:
    """C3."""
    return [longest_loss(facts, database) for database in facts.databases]


def longest_loss(facts: EvidenceFacts, database: DatabaseFacts) -> Finding:
    """Return whether a loss at any moment of the period would have undone no more work than the RPO allows.

    Nothing records changes between backups: until the next backup is there, all since the moment of the last would be lost.
    """
    target_s = database.rpo_s
    if target_s is None:
        return unknown(database.name, "no RPO is set", "an rpo in the settings of the database")
    first = first_known(facts, database.name)
    backups = backups_for_rpo(facts, database)
    if first is None or not backups:
        return unknown(database.name, "nothing shows a backup of it", "a backup, or the history of runs")
    oldest = backups[0].moment
    begin = max(facts.begin, min(first, oldest))
    # What was backed up before, only the history of runs tells once it has expired.
    known_from = None if facts.runs_since is None else max(first, facts.runs_since)
    found = losses(backups, begin, facts.until, known_from=known_from)
    if not found:
        return unknown(database.name, "it was not backed up in the period", "a backup before its end")
    long = [gap for gap in found if gap.seconds > target_s]
    is_begin_known = first >= begin or oldest <= begin or facts.runs_cover(begin)
    # The newest backups have not expired yet: what is missing after them was never there.
    is_tail_sure = facts.are_backups_known and facts.until == facts.made
    failed = [gap for gap in long if facts.runs_cover(gap.begin) or (is_tail_sure and gap.end == facts.until)]
    worst = max(failed or long or found, key=lambda gap: gap.seconds)
    told = (
        f"a loss would have undone {duration_words(worst.seconds)} at most, of {duration_words(target_s)} allowed"
        f" (at {moment_words(worst.end)}, back to {moment_words(worst.begin)})"
    )
    told += since_when(begin, facts.begin)
    if failed:
        return Finding(
            subject=database.name,
            result=Result.FAIL,
            text=f"{told}; {share(len(failed), len(found), 'gap')} too long",
        )
    if long or not is_begin_known:
        return unknown(
            database.name,
            f"{told}; backups before or in between may have expired since",
            "the history of runs of that time",
        )
    return Finding(subject=database.name, result=Result.PASS, text=told)


def _retained(facts: EvidenceFacts) -> list[Finding]:
    """C15."""
    found = []
    for repository in facts.repositories:
        subject = f"repository {repository.name}"
        if repository.overdue is None:
            why = repository.error or "what its rules would let go could not be worked out"
            found.append(
                unknown(subject, why, "a repository that can be read, and the rules of the settings")
            )
            continue
        found.append(_retained_in(facts, repository))
    return found


def _retained_in(facts: EvidenceFacts, repository: RepositoryFacts) -> Finding:
    subject = f"repository {repository.name}"
    gone = [each for each in facts.gone if each.repository == repository.name]
    told = []
    if gone:
        names = [f"{each.backup_id[:8]} of {each.database} from {day(each.made)}" for each in gone]
        told.append(
            f"{share(len(gone), len(gone), 'backup')} that should be there went, and not by retention: {listed(names)}"
        )
    if repository.overdue:
        told.append(f"{repository.overdue} backups should have gone days ago")
    if told:
        return Finding(subject=subject, result=Result.FAIL, text="; ".join(told))
    if not any(each.repository == repository.name and each.oldest < facts.until for each in facts.tiers):
        return unknown(
            subject, "it shows no backup from before the end of the period", "a backup of that time"
        )
    text = f"nothing is kept beyond its time; {_kept(facts, repository.name)}"
    if facts.runs is None or facts.runs_since is None:
        why = facts.runs_error or "a history of runs: pgstow serve or pgstow run"
        return unknown(subject, f"{text}; whether anything went before its time is unknown", why)
    return Finding(
        subject=subject,
        result=Result.PASS,
        text=f"{text}; of the backups in the history since {day(facts.runs_since)} none went before its time",
    )


def _kept(facts: EvidenceFacts, repository: str) -> str:
    tiers = [tier for tier in facts.tiers if tier.repository == repository]
    kinds = sorted({tier.kind for tier in tiers})
    counts = [f"{sum(tier.backups for tier in tiers if tier.kind == kind)} {kind}" for kind in kinds]
    return f"backups there: {', '.join(counts) or 'none'}"


def _captured(facts: EvidenceFacts) -> list[Finding]:
    """C20."""
    return [_captured_of(facts, database.name) for database in facts.databases]


def _captured_of(facts: EvidenceFacts, database: str) -> Finding:
    # A dump that somebody else made has what it has: it shows nothing of how backups are made.
    backups = [
        each
        for each in backups_in_period(facts, database)
        if each.manifest is None or each.manifest.imported_from is None
    ]
    read = [each.manifest for each in backups if each.manifest is not None]
    if not backups or len(read) < len(backups):
        return _unread(database, len(read), len(backups))
    lacking = [each for each in read if not each.globals_captured]
    if lacking:
        why = next((missing for each in lacking for missing in each.globals_missing), "why is not recorded")
        text = f"{share(len(lacking), len(read), 'backup')} without roles and memberships ({why})"
        return Finding(subject=database, result=Result.FAIL, text=text)
    told = f"roles and memberships are in each of {len(read)} backups, and up to {max(m.extensions for m in read)} extensions"
    missing = sorted({missing for each in read for missing in each.globals_missing})
    if missing:
        told += f"; left out: {listed(missing)}"
    configured = sum(each.has_configuration for each in read)
    if configured < len(read):
        return unknown(
            database,
            f"{told}; settings of the server are in {configured} of them",
            "backups that record the settings of the server and the database",
        )
    return Finding(subject=database, result=Result.PASS, text=f"{told}; so are the settings")


def backups_in_period(facts: EvidenceFacts, database: str) -> list[BackupFacts]:
    """Return the backups of a database that show a moment of the period and are still there."""
    return [
        each for each in facts.backups if each.database == database and facts.begin <= each.time < facts.until
    ]


def _unread(database: str, read: int, of: int) -> Finding:
    if not of:
        return unknown(database, "no backup of the period is left", "a backup of the period")
    return unknown(
        database, f"the manifests of {share(read, of, 'backup')} could be read", "the manifests of the others"
    )


CONTROLS = (
    Control(
        code="C1",
        title="Every database is covered",
        demand="Every database on a server is backed up or excluded by name.",
        looked_at="the databases of each server against those of the settings, when the report was made",
        judge=_covered,
    ),
    Control(
        code="C2",
        title="Backups came in time",
        demand="Every due backup was made within its schedule and grace, and its repository verified.",
        looked_at="due times of every plan, the backups that are there, the history of runs",
        judge=_in_time,
        actions=frozenset({"backup", "verify"}),
    ),
    Control(
        code="C3",
        title="No gap longer than the RPO",
        demand="At no time would a loss have undone more work than the recovery point objective allows.",
        looked_at="the time from the moment that each backup shows until the next was there; no changes are recorded between",
        judge=_without_gaps,
        actions=frozenset({"backup"}),
    ),
    Control(
        code="C15",
        title="Retention is as its policy says",
        demand="Backups are kept as long as the policy says, and no longer.",
        looked_at="what the rules would let go, and which backups of the history are gone, when the report was made",
        judge=_retained,
        actions=frozenset({"retention apply", "prune", "repo prune", "hold", "release", "retire"}),
    ),
    Control(
        code="C20",
        title="Roles, extensions and configuration are captured",
        demand="A backup has what is needed beside the data: roles, memberships, extensions, settings.",
        looked_at="the manifests of the backups of the period that are there",
        judge=_captured,
        actions=frozenset({"backup"}),
    ),
)
