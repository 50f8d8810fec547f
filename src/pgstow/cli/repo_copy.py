"""``pgstow repo copy``"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from pgstow.app.copy import CatchUp, catch_up, copy_repository, open_other
from pgstow.app.opening import open_repository
from pgstow.catalog.backups import backup_record
from pgstow.cli.command import Invocation
from pgstow.cli.formats import plural, safe, size_text
from pgstow.cli.output import Outcome
from pgstow.cli.password_options import ToPasswordCommandOption, ToPasswordFileOption
from pgstow.cli.passwords import TO_PASSWORD
from pgstow.cli.records import backup_of
from pgstow.core.errors import UsageError
from pgstow.core.quantities import parse_duration
from pgstow.repository import Snapshot
from pgstow.upkeep.copy import CopyReport

__all__ = ["copy_document", "copy_view", "repo_copy_command", "snapshot_words"]

_CATCH_UP_PANEL = "Catching up"


ToOption = Annotated[
    str,
    typer.Option("--to", metavar="LOCATION", help="The repository to copy into, as for --repo."),
]
BackupsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="BACKUP...", help="As for show; everything when there is none."),
]
CatchUpOption = Annotated[
    bool,
    typer.Option(
        "--catch-up",
        help="Only what the target missed: backups newer than the newest it has of that name and kind.",
        rich_help_panel=_CATCH_UP_PANEL,
    ),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="DURATION",
        help="And every backup it lacks that was made within this time, such as 7d.",
        rich_help_panel=_CATCH_UP_PANEL,
    ),
]
NamesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--name", metavar="NAME", help="Only backups of this source.", rich_help_panel=_CATCH_UP_PANEL
    ),
]
KindsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--kind", metavar="KIND", help="Only backups of this kind.", rich_help_panel=_CATCH_UP_PANEL
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be copied, and copy nothing.")]


def repo_copy_command(
    invocation: Invocation,
    to: ToOption,
    backups: BackupsArgument = None,
    is_catch_up: CatchUpOption = False,
    since: SinceOption = None,
    names: NamesOption = None,
    kinds: KindsOption = None,
    to_password_file: ToPasswordFileOption = None,
    to_password_command: ToPasswordCommandOption = None,
    dry_run: DryRunOption = False,
) -> Outcome:
    """Copy backups into another repository: those it does not have, and of them only what it lacks.

    Nothing is compressed again. Into a repository made by `pgstow init --from` whole packs are moved as they are.
    Snapshots that restic made are copied too. A copy that is interrupted keeps what it finished; the same command
    goes on from there. Exits with 3 when the source has lost something that a backup needs; the others are copied.

    With `--catch-up` it does not bring back what has expired in the target: for a destination that missed backups.
    """
    wish = _wish(backups or [], names or [], kinds or [], since, is_catch_up=is_catch_up)
    with invocation.output.progress() as progress:
        location = invocation.require_location()
        password = invocation.password()
        source = open_repository(location, password, invocation.environ, on_retry=progress.note)
        target = open_other(
            to,
            invocation.other_password(TO_PASSWORD, to_password_file, to_password_command, default=password),
            invocation.environ,
            role="target",
            hint=f"pgstow init --repo {shlex.quote(to)} --from {shlex.quote(location)} makes one that packs can be moved into as they are; "
            "without --from it has a master key of its own",
            password_flag=TO_PASSWORD.flag,
            on_retry=progress.note,
        )
        if wish is not None:
            report = catch_up(source, target, wish, progress, dry_run=dry_run)
        else:
            report = copy_repository(source, target, backups or [], progress, dry_run=dry_run)
    return Outcome(
        status="done" if report.is_complete else "partial",
        document={"to": target.store.location, **copy_document(report)},
        view=list(copy_view(report)),
    )


def _wish(
    backups: Sequence[str],
    names: Sequence[str],
    kinds: Sequence[str],
    since: str | None,
    *,
    is_catch_up: bool,
) -> CatchUp | None:
    """Return what --catch-up is limited to; None without it. UsageError where options contradict each other."""
    if not is_catch_up:
        if names or kinds or since:
            raise UsageError("--since, --name and --kind belong to --catch-up", hint="add --catch-up")
        return None
    if backups:
        raise UsageError("--catch-up finds the backups by itself", hint="leave out BACKUP, or --catch-up")
    earliest = datetime.now(UTC) - timedelta(seconds=parse_duration(since)) if since else None
    return CatchUp(names=tuple(names), kinds=tuple(kinds), since=earliest)


def copy_document(report: CopyReport) -> dict[str, Any]:
    """Return a copy's report as documents hold it."""
    return {
        "dry_run": report.is_dry_run,
        "shares_key": report.shares_key,
        "copied": [
            {
                **snapshot_names(each.snapshot),
                "new_snapshot": each.new_id,
                "blobs": each.blobs,
                "lacking_bytes": each.stored_bytes,
            }
            for each in report.copied
        ],
        "present": [snapshot_names(snapshot) for snapshot in report.present],
        "failures": [
            {
                **(
                    snapshot_names(each.snapshot)
                    if each.snapshot
                    else {"id": None, "name": None, "snapshot": None}
                ),
                "message": each.message,
                "file": each.file,
            }
            for each in report.failures
        ],
        "moved_packs": report.moved_packs,
        "sent_bytes": report.sent_bytes,
    }


def snapshot_names(snapshot: Snapshot) -> dict[str, Any]:
    """Return what a document calls a snapshot; ``id`` and ``name`` are null for one of restic's making."""
    record = backup_record(snapshot)
    return {
        "id": record.id if record else None,
        "name": record.name if record else None,
        "snapshot": snapshot.id,
    }


def snapshot_words(snapshot: Snapshot | None) -> str:
    """Return what a person calls a snapshot."""
    if snapshot is None:
        return "a snapshot"
    record = backup_record(snapshot)
    return f"backup {backup_of(record)}" if record else f"snapshot {(snapshot.id or '')[:8]}"


def copy_view(report: CopyReport) -> Iterator[RenderableType]:
    """Yield what a person is told of a copy."""
    verb = "would copy" if report.is_dry_run else "copied"
    for each in report.copied:
        yield Text(f"{verb} {snapshot_words(each.snapshot)}: it lacked {size_text(each.stored_bytes)}")
    for failure in report.failures:
        yield Text.assemble(
            ("not copied: ", "bold red"), f"{snapshot_words(failure.snapshot)}: {safe(failure.message)}"
        )
    parts = [f"{verb} {plural(len(report.copied), 'snapshot')}"]
    if report.present:
        parts.append(f"{len(report.present):,} were there already")
    if report.failures:
        parts.append(f"{len(report.failures):,} could not be copied")
    if not report.is_dry_run:
        moved = f" ({plural(report.moved_packs, 'pack')} moved as they are)" if report.moved_packs else ""
        parts.append(f"{size_text(report.sent_bytes)} sent{moved}")
    yield Text("; ".join(parts), style="bold" if report.is_complete else "bold red")
