"""``pgstow repo check``"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from pgstow.app.findings import Level
from pgstow.app.opening import local_folder
from pgstow.app.repository_check import CheckReport, check_repository
from pgstow.assurance.sample import PackSample
from pgstow.cli.command import Invocation
from pgstow.cli.findings_view import finding_document, findings_table
from pgstow.cli.formats import plural, size_text
from pgstow.cli.output import Outcome
from pgstow.cli.verify import problem_documents, problem_lines

__all__ = ["repo_check_command"]


def repo_check_command(
    invocation: Invocation,
    read_data: Annotated[
        bool,
        typer.Option("--read-data", help="Read, decrypt and hash every byte. Without it sizes are compared."),
    ] = False,
    read_data_subset: Annotated[
        str | None,
        typer.Option(
            "--read-data-subset",
            metavar="SHARE",
            help="Read a share of the packs: 10% for a random tenth, 2/7 for the second of seven parts.",
        ),
    ] = None,
    no_lock: Annotated[
        bool,
        typer.Option(
            "--no-lock", help="Write nothing at all, not even a lock. A prune beside it may look like damage."
        ),
    ] = False,
) -> Outcome:
    """Check a repository as a whole: all backups, keys, locks, leftovers, the store itself.

    Exits with 1 when something is wrong. pgstow verify checks single backups.
    """
    sample = PackSample.parse(read_data_subset) if read_data_subset is not None else None
    location = invocation.require_location()
    with invocation.output.progress() as progress:
        repository = invocation.repository(progress, without_config=True)
        report = check_repository(
            repository,
            progress,
            read_data=read_data or sample is not None,
            sample=sample,
            folder=local_folder(location, invocation.environ),
            may_write=not no_lock,
        )
    verified = report.verified
    return Outcome(
        status="done" if report.is_sound else "failed",
        document={
            "sound": report.is_sound,
            "read_data": verified.has_read_data,
            "read_data_subset": sample.text if sample else None,
            "counts": {level.value: report.count(level) for level in Level},
            "findings": [finding_document(finding, invocation.output) for finding in report.findings],
            "snapshots": verified.snapshots,
            "trees": verified.trees,
            "files": verified.files,
            "packs": verified.packs,
            "unindexed_packs": verified.unindexed_packs,
            "read_bytes": verified.read_bytes,
            "problems": problem_documents(verified),
        },
        view=list(_view(report, invocation, sample)),
    )


def _view(report: CheckReport, invocation: Invocation, sample: PackSample | None) -> Iterator[RenderableType]:
    yield from problem_lines(report.verified)
    yield findings_table(report.findings, invocation.output)
    yield Text()
    verified = report.verified
    if not verified.has_read_data:
        how = "sizes compared; --read-data reads every byte"
    else:
        share = f" ({sample.text} of the packs)" if sample else ""
        how = f"{size_text(verified.read_bytes)} read, decrypted and hashed{share}"
    tail = f"{plural(verified.snapshots, 'snapshot')}, {plural(verified.packs, 'pack')}; {how}"
    verdict = ("sound: ", "bold green") if report.is_sound else ("not sound: ", "bold red")
    yield Text.assemble(verdict, tail)
