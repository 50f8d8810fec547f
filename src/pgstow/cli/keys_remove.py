"""``pgstow keys remove``"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from pgstow.app.keys import remove_key
from pgstow.cli.command import Invocation
from pgstow.cli.keys_list import key_document
from pgstow.cli.output import Outcome

__all__ = ["NO_PROTECTION", "keys_remove_command"]

NO_PROTECTION = (
    "this does not shut out someone who kept a copy of the key file: pgstow repo rekey makes a repository with another"
    " master key"
)


def keys_remove_command(
    invocation: Invocation,
    key: Annotated[
        str, typer.Argument(metavar="ID", help="A key's id or the beginning of it, see keys list.")
    ],
) -> Outcome:
    """Take a password away from the repository. Never the one in use: keys passwd replaces that.

    Someone who knows the password and kept a copy of the key file can still read everything in every copy of the
    repository that he can reach, also what is backed up later: all keys wrap the same master key. Only
    `pgstow repo rekey` changes that.
    """
    with invocation.output.progress() as progress:
        removed = remove_key(invocation.repository(progress), key)
    return Outcome(
        document={"key": key_document(removed, in_use=False)},
        view=[Text(f"removed key {removed.id[:8]}"), Text(NO_PROTECTION, style="dim")],
    )
