"""``pgstow repo rekey``"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from pgstow.app.copy import RekeyReport, open_or_make, rekey_repository
from pgstow.app.opening import open_repository
from pgstow.cli.command import Invocation
from pgstow.cli.formats import plural, safe
from pgstow.cli.output import Outcome, Status
from pgstow.cli.password_options import NewPasswordCommandOption, NewPasswordFileOption
from pgstow.cli.repo_copy import copy_document, copy_view, snapshot_names, snapshot_words
from pgstow.core.errors import UsageError

__all__ = ["repo_rekey_command"]


def repo_rekey_command(
    invocation: Invocation,
    to: Annotated[
        str,
        typer.Option("--to", metavar="LOCATION", help="Where the new repository is to be, as for --repo."),
    ],
    new_password_file: NewPasswordFileOption = None,
    new_password_command: NewPasswordCommandOption = None,
    read_data: Annotated[
        bool,
        typer.Option(
            "--read-data", help="At the end read, decrypt and hash every byte of the new repository."
        ),
    ] = False,
) -> Outcome:
    """Make a new repository with a new master key and a new password, and copy everything into it.

    This is what shuts out someone who had a password or a key file: removing a password does not, since the master
    key stays. Everything is encrypted anew; nothing is compressed again. Where it was interrupted the same command
    goes on. The old repository is left as it is: when you have seen that this one works, delete the old one, its
    copies and old versions in a bucket, for they can be read with what leaked.
    """
    with invocation.output.progress() as progress:
        location = invocation.require_location()
        old = invocation.password()
        source = open_repository(location, old, invocation.environ, on_retry=progress.note)
        new = invocation.new_password(new_password_file, new_password_command)
        if new.reveal() == old.reveal():
            raise UsageError(
                "the new password is the old one", hint="whoever knows it could read the new repository"
            )
        target = open_or_make(
            to,
            new,
            invocation.environ,
            source=source,
            hostname=invocation.hostname,
            username=invocation.username,
            on_retry=progress.note,
        )
        report = rekey_repository(source, target, progress, read_data=read_data)
    return Outcome(
        status=_status(report),
        document={
            "to": {"id": target.id, "location": target.store.location},
            **copy_document(report.copy),
            "missing": [snapshot_names(snapshot) for snapshot in report.missing],
            "sound": report.verified.is_sound,
            "read_data": report.verified.has_read_data,
            "problems": [problem.message for problem in report.verified.problems],
            "complete": report.is_complete,
        },
        view=list(_view(report, source.store.location, target.store.location)),
    )


def _status(report: RekeyReport) -> Status:
    if not report.verified.is_sound:
        return "failed"
    return "done" if report.is_complete else "partial"


def _view(report: RekeyReport, old: str, new: str) -> Iterator[RenderableType]:
    yield from copy_view(report.copy)
    for problem in report.verified.problems:
        yield Text.assemble(("problem: ", "bold red"), safe(problem.message))
    failed = {failure.snapshot.id for failure in report.copy.failures if failure.snapshot}
    for snapshot in report.missing:
        if snapshot.id not in failed:
            yield Text.assemble(("missing: ", "bold red"), snapshot_words(snapshot))
    if report.is_complete:
        how = "every byte was read" if report.verified.has_read_data else "sizes were compared"
        yield Text(
            f"everything is in {safe(new)}, with another master key: {plural(report.verified.snapshots, 'snapshot')}"
            f" verified, {how}"
        )
        yield Text(
            f"the old repository at {safe(old)} is left as it is; delete it yourself, with every copy and old version of"
            " it, once you have restored from the new one: what leaked still opens the old one"
        )
    else:
        yield Text(f"keep the old repository at {safe(old)}: the new one is not complete", style="bold red")
        yield Text("the same command goes on from here", style="dim")
