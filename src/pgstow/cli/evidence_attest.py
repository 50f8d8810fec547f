"""``pgstow evidence attest``"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from pgstow.app.evidence_attest import Attested, AttestRequest, attest
from pgstow.cli.command import Invocation
from pgstow.cli.formats import safe
from pgstow.cli.output import Outcome
from pgstow.cli.retention_options import parse_day

__all__ = ["evidence_attest_command"]


_ControlArgument = Annotated[
    str,
    typer.Argument(
        metavar="CONTROL",
        help="C14 (access was reviewed), C16 (the recovery plan was exercised), C17 (runbook and contacts were reviewed) "
        "or C19 (erasures are on a list that is applied again after restores).",
    ),
]
_ByOption = Annotated[str, typer.Option("--by", metavar="NAME", help="Who did it and stands for it.")]
_NoteOption = Annotated[
    str, typer.Option("--note", metavar="TEXT", help="What was done, and with what result.")
]
_OnOption = Annotated[
    str | None, typer.Option("--on", metavar="DATE", help="The day it was done; else today, in UTC.")
]
_UntilOption = Annotated[
    str | None,
    typer.Option(
        "--until",
        metavar="DATE",
        help="The last day it may be relied on, where that is sooner than the control allows.",
    ),
]
_FileOption = Annotated[
    Path | None,
    typer.Option(
        "--file",
        metavar="FILE",
        help="Minutes, a list, a ticket: its name and SHA-256 are written down, the file itself is kept by you.",
    ),
]


def evidence_attest_command(
    invocation: Invocation,
    control: _ControlArgument,
    by: _ByOption,
    note: _NoteOption,
    on: _OnOption = None,
    until: _UntilOption = None,
    file: _FileOption = None,
) -> Outcome:
    """State what no program can look at, in your name: signed, in the audit trail of every repository.

    The report shows it as attested, not measured. A newer one of the same control takes its place. Exits with 3 when a
    repository could not take it, with 1 when none could.
    """
    now = datetime.now(UTC)
    out = invocation.output
    request = AttestRequest(
        control=control.upper(),
        by=by,
        note=note,
        on=parse_day(on, option="--on") or now.date(),
        until=parse_day(until, option="--until"),
        file=file,
    )
    with out.progress() as progress:
        attested = attest(
            request,
            invocation.settings(),
            invocation.environ,
            now=now,
            note=progress.note,
            conceal=out.conceal,
            scrub=out.scrub,
        )
    for warning in attested.warnings:
        out.warn(warning)
    is_everywhere = all(each.error is None for each in attested.stored)
    return Outcome(
        status="done" if is_everywhere else "partial",
        document={
            **{
                key: attested.words.get(key)
                for key in ("id", "control", "states", "by", "on", "until", "note", "file", "file_sha256")
            },
            "repositories": [{"name": each.repository, "error": each.error} for each in attested.stored],
        },
        view=list(_view(attested)),
    )


def _view(attested: Attested) -> Iterator[RenderableType]:
    words = attested.words
    yield Text.assemble(
        (f"attested {words['control']}: ", "green"),
        safe(f"{words['by']} states for {words['on']} that {words['states']}"),
    )
    if "file" in words:
        yield Text(f"{safe(words['file'])}, SHA-256 {words['file_sha256']}")
    for each in attested.stored:
        told = "signed and stored" if each.error is None else f"not there yet: {safe(each.error)}"
        yield Text(f"  {each.repository}: {told}", style="" if each.error is None else "yellow")
