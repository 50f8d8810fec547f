"""``pgstow keys test``"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from pgstow.app.keys import prove_password
from pgstow.app.opening import open_repository
from pgstow.cli.command import Invocation
from pgstow.cli.output import Outcome
from pgstow.cli.passwords import REPOSITORY_PASSWORD
from pgstow.cli.records import backup_of
from pgstow.config.references import Reference
from pgstow.core.errors import UsageError

__all__ = ["keys_test_command"]


def keys_test_command(
    invocation: Invocation,
    note: Annotated[
        str | None,
        typer.Option(
            "--note", metavar="TEXT", help="From where the password was fetched, for the audit trail."
        ),
    ] = None,
) -> Outcome:
    """Show that a password which is kept elsewhere still opens the repository, and write that down.

    Fetch it from where it is kept (a safe, a second person, another cloud) and give it with --password-file,
    --password-command, PGSTOW_PASSWORD or at the prompt: never the settings file's. The newest backup's manifest is read with
    it. The audit entry is what control C10 of the evidence counts as a test of the password in escrow.
    """
    _refuse_own(invocation)
    password = invocation.further_password(
        REPOSITORY_PASSWORD, invocation.password_file, invocation.password_command
    )
    with invocation.output.progress() as progress:
        repository = open_repository(
            invocation.require_location(), password, invocation.environ, on_retry=progress.note
        )
        backup = prove_password(repository)
    read = "there is no backup to read yet" if backup is None else f"backup {backup_of(backup)} can be read"
    return Outcome(
        document={
            "key": {"id": repository.key_id},
            "backup": None if backup is None else backup.id,
            "note": note,
        },
        view=[Text(f"the password opens key {repository.key_id[:8]}, and {read}")],
    )


def _refuse_own(invocation: Invocation) -> None:
    """Raise UsageError where the password would come from where the settings take it every day."""
    if invocation.named is not None and _is_from(invocation.named.password, invocation):
        raise UsageError(
            f"{invocation.named.password.where}: pgstow takes the password from there every day, which tests nothing",
            hint="fetch it from where the other copy is kept, and give it at the prompt or in another file",
        )


def _is_from(own: Reference, invocation: Invocation) -> bool:
    file, command, environ = invocation.password_file, invocation.password_command, invocation.environ
    in_itself, in_file, by_command = (environ.get(name) for name in REPOSITORY_PASSWORD.variables)
    if file is None and command is None:
        if in_itself:
            return REPOSITORY_PASSWORD.variable in own.variables
        file, command = (Path(in_file), None) if in_file else (None, by_command)
    if file is not None:
        return own.file is not None and os.path.realpath(file) == os.path.realpath(own.file)
    return command is not None and own.command is not None and command.split() == list(own.command)
