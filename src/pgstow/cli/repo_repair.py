"""``pgstow repo repair``"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from pgstow.app.repository_repair import repair_repository
from pgstow.cli.command import Invocation
from pgstow.cli.formats import plural, safe, time_text
from pgstow.cli.output import Outcome
from pgstow.core.errors import UsageError
from pgstow.upkeep.repair_report import DroppedSnapshot, MendedSnapshot, RepairReport

__all__ = ["repo_repair_command"]

_SHOWN = 20


def repo_repair_command(
    invocation: Invocation,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be dropped, and change nothing.")
    ] = False,
    confirm: Annotated[
        str | None,
        typer.Option(
            "--confirm",
            metavar="LOCATION",
            help="The repository's location, to say that what is lost may be dropped. Asked for on a terminal.",
        ),
    ] = None,
    read_data: Annotated[
        bool,
        typer.Option(
            "--read-data/--no-read-data",
            help="Read every byte; without it only what is missing, too short or a damaged folder is found.",
        ),
    ] = True,
) -> Outcome:
    """Drop what a damaged repository has lost, so that all the rest is whole, and say what that was.

    Nobody else may use the repository meanwhile. Backups that lost tables stay, without them. What is removed is first
    copied to pgstow/repairs in the repository.
    """
    location = invocation.require_location()

    def approve(plan: RepairReport) -> None:
        typed = confirm if confirm is not None else _ask(invocation, plan, location)
        if typed != location:
            raise UsageError(
                "the repair was not confirmed: nothing was changed",
                hint=f"--dry-run shows what would be dropped; then give --confirm {location}",
            )

    with invocation.output.progress() as progress:
        repository = invocation.repository(progress, without_config=True)
        report = repair_repository(
            repository, progress, read_data=read_data, dry_run=dry_run, approve=approve
        )
    return Outcome(
        status="partial" if report.not_mended else "done",
        document=report.document(),
        view=list(_view(report)),
    )


def _ask(invocation: Invocation, plan: RepairReport, location: str) -> str | None:
    for line in _lines(plan):
        invocation.output.note(line.plain)
    return invocation.output.question(
        f"What is listed above will be dropped from {location}.\nType the location to go on: "
    )


def _view(report: RepairReport) -> Iterator[RenderableType]:
    if not report.is_needed:
        read = "every byte was read" if report.has_read_data else "packs were not read"
        yield Text.assemble(("nothing to do: ", "bold green"), f"the repository is whole ({read})")
        return
    yield from _lines(report)
    if not report.is_done:
        yield Text("nothing was changed", style="bold")
    elif report.not_mended:
        yield Text("repaired, but not everything", style="bold yellow")
    else:
        yield Text.assemble(("repaired: ", "bold green"), f"written down in {safe(report.record or '')}")
        yield Text("take new backups now: they store again what was lost here", style="dim")


def _lines(report: RepairReport) -> Iterator[Text]:
    if report.config:
        yield Text(f"new config: {safe(report.config)}")
    for bad in report.bad_objects:
        yield Text(f"removed: {safe(bad.file)}: {safe(bad.why)}")
    for pack in report.packs:
        kept = f"{plural(pack.saved, 'blob')} saved"
        if pack.elsewhere:
            kept += f", {pack.elsewhere:,} found elsewhere"
        yield Text(f"unlisted: pack {pack.pack[:16]}: {kept}, {pack.lost:,} lost: {safe(pack.why)}")
    if report.relisted_packs:
        yield Text(f"listed again: {plural(report.relisted_packs, 'pack')} that no index file lists")
    if report.recreated_blobs:
        yield Text(f"made anew: {plural(report.recreated_blobs, 'blob')} whose content is known")
    for snapshot in report.dropped:
        yield Text.assemble(("dropped: ", "bold red"), f"{_name(snapshot)}: {safe(snapshot.why)}")
    for mended in report.mended:
        lost = [safe(each) for each in (mended.lost or mended.paths)]
        more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
        yield Text.assemble(
            ("kept in part: ", "bold yellow"),
            f"{_name(mended)}, without {', '.join(lost[:_SHOWN])}{more}",
        )
        for table in mended.salvaged:
            yield Text(
                f"  of {safe(table.table)} {plural(table.rows, 'row')} are left, in {safe(table.path)}; {table.lost_rows:,} are lost"
            )
    for snapshot in report.not_mended:
        yield Text.assemble(("left as it is: ", "bold red"), f"{_name(snapshot)}: {safe(snapshot.why)}")


def _name(snapshot: DroppedSnapshot | MendedSnapshot) -> str:
    what = f"backup {snapshot.backup_id[:8]}" if snapshot.backup_id else f"snapshot {snapshot.snapshot[:8]}"
    return f"{what} of {safe(snapshot.name)} from {time_text(snapshot.time)}"
