"""``pgstow verify``"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from pgstow.app.verify import verify_backups
from pgstow.assurance.verify import VerifyReport
from pgstow.cli.command import Invocation
from pgstow.cli.formats import plural, safe, size_text
from pgstow.cli.output import Outcome

__all__ = ["problem_documents", "problem_lines", "verify_command"]

_PATHS_SHOWN = 5
_CONTENTS_SHOWN = 20


def verify_command(
    invocation: Invocation,
    backups: Annotated[
        list[str] | None,
        typer.Argument(metavar="BACKUP...", help="As for show; everything when there is none."),
    ] = None,
    read_data: Annotated[
        bool,
        typer.Option("--read-data", help="Read, decrypt and hash every byte. Without it sizes are compared."),
    ] = False,
) -> Outcome:
    """Check that every index, tree and pack of a repository is there and consistent.

    Exits with 1 when something is wrong, and says which backups it reaches.
    """
    with invocation.output.progress() as progress:
        repository = invocation.repository(progress, without_config=True)
        report = verify_backups(backups or [], repository, progress, read_data=read_data)
    return Outcome(
        status="done" if report.is_sound else "failed", document=_document(report), view=list(_view(report))
    )


def _document(report: VerifyReport) -> dict[str, Any]:
    return {
        "sound": report.is_sound,
        "read_data": report.has_read_data,
        "snapshots": report.snapshots,
        "trees": report.trees,
        "files": report.files,
        "packs": report.packs,
        "unindexed_packs": report.unindexed_packs,
        "read_bytes": report.read_bytes,
        "problems": problem_documents(report),
        "incomplete": list(report.incomplete),
    }


def problem_documents(report: VerifyReport) -> list[dict[str, Any]]:
    """Return the problems as every JSON document has them."""
    return [
        {
            "message": problem.message,
            "file": problem.file,
            "backups": list(problem.backups),
            "contents": list(problem.contents),
            "paths": list(problem.paths),
        }
        for problem in report.problems
    ]


def problem_lines(report: VerifyReport) -> Iterator[RenderableType]:
    """Yield what is wrong, each with what it reaches."""
    for problem in report.problems:
        yield Text.assemble(("problem: ", "bold red"), safe(problem.message))
        if problem.backups:
            yield Text(f"  reaches {', '.join(safe(backup) for backup in problem.backups)}", style="dim")
        if problem.contents:
            touched = [safe(each) for each in problem.contents[:_CONTENTS_SHOWN]]
            rest = len(problem.contents) - len(touched)
            more = f" and {rest} more" if rest else ""
            yield Text.assemble(("  touches ", "dim"), (", ".join(touched) + more, "bold"))
        for path in problem.paths[:_PATHS_SHOWN]:
            yield Text(f"  {safe(path)}", style="dim")
        if len(problem.paths) > _PATHS_SHOWN:
            yield Text(f"  and {len(problem.paths) - _PATHS_SHOWN} more", style="dim")


def _view(report: VerifyReport) -> Iterator[RenderableType]:
    yield from problem_lines(report)
    for backup in report.incomplete:
        yield Text.assemble(
            ("incomplete: ", "yellow"), f"backup {safe(backup)} lost something before it was repaired"
        )
    checked = ", ".join(
        [
            plural(report.snapshots, "snapshot"),
            plural(report.trees, "tree"),
            plural(report.files, "file"),
            plural(report.packs, "pack"),
        ]
    )
    how = (
        f"{size_text(report.read_bytes)} read, decrypted and hashed"
        if report.has_read_data
        else "sizes compared; --read-data reads every byte"
    )
    verdict = (
        ("sound: ", "bold green")
        if report.is_sound
        else (f"{plural(len(report.problems), 'problem')}: ", "bold red")
    )
    yield Text.assemble(verdict, f"{checked}; {how}")
    if report.unindexed_packs:
        yield Text(
            f"{plural(report.unindexed_packs, 'pack')} in no index: of interrupted runs, or waiting for a prune",
            style="dim",
        )
