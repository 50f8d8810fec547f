"""``pgstow audit verify``"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pgstow.app.audit import Checked, read_heads, verify_file, verify_trail
from pgstow.app.auditing import journal_of
from pgstow.cli.audit_options import AdministratorOption
from pgstow.cli.audit_view import verdict_document, verdict_view
from pgstow.cli.command import Invocation, with_named_repository
from pgstow.cli.output import Outcome, Status
from pgstow.config.finding import find_settings_file
from pgstow.core.errors import UsageError
from pgstow.core.progress import Progress
from pgstow.repository import Repository

__all__ = ["audit_verify_command"]

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def audit_verify_command(
    invocation: Invocation,
    admin: AdministratorOption = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="LOCATION",
            help="Another repository that the same hosts write to, as for --repo: it holds heads of this one. Repeatable.",
        ),
    ] = None,
    anchors: Annotated[
        list[Path] | None,
        typer.Option(
            "--anchors",
            metavar="FILE",
            help="Heads written down before: what audit anchor or audit verify printed with --json, or a report. Repeatable.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="Check what audit export wrote; needs no repository."),
    ] = None,
) -> Outcome:
    """Check that the audit trail is as it was written.

    Every signature, every link of every chain, and every head that was written down elsewhere. Exits with 1 when something is
    wrong, each problem told, and with 3 when administrators are named and a chain's key is not enrolled by one.
    """
    administrators = _administrators(invocation, admin)
    known = [head for path in anchors or () for head in read_heads(path)]
    if file is not None:
        if against or invocation.given_location is not None:
            raise UsageError("--file needs no repository", hint="leave out --repo and --against")
        return _outcome(verify_file(file, administrators=administrators, anchors=known), administrators)
    with invocation.output.progress() as progress:
        repository = invocation.repository(progress)
        progress.phase("reading the audit trail")
        others = [_other(invocation, location, progress) for location in against or ()]
        checked = verify_trail(
            repository,
            journal_of(invocation.environ),
            invocation.environ,
            administrators=administrators,
            anchors=known,
            against=others,
            progress=progress,
        )
    return _outcome(checked, administrators)


def _administrators(invocation: Invocation, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the fingerprints of the administrators who count."""
    if given:
        for each in given:
            if not _FINGERPRINT.fullmatch(each):
                raise UsageError(
                    f"--admin: {each!r} is no fingerprint",
                    hint="64 hexadecimal digits, as audit admin-key printed them",
                )
        return tuple(given)
    if find_settings_file(invocation.config_file, invocation.environ) is None:
        return ()
    return invocation.settings().audit.administrators


def _other(invocation: Invocation, location: str, progress: Progress) -> Repository:
    return with_named_repository(replace(invocation, given_location=location, named=None)).repository(
        progress
    )


def _outcome(checked: Checked, administrators: Sequence[str]) -> Outcome:
    verdict = checked.verdict
    status: Status = "done"
    if not verdict.is_intact:
        status = "failed"
    elif administrators and verdict.unenrolled:
        status = "partial"
    return Outcome(
        status=status,
        document={
            "administrators": list(administrators),
            "hosts": dict(checked.hosts),
            **verdict_document(verdict),
        },
        view=list(verdict_view(verdict, administrators, checked.hosts)),
    )
