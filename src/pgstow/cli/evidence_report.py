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
from pgstow.config.settings import Settings
from pgstow.core.errors import UsageError
from pgstow.evidence.controls import Result
from pgstow.evidence.packing import check_target
from pgstow.evidence.period import parse_period
from pgstow.evidence.report import Report, judge, report_document

__all__ = ["evidence_report_command"]


_PeriodOption = Annotated[
    str | None,
    typer.Option(
        "--period",
        metavar="PERIOD",
        help="2026, 2026-H2, 2026-Q4, 2026-11 or 2026-11-01..2026-11-30, in UTC. Without: the quarter of now.",
    ),
]
_OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="PATH",
        help="Write the bundle to this folder or .zip file, which must not exist: facts, report, page, drills, audit "
        "entries, keys, signature.",
    ),
]
_SignOption = Annotated[
    bool, typer.Option("--sign/--no-sign", help="Sign the bundle with the key of this host.")
]
_CheckOption = Annotated[bool, typer.Option("--check", help="Exit with 1 if a control fails.")]
_ConnectOption = Annotated[
    bool,
    typer.Option("--connect", help="Ask every server which databases it has, for control C1."),
]
_ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude-database",
        metavar="NAME",
        help="A database on a server that is left out by intent, for C1. May be given several times.",
    ),
]
_ProbeOption = Annotated[
    bool,
    typer.Option(
        "--probe-delete",
        help="Ask S3 buckets whether these credentials may delete, for C9: by deleting names that no object has.",
    ),
]
_LogOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--log",
        metavar="FILE",
        help="Search this file too for secrets of the settings, for C12. May be given several times.",
    ),
]
_AdminOption = Annotated[
    list[str] | None,
    typer.Option(
        "--admin",
        metavar="FINGERPRINT",
        help="Key of an administrator of the audit trail, beside those of the settings. May be given several times.",
    ),
]


_OWN_WORDS = frozenset(
    {"code", "result"}
)  # who reads them by program must find them, though a password be "fail"


def evidence_report_command(
    invocation: Invocation,
    period: _PeriodOption = None,
    output: _OutputOption = None,
    sign: _SignOption = True,
    check: _CheckOption = False,
    connect: _ConnectOption = False,
    exclude_database: _ExcludeOption = None,
    probe_delete: _ProbeOption = False,
    log: _LogOption = None,
    admin: _AdminOption = None,
) -> Outcome:
    """Judge the controls over a period: each passes, fails, is unknown, or waived until a day, with what shows it.

    Exits with 0 when the report is made, whatever it says; with --check with 1 when a control fails. What cannot be measured
    is unknown, and never a pass. Nothing is changed in the repositories but their audit trail (and one small object of its
    own with --probe-delete).
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
        probes_deletion=probe_delete,
        logs=tuple(log or ()),
    )
    if request.period.begin > now:
        raise UsageError(f"{request.period.name} has not begun yet", hint="name a period that has")
    if output is not None:  # told before anything is looked at; looked at again when it is written
        check_target(output)
    report, signer = _made(request, settings, invocation, now, output, is_signed=sign)
    return Outcome(
        status="failed" if check and report.count(Result.FAIL) else "done",
        document={
            "output": None if output is None else str(output),
            "signer": signer,
            "report": _scrubbed(report_document(report), out),
        },
        view=list(report_view(report, out, target=output, signer=signer)),
    )


def _made(
    request: EvidenceRequest,
    settings: Settings,
    invocation: Invocation,
    now: datetime,
    target: Path | None,
    *,
    is_signed: bool,
) -> tuple[Report, str | None]:
    """Return the report, and by whose key it was signed where it was written."""
    out, signer = invocation.output, None
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
        if target is not None:
            signer = write_evidence(gathered, target, invocation.environ, is_signed=is_signed)
        keep_results(report, settings, invocation.environ, note=progress.note)
    return report, signer


def _scrubbed(value: Any, output: Output) -> Any:  # noqa: ANN401  JSON
    if isinstance(value, str):
        return output.scrub(value)
    if isinstance(value, dict):
        return {key: each if key in _OWN_WORDS else _scrubbed(each, output) for key, each in value.items()}
    if isinstance(value, list):
        return [_scrubbed(each, output) for each in value]
    return value
