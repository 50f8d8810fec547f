"""``pgstow evidence verify``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pgstow.cli.command import Invocation
from pgstow.cli.evidence_view import verification_view
from pgstow.cli.output import Outcome, Status
from pgstow.evidence.controls import Result
from pgstow.evidence.packing import read_bundle
from pgstow.evidence.public_key import administrator_of
from pgstow.evidence.report import Report, time_text
from pgstow.evidence.verifying import NOT_CHECKED, Verification, verify_bundle

__all__ = ["evidence_verify_command"]


def evidence_verify_command(
    _invocation: Invocation,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder or zip file.")],
    key: Annotated[
        str,
        typer.Option(
            "--key",
            metavar="FINGERPRINT|FILE",
            help="The administrator's key, known from elsewhere than the bundle: its fingerprint, or a PEM file with the public key.",
        ),
    ],
) -> Outcome:
    """Check a bundle with an administrator's public key alone: needs no settings, no repository, no password, no network.

    Every file, the signature and the enrolment of its key, each audit entry and that none is missing, each drill; and that
    the report follows from the facts, by judging them again. Exits with 1 when something is wrong, with 3 when the report
    was judged by rules that this version does not have. Whether the controls pass is no matter here.
    """
    verification = verify_bundle(read_bundle(bundle), administrator_of(key))
    return Outcome(
        status=_status(verification),
        document=_document(verification),
        view=list(verification_view(verification)),
    )


def _status(verification: Verification) -> Status:
    if not verification.is_sound:
        return "failed"
    return "done" if verification.other_rules is None else "partial"


def _document(verification: Verification) -> dict[str, Any]:
    report, enrolment = verification.report, verification.enrolment
    return {
        "sound": verification.is_sound,
        "files": verification.files,
        "problems": [
            {"kind": each.kind, "subject": each.subject, "message": each.message}
            for each in verification.problems
        ],
        "signer": verification.signer,
        "enrolled": None if enrolment is None else {"host": enrolment.host, "since": time_text(enrolment.at)},
        "judged_again": report is not None and verification.other_rules is None,
        "period": None if report is None else report.facts.period.name,
        "made": None if report is None else time_text(report.facts.made),
        "by": None if report is None else report.facts.by,
        "host": None if report is None else report.facts.host,
        "databases": None if report is None else [each.name for each in report.facts.databases],
        "repositories": None if report is None else _repositories(report),
        "not_checked": list(NOT_CHECKED),
        "summary": None if report is None else {each.value: report.count(each) for each in Result},
    }


def _repositories(report: Report) -> list[dict[str, Any]]:
    ids = {each.repository: each.id for each in report.facts.audit}
    return [
        {"name": each.name, "location": each.location, "id": ids.get(each.name)}
        for each in report.facts.repositories
    ]
