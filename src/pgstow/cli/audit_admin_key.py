"""``pgstow audit admin-key``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from pgstow.app.audit import make_administrator_key
from pgstow.cli.command import Invocation
from pgstow.cli.formats import safe
from pgstow.cli.output import Outcome
from pgstow.cli.password_options import PassphraseCommandOption, PassphraseFileOption
from pgstow.cli.passwords import ADMINISTRATOR_PASSPHRASE

__all__ = ["audit_admin_key_command"]


def audit_admin_key_command(
    invocation: Invocation,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where the key is to be; a file that does not exist yet.")
    ],
    passphrase_file: PassphraseFileOption = None,
    passphrase_command: PassphraseCommandOption = None,
) -> Outcome:
    """Make an administrator's key, encrypted with a passphrase, and print its fingerprint.

    Keep the key offline. Publish the fingerprint where whoever can write to the repositories cannot change it: audit verify
    takes it, and so do the settings (audit: administrators).
    """
    passphrase = invocation.further_password(
        ADMINISTRATOR_PASSPHRASE, passphrase_file, passphrase_command, is_new=True
    )
    key = make_administrator_key(file, passphrase)
    return Outcome(
        document={"file": str(file), "fingerprint": key.fingerprint},
        view=[
            Text.assemble(("made ", "green"), f"{safe(str(file))}; its fingerprint is"),
            Text(key.fingerprint, style="bold"),
            Text(
                "publish the fingerprint, keep the file offline and its passphrase apart from it",
                style="dim",
            ),
        ],
    )
