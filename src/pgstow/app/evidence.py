"""The use cases: make an evidence report, and keep what its controls came to for those who watch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from pgstow import __version__
from pgstow.app.auditing import journal_of
from pgstow.app.checklist import overdue_backups
from pgstow.app.evidence_history import (
    channel_facts,
    gone_facts,
    known_since,
    past_runs,
    plan_facts,
    secret_facts,
    server_facts,
)
from pgstow.app.evidence_repositories import (
    Insides,
    backup_facts,
    drills_of,
    is_release_known,
    read_repository,
    repository_facts,
    tier_facts,
)
from pgstow.app.evidence_request import EvidenceRequest, Gathered
from pgstow.app.evidence_trails import GatheredTrails, gather_trails
from pgstow.app.observation import History, database_facts, opened_history
from pgstow.config.settings import Settings
from pgstow.core.errors import StateError
from pgstow.evidence import facts as evidence
from pgstow.evidence.bundle import bundle_files
from pgstow.evidence.controls import RULES
from pgstow.evidence.drills import drill_facts
from pgstow.evidence.packing import write_bundle
from pgstow.evidence.report import Report
from pgstow.postgres.tools import ClientTools, known_outdated
from pgstow.state.controls import ControlBook

__all__ = ["gather_evidence", "keep_results", "write_evidence"]

_YEAR = timedelta(days=366)


def gather_evidence(
    request: EvidenceRequest,
    settings: Settings,
    environ: Mapping[str, str],
    *,
    tools: Sequence[ClientTools],
    now: datetime,
    note: Callable[[str], None] = lambda _message: None,
    conceal: Callable[[str], None] = lambda _secret: None,
    scrub: Callable[[str], str] = lambda text: text,
) -> Gathered:
    """Return everything that the controls are judged by: from repositories, the state database, servers and settings.

    What cannot be looked at is in the facts with its error, and leaves what depends on it unknown. ``scrub`` takes secrets out
    of the words of others.
    """
    period = request.period
    until = min(period.end, now)
    drills_since = min(until - _YEAR, period.begin - timedelta(seconds=settings.alerts.drill_within_s))
    read = [
        read_repository(each, environ, drills_since=drills_since, note=note, conceal=conceal)
        for each in settings.repositories.values()
    ]
    trails = gather_trails(
        read,
        journal_of(environ),
        administrators=tuple(dict.fromkeys((*settings.audit.administrators, *request.administrators))),
        begin=period.begin,
        end=period.end,
    )
    drills = list(drills_of(read, settings.databases, before=until))
    files = {record.id: record.to_json() for _, record in drills}
    with opened_history(settings, environ) as history:
        facts = _facts(request, settings, environ, history, read, trails, now=now, note=note, conceal=conceal)
    facts = facts.model_copy(
        update={
            "drills": tuple(
                drill_facts(record, files[record.id], repository=name) for name, record in drills
            ),
            "tools": tuple(map(_tool_facts, tools)),
            "servers": tuple(server_facts(settings.databases.values(), environ))
            if request.asks_servers
            else (),
        }
    )
    return Gathered(
        facts=_scrubbed(facts, scrub),
        drills=files,
        entries=trails.entries,
        enrolments=trails.enrolments,
    )


def _facts(
    request: EvidenceRequest,
    settings: Settings,
    environ: Mapping[str, str],
    history: History,
    read: Sequence[Insides],
    trails: GatheredTrails,
    *,
    now: datetime,
    note: Callable[[str], None],
    conceal: Callable[[str], None],
) -> evidence.EvidenceFacts:
    period = request.period
    until = min(period.end, now)
    databases = [database_facts(each) for each in settings.databases.values()]
    known = known_since(settings, history, now)
    seen_until = min(period.end + _late(settings), now)
    runs = past_runs(history, period.begin, seen_until)
    readable = [
        settings.repositories[each.name] for each in read if each.error is None and not each.unreadable
    ]
    overdue = overdue_backups(readable, settings, history, environ, now, note, conceal)
    return evidence.EvidenceFacts(
        rules=RULES,
        pgstow=__version__,
        made=now,
        host=request.host,
        by=request.by,
        period=evidence.PeriodFacts(name=period.name, begin=period.begin, end=period.end),
        policy=_policy_facts(settings),
        databases=tuple(
            evidence.DatabaseFacts(
                name=each.name,
                rpo_s=each.rpo_s,
                rto_s=settings.databases[each.name].rto_s,
                is_partial=each.is_partial,
                critical=each.critical,
            )
            for each in databases
        ),
        plans=tuple(plan_facts(settings, known, period, until)),
        repositories=tuple(
            repository_facts(
                each, known_since=known.get(f"repository {each.name}"), overdue=overdue.get(each.name)
            )
            for each in read
        ),
        backups=tuple(backup_facts(read, databases, begin=period.begin, until=seen_until, note=note)),
        tiers=tuple(tier_facts(read, settings.databases)),
        gone=tuple(gone_facts(settings, runs.runs or (), _complete(read), trails.let_go, now=now)),
        runs=runs.runs,
        runs_since=runs.since,
        runs_error=runs.error,
        channels=channel_facts(settings, history, known, begin=period.begin, until=until),
        contacts=len(settings.alerts.contacts),
        excluded_databases=request.excluded_databases,
        secrets=secret_facts(settings),
        audit=trails.audits,
        audit_entries=trails.facts,
        waivers=tuple(
            evidence.WaiverFacts(control=each.control, until=each.until, reason=each.reason, by=each.by)
            for each in settings.waivers
        ),
    )


def _policy_facts(settings: Settings) -> evidence.PolicyFacts:
    return evidence.PolicyFacts(
        grace_s=settings.alerts.grace_s,
        verify_within_s=settings.alerts.verify_within_s,
        drill_within_s=settings.alerts.drill_within_s,
        canary_within_s=settings.alerts.canary_within_s,
    )


def _late(settings: Settings) -> timedelta:
    """Return how long after the end of a period what was due in it may come."""
    jitters = (each.schedule.jitter_s for each in settings.plans.values() if each.schedule is not None)
    return timedelta(seconds=settings.alerts.grace_s + max(jitters, default=0.0))


def _complete(read: Sequence[Insides]) -> dict[str, set[str]]:
    """Return the ids of the backups in each repository whose list is whole."""
    return {
        each.name: {record.id for record in each.records}
        for each in read
        if each.error is None and not each.unreadable
    }


def _scrubbed(facts: evidence.EvidenceFacts, scrub: Callable[[str], str]) -> evidence.EvidenceFacts:
    """Return the facts with no secret in any error: these quote servers and stores, and a bundle goes to strangers."""

    def clean(text: str | None) -> str | None:
        return None if text is None else scrub(text)

    return facts.model_copy(
        update={
            "runs_error": clean(facts.runs_error),
            "repositories": tuple(
                each.model_copy(update={"error": clean(each.error), "drills_error": clean(each.drills_error)})
                for each in facts.repositories
            ),
            "backups": tuple(
                each.model_copy(update={"manifest_error": clean(each.manifest_error)})
                for each in facts.backups
            ),
            "servers": tuple(each.model_copy(update={"error": clean(each.error)}) for each in facts.servers),
            "audit": tuple(each.model_copy(update={"error": clean(each.error)}) for each in facts.audit),
        }
    )


def _tool_facts(tool: ClientTools) -> evidence.ToolFacts:
    return evidence.ToolFacts(
        name=f"client programs in {tool.bin_dir}",
        version=tool.text,
        outdated=known_outdated(tool.version),
        is_release_known=is_release_known(tool.version[0]),
    )


def write_evidence(
    gathered: Gathered, target: Path, environ: Mapping[str, str], *, is_signed: bool
) -> str | None:
    """Write the bundle; return the fingerprint of the key that signed it. Raises UsageError, StateError, PgstowError."""
    key = next(journal_of(environ).key_choices()) if is_signed else None
    files = bundle_files(
        gathered.facts,
        drills=gathered.drills,
        entries=gathered.entries,
        enrolments=gathered.enrolments,
        key=key,
    )
    write_bundle(files, target)
    return None if key is None else key.chain


def keep_results(
    report: Report, settings: Settings, environ: Mapping[str, str], *, note: Callable[[str], None]
) -> None:
    """Remember what the controls came to, for metrics; not of a period that is over: that says nothing about now."""
    facts = report.facts
    if facts.until < facts.made:
        return
    with opened_history(settings, environ) as history:
        if history.state is None:
            return  # the report says so already
        try:
            results = {each.control.code: each.result.value for each in report.controls}
            ControlBook(history.state).replace(results, made=facts.made)
        except StateError as exc:  # metrics show the report before, with its time
            note(f"the metric of the controls stays that of the report before: {exc.message}")
