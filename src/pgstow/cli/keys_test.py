"""``pgstow keys test``"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from pgstow.app.keys import prove_password
from pgstow.app.opening import open_repository
from pgstow.cli.command import Invocation
from pgstow.cli.output import Outcome
from pgstow.cli.passwords import REPOSITORY_PASSWORD
from pgstow.cli.records import backup_of

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
