"""``pgstow evidence report``"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from pgstow.app.evidence import gather_evidence, keep_results, write_evidence
from pgstow.app.evidence_request import EvidenceRequest
from pgstow.cli.command import Invocation
from pgstow.cli.evidence_view import report_view
from pgstow.cli.output import Outcome, Output
from pgstow.core.errors import UsageError
from pgstow.evidence.controls import Result
from pgstow.evidence.packing import check_target
from pgstow.evidence.period import parse_period
from pgstow.evidence.report import judge, report_document

__all__ = ["evidence_report_command"]


def evidence_report_command(
    invocation: Invocation,
    period: Annotated[
        str | None,
        typer.Option(
            "--period",
            metavar="PERIOD",
            help="2026, 2026-H2, 2026-Q4, 2026-11 or 2026-11-01..2026-11-30, in UTC. Without: the quarter of now.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FOLDER|FILE.zip",
            help="Write the bundle here, which must not exist: facts, report, page, drills, audit entries, keys, signature.",
        ),
    ] = None,
    sign: Annotated[
        bool, typer.Option("--sign/--no-sign", help="Sign the bundle with the key of this host.")
    ] = True,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if a control fails.")] = False,
    connect: Annotated[
        bool,
        typer.Option("--connect", help="Ask every server which databases it has, for control C1."),
    ] = False,
    exclude_database: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude-database",
            metavar="NAME",
            help="A database on a server that is left out by intent, for C1. May be given several times.",
        ),
    ] = None,
    admin: Annotated[
        list[str] | None,
        typer.Option(
            "--admin",
            metavar="FINGERPRINT",
            help="Key of an administrator of the audit trail, beside those of the settings. May be given several times.",
        ),
    ] = None,
) -> Outcome:
    """Judge the controls over a period: each passes, fails, is unknown, or waived until a day, with what shows it.

    Exits with 0 when the report is made, whatever it says; with --check with 1 when a control fails. What cannot be measured
    is unknown, and never a pass. Nothing is changed in the repositories but their audit trail.
    """
    now = datetime.now(UTC)
    settings, out = invocation.settings(), invocation.output
    request = EvidenceRequest(
        period=parse_period(period or f"{now.year}-Q{(now.month + 2) // 3}"),
        host=invocation.hostname,
        by=invocation.username,
        administrators=tuple(dict.fromkeys(admin or ())),
        asks_servers=connect,
        excluded_databases=tuple(exclude_database or ()),
    )
    if request.period.begin > now:
        raise UsageError(f"{request.period.name} has not begun yet", hint="name a period that has")
    if output is not None:  # told before anything is looked at; looked at again when it is written
        check_target(output)
    with out.progress() as progress:
        gathered = gather_evidence(
            request,
            settings,
            invocation.environ,
            tools=invocation.tools(),
            now=now,
            note=progress.note,
            conceal=out.conceal,
            scrub=out.scrub,
        )
        report = judge(gathered.facts)
        signer = None
        if output is not None:
            signer = write_evidence(gathered, output, invocation.environ, is_signed=sign)
        keep_results(report, settings, invocation.environ, note=progress.note)
    return Outcome(
        status="failed" if check and report.count(Result.FAIL) else "done",
        document={
            "output": None if output is None else str(output),
            "signer": signer,
            "report": _scrubbed(report_document(report), out),
        },
        view=list(report_view(report, out, target=output, signer=signer)),
    )


def _scrubbed(value: Any, output: Output) -> Any:  # noqa: ANN401  JSON
    if isinstance(value, str):
        return output.scrub(value)
    if isinstance(value, dict):
        return {key: _scrubbed(each, output) for key, each in value.items()}
    if isinstance(value, list):
        return [_scrubbed(each, output) for each in value]
    return value
