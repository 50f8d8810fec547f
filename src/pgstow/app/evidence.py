"""The use cases: make an evidence report, and keep what its controls came to for those who watch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from pgstow.app.auditing import journal_of
from pgstow.app.evidence_history import server_facts
from pgstow.app.evidence_repositories import drills_of
from pgstow.app.evidence_request import EvidenceRequest, Gathered
from pgstow.app.evidence_sources import Sources, head_facts, promised_facts, tool_facts
from pgstow.app.evidence_trails import gather_trails
from pgstow.app.observation import opened_history
from pgstow.config.settings import Settings
from pgstow.core.errors import StateError
from pgstow.evidence import facts as evidence
from pgstow.evidence.bundle import bundle_files
from pgstow.evidence.drills import drill_facts
from pgstow.evidence.packing import write_bundle
from pgstow.evidence.report import Report
from pgstow.postgres.tools import ClientTools
from pgstow.state.controls import ControlBook

__all__ = ["gather_evidence", "keep_results", "write_evidence"]


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
    sources = Sources(settings=settings, environ=environ, now=now, note=note, conceal=conceal)
    period = request.period
    until = min(period.end, now)
    read = sources.read(period)
    trails = gather_trails(
        read,
        journal_of(environ),
        administrators=tuple(dict.fromkeys((*settings.audit.administrators, *request.administrators))),
        begin=period.begin,
        end=period.end,
    )
    drills = list(drills_of(read, settings.databases, before=until))
    files = {record.id: record.to_json() for _, record in drills}
    records = [(f"drill {name}", content) for name, content in files.items()]
    entries = dict.fromkeys((*trails.entries, *trails.attested))
    records += [("an audit entry", content) for content in entries]
    with opened_history(settings, environ) as history:
        told = sources.history(history, period, read, trails)
    told |= sources.stores(read, trails, told["repositories"], probes_deletion=request.probes_deletion)
    facts = evidence.EvidenceFacts(
        **head_facts(request, settings, now),
        **promised_facts(settings),
        **told,
        **sources.secrets(records, request.logs),
        audit=trails.audits,
        audit_entries=trails.facts,
        attestations=trails.attestations,
        drills=tuple(drill_facts(record, files[record.id], repository=name) for name, record in drills),
        tools=tuple(map(tool_facts, tools)),
        servers=tuple(server_facts(settings.databases.values(), environ)) if request.asks_servers else (),
    )
    return Gathered(
        facts=_scrubbed(facts, scrub),
        drills=files,
        entries=trails.entries,
        attestations=trails.attested,
        enrolments=trails.enrolments,
    )


def _scrubbed(facts: evidence.EvidenceFacts, scrub: Callable[[str], str]) -> evidence.EvidenceFacts:
    """Return the facts with no secret in any error: these quote servers and stores, and a bundle goes to strangers."""

    def clean(text: str | None) -> str | None:
        return None if text is None else scrub(text)

    return facts.model_copy(
        update={
            "runs_error": clean(facts.runs_error),
            "repositories": tuple(
                each.model_copy(
                    update={
                        "error": clean(each.error),
                        "drills_error": clean(each.drills_error),
                        "tls_error": clean(each.tls_error),
                        "deletion": each.deletion
                        and each.deletion.model_copy(update={"error": clean(each.deletion.error)}),
                    }
                )
                for each in facts.repositories
            ),
            "locks": tuple(each.model_copy(update={"error": clean(each.error)}) for each in facts.locks),
            "searches": tuple(
                each.model_copy(
                    update={"error": clean(each.error), "found_in": tuple(map(scrub, each.found_in))}
                )
                for each in facts.searches
            ),
            "backups": tuple(
                each.model_copy(update={"manifest_error": clean(each.manifest_error)})
                for each in facts.backups
            ),
            "servers": tuple(each.model_copy(update={"error": clean(each.error)}) for each in facts.servers),
            "audit": tuple(each.model_copy(update={"error": clean(each.error)}) for each in facts.audit),
        }
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
        attestations=gathered.attestations,
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
